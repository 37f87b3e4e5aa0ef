//! `pontoon worker gpu`: a confined process that serves one session and ends.

use std::convert::Infallible;
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pontoon_executor::{Arena, Backend, End, Host, NoArena, Session, SharedBytes};
use pontoon_sandbox::{Identity, Policy};
use pontoon_transport::shared::{Bell, Download, Shared, Side, Upload};
use pontoon_transport::{Error as LinkError, Receiver, Sender, Socket, Wake, send_all};
use pontoon_uploads::Kept;
use pontoon_wire::event::{Event, Message};
use pontoon_wire::frame::{self, FrameBuffer, code};
use pontoon_wire::hello::{KeptUploads, SharedLayout, Welcome};

use crate::admin::AdapterRow;
use crate::control::{self, Line, Notice, Order};
use crate::session::sizes;
use crate::stats::Page;
use crate::watchdog::Watchdog;

/// Bytes of events that are sent before the next command is executed.
const OUTBOX: usize = 64 * 1024;
/// How long the GPU is waited for before the guest's commands are looked at again: the longer the wait has
/// been, the longer, since looking costs a software GPU the time that it needs itself.
const SLICES: RangeInclusive<Duration> = Duration::from_micros(100)..=Duration::from_millis(1);
/// How often finished submissions are looked for when nobody asked.
const TIDY: Duration = Duration::from_millis(10);

/// What a worker is told on its command line.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Use `wgpu`'s noop back end.
    pub noop: bool,
    /// Offer only adapters whose name contains this.
    pub adapter: Option<String>,
    /// Serve nobody where there is only software.
    pub require_gpu: bool,
    /// Become this user and group.
    pub identity: Option<(u32, u32)>,
    /// The supervisor: a worker whose parent is another process ends.
    pub parent: Option<u32>,
}

/// Opens the host's GPUs and says of each whether guests may use it.
pub fn open_host(options: &Options) -> (Host, Vec<AdapterRow>) {
    let mut host = Host::open(if options.noop { Backend::Noop } else { Backend::Gpu });
    let wanted = options.adapter.as_deref().map(str::to_lowercase);
    let matches = |name: &str| wanted.as_ref().is_none_or(|wanted| name.to_lowercase().contains(wanted));
    let rows = host
        .adapters()
        .iter()
        .map(|adapter| {
            let info = adapter.get_info();
            let usable = matches(&info.name);
            let why = match (usable, info.device_type) {
                (false, _) => format!("gpu.adapter is '{}'", options.adapter.as_deref().unwrap_or_default()),
                (true, wgpu::DeviceType::Cpu) => "software on the CPU: works, slowly".to_owned(),
                (true, _) => "offered to guests".to_owned(),
            };
            AdapterRow {
                kind: kind(info.device_type).to_owned(),
                backend: info.backend.to_string(),
                driver: format!("{} {}", info.driver, info.driver_info).trim().to_owned(),
                memory_bytes: pontoon_executor::device_memory(adapter),
                name: info.name,
                usable,
                why,
            }
        })
        .collect();
    host.retain(|info| matches(&info.name));
    (host, rows)
}

fn kind(device_type: wgpu::DeviceType) -> &'static str {
    match device_type {
        wgpu::DeviceType::DiscreteGpu => "discrete",
        wgpu::DeviceType::IntegratedGpu => "integrated",
        wgpu::DeviceType::VirtualGpu => "virtual",
        wgpu::DeviceType::Cpu => "cpu",
        wgpu::DeviceType::Other => "other",
    }
}

/// The worker's life. Standard input is the socket to the supervisor.
///
/// # Errors
/// Why it could not become ready, or why its session ended badly; the supervisor was told.
pub fn run(options: &Options) -> Result<(), String> {
    let control = std::io::stdin().as_fd().try_clone_to_owned().map_err(|error| error.to_string())?;
    let ready = confine_and_open(options);
    let (host, notice) = match ready {
        Ok(ready) => ready,
        Err(message) => {
            let _ = control::send(&control, &Notice::Failed { message: message.clone() }, &[]);
            return Err(message);
        }
    };
    control::send(&control, &notice, &[]).map_err(|error| error.to_string())?;
    let order = control::receive::<Order>(&control).map_err(|error| error.to_string())?;
    // A supervisor that ends first has no use for this worker.
    let Some((order, descriptors)) = order else { return Ok(()) };
    let Err((message, told)) = serve(host, order, descriptors, &control);
    let _ = control::send(&control, &Notice::Ended { message, told }, &[]);
    Ok(())
}

