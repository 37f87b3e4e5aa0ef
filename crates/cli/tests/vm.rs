//! A real virtual machine, emulated by QEMU: the demo's programs compute on the host's GPU from within it, and its
//! programs talk to the host's models.

mod common;

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::Context;
use common::models::{CHAT, asset, package, variable};
use common::raw::{hello, hello_frame};
use common::{Daemon, Gpu, Setup, wait_until};
use pontoon_daemon::admin::{self, Answer, Question};
use pontoon_daemon::forward::NewMachine;
use pontoon_daemon::paths;
use pontoon_testbed::{Podman, Scratch, busybox_rootfs, find_tool, ready};
use pontoon_vm::SharedMemory;
use pontoon_wire::Event;
use pontoon_wire::frame::{self, code};
use pontoon_wire::hello::{Hello, SharedLayout};
use pontoon_wire::limits::MAX_FRAME_BODY;
use serde_json::Value;

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
        self.run_image(options, self.root.to_str().unwrap(), command)
    }

    fn run_image(&self, options: &[&str], image: &str, command: &[&str]) -> Output {
        self.command(options, image, command).output().unwrap()
    }

    fn command(&self, options: &[&str], image: &str, command: &[&str]) -> Command {
        let path = |path: &Path| path.to_str().unwrap().to_owned();
        let (kernel, modules) = (path(&self.kernel), path(&self.modules));
        let head =
            ["vm", "run", "--accel", "tcg", "--memory", "512", "--kernel", &kernel, "--modules", &modules];
        self.daemon.command(&[&head[..], options, &[image], command].concat())
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
    assert!(bench.daemon.log().contains("over vsock+arena, tenant vm:"), "{}", bench.daemon.log());
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

/// Debian's vhost-device-vsock; nothing, visibly, where it was not to be had.
fn vsock() -> Option<String> {
    let program = variable("PONTOON_TEST_TESTING").map(|folder| folder.join("usr/bin/vhost-device-vsock"));
    match program {
        Ok(program) => Some(program.to_str()?.to_owned()),
        Err(reason) => {
            eprintln!("SKIPPED: {reason:#}");
            None
        }
    }
}

/// Where the memory that the machine shares with its host is, for shell scripts: `$device`, `$base`.
const SHARED: &str = "device=$(dirname $(grep -l 0x1110 /sys/bus/pci/devices/*/device)); \
                      base=$(sed -n 3p $device/resource | cut -d' ' -f1); ";

#[test]
fn what_is_shared_need_not_travel_over_the_vsock() {
    let Some(vsock) = vsock() else { return };
    let Some(bench) = Bench::new("") else { return };
    let programs = "pontoon-doctor --json --no-models; digits --json; photo --json --out-dir /out; ";
    let script = format!("{SHARED} {programs} echo 1 > $device/remove; {programs}");
    let output = bench.run(&["--vsock", &vsock, "--cid", "77"], &["/bin/sh", "-c", &script]);
    let (said, errors) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{said}{errors}");
    assert!(errors.contains("as vm:77, with a vsock"), "{errors}");
    let lines: Vec<Value> = said.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let [doctor, digits, photo, other_doctor, other_digits, other_photo] = &lines[..] else {
        panic!("{said}")
    };
    let upload = |doctor: &Value| {
        let found = doctor.as_array().unwrap().iter().find(|finding| finding["part"] == "upload").unwrap();
        found["value"].as_f64().unwrap()
    };
    let (shared, sent) = (upload(doctor), upload(other_doctor));
    eprintln!("upload: {shared:.0} MiB/s through shared memory, {sent:.0} MiB/s over the vsock");
    assert!(shared >= 3.0 * sent, "{shared} and {sent} MiB/s");
    assert_eq!(digits["accuracy"], other_digits["accuracy"]);
    assert_eq!(photo["sha256"], other_photo["sha256"]);
    let mut host = Command::new(bench.guests.join("photo"));
    host.args(["--json", "--out-dir"]).arg(bench.daemon.folder());
    host.env("PONTOON_HOST", format!("unix:{}", bench.daemon.socket().display()));
    let on_host: Value = serde_json::from_slice(&host.output().unwrap().stdout).unwrap();
    assert_eq!(photo["sha256"], on_host["sha256"], "the same byte for byte as on the host");
    let log = bench.daemon.log();
    let sessions = |way: &str| log.matches(&format!("over {way}, tenant vm:77")).count();
    assert_eq!((sessions("vsock+arena"), sessions("vsock")), (3, 3), "{log}");
}

#[test]
fn a_machine_that_rewrites_the_ring_loses_its_own_session_and_nothing_else() {
    let Some(vsock) = vsock() else { return };
    let Some(bench) = Bench::new("") else { return };
    let bystander = Gpu::new(&bench.daemon);
    // The first page of the machine's memory has the words of its first session: tails, heads, who sleeps.
    let script = format!(
        "{SHARED} digits --epochs 500 > /dev/null 2> /tmp/said & until [ -s /tmp/said ]; do usleep 50000; done; \
         for word in 0x0 0x40 0x80 0x100 0x140 0x180 0x200; do \
         devmem $((base + word)) 64 0xfffffffffffffff0; done; \
         wait $!; echo first: $?; digits --json; pontoon-doctor --no-models > /dev/null; echo doctor: $?"
    );
    let output = bench.run(&["--vsock", &vsock], &["/bin/sh", "-c", &script]);
    let said = text(&output.stdout);
    assert!(
        said.contains("first: 1") && said.contains("\"accuracy\":0.97") && said.contains("doctor: 0"),
        "{said}"
    );
    let log = bench.daemon.log();
    assert!(log.contains("the shared ring is corrupt"), "{log}");
    assert!(!log.contains("crashed"), "{log}");
    assert!(bystander.works());
}

#[test]
fn an_image_is_a_root_and_folders_of_the_host_are_mounted() {
    let Some(bench) = Bench::new("") else { return };
    let scratch = Scratch::new("vm-image").unwrap();
    let podman = Podman::new(scratch.path()).unwrap();
    podman.import(&bench.root, "localhost/guest").unwrap();
    let file = "FROM localhost/guest\nENV GREETING='it is'\nRUN rm /bin/photo && mkdir /own && echo second > /own/layer && chown 7:8 /own/layer\n\
                WORKDIR /own\nENTRYPOINT [\"/bin/sh\", \"-c\"]\nCMD [\"echo by itself\"]\n";
    std::fs::write(scratch.path().join("Containerfile"), file).unwrap();
    let mut build = podman.command();
    build.args(["build", "--network", "none", "-t", "localhost/image", "-f"]);
    let built = build.arg(scratch.path().join("Containerfile")).arg(scratch.path()).output().unwrap();
    assert!(built.status.success(), "{built:?}");
    let archive = scratch.path().join("image.tar");
    let save = |format: &str, to: &Path| {
        let mut save = podman.command();
        save.args(["save", "--format", format, "-o"]).arg(to).arg("localhost/image");
        assert!(save.output().unwrap().status.success());
    };
    save("oci-archive", &archive);
    let (given, kept) = (scratch.path().join("given"), scratch.path().join("kept here"));
    std::fs::create_dir(&given).unwrap();
    std::fs::create_dir(&kept).unwrap();
    std::fs::write(given.join("word"), "from the host\n").unwrap();
    let volume = |folder: &Path, rest: &str| format!("{}:{rest}", folder.display());
    let image = archive.to_str().unwrap();
    let script = "echo $GREETING $PWD $(cat layer) $(stat -c %u:%g layer); ls /bin/photo; cat /given/word; \
                  echo no > /given/word; echo 'out of the machine' > '/mnt/a place/word'; \
                  mount -o remount,rw /given && echo no > /given/word; digits --json";
    let (ro, rw) = (volume(&given, "/given:ro"), volume(&kept, "/mnt/a place"));
    let output = bench.run_image(&["-v", &ro, "-v", &rw], image, &[script]);
    let said = text(&output.stdout);
    assert!(said.contains("it is /own second 7:8"), "{said}{}", text(&output.stderr));
    assert!(said.contains("/bin/photo: No such file"), "what a layer took away is gone: {said}");
    assert!(said.contains("from the host") && said.contains("\"accuracy\":0.97"), "{said}");
    assert_eq!(
        std::fs::read_to_string(given.join("word")).unwrap(),
        "from the host\n",
        "it is read alone: {said}"
    );
    assert_eq!(std::fs::read_to_string(kept.join("word")).unwrap(), "out of the machine\n");
    // The same image as a folder, with its own command.
    let layout = scratch.path().join("layout");
    save("oci-dir", &layout);
    let output = bench.run_image(&[], layout.to_str().unwrap(), &[]);
    assert!(output.status.success() && text(&output.stdout).contains("by itself"), "{output:?}");
    // An image with one program and no shell.
    std::fs::copy(bench.guests.join("pontoon-doctor"), scratch.path().join("doctor")).unwrap();
    let file = "FROM scratch\nCOPY doctor /doctor\nENTRYPOINT [\"/doctor\", \"--no-models\"]\n";
    std::fs::write(scratch.path().join("Alone"), file).unwrap();
    let mut build = podman.command();
    build
        .args(["build", "--network", "none", "-t", "localhost/alone", "-f"])
        .arg(scratch.path().join("Alone"));
    assert!(build.arg(scratch.path()).output().unwrap().status.success());
    let alone = scratch.path().join("alone.tar");
    let mut save = podman.command();
    save.args(["save", "--format", "oci-archive", "-o"]).arg(&alone).arg("localhost/alone");
    assert!(save.output().unwrap().status.success());
    let output = bench.run_image(&[], alone.to_str().unwrap(), &[]);
    assert!(output.status.success() && text(&output.stdout).contains("came back doubled"), "{output:?}");
    // What is wrong with an image is said before anything starts.
    let blobs = std::fs::read_dir(layout.join("blobs/sha256")).unwrap().flatten();
    let largest = blobs.max_by_key(|blob| blob.metadata().unwrap().len()).unwrap().path();
    let mut bytes = std::fs::read(&largest).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&largest, bytes).unwrap();
    let output = bench.run_image(&[], layout.to_str().unwrap(), &[]);
    assert!(!output.status.success() && !text(&output.stderr).contains("runs on"), "{output:?}");
    let output = bench.run_image(&["-v", "/nonexistent:/x"], image, &["true"]);
    assert!(text(&output.stderr).contains("cannot mount /nonexistent"), "{output:?}");
}

