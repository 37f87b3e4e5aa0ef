//! The model runner in a container's own network. When a container with one of our CDI devices is created, its engine
//! starts a hook; the hook opens the port there and hands the listener to the daemon, which serves it until the
//! container ends. So programs that know HTTP and no unix sockets reach their models, also with `--network none`, and
//! no process of ours is in the container.

use std::io::Read;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pontoon_api::Forwarder;
use pontoon_callers::Container;
use rustix::event::{PollFd, PollFlags};
use rustix::process::Pid;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::admin::{self, Answer, Question};
use crate::ports::{Ports, began};

/// Bytes of the state that an engine gives its hooks: annotations may be long.
const MAX_STATE: u64 = 1 << 20;

/// A container, as its engine describes it to hooks
/// (<https://github.com/opencontainers/runtime-spec/blob/main/runtime.md#state>).
#[derive(Debug, Deserialize)]
struct State {
    id: String,
    pid: i32,
}

/// What a hook asks of the daemon, the listener beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forward {
    /// The container.
    pub container: String,
    /// Its first process: the listener is served until that ends.
    pub pid: i32,
    /// The policy whose device it was given.
    pub device: Option<String>,
}

/// A virtual machine that was started with two sockets of its own, its listeners beside this: the bridge's, then the
/// model runner's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewMachine {
    /// Its context id, by which policies know it; 3 or more.
    pub cid: u32,
    /// The process of its monitor: the listeners are served until that ends.
    pub pid: i32,
}

/// Serves listeners in containers.
pub struct Forwards(Arc<Inner>);

struct Inner {
    forwarder: Forwarder,
    runtime: Handle,
    ports: Ports,
    /// Containers whose port another container of their network has: they get it after that one.
    heirs: Mutex<Vec<Heir>>,
}

/// A container that waits for a port.
struct Heir {
    forward: Forward,
    /// The number of its network.
    network: u64,
    /// When its process began: numbers of processes are given again.
    began: u64,
}

impl Heir {
    fn of(forward: Forward) -> Option<Self> {
        let (network, began) = (network(forward.pid)?, began(forward.pid)?);
        Some(Self { forward, network, began })
    }

    fn lives(&self) -> bool {
        began(self.forward.pid) == Some(self.began) && network(self.forward.pid) == Some(self.network)
    }
}

impl Forwards {
    /// With the model runner's server and its event loop. Ports that an earlier daemon served, by the file beside the
    /// admin socket, are opened again.
    pub fn new(forwarder: Forwarder, runtime: Handle, admin_socket: &Path) -> Self {
        let (ports, before) = Ports::beside(admin_socket);
        let inner = Arc::new(Inner { forwarder, runtime, ports, heirs: Mutex::default() });
        before.into_iter().for_each(|forward| inner.open(forward));
        Self(inner)
    }

    /// Serves a listener until its container ends. Without one another container of the same network has it: then this
    /// one has it next.
    ///
    /// # Errors
    /// A sentence for the hook.
    pub fn start(&self, forward: Forward, listener: Option<OwnedFd>) -> Result<(), String> {
        match listener {
            Some(listener) => self.0.start(forward, listener),
            None => {
                process(forward.pid)?;
                self.0.wait(forward);
                Ok(())
            }
        }
    }
    /// Serves the model runner's listener of a virtual machine until that ends.
    ///
    /// # Errors
    /// A sentence for who started it.
    pub fn start_machine(&self, machine: &NewMachine, listener: OwnedFd) -> Result<(), String> {
        let gone = end_of(process(machine.pid)?).map_err(|error| error.to_string())?;
        let serving = self.0.forwarder.clone().serve_machine(listener.into(), machine.cid);
        self.0.runtime.spawn(async move {
            tokio::select! {
                ended = serving => if let Err(error) = ended {
                    log::warn!("the listener of a virtual machine: {error}");
                },
                _ = gone => {}
            }
        });
        Ok(())
    }
}

impl Inner {
    /// Opens a container's port, or has it wait for who has the port.
    fn open(self: &Arc<Self>, forward: Forward) {
        let name = forward.container.get(..12).unwrap_or_default().to_owned();
        let Some(heir) = Heir::of(forward) else { return };
        if let Err(message) = self.try_open(heir) {
            log::warn!("models are not in the network of container {name} any more: {message}");
        }
    }

