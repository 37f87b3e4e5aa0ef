//! Local and bridged devices to run programs on.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pontoon_client::{Endpoint, Options};
use pontoon_testbed::Scratch;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    Gpu,
    Noop,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// Unix socket with shared arena and ring.
    Arena,
    /// Unix socket alone.
    Unix,
    /// TCP.
    Tcp,
    /// TCP with TLS.
    Tls,
    /// The unix socket of a virtual machine's monitor.
    Vsock,
}

/// A device, and the errors that nothing caught.
pub struct Gpu {
    pub instance: wgpu::Instance,
    pub adapter: wgpu::Adapter,
    pub device: wgpu::Device,
    pub queue: wgpu::Queue,
    pub uncaptured: Arc<Mutex<Vec<String>>>,
    pub backend: Backend,
    /// The daemon behind a bridged device, ended with it.
    daemon: Option<Daemon>,
}

const TOKEN: &str = "a-token-for-tests-long-enough";

/// Features that programs may use where the adapter has them.
fn features() -> wgpu::Features {
    wgpu::Features::TIMESTAMP_QUERY | wgpu::Features::INDIRECT_FIRST_INSTANCE
}

impl Gpu {
    fn open(instance: wgpu::Instance, backend: Backend) -> Option<Self> {
        let adapter = pollster::block_on(instance.request_adapter(&Default::default())).ok()?;
        let desc = wgpu::DeviceDescriptor {
            label: Some("tests"),
            required_features: adapter.features() & features(),
            ..Default::default()
        };
        let (device, queue) = pollster::block_on(adapter.request_device(&desc)).expect("a device");
        let uncaptured = Arc::new(Mutex::new(Vec::new()));
        let sink = uncaptured.clone();
        device.on_uncaptured_error(Arc::new(move |error| sink.lock().unwrap().push(error.to_string())));
        Some(Self { instance, adapter, device, queue, uncaptured, backend, daemon: None })
    }

    /// Waits for all work.
    pub fn wait(&self) {
        self.device.poll(wgpu::PollType::wait_indefinitely()).expect("polled");
    }

    /// The errors that nothing caught since the last call. Waits, so that all are here.
    pub fn uncaptured(&self) -> Vec<String> {
        self.wait();
        std::mem::take(&mut *self.uncaptured.lock().unwrap())
    }

    /// Reads a buffer that has `MAP_READ`.
    pub fn read(&self, buffer: &wgpu::Buffer) -> Vec<u8> {
        let result = Arc::new(Mutex::new(None));
        let sink = result.clone();
        buffer.map_async(wgpu::MapMode::Read, .., move |answer| *sink.lock().unwrap() = Some(answer));
        self.wait();
        result.lock().unwrap().take().expect("answered").expect("mapped");
        let bytes = buffer.get_mapped_range(..).expect("range").to_vec();
        buffer.unmap();
        bytes
    }

    /// Reads any buffer that has `COPY_SRC`.
    pub fn fetch(&self, source: &wgpu::Buffer) -> Vec<u8> {
        let target = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: source.size(),
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        let mut encoder = self.device.create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(source, 0, &target, 0, None);
        self.queue.submit([encoder.finish()]);
        self.read(&target)
    }

    /// Runs `work` in an error scope; its error, as text.
    pub fn scope(&self, filter: wgpu::ErrorFilter, work: impl FnOnce()) -> String {
        let scope = self.device.push_error_scope(filter);
        work();
        match pollster::block_on(scope.pop()) {
            Some(error) => format!("{error}"),
            None => "no error".to_owned(),
        }
    }

    pub fn buffer(&self, size: u64, usage: wgpu::BufferUsages) -> wgpu::Buffer {
        let desc = wgpu::BufferDescriptor { label: Some("test"), size, usage, mapped_at_creation: false };
        self.device.create_buffer(&desc)
    }

    pub fn shader(&self, source: &str) -> wgpu::ShaderModule {
        let source = wgpu::ShaderSource::Wgsl(source.into());
        self.device.create_shader_module(wgpu::ShaderModuleDescriptor { label: Some("test"), source })
    }
}

