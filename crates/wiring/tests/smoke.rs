//! The lines, run for real: bubblewrap and podman with a busybox root file system, without a GPU.
//!
//! The guest is this test's own executable, with the host's libraries mounted beside it; it dials
//! the socket that stands in for the daemon's.

use std::{
    env, fs,
    io::{Read as _, Write as _},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread,
};

use anyhow::Context as _;
use pontoon_testbed::{Podman, Scratch, busybox_rootfs, find_tool, ready};
use pontoon_wiring::{
    Engine, EnvVar, GpuAccess, ImageRef, Mount, Network, RunRequest, command_line, mount_points,
};

const GREETING: &[u8] = b"hello from the host";

/// A root file system and, for podman, storage to run it with.
struct Bench {
    engine: Engine,
    rootfs: PathBuf,
    podman: Option<Podman>,
    scratch: Scratch,
}

impl Bench {
    fn new(engine: Engine) -> anyhow::Result<Self> {
        find_tool(engine.program())
            .with_context(|| format!("{engine} is missing (Debian: {})", engine.package()))?;
        let scratch = Scratch::new(engine.program())?;
        let rootfs = busybox_rootfs(scratch.path())?;
        let podman = match engine {
            Engine::Podman => Some(Podman::new(scratch.path())?),
            _ => None,
        };
        if let Some(podman) = &podman {
            podman.available(&rootfs)?;
        }
        Ok(Self { engine, rootfs, podman, scratch })
    }

    fn folder(&self, name: &str) -> PathBuf {
        let folder = self.scratch.path().join(name);
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    fn request(&self, command: &[&str]) -> RunRequest {
        RunRequest::new(ImageRef::RootFs(self.rootfs.clone()), command)
    }

    fn sh(&self, script: &str) -> RunRequest {
        self.request(&["/bin/sh", "-c", script])
    }

    fn run(&self, request: &RunRequest) -> Output {
        if self.engine == Engine::Bubblewrap {
            for point in mount_points(request) {
                let inside = self.rootfs.join(point.strip_prefix("/").unwrap());
                assert!(inside.exists(), "{} is no mount point", point.display());
            }
        }
        let line = command_line(self.engine, request).unwrap();
        let mut command = Command::new(&line.program);
        command.args(&line.args).stdin(Stdio::null());
        if let Some(podman) = &self.podman {
            command.envs(podman.env());
        }
        command.output().unwrap()
    }

    fn stdout(&self, request: &RunRequest) -> String {
        let output = self.run(request);
        assert!(output.status.success(), "{request:?}\n{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

/// Runs `test` on a bench for `engine`, or says why it cannot.
fn on(engine: Engine, test: impl FnOnce(&Bench)) {
    let bench = Bench::new(engine);
    match bench {
        Ok(bench) => test(&bench),
        Err(reason) => {
            ready(Err(reason));
        }
    }
}

fn mount(source: &Path, target: &str, read_only: bool) -> Mount {
    Mount { source: source.into(), target: target.into(), read_only }
}

fn isolation(bench: &Bench) {
    let script = "ip -o link | cut -d: -f2; ls -d /dev/dri /dev/nvidia0 /dev/kfd 2>/dev/null";
    let mut request = bench.sh(&format!("{script}; true"));
    assert_eq!(bench.stdout(&request).trim(), "lo");
    request.network = Network::Host;
    let links = bench.stdout(&request);
    assert_eq!(links.lines().count(), count_host_links(), "{links}");
}

fn count_host_links() -> usize {
    fs::read_dir("/sys/class/net").unwrap().filter(|entry| entry.as_ref().unwrap().path().is_dir()).count()
}

fn mounts_env_and_exit_code(bench: &Bench) {
    let (input, output) = (bench.folder("in"), bench.folder("out"));
    fs::write(input.join("word"), "mounted").unwrap();
    let script = "cat /run/in/word; echo \" $A in $PWD\"; touch /run/in/no; \
                  echo made > /mnt/file; exit 7";
    let mut request = bench.sh(script);
    request.mounts = vec![mount(&input, "/run/in", true), mount(&output, "/mnt", false)];
    request.env = vec![EnvVar { name: "A".into(), value: "b c".into() }];
    request.workdir = Some("/var".into());
    let result = bench.run(&request);
    assert_eq!(result.status.code(), Some(7), "{result:?}");
    assert_eq!(String::from_utf8_lossy(&result.stdout), "mounted b c in /var\n");
    assert_eq!(fs::read_to_string(output.join("file")).unwrap(), "made\n");
    assert!(!input.join("no").exists());
}

fn leaves_the_root_file_system_alone(bench: &Bench) {
    let before = tree(&bench.rootfs);
    bench.run(&bench.sh("echo junk > /junk; rm -f /bin/ls; echo x > /tmp/x"));
    assert_eq!(tree(&bench.rootfs), before);
}

fn tree(folder: &Path) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    let mut waiting = vec![folder.to_owned()];
    while let Some(folder) = waiting.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                waiting.push(entry.path());
            }
            paths.push(entry.path());
        }
    }
    paths.sort();
    paths
}

