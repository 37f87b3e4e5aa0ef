//! `llama-server` built from its source release, packed, and installed from the pack elsewhere.
//!
//! Takes a quarter of an hour, so it runs only where `PONTOON_TEST_INSTALL=1`.

use libtest_mimic::{Failed, Trial};
use pontoon_engines::Runner;
use pontoon_engines::engine::{Catalog, EngineConfig, Wanted};
use pontoon_models::Reference;

use crate::scene::{Scene, TOY, block_on, chat, said, turn};

pub fn trials() -> Vec<Trial> {
    let wanted = std::env::var_os("PONTOON_TEST_INSTALL").is_some_and(|value| value == "1");
    let run = || {
        install(&Scene::new("install"));
        Ok::<(), Failed>(())
    };
    vec![Trial::test("llama_cpp_is_built_packed_and_installed", run).with_ignored_flag(!wanted)]
}

fn install(scene: &Scene) {
    let catalog = Catalog::open(scene.folder.join("engines"), EngineConfig::default());
    let mut lines = Vec::new();
    let wrong = catalog
        .install("llama.cpp", Wanted { sha256: Some(&"0".repeat(64)), ..Wanted::default() }, &mut |_| ())
        .unwrap_err();
    assert!(wrong.to_string().contains("digest"), "{wrong}");
    let mut tell = |line: &str| {
        if !line.starts_with('[') {
            println!("{line}");
        }
        lines.push(line.to_owned());
    };
    let installed = catalog.install("llama.cpp", Wanted::default(), &mut tell).unwrap();
    println!("{installed:?}");
    assert!(lines.iter().any(|line| line.starts_with('[')), "the build tells how far it is");
    catalog.install("llama.cpp", Wanted::default(), &mut |line| assert!(line.contains("already"))).unwrap();

    let reference = Reference::parse("localhost:5000/engines/llama.cpp:test").unwrap();
    catalog.package(&scene.store, "llama.cpp", &installed.version, &reference).unwrap();
    let elsewhere = Catalog::open(scene.folder.join("elsewhere"), EngineConfig::default());
    elsewhere.unpack(&scene.store, &reference.to_string()).unwrap();
    block_on(async {
        let mut options = scene.options();
        options.engines = elsewhere;
        options.defaults.engine = Some(format!("llama.cpp@{}", installed.version));
        let runner = Runner::start(options).await.unwrap();
        let lease = turn(&runner, TOY).await;
        println!("serving with {}", lease.at.engine);
        assert_eq!(
            said(&chat(&lease, "What is the capital of France?", 20).await),
            "The capital of France is Paris."
        );
    });
}
