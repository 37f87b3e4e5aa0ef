//! One process, no crash: what each operation does.

use super::*;
use crate::store::{NewArtifact, NewLayer};

#[test]
fn names_ids_and_removal() {
    let folder = scratch();
    let store = Store::open(folder.path()).unwrap();
    let one = add(&store, 1, &[name("me/one:a"), name("me/one:b")]).unwrap();
    let three = add(&store, 3, &[name("me/three")]).unwrap();

    assert_eq!(store.resolve("me/one:a").unwrap().digest, one);
    assert_eq!(store.resolve(&one.to_string()).unwrap().names.len(), 2);
    assert_eq!(store.resolve(&three.short()).unwrap().display_name(), "me/three:latest");
    assert!(matches!(store.resolve("me/none"), Err(Error::NotFound(_))));
    assert!(matches!(store.resolve("zz!"), Err(Error::Reference { .. })));
    assert_eq!(store.list().unwrap().len(), 2);

    assert!(matches!(store.remove(&one.short(), false), Err(Error::SeveralNames { count: 2, .. })));
    let removal = store.remove("me/one:a", false).unwrap();
    assert_eq!((removal.untagged, removal.deleted.len(), removal.freed), (vec!["me/one:a".to_owned()], 0, 0));
    let removal = store.remove(&one.short(), true).unwrap();
    assert_eq!(removal.deleted, [one]);
    assert!(
        removal.freed >= 3000 && removal.freed < 3000 + 1000,
        "the shared layer stays: {}",
        removal.freed
    );
    assert_eq!(state_of(&store).names, BTreeMap::from([("me/three:latest".to_owned(), 3)]));
    assert_tidy(&store);
}

#[test]
fn a_name_moves_and_leaves_the_other_nameless() {
    let folder = scratch();
    let store = Store::open(folder.path()).unwrap();
    add(&store, 1, &[name("me/x")]).unwrap();
    add(&store, 2, &[name("me/x")]).unwrap();
    assert_eq!(state_of(&store), State { names: [("me/x:latest".to_owned(), 2)].into(), nameless: vec![1] });
    let usage = store.df().unwrap();
    assert_eq!((usage.models, usage.artifacts), (2, 0));
    assert!(usage.reclaimable_bytes > 3000);
    let pruned = store.prune(true).unwrap();
    assert_eq!(pruned.deleted.len(), 1);
    assert_eq!(pruned.freed, usage.reclaimable_bytes);
    assert_eq!(store.df().unwrap().reclaimable_bytes, 0);
}

#[test]
fn tags_are_moved_by_tagging() {
    let folder = scratch();
    let store = Store::open(folder.path()).unwrap();
    let one = add(&store, 1, &[name("me/x")]).unwrap();
    add(&store, 2, &[name("me/y")]).unwrap();
    store.tag("me/x", &name("localhost:5000/z:1")).unwrap();
    store.tag("me/x", &name("me/y")).unwrap();
    assert_eq!(store.resolve("me/y").unwrap().digest, one);
    assert_eq!(state_of(&store).nameless, [2]);
    assert!(store.tag("me/none", &name("me/w")).is_err());
}

#[test]
fn export_and_load_round_trip() {
    let (folder, other) = (scratch(), scratch());
    let store = Store::open(folder.path()).unwrap();
    let one = add(&store, 1, &[name("me/one:a"), name("me/one:b")]).unwrap();
    let mut bytes = Vec::new();
    store.export("me/one:a", &mut bytes).unwrap();

    let loaded_into = Store::open(other.path()).unwrap();
    let loaded = loaded_into.load(&bytes[..]).unwrap();
    assert_eq!(loaded.len(), 1);
    assert_eq!((loaded[0].digest, loaded[0].names.len()), (one, 2));
    assert_eq!(state_of(&loaded_into), state_of(&store));
    assert_tidy(&loaded_into);
}