/// The guest half of [`reaches_the_socket`]; on the host it has nothing to do.
#[test]
fn guest() {
    let Some(host) = env::var_os(GpuAccess::VARIABLE) else {
        return;
    };
    let host = host.into_string().unwrap();
    let path = PathBuf::from(host.strip_prefix("unix:").unwrap());
    assert_eq!(path, Path::new("/run/pontoon/pontoon.sock"));
    for _ in 0..2 {
        let mut text = Vec::new();
        let mut stream = UnixStream::connect(&path).unwrap();
        stream.read_to_end(&mut text).unwrap();
        assert_eq!(text, GREETING);
    }
    assert!(fs::remove_file(&path).is_err(), "the folder is writable");
    assert!(fs::write(path.with_file_name("mine"), "").is_err());
}

/// Between the guest's two calls the host's socket is replaced by a new one, as when the daemon
/// restarts; the guest's mount must show the new one.
fn reaches_the_socket(bench: &Bench) {
    let folder = bench.folder("guest");
    let socket = folder.join("pontoon.sock");
    let mut listener = UnixListener::bind(&socket).unwrap();
    let path = socket.clone();
    thread::spawn(move || {
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().unwrap();
            fs::remove_file(&path).unwrap();
            listener = UnixListener::bind(&path).unwrap();
            stream.write_all(GREETING).unwrap();
        }
    });
    let mut request = bench.request(&["/mnt/guest", "--exact", "guest", "--nocapture"]);
    request.gpu = Some(GpuAccess::new(socket));
    request.mounts = vec![mount(&guest_program(bench), "/mnt", true)];
    for library in ["/lib", "/lib64", "/usr/lib"] {
        if Path::new(library).exists() {
            fs::create_dir_all(bench.rootfs.join(&library[1..])).unwrap();
            request.mounts.push(mount(Path::new(library), library, true));
        }
    }
    assert!(bench.stdout(&request).contains("1 passed"));
}

/// A folder that holds this executable under the name `guest`.
fn guest_program(bench: &Bench) -> PathBuf {
    let folder = bench.folder("program");
    fs::copy(env::current_exe().unwrap(), folder.join("guest")).unwrap();
    folder
}

#[test]
fn bubblewrap() {
    on(Engine::Bubblewrap, |bench| {
        isolation(bench);
        mounts_env_and_exit_code(bench);
        leaves_the_root_file_system_alone(bench);
        reaches_the_socket(bench);
    });
}

#[test]
fn podman_with_a_folder() {
    on(Engine::Podman, |bench| {
        isolation(bench);
        mounts_env_and_exit_code(bench);
        leaves_the_root_file_system_alone(bench);
        reaches_the_socket(bench);
    });
}

#[test]
fn podman_with_an_image() {
    on(Engine::Podman, |bench| {
        let name = "localhost/pontoon-smoke";
        let podman = bench.podman.as_ref().unwrap();
        podman.import(&bench.rootfs, name).unwrap();
        let mut request = bench.sh("ip -o link | cut -d: -f2; cat /run/in/word");
        request.image = ImageRef::Name(name.into());
        let input = bench.folder("in");
        fs::write(input.join("word"), "mounted").unwrap();
        request.mounts = vec![mount(&input, "/run/in", true)];
        assert_eq!(bench.stdout(&request), " lo\nmounted");
    });
}