/// A local device; nothing, visibly, where the machine has no GPU driver at all.
pub fn local(backend: Backend) -> Option<Gpu> {
    let mut desc = wgpu::InstanceDescriptor::new_without_display_handle();
    desc.flags = wgpu::InstanceFlags::VALIDATION_INDIRECT_CALL;
    desc.backends = match backend {
        Backend::Gpu => wgpu::Backends::VULKAN,
        Backend::Noop => wgpu::Backends::NOOP,
    };
    desc.backend_options.noop.enable = true;
    let gpu = Gpu::open(wgpu::Instance::new(desc), backend);
    if gpu.is_none() {
        let required = std::env::var_os(pontoon_testbed::REQUIRE).is_some();
        assert!(!required, "no Vulkan adapter: install mesa-vulkan-drivers");
        println!("SKIPPED: this machine has no Vulkan adapter");
    }
    gpu
}

/// A device through Pontoon.
pub fn bridged(backend: Backend, transport: Transport) -> Gpu {
    let daemon = Daemon::start(backend);
    let instance = pontoon_client::connect(daemon.options(transport)).expect("connected");
    let mut gpu = Gpu::open(instance, backend).expect("an adapter");
    gpu.daemon = Some(daemon);
    gpu
}

/// A daemon of one test.
pub struct Daemon {
    child: Child,
    folder: Scratch,
    address: String,
    ticket: String,
}

impl Daemon {
    fn start(backend: Backend) -> Self {
        let folder = Scratch::new("behaviour").expect("a folder");
        let token = folder.path().join("token");
        std::fs::File::create(&token).unwrap().write_all(TOKEN.as_bytes()).unwrap();
        let log = folder.path().join("log");
        let config = folder.path().join("pontoon.toml");
        let text = format!(
            "http.enabled = false\n[limits]\nsessions = 512\nsessions_per_tenant = 512\n\
             [listen]\ntls = '127.0.0.1:0'\nvms = [{{ cid = 7, uds = '{}' }}]\n",
            folder.path().join("vm.sock").display()
        );
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_pontoon"));
        command.env("PONTOON_DATA", folder.path().join("data"));
        command
            .arg("serve")
            .arg("--config")
            .arg(&config)
            .arg("--socket")
            .arg(folder.path().join("g/pontoon.sock"));
        command.args(["--tcp", "127.0.0.1:0"]).arg("--token-file").arg(&token);
        if backend == Backend::Noop {
            command.arg("--noop");
        }
        let child = command
            .arg("--until-stdin-closes")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .expect("pontoon");
        // From here on the process is waited for, also where the daemon does not come up.
        let mut daemon = Self { child, folder, address: String::new(), ticket: String::new() };
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let text = std::fs::read_to_string(&log).unwrap();
            let said = |what: &str| {
                text.split_once(what).and_then(|(_, rest)| rest.split_once('\n')).map(|line| line.0)
            };
            // The line about the virtual machine is the last one.
            if let (Some(tcp), Some(tls), Some(_)) =
                (said("listening on tcp:"), said("listening on tls:"), said("for the virtual machine 7"))
            {
                let (address, certificate) = tls.split_once(", certificate ").unwrap();
                daemon.ticket = format!("pontoon://{TOKEN}@{address}#{certificate}");
                daemon.address = tcp.to_owned();
                return daemon;
            }
            assert!(Instant::now() < deadline, "the daemon does not listen: {text}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn options(&self, transport: Transport) -> Options {
        let socket: PathBuf = self.folder.path().join("g/pontoon.sock");
        let mut options = match transport {
            Transport::Tcp => Options::new(Endpoint::Tcp(self.address.clone())),
            Transport::Tls => Options::new(self.ticket.parse().unwrap()),
            // As a monitor does for its guest: what the guest dials arrives on a unix socket.
            Transport::Vsock => Options::new(Endpoint::Unix(self.folder.path().join("vm.sock_7300"))),
            _ => Options::new(Endpoint::Unix(socket)),
        };
        options.token = TOKEN.to_owned();
        options.shared_memory = transport == Transport::Arena;
        options
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
