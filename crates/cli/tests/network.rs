//! Guests far away: the demo's training over TLS, on lines of several lengths, in a network namespace of its own.

mod common;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use anyhow::Context;
use common::models::variable;
use common::{Daemon, Setup, wait_until};
use pontoon_client::Options;
use pontoon_testbed::{Line, find_tool, ready};
use pontoon_workloads::{encoder, resnet};
use serde_json::Value;

/// Bytes a second of 1 and of 10 Gbit/s.
const GIGABIT: u64 = 125_000_000;

fn said(daemon: &Daemon, what: &str) -> String {
    let mut found = String::new();
    wait_until(what, Duration::from_secs(10), || {
        let log = daemon.log();
        let line =
            log.split_once("listening on tls:").and_then(|(_, rest)| rest.split_once(", certificate "));
        found = line.map(|(address, _)| address.to_owned()).unwrap_or_default();
        !found.is_empty()
    });
    found
}

fn ticket(daemon: &Daemon, address: &str) -> String {
    let made = daemon.pontoon(&["token", "create", "--tenant", "afar", "--address", address]);
    assert!(made.status.success(), "{made:?}");
    String::from_utf8(made.stdout).unwrap().trim().to_owned()
}

fn guests() -> anyhow::Result<PathBuf> {
    let folder = variable("PONTOON_GUEST_BIN")?;
    anyhow::ensure!(folder.join("digits").is_file(), "the static guest program digits is missing");
    Ok(folder)
}

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What the demo's training learns in ten passes over the images.
fn learned(host: &str) -> Value {
    let mut command = Command::new(guests().unwrap().join("digits"));
    command.args(["--json", "--epochs", "10"]).env("PONTOON_HOST", host);
    json(&command.output().unwrap())["accuracy"].clone()
}

#[test]
fn a_long_line_costs_a_warm_step_little() {
    let Some(setup) = Setup::gpu() else { return };
    if !ready(guests().map(drop)) {
        return;
    }
    let daemon = setup.toml("[listen]\ntls = '127.0.0.1:0'\n").start();
    let host: SocketAddr = said(&daemon, "TLS is there").parse().unwrap();
    let learned = learned(&format!("unix:{}", daemon.socket().display()));
    let mut bench = daemon.command(&["bench", "gpu", "--quick", "--json", "--only", "train_step"]);
    let lines = [(0.0, 10), (0.1, 10), (1.0, 10), (1.0, 1), (10.0, 10)].map(|(millis, rate)| {
        let line = Line::to(host, Duration::from_secs_f64(millis / 1e3), GIGABIT * rate).unwrap();
        let text = ticket(&daemon, &line.address().to_string());
        assert_eq!(self::learned(&text), learned, "the same is learned over every line");
        let name = format!("{millis} ms {rate} Gbit/s");
        bench.arg("--over").arg(format!("{name}={text}"));
        (name, millis)
    });
    let report = json(&bench.output().unwrap());
    let step = &report["benchmarks"][0];
    let native = step["native"].as_f64().unwrap();
    for (name, millis) in &lines {
        let (over, ratio) = (step["bridged"][name].as_f64().unwrap(), &step["ratio"][name]);
        eprintln!("{name}, TLS: a step takes {over:.0} us, natively {native:.0} us: {ratio}");
        // The aims are 0.95 at 0.1 ms and 0.9 at 1 ms; two busy processors, which also carry the line, give less. Of
        // twenty steps one is waited for.
        assert!(over < native * 3.0 + 2.0 * millis * 1e3 / 20.0, "{name}: {over} and {native} us");
    }
}

/// Forward passes that are under way before anybody waits.
const PASSES: u32 = 10;

/// Seconds of a forward pass of the encoder and of the small residual network, warm, and what comes out of them.
fn forward_passes(instance: &wgpu::Instance) -> ([f64; 2], [Vec<f32>; 2]) {
    let (device, queue) = common::open_device(instance);
    let timed = |forward: &dyn Fn(), read: &dyn Fn() -> Vec<f32>| {
        forward();
        let output = read();
        let begun = Instant::now();
        (0..PASSES).for_each(|_| forward());
        assert_eq!(read(), output);
        (begun.elapsed().as_secs_f64() / f64::from(PASSES), output)
    };
    let encoder = encoder::Encoder::new(&device, &queue, encoder::Config::small()).unwrap();
    let (first, words) = timed(&|| encoder.forward(), &|| encoder.read_output().unwrap());
    let network = resnet::ResNet::new(&device, &queue, resnet::Config::reduced()).unwrap();
    let (second, picture) = timed(&|| network.forward(), &|| network.read_output().unwrap());
    ([first, second], [words, picture])
}

