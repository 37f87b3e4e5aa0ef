//! A real daemon for one test, and what every test asks of it.
//!
//! [`Setup::noop`] or [`Setup::gpu`] says what it serves, `.toml(…)` what stands in its `pontoon.toml`,
//! `.tcp()` that it listens there too (with [`TOKEN`] for the tenant `default`), `.log_to(…)` where its
//! log goes; `.start()` waits until it listens. It is killed, and its folder removed, when it is dropped.
#![allow(dead_code, reason = "each test file uses its part")]

pub mod models;
pub mod raw;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use pontoon_client::{Endpoint, Options};
use pontoon_testbed::Scratch;

/// The bearer token of the tenant `default`.
pub const TOKEN: &str = "a token for tests, long enough";

/// What a daemon is started with.
#[derive(Default)]
pub struct Setup {
    noop: bool,
    tcp: bool,
    models: bool,
    toml: String,
    log: Option<PathBuf>,
    open_files: Option<u32>,
}

impl Setup {
    /// Validates commands and executes nothing: quick, and there on every machine.
    pub fn noop() -> Self {
        Self { noop: true, ..Self::default() }
    }

    /// The machine's GPU drivers, or nothing, visibly, where there are none.
    pub fn gpu() -> Option<Self> {
        pontoon_testbed::ready(has_adapter()).then(Self::default)
    }

    pub fn toml(self, toml: &str) -> Self {
        Self { toml: toml.to_owned(), ..self }
    }

    pub fn tcp(self) -> Self {
        Self { tcp: true, ..self }
    }

    /// The model runner as well, on a port of the system's choice.
    pub fn models(self) -> Self {
        Self { models: true, ..self }
    }

    /// With so many open files permitted, as a shell gives it.
    pub fn open_files(self, open_files: u32) -> Self {
        Self { open_files: Some(open_files), ..self }
    }

    pub fn log_to(self, path: &str) -> Self {
        Self { log: Some(path.into()), ..self }
    }

    pub fn start(self) -> Daemon {
        let folder = Scratch::new("test").expect("a folder");
        let http = match self.models {
            true => "http.listen = ['127.0.0.1:0']\n",
            false => "http.enabled = false\n",
        };
        std::fs::write(folder.path().join("pontoon.toml"), format!("{http}{}", self.toml)).unwrap();
        std::fs::write(folder.path().join("token"), TOKEN).unwrap();
        let child = spawn(folder.path(), &self);
        let mut daemon = Daemon { child, folder, setup: self };
        daemon.await_start();
        daemon
    }
}

fn spawn(folder: &Path, setup: &Setup) -> Child {
    let program = env!("CARGO_BIN_EXE_pontoon");
    let mut command = Command::new(if setup.open_files.is_some() { "sh" } else { program });
    if let Some(count) = setup.open_files {
        command.args(["-c", &format!("ulimit -Sn {count} && exec \"$0\" \"$@\""), program]);
    }
    command.arg("serve").arg("--config").arg(folder.join("pontoon.toml"));
    command.arg("--socket").arg(folder.join("g/pontoon.sock"));
    if setup.noop {
        command.arg("--noop");
    }
    if setup.tcp {
        command.args(["--tcp", "127.0.0.1:0"]).arg("--token-file").arg(folder.join("token"));
    }
    command.env("PONTOON_DATA", folder.join("data"));
    let log = setup.log.clone().unwrap_or_else(|| folder.join("log"));
    let log = std::fs::File::options().create(true).append(true).open(log).expect("a log");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().expect("pontoon")
}

fn has_adapter() -> anyhow::Result<()> {
    let output = Command::new(env!("CARGO_BIN_EXE_pontoon"))
        .args(["gpu", "list", "--json"])
        .env("PONTOON_HOST", "unix:/nonexistent/pontoon.sock")
        .output()?;
    anyhow::ensure!(output.status.success(), "no Vulkan adapter: install mesa-vulkan-drivers");
    Ok(())
}

/// A running daemon.
pub struct Daemon {
    child: Child,
    folder: Scratch,
    setup: Setup,
}