    /// Opens the port of a container that waits for it. Where it is taken, the container waits on.
    fn try_open(self: &Arc<Self>, heir: Heir) -> Result<(), String> {
        let opened = listener_in(heir.forward.pid).map_err(|error| error.to_string())?;
        // Between the look and the opening another process may have got the number.
        if !heir.lives() {
            return Err("it has ended".into());
        }
        match opened {
            Some(listener) => self.start(heir.forward, listener.into()),
            None => {
                self.ports.add(&heir.forward);
                self.heirs().push(heir);
                Ok(())
            }
        }
    }

    /// Has a container wait for the port of its network, or gives it to it if it has become free meanwhile.
    fn wait(self: &Arc<Self>, forward: Forward) {
        {
            let mut heirs = self.heirs();
            heirs.retain(|heir| heir.lives() && heir.forward.pid != forward.pid);
        }
        self.open(forward);
    }

    fn heirs(&self) -> MutexGuard<'_, Vec<Heir>> {
        self.heirs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the port of a network to the next container in it that lives.
    fn inherit(self: &Arc<Self>, left: u64) {
        loop {
            let next = {
                let mut heirs = self.heirs();
                heirs.retain(Heir::lives);
                heirs.iter().position(|heir| heir.network == left).map(|at| heirs.remove(at))
            };
            let Some(heir) = next else { return };
            let name = heir.forward.container.get(..12).unwrap_or_default().to_owned();
            match self.try_open(heir) {
                Ok(()) => return,
                Err(message) => log::info!("container {name} does not get its network's port: {message}"),
            }
        }
    }

    fn start(self: &Arc<Self>, forward: Forward, listener: OwnedFd) -> Result<(), String> {
        if !Container::is_id(&forward.container) {
            return Err(format!("'{}' is no container id", forward.container));
        }
        if same_network(forward.pid) {
            return Err("the container shares the host's network".into());
        }
        let gone = end_of(process(forward.pid)?)
            .map_err(|error| format!("no thread to wait for the container: {error}"))?;
        let network = network(forward.pid).ok_or("the container has ended")?;
        let listener = TcpListener::from(listener);
        let container: Arc<str> = forward.container.as_str().into();
        let serving =
            self.forwarder.clone().serve(listener, container, forward.device.as_deref().map(Into::into));
        log::info!("models are in the network of container {}", &forward.container[..12]);
        self.ports.add(&forward);
        let inner = self.clone();
        self.runtime.spawn(async move {
            tokio::select! {
                ended = serving => if let Err(error) = ended {
                    log::warn!("the listener of container {}: {error}", forward.container);
                },
                _ = gone => {
                    log::debug!("container {} has ended", forward.container);
                    inner.ports.remove(forward.pid);
                }
            }
            // Others may be in its network still.
            let _ = tokio::task::spawn_blocking(move || inner.inherit(network)).await;
        });
        Ok(())
    }
}

/// The number of a process's network.
fn network(pid: i32) -> Option<u64> {
    std::fs::metadata(format!("/proc/{pid}/ns/net")).ok().map(|found| found.ino())
}

/// A descriptor of a process, which becomes readable when that ends.
///
/// # Errors
/// A sentence for who named it.
pub fn process(pid: i32) -> Result<OwnedFd, String> {
    let named = Pid::from_raw(pid).filter(|_| pid > 0).ok_or_else(|| format!("{pid} is no process id"))?;
    watch(named).map_err(|error| format!("the process {pid}: {error}"))
}

/// A descriptor that becomes readable when a process ends.
#[cfg(target_os = "linux")]
fn watch(process: Pid) -> std::io::Result<OwnedFd> {
    Ok(rustix::process::pidfd_open(process, rustix::process::PidfdFlags::empty())?)
}

/// A descriptor that becomes readable when a process ends.
#[cfg(target_os = "macos")]
fn watch(process: Pid) -> std::io::Result<OwnedFd> {
    use nix::sys::event::{EvFlags, EventFilter, FilterFlag, KEvent, Kqueue};
    let number = process.as_raw_nonzero().get() as usize;
    let exit = FilterFlag::NOTE_EXIT;
    let event = KEvent::new(number, EventFilter::EVFILT_PROC, EvFlags::EV_ADD, exit, 0, 0);
    let queue = Kqueue::new()?;
    queue.kevent(&[event], &mut [], None)?;
    Ok(queue.into())
}

