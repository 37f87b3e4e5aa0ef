//! A daemon under load for long: guests that train, guests that move data, guests that are killed and
//! workers that are killed, over and over, and at the end nothing is left over and nothing has grown.
//!
//! Lasts `PONTOON_SOAK_SECONDS`, 10 where that is not set; `cargo xtask test --full` sets half an hour.

mod common;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::raw::{Raw, Via};
use common::{Daemon, Gpu, Setup, kill_9, wait_until};
use wgpu::BufferUsages as B;

/// What went well, counted, so that a soak in which nothing happened fails.
#[derive(Default)]
struct Tally {
    trained: AtomicU64,
    moved: AtomicU64,
    killed: AtomicU64,
    broken: AtomicU64,
    over: AtomicBool,
}

impl Tally {
    fn goes_on(&self) -> bool {
        !self.over.load(Ordering::Relaxed)
    }

    fn count(&self, what: &AtomicU64) {
        what.fetch_add(1, Ordering::Relaxed);
    }
}

/// Trains the digits for some steps in a session of its own; the loss must fall.
fn train(daemon: &Daemon, tally: &Tally) {
    while tally.goes_on() {
        let gpu = Gpu::named(daemon, "trains");
        let mut trainer = pontoon_workloads::digits::Trainer::new(&gpu.device, &gpu.queue, 1).unwrap();
        trainer.step();
        let first = trainer.loss().unwrap();
        for _ in 0..40 {
            trainer.step();
        }
        let last = trainer.loss().unwrap();
        assert!(last < first, "training goes on: {first} then {last}");
        tally.count(&tally.trained);
    }
}

/// Writes bytes and reads them back, in sizes that go every way there is.
fn move_bytes(daemon: &Daemon, tally: &Tally) {
    let mut seed = 1u64;
    while tally.goes_on() {
        let gpu = Gpu::named(daemon, "moves");
        for _ in 0..30 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let len = (64 + (seed >> 40) % (3 << 20)) as usize & !3;
            let bytes: Vec<u8> = (0..len).map(|at| (at as u64 ^ seed) as u8).collect();
            let buffer = gpu.buffer(len as u64, B::COPY_DST | B::COPY_SRC);
            gpu.queue.write_buffer(&buffer, 0, &bytes);
            assert!(gpu.read(&buffer).expect("read") == bytes, "{len} bytes come back as they went");
            tally.count(&tally.moved);
        }
    }
}

/// Begins sessions whose workers are killed in mid-work, and leaves others without a word.
fn kill(daemon: &Daemon, tally: &Tally) {
    while tally.goes_on() {
        let gpu = Gpu::named(daemon, "dies");
        let buffer = gpu.buffer(1 << 20, B::COPY_DST | B::COPY_SRC);
        gpu.queue.write_buffer(&buffer, 0, &vec![1; 1 << 20]);
        gpu.queue.submit([]);
        if let Some(worker) = daemon.worker_of("dies") {
            kill_9(worker);
            let (lost, loss) = std::sync::mpsc::channel();
            gpu.device.set_device_lost_callback(move |_, message| drop(lost.send(message)));
            let _ = gpu.device.poll(wgpu::PollType::wait_indefinitely());
            loss.recv_timeout(Duration::from_secs(20)).expect("its guest hears of it");
            tally.count(&tally.killed);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Callers that send garbage, and callers that vanish.
fn break_off(daemon: &Daemon, tally: &Tally) {
    while tally.goes_on() {
        let mut raw = Raw::connect(daemon, Via::Unix);
        raw.send(&[0xff; 64]);
        drop(raw);
        drop(Raw::connect(daemon, Via::Arena));
        tally.count(&tally.broken);
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// What the supervisor holds: open descriptors, and KiB of memory.
fn holdings(pid: u32) -> (usize, u64) {
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("its descriptors").count();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
    let memory = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("its memory");
    (descriptors, memory.trim_end_matches("kB").trim().parse().expect("a number"))
}

#[test]
fn nothing_is_left_over() {
    let Some(setup) = Setup::gpu() else { return };
    let seconds = std::env::var("PONTOON_SOAK_SECONDS").map_or(10, |text| text.parse().expect("seconds"));
    let daemon = setup.toml("[limits]\nhandshake_seconds = 2\n").start();
    let tally = Tally::default();
    assert!(Gpu::new(&daemon).works());
    wait_until("the first session ends", Duration::from_secs(20), || daemon.ps().is_empty());
    let (begin, mut warm) = (Instant::now(), None);
    std::thread::scope(|scope| {
        let guests: [fn(&Daemon, &Tally); 4] = [train, move_bytes, kill, break_off];
        let (daemon, tally) = (&daemon, &tally);
        let threads = guests.map(|guest| scope.spawn(move || guest(daemon, tally)));
        while begin.elapsed() < Duration::from_secs(seconds) && !threads.iter().any(|one| one.is_finished()) {
            std::thread::sleep(Duration::from_millis(100));
            if warm.is_none() && begin.elapsed() > Duration::from_secs(seconds / 4) {
                warm = Some(holdings(daemon.pid()).1);
            }
        }
        tally.over.store(true, Ordering::Relaxed);
    });
    wait_until("all sessions end", Duration::from_secs(20), || daemon.ps().is_empty());
    wait_until("only the pool is left", Duration::from_secs(20), || daemon.workers().len() == 2);
    wait_until("descriptors are closed", Duration::from_secs(20), || holdings(daemon.pid()).0 < 32);
    let (descriptors, memory) = holdings(daemon.pid());
    let warm = warm.expect("it lasted");
    assert!(memory < warm + 8 * 1024, "the supervisor grew from {warm} to {memory} KiB");
    assert!(Gpu::new(&daemon).works(), "and it serves as ever");
    let counts = [&tally.trained, &tally.moved, &tally.killed, &tally.broken];
    let counts = counts.map(|count| count.load(Ordering::Relaxed));
    assert!(counts.iter().all(|count| *count > 0), "everything happened: {counts:?}");
    println!(
        "{seconds} s: {} trainings, {} transfers, {} workers killed, {} callers that broke off; \
         the supervisor holds {descriptors} descriptors and {memory} KiB (a quarter in: {warm})",
        counts[0], counts[1], counts[2], counts[3]
    );
}
