//! Pulling and pushing for real: Debian's `docker-registry`, with and without a password, through a
//! proxy that cuts connections, and a hub that serves files as the real one does.

mod fake;
mod hub;
mod proxy;
mod pull;
mod push;
mod server;
mod space;
mod trouble;

use std::{path::PathBuf, time::Duration};

use pontoon_models::{
    Flavour, Model, Policy, Progress, Reference, Store,
    package::Builder,
    registry::{Client, Credentials, Options},
};
use pontoon_testbed::Scratch;

fn scratch() -> Scratch {
    Scratch::new("registry").unwrap()
}

/// Quick to give up, knows nobody, and asks no file of the developer's.
fn options() -> Options {
    Options {
        credentials: Credentials::none(),
        backoff: Duration::from_millis(20),
        retries: 3,
        silence: Duration::from_secs(20),
        ..Options::default()
    }
}

fn client() -> Client {
    Client::new(options()).unwrap()
}

fn name(text: &str) -> Reference {
    Reference::parse(text).unwrap()
}

/// A safetensors file that is right, of about so many bytes of noise.
fn weights(folder: &Scratch, file: &str, bytes: usize, seed: u64) -> PathBuf {
    let bytes = bytes / 4 * 4;
    let json = format!(r#"{{"w":{{"dtype":"F32","shape":[{}],"data_offsets":[0,{bytes}]}}}}"#, bytes / 4);
    let mut out = (json.len() as u64).to_le_bytes().to_vec();
    out.extend(json.as_bytes());
    let mut state = seed | 1;
    for _ in 0..bytes / 4 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        out.extend(((state >> 33) as u32 & 0x3f7f_ffff).to_le_bytes());
    }
    let path = folder.path().join(file);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, out).unwrap();
    path
}

/// A model of two weight files and a config, in a store of its own.
fn packaged(folder: &Scratch, bytes: usize, reference: &str) -> (Store, Model) {
    let model = folder.path().join("model");
    weights(folder, "model/model-00001-of-00002.safetensors", bytes / 2, 1);
    weights(folder, "model/model-00002-of-00002.safetensors", bytes / 2, 2);
    std::fs::write(
        model.join("config.json"),
        r#"{"model_type":"llama","architectures":["LlamaForCausalLM"]}"#,
    )
    .unwrap();
    std::fs::write(model.join("LICENSE"), "do as you like").unwrap();
    let store = Store::open(folder.path().join("store")).unwrap();
    let builder = Builder::safetensors(model).flavour(Flavour::DockerV02);
    let model = builder.build(&store, &name(reference), &Policy::default(), &Progress::none()).unwrap();
    (store, model)
}

/// The same bytes in both stores.
fn assert_same(a: &Model, b: &Model) {
    assert_eq!(a.digest, b.digest);
    for (one, other) in a.files.iter().zip(&b.files) {
        assert_eq!(std::fs::read(&one.path).unwrap(), std::fs::read(&other.path).unwrap());
    }
}