fn confine_and_open(options: &Options) -> Result<(Host, Notice), String> {
    let mut policy = Policy::gpu();
    policy.add_driver_environment(|name| std::env::var_os(name));
    policy.parent = options.parent;
    // A worker that a guest took over could pass its guest an open folder: workers send no descriptors.
    policy.send_descriptors = false;
    if let Some((uid, gid)) = options.identity {
        let identity = Identity::for_devices(uid, gid, &policy.device_paths)
            .map_err(|error| format!("finding the groups that may use the GPU: {error}"))?;
        policy.user = Some(identity);
    }
    let warm_up =
        pontoon_sandbox::enter(&policy).map_err(|error| format!("the sandbox cannot be entered: {error}"))?;
    let (mut host, adapters) = open_host(options);
    if options.require_gpu {
        host.retain(|info| info.device_type != wgpu::DeviceType::Cpu);
    }
    if host.adapters().is_empty() && !adapters.is_empty() && options.require_gpu {
        return Err("gpu.require_gpu is set and there is no GPU, only software: install the GPU's driver, or unset it".into());
    }
    if host.adapters().is_empty() {
        return Err(no_adapter(&adapters));
    }
    host.warm_up();
    let report = warm_up.seal().map_err(|error| format!("the sandbox cannot be sealed: {error}"))?;
    let notice = Notice::Ready {
        adapters,
        weaknesses: report
            .weaknesses()
            .map(|finding| format!("{}: {} ({})", finding.mechanism, finding.level, finding.detail))
            .chain(report.unreachable_devices.iter().map(|device| {
                format!("{device} is there but cannot be opened by workers: another adapter serves")
            }))
            .collect(),
        confinement_micros: report.enter_micros + report.seal_micros,
    };
    Ok((host, notice))
}

fn no_adapter(found: &[AdapterRow]) -> String {
    match found {
        [] => "no GPU driver works here: install a Vulkan driver (on Debian `mesa-vulkan-drivers`, which also brings lavapipe for hosts without a GPU)".into(),
        found => {
            let names: Vec<_> = found.iter().map(|row| row.name.as_str()).collect();
            format!("no adapter matches gpu.adapter; there are: {}", names.join(", "))
        }
    }
}

/// Why serving ended, and whether the guest was told.
type Over = (String, bool);

/// Serves the session to its end, which is the process's end too: returns only where it could not begin.
fn serve(
    mut host: Host,
    order: Order,
    descriptors: Vec<OwnedFd>,
    control: &OwnedFd,
) -> Result<Infallible, Over> {
    let Order::Serve { session, limits, adapter, shared, kept, line } = order;
    let untold = |error: String| (error, false);
    if let Some(wanted) = &adapter {
        let wanted_lower = wanted.to_lowercase();
        host.retain(|info| info.name.to_lowercase().contains(&wanted_lower));
        if host.adapters().is_empty() {
            return Err(untold(format!(
                "the host's policy offers adapters named '{wanted}', and there is none"
            )));
        }
    }
    let mut descriptors = descriptors.into_iter();
    let (Some(connection), Some(accounts)) = (descriptors.next(), descriptors.next()) else {
        return Err(untold("the supervisor passed no connection".into()));
    };
    let page = Page::open(accounts.as_fd()).map_err(|error| untold(error.to_string()))?;
    let socket = Arc::new(match line {
        Line::Tcp => Socket::Tcp(connection.into()),
        Line::Unix => Socket::Unix(UnixStream::from(connection)),
        Line::Vsock => Socket::Vsock(connection),
    });
    let watchdog =
        Watchdog::start(limits.command_seconds, control).map_err(|error| untold(error.to_string()))?;
    let mut rest: Vec<OwnedFd> = descriptors.collect();
    let kept = kept.map(|bytes| open_kept(bytes, &mut rest)).transpose();
    let (keeper, kept) = kept.map_err(|error| untold(error.to_string()))?.unzip();
    let link = match shared {
        Some(layout) => open_shared(&socket, layout, rest),
        None => Ok((
            Sender::stream(socket.clone()),
            Receiver::stream(socket.clone()),
            Box::new(NoArena) as Box<dyn Arena>,
        )),
    };
    let (sender, receiver, arena) = link.map_err(|error| untold(error.to_string()))?;
    let mut welcome = Vec::new();
    let offer = Welcome { session, adapters: host.offers(), bytes_in_flight: limits.bytes_in_flight, kept };
    frame::put_encoded(&mut welcome, code::WELCOME, &offer);
    send_all(&*socket, &welcome).map_err(|error| untold(error.to_string()))?;
    control::send(control, &Notice::Welcomed, &[]).map_err(|error| untold(error.to_string()))?;
    let mut session = Session::new(Rc::new(host), limits.executor(), arena);
    keeper.into_iter().for_each(|keeper| session.keep_uploads(keeper));
    Service {
        session,
        sender,
        receiver,
        frames: FrameBuffer::default(),
        page,
        watchdog,
        bytes: 0,
        slice: *SLICES.start(),
        looked: Instant::now(),
    }
    .run(control)
}