impl Daemon {
    fn await_start(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while std::os::unix::net::UnixStream::connect(self.socket()).is_err()
            || (self.setup.tcp && self.tcp().is_none())
            || (self.setup.models && std::os::unix::net::UnixStream::connect(self.models_socket()).is_err())
        {
            assert!(self.child.try_wait().unwrap().is_none(), "the daemon ended: {}", self.log());
            assert!(Instant::now() < deadline, "the daemon does not listen: {}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The guests' socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("g/pontoon.sock")
    }

    /// A folder for the test's own files.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The TCP address that it listens on.
    pub fn tcp(&self) -> Option<String> {
        let log = self.log();
        let (_, rest) = log.split_once("listening on tcp:")?;
        rest.split_once('\n').map(|(address, _)| address.to_owned())
    }

    /// Where the model runner listens on loopback.
    pub fn models_url(&self) -> String {
        let mut url = None;
        // It listens before it says so.
        wait_until("the daemon says where models are", Duration::from_secs(10), || {
            let log = self.log();
            let line = log.rsplit_once("models on http://").and_then(|(_, rest)| rest.split_once('\n'));
            url = line.map(|(address, _)| format!("http://{address}"));
            url.is_some()
        });
        url.unwrap_or_default()
    }

    /// The model runner's socket for guests.
    pub fn models_socket(&self) -> PathBuf {
        self.folder.path().join("g/models.sock")
    }

    /// All that it and its workers have logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills it as `kill -9` does.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts another in its place, on the same socket.
    pub fn restart(&mut self) {
        self.kill();
        self.child = spawn(self.folder.path(), &self.setup);
        self.await_start();
    }

    /// Options of a guest over the unix socket, with the shared arena.
    pub fn options(&self) -> Options {
        let mut options = Options::new(Endpoint::Unix(self.socket()));
        options.program = "well-behaved".into();
        options
    }

    /// A guest's instance.
    pub fn instance(&self) -> wgpu::Instance {
        pontoon_client::connect(self.options()).expect("connected")
    }

    /// `pontoon` with these arguments, asking this daemon.
    pub fn pontoon(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("pontoon")
    }

    /// The same, to be started.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pontoon"));
        command.args(arguments).env("PONTOON_HOST", format!("unix:{}", self.socket().display()));
        command.env("PONTOON_DATA", self.folder.path().join("data")).stdin(Stdio::null());
        command
    }

    /// `pontoon ps --json`.
    pub fn ps(&self) -> Vec<serde_json::Value> {
        let output = self.pontoon(&["ps", "--json"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    /// The worker's process of the session whose guest calls itself `program`.
    pub fn worker_of(&self, program: &str) -> Option<u32> {
        let row = self.ps().into_iter().find(|row| row["program"] == program)?;
        row["worker"].as_u64().map(|pid| pid as u32).filter(|pid| *pid != 0)
    }

    /// Processes whose parent this daemon is: its workers.
    pub fn workers(&self) -> Vec<u32> {
        children_of(self.pid())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the daemon's log ---\n{}", self.log());
        }
        self.kill();
    }
}

/// The processes whose parent is `pid`.
pub fn children_of(pid: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    tasks
        .filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|children| {
            children.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()
        })
        .collect()
}

/// Whether a process runs (a zombie does not).
pub fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// Seconds of CPU that a process has used.
pub fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> =
        stat.rsplit_once(") ").map(|(_, rest)| rest.split(' ').collect()).unwrap_or_default();
    let ticks =
        |index: usize| fields.get(index).and_then(|text| text.parse::<f64>().ok()).unwrap_or_default();
    // utime and stime, counted from the field after the name; ticks are hundredths on every Linux.
    (ticks(11) + ticks(12)) / 100.0
}

/// Kills a process as `kill -9` does.
pub fn kill_9(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid as i32).expect("a process id");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("killed");
}

/// Waits until `check` says yes; fails the test where it does not within `limit`.
#[track_caller]
pub fn wait_until(what: &str, limit: Duration, mut check: impl FnMut() -> bool) -> Duration {
    let begin = Instant::now();
    while !check() {
        assert!(begin.elapsed() < limit, "{what}: not within {limit:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
    begin.elapsed()
}

/// A device of a guest.
pub struct Gpu {
    pub instance: wgpu::Instance,
    pub device: wgpu::Device,
    pub queue: wgpu::Queue,
}

impl Gpu {
    pub fn new(daemon: &Daemon) -> Self {
        Self::on(daemon.instance())
    }

    /// As [`Gpu::new`], under a name in `pontoon ps`.
    pub fn named(daemon: &Daemon, program: &str) -> Self {
        let options = Options { program: program.into(), ..daemon.options() };
        Self::on(pontoon_client::connect(options).expect("connected"))
    }

    pub fn on(instance: wgpu::Instance) -> Self {
        let (device, queue) = open_device(&instance);
        Self { instance, device, queue }
    }

    pub fn buffer(&self, size: u64, usage: wgpu::BufferUsages) -> wgpu::Buffer {
        self.device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size,
            usage,
            mapped_at_creation: false,
        })
    }

    /// The bytes of a buffer that has `COPY_SRC`; nothing where the device is lost.
    pub fn read(&self, source: &wgpu::Buffer) -> Option<Vec<u8>> {
        let target = self.buffer(source.size(), wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST);
        let mut encoder = self.device.create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(source, 0, &target, 0, None);
        self.queue.submit([encoder.finish()]);
        let (answer, answered) = std::sync::mpsc::channel();
        target.map_async(wgpu::MapMode::Read, .., move |result| answer.send(result.is_ok()).unwrap());
        let _ = self.device.poll(wgpu::PollType::wait_indefinitely());
        let mapped = answered.recv_timeout(Duration::from_secs(10)).expect("a mapping is answered");
        mapped.then(|| target.get_mapped_range(..).expect("mapped").to_vec())
    }

    /// One round of honest work: a write that is read back.
    pub fn works(&self) -> bool {
        let buffer = self.buffer(64, wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC);
        self.queue.write_buffer(&buffer, 0, &[7; 64]);
        self.read(&buffer).is_some()
    }
}

pub fn open_device(instance: &wgpu::Instance) -> (wgpu::Device, wgpu::Queue) {
    let adapter = pollster::block_on(instance.request_adapter(&Default::default())).expect("an adapter");
    pollster::block_on(adapter.request_device(&Default::default())).expect("a device")
}