/// Whether the process behind a descriptor of [`process`] has ended.
pub fn has_ended(process: &OwnedFd) -> bool {
    let mut set = [PollFd::new(process, PollFlags::IN)];
    matches!(rustix::event::poll(&mut set, Some(&rustix::event::Timespec::default())), Ok(1..))
}

/// Tells when a process has ended. The thread that waits for it costs no more than its stack's first page.
fn end_of(process: OwnedFd) -> std::io::Result<oneshot::Receiver<()>> {
    let (tell, told) = oneshot::channel();
    let wait = move || {
        let mut set = [PollFd::new(&process, PollFlags::IN)];
        while matches!(rustix::event::poll(&mut set, None), Err(rustix::io::Errno::INTR)) {}
        let _ = tell.send(());
    };
    std::thread::Builder::new().name("container".into()).stack_size(64 << 10).spawn(wait)?;
    Ok(told)
}

/// The hook: `state` is what the engine says of the container, `socket` the daemon's admin socket.
///
/// # Errors
/// One sentence; the engine shows it, and does not start the container.
pub fn hook(state: impl Read, socket: &Path, device: Option<String>) -> Result<(), String> {
    let state: State = serde_json::from_reader(state.take(MAX_STATE)).map_err(|error| {
        format!("what the container engine says of the container is not understood: {error}")
    })?;
    if !Container::is_id(&state.id) {
        return Err(format!("the container's id is '{}'; 64 hexadecimal digits are needed", state.id));
    }
    // A container on the host's network has the host's own port, if any; another one would be everybody's.
    if same_network(state.pid) {
        return Ok(());
    }
    // A pod's other container may have it: then this one has it next.
    let listener = listener_in(state.pid).map_err(|error| {
        format!("the model runner's port cannot be opened in the network of process {}: {error}", state.pid)
    })?;
    let forward = Forward { container: state.id, pid: state.pid, device };
    let descriptors: Vec<_> = listener.iter().map(AsFd::as_fd).collect();
    let told = admin::ask_with(socket, &Question::Forward(forward), &descriptors);
    match told.map_err(|error| error.to_string())? {
        Answer::Done => Ok(()),
        Answer::Error(message) => Err(message),
        _ => Err("the daemon gave another answer than was asked for".into()),
    }
}

/// Whether a process is in this one's network.
fn same_network(pid: i32) -> bool {
    let network = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/net")).ok();
    network("self").is_some_and(|own| network(&pid.to_string()) == Some(own))
}

/// Elsewhere containers live in virtual machines, whose networks are not this system's.
#[cfg(not(target_os = "linux"))]
fn listener_in(_: i32) -> std::io::Result<Option<TcpListener>> {
    Err(std::io::ErrorKind::Unsupported.into())
}

/// A listener on the model runner's port in the network of a process; none where the port is taken there.
#[cfg(target_os = "linux")]
fn listener_in(pid: i32) -> std::io::Result<Option<TcpListener>> {
    use std::net::{Ipv4Addr, SocketAddrV4};

    use rustix::net::{AddressFamily, SocketType, sockopt};
    use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

    let network = std::fs::File::open(format!("/proc/{pid}/ns/net"))?;
    // A thread of its own: it does not come back from there.
    let enter = move || -> std::io::Result<Option<TcpListener>> {
        move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))?;
        let socket = rustix::net::socket_with(
            AddressFamily::INET,
            SocketType::STREAM,
            rustix::net::SocketFlags::CLOEXEC,
            None,
        )?;
        // The loopback device may not be up yet.
        sockopt::set_ip_freebind(&socket, true)?;
        sockopt::set_socket_reuseaddr(&socket, true)?;
        let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, pontoon_wiring::MODELS_PORT);
        match rustix::net::bind(&socket, &address) {
            Err(rustix::io::Errno::ADDRINUSE) => return Ok(None),
            other => other?,
        }
        match rustix::net::listen(&socket, 128) {
            Err(rustix::io::Errno::ADDRINUSE) => Ok(None),
            other => other.map(|()| Some(TcpListener::from(socket))).map_err(Into::into),
        }
    };
    let opened = std::thread::Builder::new().name("listener".into()).spawn(enter)?;
    opened.join().unwrap_or_else(|_| Err(std::io::Error::other("the thread ended")))
}