#[test]
fn a_disk_is_a_root_and_stays_as_it_is() {
    let Some(bench) = Bench::new("") else { return };
    let scratch = Scratch::new("vm-disk").unwrap();
    let disk = scratch.path().join("disk.img");
    let program = find_tool("mkfs.ext4");
    let Some(program) = program else {
        ready(Err(anyhow::anyhow!("mkfs.ext4 is missing (Debian: e2fsprogs)")));
        return;
    };
    let mut make = Command::new(program);
    make.args(["-q", "-d", bench.root.to_str().unwrap()]).arg(&disk).arg("96M");
    assert!(make.status().unwrap().success());
    let before = std::fs::read(&disk).unwrap();
    let run = |disk: &Path| {
        let script = "echo written > /bin/kept && cat /bin/kept; digits --json";
        bench.run_image(&[], disk.to_str().unwrap(), &["/bin/sh", "-c", script])
    };
    let output = run(&disk);
    let said = text(&output.stdout);
    assert!(said.contains("written") && said.contains("\"accuracy\":0.97"), "{said}{}", text(&output.stderr));
    assert!(std::fs::read(&disk).unwrap() == before, "what was written went into memory");
    if let Some(convert) = find_tool("qemu-img") {
        let qcow = scratch.path().join("disk.qcow2");
        let mut convert = Command::new(convert);
        convert.args(["convert", "-O", "qcow2"]).arg(&disk).arg(&qcow);
        assert!(convert.status().unwrap().success());
        let output = run(&qcow);
        assert!(text(&output.stdout).contains("\"accuracy\":0.97"), "{output:?}");
    }
    // One that is no root file system.
    let none = scratch.path().join("none.img");
    let mut bytes = vec![0; 1 << 20];
    bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
    std::fs::write(&none, bytes).unwrap();
    let output = run(&none);
    assert_eq!(output.status.code(), Some(125), "{output:?}");
    assert!(text(&output.stdout).contains("no part of the disk is a root file system"), "{output:?}");
}

