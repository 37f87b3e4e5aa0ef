//! The bench against the very engine that the runner has started, called directly.

use libtest_mimic::Trial;
use pontoon_api::bench::{self, Options, Target};
use pontoon_engines::{Caller, Mode, Request};

use crate::scene::{Scene, TOY, chat, trial};

pub fn trials() -> Vec<Trial> {
    vec![trial("the_bench_measures_both_sides", measures)]
}

async fn measures() {
    let scene = Scene::parallel(4).await;
    scene.post("/v1/chat/completions", chat("warm", 1)).await;
    // Never evicted while it is used behind the runner's back.
    scene.runner.pin(TOY, true).await.unwrap();
    let request = Request {
        model: TOY.into(),
        caller: Caller { id: "test".into(), weight: 1 },
        mode: Mode::Chat,
        cost: 1,
        keep_alive: None,
        context_size: None,
    };
    let engine = scene.runner.acquire(request).await.unwrap().at.socket.clone();
    let ours = Target::parse(&format!("unix:{}", scene.folder.join("a/models.sock").display())).unwrap();
    let against = Target::parse(&format!("unix:{}", engine.display())).unwrap();
    let options = Options {
        rounds: 3,
        tokens: 32,
        prompt_words: 50,
        prefix_words: 100,
        idle: 50,
        ..Options::new(ours, Some(against), TOY)
    };
    let report = bench::run(options).await.unwrap();
    println!("{report}");
    let json = serde_json::to_value(&report).unwrap();
    for pointer in ["/ours/one", "/against/eight", "/compared/request_us", "/mixed/modest/p95", "/idle/bytes"]
    {
        assert!(json.pointer(pointer).is_some_and(|value| value.is_number()), "{pointer}: {json}");
    }
    assert!(report.ours.one > 1.0 && report.against.is_some_and(|side| side.eight > 1.0));
}

/// Measures a server that runs already beside another.
pub fn by_hand(ours: &str, against: &str) {
    let target = |text| Target::parse(text).unwrap();
    let options = Options {
        rounds: 15,
        prompt_words: 128,
        prefix_words: 900,
        ..Options::new(target(ours), Some(target(against)), TOY)
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    print!("{}", runtime.block_on(bench::run(options)).unwrap());
}
