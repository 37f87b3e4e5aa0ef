//! Several models and callers: memory, turns, those who vanish.

use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use pontoon_engines::{Memory, Refusal, Runner, Usage, Which};

use crate::scene::{Scene, TOY, chat, gone, llama, request, said, turn, until};

pub fn trials() -> Vec<Trial> {
    vec![
        llama("two_models_that_do_not_fit_take_turns", two_models),
        llama("out_of_memory_is_tried_once_more_then_said", out_of_memory),
        llama("callers_that_vanish_leave_no_trace", vanish),
        llama("a_greedy_caller_does_not_starve_a_modest_one", greedy),
        llama("a_load_is_shared_and_belongs_to_nobody", shared_load),
        llama("too_big_is_said_at_once", too_big),
        llama("a_turn_at_a_loaded_model_costs_little", warm_turns),
    ]
}

/// A budget for one of the two.
async fn two_models(scene: Scene) {
    scene.add_sibling("test/other:chat", 768);
    let probe = scene.runner().await;
    drop(turn(&probe, TOY).await);
    let one = probe.ps().await[0].memory.host;
    drop(turn(&probe, "test/other:chat").await);
    let both: u64 = probe.ps().await.iter().map(|row| row.memory.host).sum();
    probe.drain().await;
    drop(probe);
    let mut options = scene.options();
    options.budget = Some(Memory::host(one + (both - one) / 2));
    // Short turns, to see many changes.
    options.queue.turn_least = Duration::from_millis(20);
    options.queue.turn_factor = 1;
    let runner = Runner::start(options).await.unwrap();
    let ask = |model: &'static str| {
        let runner = runner.clone();
        async move {
            for _ in 0..40 {
                let lease = turn(&runner, model).await;
                assert_eq!(
                    said(&chat(&lease, "What is the capital of France?", 20).await),
                    "The capital of France is Paris."
                );
                lease.finish(Usage { prompt_tokens: 20, completion_tokens: 12 });
            }
        }
    };
    let watch = async {
        loop {
            let rows = runner.ps().await;
            let held: u64 = rows.iter().map(|row| row.memory.host).sum();
            assert!(held <= runner.budget().host, "{held} of {}", runner.budget());
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    };
    let began = Instant::now();
    let all = async { tokio::join!(ask(TOY), ask("test/other:chat"), ask(TOY), ask("test/other:chat")) };
    tokio::select! {
        _ = all => {}
        () = watch => unreachable!(),
    }
    let counters = runner.counters().await;
    println!("160 requests at two models in {:?}: {counters:?}", began.elapsed());
    assert!(counters.loads >= 4 && counters.evictions >= 3, "{counters:?}");
    assert_eq!(counters.granted, 160);
}

/// A limit on the address space that the engine cannot live with.
async fn out_of_memory(scene: Scene) {
    let mut options = scene.options();
    // A KV cache of gigabytes, and an address space of one.
    options.defaults.context_size = Some(1 << 20);
    options.defaults.parallel = Some(1);
    options.defaults.rope_scale = Some(1000.0);
    options.budget = Some(Memory::host(64 << 30));
    options.limits.address_space = Some(1 << 30);
    let runner = Runner::start(options).await.unwrap();
    let error = runner.acquire(request(TOY, "t")).await.unwrap_err();
    println!("{error}");
    assert!(matches!(error.kind, Refusal::LoadFailed { retry_after: Some(_) }), "{error:?}");
    assert!(error.message.contains("memory"), "{error}");
    let counters = runner.counters().await;
    assert_eq!((counters.loads, counters.oom_retries), (2, 1), "{counters:?}");
    let at_once = Instant::now();
    runner.acquire(request(TOY, "t")).await.unwrap_err();
    assert!(at_once.elapsed() < Duration::from_millis(200), "not tried again for a while");
}

