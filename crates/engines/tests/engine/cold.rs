//! A cold load beside the engine's own: the same program with the same command line, started by itself.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use pontoon_engines::Which;
use pontoon_engines::instance::get;

use crate::scene::{Scene, TOY, gone, llama, turn};

pub fn trials() -> Vec<Trial> {
    vec![llama("a_cold_load_takes_little_longer_than_the_engine_s_own", compared)]
}

/// One after the other, in turns, so that whatever else the machine does falls on both.
async fn compared(scene: Scene) {
    const ROUNDS: usize = 7;
    let runner = scene.runner().await;
    // What is found out once: what the engine can do, what the model says.
    drop(turn(&runner, TOY).await);
    let program = scene.options().engines.locate("llama.cpp", None).unwrap().program;
    let argv = runner.show(TOY).await.unwrap().argv;
    let (mut ours, mut own) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        runner.unload(Which::All).await.unwrap();
        gone(&runner).await;
        own.push(alone(&program, &argv, &scene.folder.join("own.sock")).await);
        let begun = Instant::now();
        let lease = turn(&runner, TOY).await;
        ours.push(begun.elapsed());
        assert!(lease.load > Duration::ZERO, "it was loaded");
    }
    let middle = |times: &mut Vec<Duration>| {
        times.sort();
        times[times.len() / 2]
    };
    let (ours, own) = (middle(&mut ours), middle(&mut own));
    println!("a cold load: {ours:?}, the engine by itself {own:?}");
    // 10 % and 50 ms are wanted where nothing else is at work; tests are not alone, and not optimised.
    let most = own.mul_f64(1.1) + Duration::from_millis(200);
    assert!(ours <= most, "{ours:?} instead of at most {most:?}");
}

/// How long the engine takes from its start until it is ready.
async fn alone(program: &Path, argv: &[String], socket: &Path) -> Duration {
    let mut argv = argv.to_vec();
    let folder = socket.parent().unwrap();
    for (option, path) in [("--host", socket), ("--slot-save-path", folder)] {
        let at = argv.iter().position(|word| word == option).expect(option) + 1;
        argv[at] = path.display().to_string();
    }
    let begun = Instant::now();
    let mut child = Command::new(program)
        .args(&argv)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the engine starts");
    while !get(socket, "/health", Duration::from_secs(5)).await.is_ok_and(|answer| answer.status == 200) {
        assert!(begun.elapsed() < Duration::from_secs(30), "it does not become ready: {argv:?}");
        assert!(child.try_wait().unwrap().is_none(), "it ended: {argv:?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let took = begun.elapsed();
    child.kill().unwrap();
    child.wait().unwrap();
    let _ = std::fs::remove_file(socket);
    took
}