/// What is kept of uploads, in the last two of the descriptors, and what the welcome says of it.
fn open_kept(bytes: u64, rest: &mut Vec<OwnedFd>) -> Result<(Kept, KeptUploads), pontoon_uploads::Error> {
    match (rest.pop(), rest.pop()) {
        (Some(additions), Some(shelf)) => Kept::open(shelf, additions, bytes),
        _ => Err(pontoon_uploads::Error::Damaged("it was not passed on")),
    }
}

type Link = (Sender, Receiver, Box<dyn Arena>);

fn open_shared(
    socket: &Arc<Socket>,
    layout: SharedLayout,
    descriptors: Vec<OwnedFd>,
) -> Result<Link, LinkError> {
    let missing = || LinkError::Corrupt("descriptors are missing");
    let mut descriptors = descriptors.into_iter();
    let memory = descriptors.next().ok_or_else(missing)?;
    let (shared, wake_guest, woken) = match layout.place {
        Some(place) => {
            let shared = Shared::within(memory, place.offset, sizes(layout))?;
            (shared, Bell::Connection(socket.clone()), None)
        }
        None => {
            let (to_host, to_guest) = descriptors.next().zip(descriptors.next()).ok_or_else(missing)?;
            (Shared::open(memory, sizes(layout))?, Bell::from(to_guest), Some(Bell::from(to_host)))
        }
    };
    let (producer, consumer) = shared.rings(Side::Host)?;
    let upload = shared.upload()?;
    let arena = SharedArena { uploads: upload.for_ever()?, upload, download: shared.download()? };
    let sender = Sender::ring(socket.clone(), producer, wake_guest);
    let receiver = Receiver::ring(socket.clone(), consumer, woken);
    Ok((sender, receiver, Box::new(arena)))
}

/// The arena in memory that the guest shares.
struct SharedArena {
    upload: Upload,
    uploads: SharedBytes,
    download: Download,
}

impl Arena for SharedArena {
    fn read(&self, at: u64, out: &mut [u8]) -> Result<(), String> {
        self.upload.read(at, out).map_err(|error| error.to_string())
    }

    fn release(&self, end: u64) {
        self.upload.release(end);
    }

    fn place(&mut self, bytes: &[u8]) -> Option<u64> {
        self.download.place(bytes).ok().flatten()
    }

    fn free(&mut self, at: u64) {
        self.download.free(at);
    }

    fn uploads(&self) -> Option<SharedBytes> {
        Some(self.uploads)
    }

    fn offset(&self, at: u64, len: u32) -> Result<u64, String> {
        self.upload.offset(at, len as usize).map_err(|error| error.to_string())
    }

    fn reserve(&mut self, len: u64) -> Option<(u64, SharedBytes)> {
        self.download.reserve(len).ok().flatten()
    }

    fn unreserve(&mut self, at: u64) {
        self.download.unreserve(at);
    }
}

/// A session on a connection.
struct Service {
    session: Session,
    sender: Sender,
    receiver: Receiver,
    frames: FrameBuffer,
    page: Page,
    watchdog: Watchdog,
    bytes: u64,
    slice: Duration,
    /// When submissions were last looked after.
    looked: Instant,
}

impl Service {
    /// Serves to the end, and ends the process: dropping `wgpu`'s objects would wait for the GPU, which may
    /// never finish what this guest gave it. The system takes everything back at once.
    fn run(mut self, control: &OwnedFd) -> ! {
        let over = loop {
            match self.turn() {
                Ok(true) => {}
                Ok(false) => break None,
                Err(over) => break Some(over),
            }
        };
        self.page.write(&self.session.usage(), self.bytes);
        let (message, told) = match over {
            None | Some(Stop::Gone) => (control::LEFT.to_owned(), true),
            Some(Stop::End(message)) => {
                let told = self.tell(&message);
                (message, told)
            }
        };
        let _ = control::send(control, &Notice::Ended { message, told }, &[]);
        std::process::abort()
    }

