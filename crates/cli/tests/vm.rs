//! A real virtual machine, emulated by QEMU: the demo's programs compute on the host's GPU from within it, and its
//! programs talk to the host's models.

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::Context;
use common::models::{CHAT, asset, package, variable};
use common::{Daemon, Setup};
use pontoon_testbed::{Scratch, busybox_rootfs, find_tool, ready};

/// A daemon, a root file system with the demo's static programs, and a kernel.
struct Bench {
    daemon: Daemon,
    root: PathBuf,
    kernel: PathBuf,
    modules: PathBuf,
    guests: PathBuf,
    _scratch: Scratch,
}

impl Bench {
    /// Nothing, visibly, where the machine lacks a part.
    fn new(policies: &str) -> Option<Self> {
        let setup = Setup::gpu()?;
        match Self::open(setup, policies) {
            Ok(bench) => Some(bench),
            Err(reason) => {
                ready(Err(reason));
                None
            }
        }
    }

    fn open(setup: Setup, policies: &str) -> anyhow::Result<Self> {
        variable("PONTOON_LLAMA_SERVER")?;
        find_tool("qemu-system-x86_64").context("qemu-system-x86_64 is missing (Debian: qemu-system-x86)")?;
        let folder = variable("PONTOON_TEST_KERNEL")?;
        let only = |folder: PathBuf| -> anyhow::Result<PathBuf> {
            let mut files = std::fs::read_dir(&folder)?.flatten().map(|entry| entry.path());
            files.next().with_context(|| format!("{} is empty", folder.display()))
        };
        let modules = only(folder.join("lib/modules"))?;
        let release = modules.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let kernel = folder.join(format!("boot/vmlinuz-{release}"));
        let guests = variable("PONTOON_GUEST_BIN")?;
        let scratch = Scratch::new("vm")?;
        let root = busybox_rootfs(scratch.path())?;
        for program in ["digits", "photo", "pontoon-doctor"] {
            std::fs::copy(guests.join(program), root.join("bin").join(program))
                .with_context(|| format!("the static guest program {program}"))?;
        }
        std::fs::create_dir_all(root.join("out"))?;
        let daemon = setup.models().toml(policies).start();
        package(&daemon, &asset("toy-chat-q8_0.gguf"), CHAT);
        Ok(Self { daemon, root, kernel, modules, guests, _scratch: scratch })
    }

    fn run(&self, options: &[&str], command: &[&str]) -> Output {
        let path = |path: &Path| path.to_str().unwrap().to_owned();
        let (kernel, modules, root) = (path(&self.kernel), path(&self.modules), path(&self.root));
        let head =
            ["vm", "run", "--accel", "tcg", "--memory", "512", "--kernel", &kernel, "--modules", &modules];
        self.daemon.pontoon(&[&head[..], options, &[&root], command].concat())
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_machine_computes_on_the_hosts_gpu_and_talks_to_its_models() {
    let Some(bench) = Bench::new("") else { return };
    let script = "/bin/digits --json; /bin/photo --out-dir /out > /dev/null; sha256sum /out/after.png; /bin/pontoon-doctor; exit 7";
    let output = bench.run(&[], &["/bin/sh", "-c", script]);
    let (said, errors) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(7), "exit codes pass through: {said}{errors}");
    assert!(errors.contains("the machine runs on tcg as vm:"), "{errors}");
    assert!(said.contains("via Pontoon") && said.contains("numbers came back doubled"), "{said}");
    assert!(said.contains("http://10.0.2.100:12434/v1 offers 1: demo/toy-chat:latest"), "{said}");
    // The same results as on the host.
    let out = bench.daemon.folder().join("out");
    std::fs::create_dir(&out).unwrap();
    let on_host = |program: &str, arguments: &[&str]| {
        let mut command = Command::new(bench.guests.join(program));
        command.args(arguments).env("PONTOON_HOST", format!("unix:{}", bench.daemon.socket().display()));
        text(&command.output().unwrap().stdout)
    };
    let accuracy =
        |text: &str| text.split_once("\"accuracy\":").unwrap().1.split([',', '}']).next().unwrap().to_owned();
    assert_eq!(accuracy(&said), accuracy(&on_host("digits", &["--json"])));
    on_host("photo", &["--out-dir", out.to_str().unwrap()]);
    let sum = Command::new("sha256sum").arg(out.join("after.png")).output().unwrap();
    let sum = text(&sum.stdout).split_whitespace().next().unwrap().to_owned();
    assert!(said.contains(&sum), "the picture is the same byte for byte: {said}");
    assert!(bench.daemon.log().contains("over vsock, tenant vm:"), "{}", bench.daemon.log());
}

#[test]
fn a_machine_has_its_policy_and_no_other_way_out() {
    let policies = "[[policies]]\nname = 'm9'\nmatch = { vm = 9 }\nbridge = false\n";
    let Some(bench) = Bench::new(policies) else { return };
    let script = "/bin/digits --json; echo digits: $?; ping -c 1 -W 2 10.0.2.2; echo ping: $?; \
                  wget -q -T 5 -O - http://10.0.2.2:80/; echo wget: $?; wget -q -O - $OPENAI_BASE_URL/models";
    let output = bench.run(&["--cid", "9"], &["/bin/sh", "-c", script]);
    let said = text(&output.stdout);
    assert!(said.contains("'m9' does not give vm:9") && said.contains("digits: 1"), "{said}");
    assert!(said.contains("wget: 1") && said.contains("toy-chat"), "{said}");
}

#[test]
fn what_is_missing_is_named() {
    let daemon = Setup::noop().start();
    let run = |arguments: &[&str]| {
        let output = daemon.pontoon(&[&["vm", "run"][..], arguments].concat());
        assert!(!output.status.success());
        text(&output.stderr)
    };
    assert!(run(&["--kernel", "/nonexistent", "/", "/bin/true"]).contains("no kernel at /nonexistent"));
    let own = std::env::current_exe().unwrap();
    let own = own.to_str().unwrap();
    assert!(
        run(&["--kernel", own, "/nonexistent", "/bin/true"]).contains("/nonexistent is no root file system")
    );
}