#[test]
fn loads_what_dockers_model_runner_exports() {
    let folder = scratch();
    let store = Store::open(folder.path()).unwrap();
    let one = add(&store, 1, &[name("me/one")]).unwrap();
    let mut tar = tar::Builder::new(Vec::new());
    let mut put = |path: String, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o666);
        tar.append_data(&mut header, path, bytes).unwrap();
    };
    let manifest = store.read_manifest(&one).unwrap();
    for blob in manifest.blobs() {
        put(format!("blobs/sha256/{}", blob.digest.hex()), &store.read_blob(&blob.digest, 10_000).unwrap());
    }
    put("manifest.json".into(), &store.read_blob(&one, 10_000).unwrap());
    let bytes = tar.into_inner().unwrap();

    let other = scratch();
    let store = Store::open(other.path()).unwrap();
    let loaded = store.load(&bytes[..]).unwrap();
    assert_eq!((loaded[0].digest, loaded[0].names.len()), (one, 0));
    assert_eq!(state_of(&store).nameless, [1]);
}

#[test]
fn damaged_archives_are_refused_and_leave_nothing() {
    let folder = scratch();
    let store = Store::open(folder.path()).unwrap();
    add(&store, 1, &[name("me/one")]).unwrap();
    let mut good = Vec::new();
    store.export("me/one", &mut good).unwrap();
    let other = scratch();
    let store = Store::open(other.path()).unwrap();
    let weights = good.windows(100).position(|window| window == [1; 100]).unwrap();
    let mut flipped = good.clone();
    flipped[weights] ^= 1;
    let error = store.load(&flipped[..]).unwrap_err();
    assert!(matches!(error, Error::Malformed { .. }) && error.to_string().contains("damaged"), "{error}");
    let broken = good[..weights].chain(Broken);
    let error = store.load(broken).unwrap_err().to_string();
    assert!(error.contains("the connection was lost") && !error.contains("tmp"), "{error}");
    // The last entry repeats the manifest for Docker's sake; without it all is there.
    let end = good.windows(13).rposition(|window| window == b"manifest.json").unwrap();
    for length in (0..end).step_by(512) {
        assert!(store.load(&good[..length]).is_err(), "{length}");
    }
    assert_eq!(state_of(&store), State::default());
    assert_tidy(&store);
}

/// What is read from a connection that ends.
struct Broken;

impl std::io::Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
        Err(std::io::Error::other("the connection was lost"))
    }
}

#[test]
fn a_damaged_model_is_not_exported() {
    let folder = scratch();
    let store = Store::open(folder.path()).unwrap();
    add(&store, 1, &[name("me/one")]).unwrap();
    let weights = store.resolve("me/one").unwrap().files[0].path.clone();
    let good = fs::read(&weights).unwrap();
    let (mut flipped, mut mode) = (good.clone(), fs::metadata(&weights).unwrap().permissions());
    flipped[good.len() / 2] ^= 1;
    std::os::unix::fs::PermissionsExt::set_mode(&mut mode, 0o644);
    fs::set_permissions(&weights, mode).unwrap();
    let told =
        [(Some(&flipped[..]), "other content"), (Some(&good[1..]), "bytes instead of"), (None, "missing")];
    for (bytes, word) in told {
        match bytes {
            Some(bytes) => fs::write(&weights, bytes).unwrap(),
            None => fs::remove_file(&weights).unwrap(),
        }
        let error = store.export("me/one", std::io::sink()).unwrap_err().to_string();
        assert!(error.contains(word) && error.contains("pull it again"), "{error}");
    }
}

#[test]
fn a_blob_is_read_again_where_it_was_changed_and_only_there() {
    let folder = scratch();
    let store = Store::open(folder.path()).unwrap();
    let one = add(&store, 1, &[name("me/one")]).unwrap();
    let mut archive = Vec::new();
    store.export("me/one", &mut archive).unwrap();
    let model = store.resolve("me/one").unwrap();
    store.check_unchanged(&model).unwrap();
    let (path, digest) = (model.files[0].path.clone(), model.files[0].descriptor.digest);
    let good = fs::read(&path).unwrap();
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 1;

    // As a failing disk does it: nobody has reason to read it, but who reads it all the same finds it, for good.
    let time = fs::metadata(&path).unwrap().modified().unwrap();
    fs::write(&path, &flipped).unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
    store.check_unchanged(&model).unwrap();
    assert!(matches!(store.verify_blob(&digest), Err(Error::Digest { .. })));
    let error = store.check_unchanged(&model).unwrap_err().to_string();
    assert!(error.contains("other content"), "{error}");

    // Put right, it is read once and known again.
    fs::write(&path, &good).unwrap();
    store.check_unchanged(&model).unwrap();
    // Changed in the usual way.
    fs::write(&path, &flipped).unwrap();
    assert!(store.check_unchanged(&model).is_err());
    // What comes again takes its place, and is what engines get.
    assert_eq!(store.load(&archive[..]).unwrap()[0].digest, one);
    store.check_unchanged(&model).unwrap();
    assert_eq!(fs::read(&path).unwrap(), good);
}

