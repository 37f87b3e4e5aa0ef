//! Many processes on one store: nobody loses another's work or blobs.

use super::*;

const PROCESSES: u8 = 6;
const ROUNDS: u8 = 12;

/// Adds models of its own, shares layers with others, and removes half of them again, while the
/// others do the same and sweep.
fn work(store: &Store, who: u8) {
    for round in 0..ROUNDS {
        let content = who * ROUNDS + round;
        let mine = format!("me/p{who}:r{round}");
        add(store, content, &[name(&mine)]).unwrap();
        let model = store.resolve(&mine).unwrap();
        assert_eq!(fs::read(store.bundle(&model).unwrap().main().unwrap()).unwrap(), [content; 3000]);
        store.list().unwrap();
        if round % 2 == 0 {
            store.remove(&mine, false).unwrap();
        }
        if round % 3 == 0 {
            store.prune(true).unwrap();
        }
    }
}

#[test]
fn works() {
    let Some((role, root)) = child_role() else { return };
    work(&Store::open(root).unwrap(), role.parse().unwrap());
}

#[test]
fn processes_share_a_store() {
    if child_role().is_some() {
        return;
    }
    let folder = scratch();
    let children: Vec<_> = (0..PROCESSES)
        .map(|who| {
            child("store::tests::many::works", &format!("{who}@{}", folder.path().display())).spawn().unwrap()
        })
        .collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    let store = Store::open(folder.path()).unwrap();
    let state = state_of(&store);
    assert_eq!(state.names.len(), usize::from(PROCESSES * ROUNDS / 2));
    assert_eq!(state.nameless, Vec::<u8>::new());
    assert_tidy(&store);
}

/// A sweep by one store object must not take what another is bringing in.
#[test]
fn a_sweep_spares_what_is_on_its_way() {
    let folder = scratch();
    let store = Store::open(folder.path()).unwrap();
    let staging = store.stage().unwrap();
    let own = staging.put_bytes(media::GGUF, b"weights").unwrap();
    let other = Store::open(folder.path()).unwrap();
    other.prune(true).unwrap();
    assert!(store.blob(&own.digest).is_some());
    drop(staging);
    other.prune(true).unwrap();
    assert!(store.blob(&own.digest).is_none());
}