    /// Takes in what is here, executes it and answers; or waits. Whether the guest is still there.
    fn turn(&mut self) -> Result<bool, Stop> {
        let received = self.receiver.receive(self.frames.space())?;
        self.bytes += received as u64;
        if received > 0 {
            self.slice = *SLICES.start();
        }
        let mut executed = 0u32;
        while let Some((code, body)) = self.frames.next_frame().map_err(End::from)? {
            self.watchdog.command_begins();
            let result = self.session.execute(code, body);
            self.watchdog.command_ends();
            result?;
            executed += 1;
            if self.session.outbox().len() > OUTBOX {
                self.send()?;
            }
            if executed.is_multiple_of(1024) {
                self.session.progress(Duration::ZERO)?;
            }
        }
        if executed > 0 {
            if self.session.is_busy() || self.session.is_awaited() {
                self.session.progress(Duration::ZERO)?;
            }
            self.page.write(&self.session.usage(), self.bytes);
            self.send()?;
        }
        if received == 0 { self.rest() } else { self.tidy().map(|()| true) }
    }

    /// Looks after submissions every now and then, whatever the guest keeps the session busy with.
    fn tidy(&mut self) -> Result<(), Stop> {
        if self.looked.elapsed() < TIDY || !self.session.is_busy() {
            return Ok(());
        }
        self.looked = Instant::now();
        self.session.progress(Duration::ZERO)?;
        self.page.write(&self.session.usage(), self.bytes);
        self.send()
    }

    /// Nothing is here: waits for the GPU if the guest does, else for the guest.
    fn rest(&mut self) -> Result<bool, Stop> {
        if self.session.is_awaited() {
            self.session.progress(self.slice)?;
            self.slice = (self.slice * 2).min(*SLICES.end());
            self.send()?;
            return Ok(self.receiver.wait(Some(Duration::ZERO))? != Wake::Hangup);
        }
        let busy = self.session.is_busy();
        let woken = self.receiver.wait(busy.then_some(TIDY))?;
        self.tidy()?;
        Ok(woken != Wake::Hangup)
    }

    /// Sends the outbox, waiting for room; a guest that does not read has its submissions watched all the
    /// same.
    fn send(&mut self) -> Result<(), Stop> {
        if self.session.outbox().is_empty() {
            return Ok(());
        }
        let mut bytes = std::mem::take(self.session.outbox());
        let mut sent = 0;
        while sent < bytes.len() {
            sent += self.sender.push(&bytes[sent..])?;
            if sent < bytes.len() {
                self.sender.wait_to_send(Duration::from_millis(1))?;
                self.session.check_overdue()?;
            }
        }
        while !self.sender.flush()? {
            self.sender.wait_to_send(Duration::from_millis(10))?;
            self.session.check_overdue()?;
        }
        bytes.clear();
        if self.session.outbox().is_empty() {
            *self.session.outbox() = bytes;
        }
        Ok(())
    }

    /// Tells the guest why its session ends, if it listens within a second.
    fn tell(&mut self, message: &str) -> bool {
        let deadline = Instant::now() + Duration::from_secs(1);
        frame::put_encoded(
            self.session.outbox(),
            code::EVENT,
            &Event::End { message: Message::cut(message) },
        );
        let bytes = std::mem::take(self.session.outbox());
        let mut rest = &bytes[..];
        while Instant::now() < deadline {
            match self.sender.push(rest) {
                Ok(len) => rest = &rest[len..],
                Err(_) => return false,
            }
            let flushed = self.sender.flush();
            if rest.is_empty() && matches!(flushed, Ok(true)) {
                return true;
            }
            if flushed.is_err() || self.sender.wait_to_send(Duration::from_millis(5)).is_err() {
                return false;
            }
        }
        false
    }
}

/// Why a session stops.
enum Stop {
    /// The guest has closed its connection.
    Gone,
    /// It is ended, for this reason.
    End(String),
}

impl From<End> for Stop {
    fn from(end: End) -> Self {
        Self::End(end.to_string())
    }
}

impl From<LinkError> for Stop {
    fn from(error: LinkError) -> Self {
        match error {
            LinkError::Closed => Self::Gone,
            error => Self::End(format!("the guest broke the connection: {error}")),
        }
    }
}
