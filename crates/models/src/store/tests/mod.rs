//! Tests of the store: what it does, and that no crash and no neighbour harms it.

mod crash;
mod many;
mod single;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use pontoon_testbed::Scratch;

use super::*;
use crate::{Flavour, Format, ModelConfig, config::ConfigFile};

fn scratch() -> Scratch {
    Scratch::new("store").unwrap()
}

fn name(text: &str) -> Reference {
    Reference::parse(text).unwrap()
}

/// A model whose weights are not looked at. Models of the same parity share a layer.
fn add(store: &Store, content: u8, names: &[Reference]) -> Result<Digest> {
    let staging = store.stage()?;
    let own = staging.put_bytes(media::GGUF, &[content; 3000])?;
    let shared = staging.put_bytes(media::LICENSE, &[content % 2; 500])?;
    let file = ConfigFile {
        config: ModelConfig {
            format: Format::Gguf,
            parameters: content.to_string(),
            ..ModelConfig::default()
        },
        ..ConfigFile::default()
    };
    let bytes = file.to_bytes(Flavour::DockerV01, &[own.digest, shared.digest]);
    let config = staging.put_bytes(media::DOCKER_CONFIG_V01, &bytes)?;
    staging.commit(&Manifest::new(config, vec![own, shared]).to_bytes(), names)
}

/// Which content each name has, and the contents without a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct State {
    names: BTreeMap<String, u8>,
    nameless: Vec<u8>,
}

/// Reads the state and makes sure that everything in it is whole.
fn state_of(store: &Store) -> State {
    let mut state = State::default();
    for (digest, entry) in entries(&store.read_index().unwrap()) {
        let model = store.read_model(&digest, entry.names.clone()).unwrap();
        for blob in model.manifest.blobs() {
            let bytes = fs::read(store.blob(&blob.digest).expect("a blob is missing")).unwrap();
            assert_eq!((Digest::of(&bytes), bytes.len() as u64), (blob.digest, blob.size));
        }
        let content = model.config.parameters.parse().unwrap();
        state.names.extend(entry.names.iter().map(|name| (name.familiar(), content)));
        if entry.names.is_empty() {
            state.nameless.push(content);
        }
    }
    state.nameless.sort_unstable();
    state
}

/// After a sweep only what is needed is left, and nobody's leftovers.
///
/// A lock outlives its owner for a moment if another thread of these tests just starts a process,
/// which inherits it until it becomes its program; so the sweep gets a few chances.
fn assert_tidy(store: &Store) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
    loop {
        store.prune(false).unwrap();
        let (needed, there) = (needed(store), there(store));
        if needed == there {
            return;
        }
        assert!(std::time::Instant::now() < deadline, "{there:?} is there, {needed:?} is needed");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// The files that the artifacts consist of.
fn needed(store: &Store) -> BTreeSet<String> {
    let mut needed = BTreeSet::new();
    for digest in entries(&store.read_index().unwrap()).keys() {
        needed.insert(digest.hex());
        needed.extend(store.read_manifest(digest).unwrap().blobs().map(|blob| blob.digest.hex()));
    }
    needed
}

/// All files of the store but bundles, and those that always are.
fn there(store: &Store) -> BTreeSet<String> {
    let folders = ["blobs/sha256", "leases", "tmp", "partial"].map(|folder| store.root().join(folder));
    let entries = folders.iter().flat_map(|folder| fs::read_dir(folder).unwrap());
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// The arguments that make this test binary run one test and nothing else.
fn child(test: &str, role: &str) -> std::process::Command {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--nocapture", "--test-threads=1"]).env("PONTOON_STORE_CHILD", role);
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped());
    command
}

/// What a child was started for, and on which store; `None` in the parent.
fn child_role() -> Option<(String, std::path::PathBuf)> {
    let role = std::env::var("PONTOON_STORE_CHILD").ok()?;
    let (what, root) = role.split_once('@')?;
    Some((what.to_owned(), Path::new(root).to_owned()))
}