#[test]
fn a_machine_that_is_ended_leaves_nothing() {
    let Some(bench) = Bench::new("") else { return };
    let mut command = bench.command(&[], bench.root.to_str().unwrap(), &["/bin/sleep", "1000"]);
    let mut machine = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut said = std::io::BufReader::new(machine.stderr.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut said, &mut line).unwrap();
    assert!(line.contains("runs on tcg"), "{line}");
    let folder = std::env::temp_dir().join(format!("pontoon-vm-{}", machine.id()));
    assert!(folder.is_dir());
    let children = common::children_of(machine.id());
    assert!(!children.is_empty());
    assert!(Command::new("kill").arg(machine.id().to_string()).status().unwrap().success());
    assert_eq!(machine.wait().unwrap().code(), Some(128 + 15));
    assert!(!folder.exists());
    wait_until("QEMU has ended", Duration::from_secs(10), || {
        children.iter().all(|child| !common::is_alive(*child))
    });
}

#[test]
fn a_terminal_is_the_commands() {
    let Some(bench) = Bench::new("") else { return };
    let command = bench.command(&["-i"], bench.root.to_str().unwrap(), &["/bin/sh"]);
    let quoted: Vec<String> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| format!("'{}'", word.to_str().unwrap()))
        .collect();
    let mut script = Command::new("script");
    script.args(["-qefc", &quoted.join(" "), "/dev/null"]);
    for (name, value) in command.get_envs() {
        script.env(name, value.unwrap());
    }
    let mut script = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut keys = script.stdin.take().unwrap();
    let mut said = String::new();
    let mut output = script.stdout.take().unwrap();
    let mut until = |words: &str| {
        let mut chunk = [0; 1024];
        while !said.contains(words) {
            let len = output.read(&mut chunk).unwrap();
            assert!(len > 0, "it ended: {said}");
            said.push_str(&String::from_utf8_lossy(&chunk[..len]));
        }
    };
    until("# ");
    keys.write_all(b"tty; echo $((6 * 7))\n").unwrap();
    until("/dev/ttyS0");
    until("42");
    // Ctrl-C is the machine's, and ends what runs there alone.
    keys.write_all(b"sleep 1000\n").unwrap();
    std::thread::sleep(Duration::from_millis(500));
    keys.write_all(b"\x03").unwrap();
    keys.write_all(b"echo still $((40 + 3)); exit 9\n").unwrap();
    until("still 43");
    assert_eq!(script.wait().unwrap().code(), Some(9));
}