async fn vanish(scene: Scene) {
    let runner = scene.runner().await;
    let held = [turn(&runner, TOY).await, turn(&runner, TOY).await];
    let mut waiting = Vec::new();
    for number in 0..100 {
        let runner = runner.clone();
        waiting.push(tokio::spawn(
            async move { runner.acquire(request(TOY, &format!("caller {number}"))).await },
        ));
    }
    until("all wait", || async { runner.queue().await.len() == 100 }).await;
    waiting.iter().for_each(|task| task.abort());
    until("all left", || async { runner.queue().await.is_empty() }).await;
    drop(held);
    let lease = turn(&runner, TOY).await;
    assert_eq!(runner.ps().await[0].serving, 1);
    assert!(lease.wait < Duration::from_millis(100));
    assert_eq!(runner.counters().await.granted, 3);
}

/// Forty requests of one caller wait; another comes with three.
async fn greedy(scene: Scene) {
    let mut options = scene.options();
    options.defaults.parallel = Some(1);
    let runner = Runner::start(options).await.unwrap();
    let first = turn(&runner, TOY).await;
    let ask = |caller: &'static str, count: usize| {
        let tasks: Vec<_> = (0..count)
            .map(|_| {
                let runner = runner.clone();
                tokio::spawn(async move {
                    let lease = runner.acquire(request(TOY, caller)).await.unwrap();
                    chat(&lease, "Tell me a story.", 30).await;
                    lease.finish(Usage { prompt_tokens: 10, completion_tokens: 30 });
                    Instant::now()
                })
            })
            .collect();
        tasks
    };
    let many = ask("greedy", 40);
    until("the greedy one waits", || async { runner.queue().await.len() == 40 }).await;
    let few = ask("modest", 3);
    until("both wait", || async { runner.queue().await.len() == 43 }).await;
    let positions: Vec<usize> =
        runner.queue().await.into_iter().filter(|w| w.caller == "modest").map(|w| w.position).collect();
    assert!(positions.iter().max().unwrap() <= &7, "{positions:?}");
    drop(first);
    let mut greedy_ends = Vec::new();
    let mut modest_ends = Vec::new();
    for task in many {
        greedy_ends.push(task.await.unwrap());
    }
    for task in few {
        modest_ends.push(task.await.unwrap());
    }
    let last_modest = modest_ends.into_iter().max().unwrap();
    let before = greedy_ends.iter().filter(|end| **end < last_modest).count();
    println!("{before} of 40 greedy requests were answered before the last modest one");
    assert!(before <= 8, "{before}");
}

async fn shared_load(scene: Scene) {
    let runner = scene.runner().await;
    let first = tokio::spawn({
        let runner = runner.clone();
        async move { runner.acquire(request(TOY, "first")).await }
    });
    until("it loads", || async { runner.counters().await.loads == 1 }).await;
    let second = runner.acquire(request(TOY, "second"));
    first.abort();
    let lease = second.await.unwrap();
    assert!(said(&chat(&lease, "Hello", 10).await).len() > 1);
    assert_eq!(runner.counters().await.loads, 1);
    drop(lease);
    runner.unload(Which::Model(TOY.to_owned())).await.unwrap();
    gone(&runner).await;
}

async fn too_big(scene: Scene) {
    let mut options = scene.options();
    options.budget = Some(Memory::host(16 << 20));
    let runner = Runner::start(options).await.unwrap();
    let error = runner.acquire(request(TOY, "t")).await.unwrap_err();
    println!("{error}");
    assert_eq!(error.kind, Refusal::TooBig);
    assert_eq!(runner.counters().await.loads, 0);
}

/// What the runner adds to a request. The bound is for a debug build on a busy machine.
async fn warm_turns(scene: Scene) {
    let runner = scene.runner().await;
    drop(turn(&runner, TOY).await);
    let mut times = Vec::new();
    for _ in 0..2000 {
        let began = Instant::now();
        turn(&runner, TOY).await.finish(Usage { prompt_tokens: 1, completion_tokens: 1 });
        times.push(began.elapsed());
    }
    times.sort();
    println!("median {:?}, 99 of 100 within {:?}", times[1000], times[1980]);
    assert!(times[1000] < Duration::from_millis(1), "{:?}", times[1000]);
}