#[test]
fn forward_passes_over_long_lines_give_the_same_and_wait_for_nothing() {
    let Some(setup) = Setup::gpu() else { return };
    let daemon = setup.toml("[listen]\ntls = '127.0.0.1:0'\n").start();
    let host: SocketAddr = said(&daemon, "TLS is there").parse().unwrap();
    let native = wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends: wgpu::Backends::VULKAN,
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    });
    let (base, expected) = forward_passes(&native);
    for (millis, rate) in [(0.0, 10), (0.1, 10), (1.0, 10), (1.0, 1), (10.0, 10)] {
        let line = Line::to(host, Duration::from_secs_f64(millis / 1e3), GIGABIT * rate).unwrap();
        let text = ticket(&daemon, &line.address().to_string());
        let instance = pontoon_client::connect(Options::new(text.parse().unwrap())).unwrap();
        let (passes, output) = forward_passes(&instance);
        assert_eq!(output, expected, "the same comes out over every line");
        for (name, pass, base) in [("encoder", passes[0], base[0]), ("resnet", passes[1], base[1])] {
            eprintln!(
                "{millis} ms, {rate} Gbit/s, TLS: a forward pass of the {name} takes {:.1} ms, natively {:.1} ms: {:.2}",
                pass * 1e3,
                base * 1e3,
                base / pass
            );
            // One round trip for all passes together, and what two busy processors cost that also carry the line.
            let trips = 2.0 * millis / 1e3 / f64::from(PASSES);
            assert!(pass < base * 6.0 + 5.0 * trips + 0.005, "{name}: {pass} s against {base} s");
        }
    }
}

/// A network namespace with one end of a pair of interfaces; all of it goes when this is dropped.
struct Elsewhere {
    name: String,
    near: String,
    far: String,
}

fn ip(arguments: &[&str]) -> anyhow::Result<()> {
    let program = find_tool("ip").context("ip is missing (Debian: iproute2)")?;
    let output = Command::new(program).args(arguments).output()?;
    anyhow::ensure!(
        output.status.success(),
        "ip {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

impl Elsewhere {
    fn new() -> anyhow::Result<Self> {
        anyhow::ensure!(rustix::process::geteuid().is_root(), "a network namespace needs root");
        let pid = std::process::id();
        let (name, third) = (format!("pontoon-{pid}"), pid % 250);
        let elsewhere = Self { near: format!("10.211.{third}.1"), far: format!("10.211.{third}.2"), name };
        let (here, there) = (format!("pn{pid}"), format!("pf{pid}"));
        ip(&["netns", "add", &elsewhere.name])?;
        ip(&["link", "add", &here, "type", "veth", "peer", "name", &there])?;
        ip(&["link", "set", &there, "netns", &elsewhere.name])?;
        ip(&["address", "add", &format!("{}/24", elsewhere.near), "dev", &here])?;
        ip(&["link", "set", &here, "up"])?;
        ip(&["-n", &elsewhere.name, "address", "add", &format!("{}/24", elsewhere.far), "dev", &there])?;
        ip(&["-n", &elsewhere.name, "link", "set", &there, "up"])?;
        Ok(elsewhere)
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        // The pair of interfaces goes with the namespace.
        let _ = ip(&["netns", "delete", &self.name]);
    }
}

#[test]
fn a_guest_in_another_network_namespace_computes_over_tls() {
    let Some(setup) = Setup::gpu() else { return };
    let elsewhere = guests().and_then(|_| Elsewhere::new());
    let elsewhere = match elsewhere {
        Ok(elsewhere) => elsewhere,
        Err(reason) => {
            ready(Err(reason));
            return;
        }
    };
    let daemon = setup.toml(&format!("[listen]\ntls = '{}:0'\n", elsewhere.near)).start();
    let text = ticket(&daemon, &said(&daemon, "TLS is there"));
    let run = |program: &str, arguments: &[&str], host: &str| {
        let mut command = Command::new(find_tool("ip").unwrap());
        command.args(["netns", "exec", &elsewhere.name]).arg(guests().unwrap().join(program));
        command.args(arguments).env("PONTOON_HOST", host).output().unwrap()
    };
    let answer = json(&run("digits", &["--json"], &text));
    assert!(answer["accuracy"].as_f64().unwrap() >= 0.95, "{answer}");
    let doctor = run("pontoon-doctor", &["--no-models"], &text);
    let said = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(doctor.status.success() && said.contains("numbers came back doubled"), "{said}");
    let log = daemon.log();
    assert!(log.contains(&format!("afar (from {}:", elsewhere.far)) && log.contains("over tls"), "{log}");
    // With another host's fingerprint it says not a word.
    let (rest, _) = text.split_once('#').unwrap();
    let wrong = run("pontoon-doctor", &["--no-models"], &format!("{rest}#{}", "0".repeat(32)));
    let said = String::from_utf8_lossy(&wrong.stdout).into_owned();
    assert!(!wrong.status.success() && said.contains("new ticket"), "{said}");
}
