//! Crashes: whatever the store is doing and wherever it is cut off, it can be read afterwards, holds
//! the state before or after, and a sweep leaves nothing behind.

use proptest::prelude::*;

use super::*;
use crate::store::fault;

#[derive(Clone, Debug)]
enum Op {
    Add(u8, usize),
    Tag(usize, usize),
    Remove(usize),
    Prune(bool),
    Bundle(usize),
    Reload(usize),
    Purge,
}

const NAMES: [&str; 4] = ["me/a", "me/b:1", "hf.co/Me/C:Q8_0", "localhost:5000/d"];

fn op() -> impl Strategy<Value = Op> {
    let name = 0..NAMES.len();
    prop_oneof![
        4 => (0u8..4, name.clone()).prop_map(|(content, name)| Op::Add(content, name)),
        2 => (name.clone(), name.clone()).prop_map(|(from, to)| Op::Tag(from, to)),
        2 => name.clone().prop_map(Op::Remove),
        1 => any::<bool>().prop_map(Op::Prune),
        2 => name.clone().prop_map(Op::Bundle),
        1 => name.prop_map(Op::Reload),
        1 => Just(Op::Purge),
    ]
}

/// Runs one operation; an absent name is no failure here.
fn run(store: &Store, op: &Op) -> Result<()> {
    let done = match op {
        Op::Add(content, at) => add(store, *content, &[name(NAMES[*at])]).map(|_| ()),
        Op::Tag(from, to) => store.tag(NAMES[*from], &name(NAMES[*to])),
        Op::Remove(at) => store.remove(NAMES[*at], false).map(|_| ()),
        Op::Prune(nameless) => store.prune(*nameless).map(|_| ()),
        Op::Bundle(at) => store.resolve(NAMES[*at]).and_then(|model| store.bundle(&model)).map(|_| ()),
        Op::Reload(at) => {
            let mut bytes = Vec::new();
            store.export(NAMES[*at], &mut bytes).and_then(|()| store.load(&bytes[..])).map(|_| ())
        }
        Op::Purge => store.purge().map(|_| ()),
    };
    match done {
        Err(Error::NotFound(_)) => Ok(()),
        other => other,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]
    #[test]
    fn any_crash_point_leaves_the_state_before_or_after(
        ops in prop::collection::vec((op(), prop::option::weighted(0.5, 0u32..60)), 1..12),
    ) {
        let folder = scratch();
        for (op, crash) in ops {
            let store = Store::open(folder.path()).unwrap();
            let before = state_of(&store);
            let crashed = match crash {
                Some(at) => fault::crash_at(at, || run(&store, &op)),
                None => run(&store, &op),
            };
            if crash.is_none() {
                prop_assert!(crashed.is_ok(), "{crashed:?}");
            }
            let reopened = Store::open(folder.path()).unwrap();
            let after = state_of(&reopened);
            if crashed.is_err() {
                // What the operation would have made of it, found out by doing it on a copy.
                let complete = expected(&before, &op);
                prop_assert!(after == before || after == complete, "{op:?}: {before:?} became {after:?}, not {complete:?}");
            } else {
                prop_assert_eq!(&after, &expected(&before, &op), "{:?}", op);
            }
        }
        assert_tidy(&Store::open(folder.path()).unwrap());
    }
}

/// The specification of each operation, on the state alone.
fn expected(before: &State, op: &Op) -> State {
    let mut after = before.clone();
    let full = |at: usize| name(NAMES[at]).familiar();
    match op {
        Op::Add(content, at) => give(&mut after, full(*at), *content),
        Op::Tag(from, to) => {
            if let Some(content) = before.names.get(&full(*from)) {
                give(&mut after, full(*to), *content);
            }
        }
        Op::Remove(at) => drop(after.names.remove(&full(*at))),
        Op::Prune(true) => after.nameless.clear(),
        Op::Prune(false) | Op::Bundle(_) | Op::Reload(_) => {}
        Op::Purge => after = State::default(),
    }
    after
}

fn give(state: &mut State, name: String, content: u8) {
    state.nameless.retain(|other| *other != content);
    if let Some(loser) = state.names.insert(name, content)
        && loser != content
        && !state.names.values().any(|other| *other == loser)
    {
        state.nameless.push(loser);
        state.nameless.sort_unstable();
    }
}

/// The work of a process that dies in the middle.
fn scenario(root: &Path) {
    let store = Store::open(root).unwrap();
    add(&store, 1, &[name("me/a")]).unwrap();
    add(&store, 2, &[name("me/b")]).unwrap();
    store.tag("me/a", &name("me/c")).unwrap();
    let model = store.resolve("me/b").unwrap();
    store.bundle(&model).unwrap();
    store.remove("me/b", false).unwrap();
    store.prune(true).unwrap();
}

#[test]
fn dies() {
    let Some((role, root)) = child_role() else { return };
    fault::die_at(role.parse().unwrap());
    scenario(&root);
}

/// Real processes that really die, at every step there is.
#[test]
fn a_killed_process_leaves_a_readable_store() {
    if child_role().is_some() {
        return;
    }
    let dry = scratch();
    let steps = fault::count(|| scenario(dry.path()));
    assert!(steps > 60, "the scenario has only {steps} steps");
    for at in 0..steps {
        let folder = scratch();
        let role = format!("{at}@{}", folder.path().display());
        let status = child("store::tests::crash::dies", &role).status().unwrap();
        assert!(!status.success(), "step {at} of {steps} was not reached");
        let store = Store::open(folder.path()).unwrap();
        let state = state_of(&store);
        assert!(state.names.values().all(|content| (1..=2).contains(content)), "{state:?}");
        assert_tidy(&store);
        // Nothing that it held is held for ever: the same work goes through now.
        scenario(folder.path());
        let names = BTreeMap::from([("me/a:latest".to_owned(), 1), ("me/c:latest".to_owned(), 1)]);
        assert_eq!(state_of(&store).names, names);
    }
}