#[test]
fn artifacts_of_other_kinds_live_beside_models() {
    let folder = scratch();
    let store = Store::open(folder.path().join("store")).unwrap();
    add(&store, 1, &[name("me/one")]).unwrap();
    let file = folder.path().join("engine");
    fs::write(&file, b"ELF").unwrap();
    let kind = "application/vnd.pontoon.engine.v1";
    let layer =
        NewLayer { media_type: "application/x-thing".into(), path: file, annotations: BTreeMap::new() };
    let new = NewArtifact {
        artifact_type: kind.into(),
        config: br#"{"version":"1"}"#.to_vec(),
        layers: vec![layer],
        annotations: [("a".to_owned(), "b".to_owned())].into(),
    };
    let pack = store.add_artifact(&new, &name("me/engine:1")).unwrap();
    assert_eq!((pack.kind.as_str(), pack.config.as_slice()), (kind, &br#"{"version":"1"}"#[..]));
    assert_eq!(fs::read(&pack.files[0].1).unwrap(), b"ELF");
    assert_eq!(store.artifacts(Some(kind)).unwrap().len(), 1);
    assert_eq!(store.artifacts(None).unwrap().len(), 1);
    assert_eq!(store.list().unwrap().len(), 1);
    assert!(matches!(store.resolve("me/engine:1"), Err(Error::WrongKind { wanted: "model", .. })));
    store.remove("me/engine:1", false).unwrap();
    assert!(store.artifact("me/engine:1").is_err());
}

#[test]
fn a_bundle_survives_removal_and_is_made_again() {
    let folder = scratch();
    let store = Store::open(folder.path()).unwrap();
    add(&store, 1, &[name("me/one")]).unwrap();
    let model = store.resolve("me/one").unwrap();
    let bundle = store.bundle(&model).unwrap();
    let weights = bundle.main().unwrap();
    assert_eq!(weights.file_name().unwrap(), "model.gguf");
    assert_eq!(fs::read(weights).unwrap(), [1; 3000]);
    let open = fs::File::open(weights).unwrap();

    fs::remove_file(&bundle.licenses[0]).unwrap();
    assert_eq!(store.bundle(&model).unwrap(), bundle);
    assert!(bundle.licenses[0].exists());

    store.remove("me/one", false).unwrap();
    assert!(!weights.exists());
    assert_eq!(open.metadata().unwrap().len(), 3000);
    assert_tidy(&store);
}

/// A blob that comes a second time must not take the place of the first, to which bundles link.
#[test]
fn a_blob_keeps_its_file() {
    use std::os::unix::fs::MetadataExt as _;
    let folder = scratch();
    let store = Store::open(folder.path()).unwrap();
    let inode = |digest: &Digest| fs::metadata(store.blob(digest).unwrap()).unwrap().ino();
    let staging = store.stage().unwrap();
    let first = staging.put_bytes(media::GGUF, b"weights").unwrap();
    let before = inode(&first.digest);
    staging.put_bytes(media::GGUF, b"weights").unwrap();
    assert_eq!(inode(&first.digest), before);
    // One that was cut short, by whatever accident, is replaced.
    fs::write(store.blob(&first.digest).unwrap(), b"weig").unwrap();
    staging.put_bytes(media::GGUF, b"weights").unwrap();
    assert_eq!(fs::read(store.blob(&first.digest).unwrap()).unwrap(), b"weights");
}

#[test]
fn a_strange_folder_is_not_taken_for_a_store() {
    let folder = scratch();
    fs::write(folder.path().join("oci-layout"), r#"{"imageLayoutVersion":"2.0.0"}"#).unwrap();
    assert!(matches!(Store::open(folder.path()), Err(Error::Malformed { .. })));
}

#[test]
fn paths_of_packagers_stay_inside() {
    for bad in ["", "..", "/etc/passwd", "a/../../b", "a\0b", "a\\b", "./.", &"x".repeat(2000)] {
        assert!(bundle::safe_path(bad).is_err(), "{bad:?}");
    }
    assert_eq!(bundle::safe_path("./a//b/c.json").unwrap(), "a/b/c.json");
}
