//! Runs cheap benchmarks on a real adapter (Mesa's lavapipe will do), and targets that fail.

use pontoon_bench::{Error, Options, Target};

fn native(name: &'static str) -> Target<'static> {
    let connect = || Ok(wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle_from_env()));
    Target { name: name.to_owned(), connect: Box::new(connect) }
}

fn quick(only: &str) -> Options {
    Options { quick: true, only: vec![only.to_owned()] }
}

#[test]
fn native_against_itself() {
    let targets = [native("native"), native("unix"), native("tcp")];
    let mut lines = Vec::new();
    let report =
        pontoon_bench::run(&targets, &quick("round_trip"), &mut |line| lines.push(line.to_owned())).unwrap();
    let names: Vec<_> = report.benchmarks.iter().map(|benchmark| benchmark.name).collect();
    assert_eq!(names, ["sync_round_trip", "round_trip_only"]);
    assert_eq!(lines[1..], ["[1/2] sync_round_trip", "[2/2] round_trip_only"]);
    for benchmark in &report.benchmarks {
        assert!(benchmark.native > 0.0);
        for target in ["unix", "tcp"] {
            let ratio = benchmark.ratio.get(target).unwrap();
            // Loose: a test machine may be busy with anything.
            assert!((0.2..5.0).contains(&ratio), "{} on {target}: {ratio}", benchmark.name);
        }
    }
    assert!(!report.machine.adapter.is_empty());
    assert!(report.to_table().contains("sync_round_trip  us"));
}

#[test]
fn readback_checks_what_it_reads() {
    let report = pontoon_bench::run(&[native("native")], &quick("readback_4KiB"), &mut |_| ()).unwrap();
    assert_eq!(report.benchmarks[0].unit, "MiB/s");
    assert!(report.benchmarks[0].bridged.0.is_empty());
}

#[test]
fn a_target_that_does_not_open_is_named() {
    let broken = Target { name: "tcp".into(), connect: Box::new(|| Err("nobody listens".into())) };
    let error = pontoon_bench::run(&[native("native"), broken], &quick("submit"), &mut |_| ()).unwrap_err();
    assert_eq!(error.to_string(), "cannot open target tcp: nobody listens");
}

#[test]
fn a_target_that_fails_later_is_named_with_the_benchmark() {
    let opened = std::cell::Cell::new(0);
    let connect = || {
        opened.set(opened.get() + 1);
        if opened.get() == 1 { (native("").connect)() } else { Err("the host is full".to_owned()) }
    };
    let target = Target { name: "unix".into(), connect: Box::new(connect) };
    let error = pontoon_bench::run(&[target], &quick("session_start"), &mut |_| ()).unwrap_err();
    assert_eq!(error.to_string(), "benchmark session_start failed on target unix: the host is full");
}

#[test]
fn an_unknown_filter_lists_what_there_is() {
    let error = pontoon_bench::run(&[native("native")], &quick("teleport"), &mut |_| ()).unwrap_err();
    assert!(matches!(error, Error::NoBenchmark { .. }));
    assert!(error.to_string().contains("train_step"));
}