/// A worker that cannot serve says so before it has welcomed anybody: the guest reads its sentence, with shared memory too.
#[test]
fn a_reason_before_the_welcome_is_read() {
    let policies = "[[policies]]\nname = 'm9'\nmatch = { vm = 9 }\nadapter = 'of another make'\n";
    let daemon = Setup::noop().toml(policies).start();
    let folder = Scratch::new("machine").unwrap();
    let path = folder.path().join("bridge");
    let bridge = UnixListener::bind(&path).unwrap();
    let models = UnixListener::bind(folder.path().join("models")).unwrap();
    let memory = SharedMemory::create(64).unwrap();
    let question = Question::Machine(NewMachine { cid: 9, pid: std::process::id() as i32 });
    let descriptors = [bridge.as_fd(), models.as_fd(), memory.as_fd()];
    let admin = paths::admin_socket(&daemon.socket());
    wait_until("the operator's socket is there", Duration::from_secs(10), || {
        admin::ask(&admin, &Question::Sessions).is_ok()
    });
    let answer = admin::ask_with(&admin, &question, &descriptors);
    assert!(matches!(answer, Ok(Answer::Done)), "{answer:?}");
    let mut socket = UnixStream::connect(path).unwrap();
    let hello = Hello { shared_memory: true, ..hello("") };
    socket.write_all(&hello_frame(&hello)).unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).unwrap();
    let (code, body, taken) = frame::split(&answer, MAX_FRAME_BODY).unwrap().unwrap();
    assert_eq!(code, code::SHARED);
    let layout: SharedLayout = pontoon_wire::decode(body).unwrap();
    assert_eq!(layout.place.unwrap().offset, 0);
    let (code, body, _) = frame::split(&answer[taken..], MAX_FRAME_BODY).unwrap().unwrap();
    assert_eq!(code, code::EVENT);
    let Event::End { message } = pontoon_wire::decode(body).unwrap() else { panic!("another event") };
    assert!(message.contains("'of another make'"), "{message:?}");
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
    let scratch = Scratch::new("vm-missing").unwrap();
    let (modules, root) = (scratch.path().join("modules"), scratch.path().join("root"));
    std::fs::create_dir_all(modules.join("kernel")).unwrap();
    std::fs::create_dir_all(&root).unwrap();
    std::fs::File::create(root.join("large")).unwrap().set_len(100 << 20).unwrap();
    let (modules, root) = (modules.to_str().unwrap(), root.to_str().unwrap());
    let parts = ["--kernel", own, "--modules", modules, "--memory", "128"];
    let small = run(&[&parts[..], &[root, "/bin/true"]].concat());
    assert!(small.contains("takes 10") && small.contains("--memory 29"), "{small}");
    let twice = run(&[&parts[..], &["-v", "/tmp:/x", "-v", "/:/x", root, "/bin/true"]].concat());
    assert!(twice.contains("two folders are to be mounted at /x"), "{twice}");
    assert!(run(&[&parts[..], &[own]].concat()).contains("is no archive of an OCI image layout"));
    assert!(run(&["--kernel", own, "--modules", "/nope", root, "x"]).contains("no modules at /nope"));
    assert!(
        run(&["--kernel", own, "--modules", modules, "/nonexistent", "/bin/true"])
            .contains("/nonexistent: No such file")
    );
}
