//! A static guest program in real containers without a network, a GPU device or a driver: it computes on
//! the host's GPU through `pontoon run --gpu`, with podman and with bubblewrap.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use pontoon_testbed::{Podman, Scratch, busybox_rootfs, find_tool, ready};

const PONTOON: &str = env!("CARGO_BIN_EXE_pontoon");

/// A daemon, a root file system with the guest program, and the engine to run it.
struct Bench {
    scratch: Scratch,
    daemon: Child,
    rootfs: PathBuf,
    podman: Option<Podman>,
    engine: &'static str,
}

impl Bench {
    fn new(engine: &'static str) -> anyhow::Result<Self> {
        let guests = std::env::var_os("PONTOON_GUEST_BIN").context(
            "PONTOON_GUEST_BIN names no folder with static guest programs (`cargo xtask test` builds them)",
        )?;
        let program = if engine == "bwrap" { "bwrap" } else { engine };
        find_tool(program).with_context(|| format!("{program} is missing"))?;
        let scratch = Scratch::new(engine)?;
        let rootfs = busybox_rootfs(scratch.path())?;
        for name in ["digits", "photo"] {
            std::fs::copy(Path::new(&guests).join(name), rootfs.join("bin").join(name))
                .with_context(|| format!("the static guest program {name}"))?;
        }
        std::fs::create_dir_all(rootfs.join("out"))?;
        let podman = if engine == "podman" { Some(Podman::new(scratch.path())?) } else { None };
        if let Some(podman) = &podman {
            podman.available(&rootfs)?;
        }
        let daemon = start_daemon(&scratch)?;
        Ok(Self { scratch, daemon, rootfs, podman, engine })
    }

    fn socket(&self) -> PathBuf {
        self.scratch.path().join("guest/pontoon.sock")
    }

    fn pontoon(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(PONTOON);
        command.args(arguments).env("PONTOON_HOST", format!("unix:{}", self.socket().display()));
        if let Some(podman) = &self.podman {
            command.envs(podman.env());
        }
        command.stdin(Stdio::null());
        command
    }

    fn run(&self, options: &[&str], command: &[&str]) -> Output {
        let rootfs = self.rootfs.to_str().unwrap();
        let arguments = [&["run", "--engine", self.engine], options, &[rootfs], command].concat();
        self.pontoon(&arguments).output().expect("pontoon runs")
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

fn start_daemon(scratch: &Scratch) -> anyhow::Result<Child> {
    let socket = scratch.path().join("guest/pontoon.sock");
    let daemon = Command::new(PONTOON)
        .args(["serve", "--until-stdin-closes", "--socket"])
        .arg(&socket)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(scratch.path().join("log"))?)
        .spawn()?;
    let deadline = Instant::now() + Duration::from_secs(30);
    while !socket.exists() {
        anyhow::ensure!(Instant::now() < deadline, "the daemon does not listen");
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(daemon)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn trains_and_filters(engine: &'static str) {
    let bench = match Bench::new(engine) {
        Ok(bench) => bench,
        Err(reason) => {
            ready(Err(reason));
            return;
        }
    };
    let bare = bench.run(&["--gpu"], &["/bin/sh", "-c", "ls /dev/dri /dev/nvidia0; ls /sys/class/net"]);
    assert!(!text(&bare.stdout).contains("renderD") && !text(&bare.stdout).contains("eth"), "{bare:?}");
    let digits = bench.run(&["--gpu"], &["/bin/digits", "--json"]);
    assert!(digits.status.success(), "{digits:?}");
    let out = text(&digits.stdout);
    let accuracy = out.split("\"accuracy\":").nth(1).and_then(|rest| rest.split([',', '}']).next());
    let accuracy: f64 = accuracy.expect("an accuracy").parse().unwrap();
    assert!(accuracy >= 0.95 && out.contains("via Pontoon"), "{out}");

    let folder = bench.scratch.path().join("pictures");
    std::fs::create_dir(&folder).unwrap();
    let mount = format!("{}:/out", folder.display());
    let photo = bench.run(&["--gpu", "-v", &mount], &["/bin/photo", "--out-dir", "/out"]);
    assert!(photo.status.success(), "{photo:?}");
    for name in ["before.png", "after.png"] {
        let bytes = std::fs::read(folder.join(name)).unwrap();
        assert!(bytes.starts_with(b"\x89PNG") && bytes.len() > 10_000, "{name} is a picture");
    }
    // Without the option, there is no way to the host.
    let without = bench.run(&[], &["/bin/digits", "--json"]);
    assert!(
        !without.status.success() && text(&without.stderr).contains("no Pontoon host answers"),
        "{without:?}"
    );
    // Exit codes pass through.
    assert_eq!(bench.run(&[], &["/bin/sh", "-c", "exit 7"]).status.code(), Some(7));
    let sessions = bench.pontoon(&["ps", "--json"]).output().unwrap();
    assert!(sessions.status.success(), "{sessions:?}");
}

#[test]
fn podman() {
    trains_and_filters("podman");
}

#[test]
fn bubblewrap() {
    trains_and_filters("bwrap");
}

#[test]
fn run_without_a_daemon_says_so() {
    let output = Command::new(PONTOON)
        .args(["run", "--gpu", "./nowhere", "/bin/true"])
        .env("PONTOON_HOST", "unix:/nonexistent/pontoon.sock")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let error = text(&output.stderr);
    assert!(error.contains("no Pontoon daemon listens on /nonexistent/pontoon.sock"), "{error}");
    assert!(error.contains("pontoon serve"), "{error}");
}
