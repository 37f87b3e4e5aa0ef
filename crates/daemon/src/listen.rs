//! The guests' listeners.

use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pontoon_callers::Directory;
use pontoon_transport::tls::Identity;
use pontoon_wire::hello::RefusalKind;
use rustix::event::{PollFd, PollFlags};

use vsock::VsockListener;

use crate::Error;
use crate::config::Token;
use crate::greetings::{From, Greetings, Place};
use crate::handshake::{Connection, greet};
use crate::machine::MachineMemory;
use crate::session::Registry;
use crate::tokens::Tokens;

/// What every caller meets.
#[derive(Debug)]
pub struct Door {
    /// The sessions.
    pub registry: Arc<Registry>,
    /// Who callers are, and what they get.
    pub directory: Arc<Directory>,
    /// Tokens for TCP.
    pub tokens: Vec<Token>,
    /// Tokens that the operator has given out.
    pub issued: Tokens,
    /// How long a caller may take to say who it is.
    pub patience: Duration,
    /// Callers that have not said so yet.
    pub greetings: Greetings,
}

impl Door {
    /// Serves one connection in a thread of its own, if there is a place for it.
    fn open(self: &Arc<Self>, connection: Connection, device: Option<Arc<str>>) {
        let Some(from) = connection.neighbourhood() else {
            let message = "the process that opened this connection has ended";
            return connection.turn_away(RefusalKind::Unauthorized, message);
        };
        match self.greetings.enter(from) {
            Some(place) => self.greet(place, move || Some(connection), device),
            None => {
                connection.turn_away(RefusalKind::Busy, "too many callers are connecting at once: try again");
            }
        }
    }

    /// Serves one connection, once there is one, in a thread of its own.
    fn greet(
        self: &Arc<Self>,
        place: Place,
        connection: impl FnOnce() -> Option<Connection> + Send + 'static,
        device: Option<Arc<str>>,
    ) {
        let door = self.clone();
        let guide = std::thread::Builder::new().name("session".into());
        let spawned = guide.spawn(move || {
            let Some(connection) = connection() else { return };
            let greeted = greet(&connection, device.as_deref(), &door);
            match greeted {
                Ok((hello, caller)) => {
                    drop(place);
                    door.registry.serve(&connection, &hello, &caller);
                }
                Err(Some((kind, message))) => {
                    log::info!("a caller was refused: {message}");
                    connection.refuse(kind, &message);
                }
                Err(None) => {}
            }
        });
        if let Err(error) = spawned {
            log::warn!("a caller was hung up on: no thread for it: {error}");
        }
    }

    /// Accepts on a unix socket until the process ends; `device` is the policy whose own it is.
    pub fn unix(self: &Arc<Self>, listener: &UnixListener, device: Option<Arc<str>>) {
        loop {
            match listener.accept() {
                Ok((socket, _)) => self.open(Connection::Unix(socket), device.clone()),
                Err(error) => pause(&error),
            }
        }
    }

    /// Accepts on TCP until the process ends.
    pub fn tcp(self: &Arc<Self>, listener: &TcpListener) {
        loop {
            match listener.accept() {
                Ok((socket, _)) => {
                    keep_alive(&socket);
                    self.open(Connection::Tcp(socket), None);
                }
                Err(error) => pause(&error),
            }
        }
    }

    /// Accepts on TCP with TLS until the process ends.
    pub fn tls(self: &Arc<Self>, listener: &TcpListener, identity: &Identity) {
        loop {
            match listener.accept() {
                Ok((socket, from)) => {
                    keep_alive(&socket);
                    // Who finds no place is hung up on: a refusal could only be said after a handshake.
                    let Some(place) = self.greetings.enter(From::machine(from.ip())) else { continue };
                    let (identity, patience) = (identity.clone(), self.patience);
                    let shake = move || match identity.accept(socket, patience) {
                        Ok(carried) => {
                            let plain = carried.as_fd().try_clone_to_owned().ok()?;
                            Some(Connection::Tls(plain.into(), from))
                        }
                        Err(error) => {
                            log::info!("no TLS with {from}: {error}");
                            None
                        }
                    };
                    self.greet(place, shake, None);
                }
                Err(error) => pause(&error),
            }
        }
    }

    /// Accepts on the host's vsock until the process ends.
    pub fn vsock(self: &Arc<Self>, listener: &VsockListener) {
        loop {
            match listener
                .accept()
                .and_then(|(socket, from)| Ok((socket.as_fd().try_clone_to_owned()?, from)))
            {
                // 0 to 2 are the hypervisor, this host itself and its host: no virtual machine of ours.
                Ok((_, from)) if from.cid() < 3 => {
                    log::info!(
                        "a caller on the vsock with context id {} was hung up on: it is no guest",
                        from.cid()
                    );
                }
                Ok((socket, from)) => self.open(Connection::Vsock(socket, from.cid(), None), None),
                Err(error) => pause(&error),
            }
        }
    }

    /// Accepts on a unix socket of the virtual machine `cid` until the process of its monitor ends. `memory` is what
    /// the machine shares.
    ///
    /// # Errors
    /// A sentence, where no thread can be started.
    pub fn machine(
        self: &Arc<Self>,
        listener: UnixListener,
        cid: u32,
        monitor: OwnedFd,
        memory: Option<Arc<MachineMemory>>,
    ) -> Result<(), String> {
        let door = self.clone();
        let accept = move || {
            loop {
                let mut set = [PollFd::new(&listener, PollFlags::IN), PollFd::new(&monitor, PollFlags::IN)];
                if matches!(rustix::event::poll(&mut set, None), Err(rustix::io::Errno::INTR)) {
                    continue;
                }
                if !set[1].revents().is_empty() {
                    return;
                }
                match listener.accept() {
                    Ok((socket, _)) => door.open(Connection::Vsock(socket.into(), cid, memory.clone()), None),
                    Err(error) => pause(&error),
                }
            }
        };
        let spawned = std::thread::Builder::new().name("machine".into()).spawn(accept);
        spawned.map(drop).map_err(|error| format!("no thread for the machine: {error}"))
    }

    /// Accepts on the unix socket of a virtual machine's monitor until the process ends. `memory` is the file of what
    /// the machine shares, which the monitor may make later, and anew for each machine.
    pub fn monitor(self: &Arc<Self>, listener: &UnixListener, cid: u32, memory: Option<&Path>) {
        let mut known: Option<Arc<MachineMemory>> = None;
        loop {
            match listener.accept() {
                Ok((socket, _)) => {
                    let opened = memory.map(|path| MachineMemory::open(path, known.as_ref())).transpose();
                    known = opened.unwrap_or_else(|message| {
                        log::warn!("{message}");
                        None
                    });
                    self.open(Connection::Vsock(socket.into(), cid, known.clone()), None);
                }
                Err(error) => pause(&error),
            }
        }
    }
}

/// A peer that vanished without a word is noticed, and its session ended.
fn keep_alive(socket: &TcpStream) {
    let _ = socket.set_nodelay(true);
    let _ = rustix::net::sockopt::set_socket_keepalive(socket, true);
    let _ = rustix::net::sockopt::set_tcp_keepidle(socket, Duration::from_secs(30));
    #[cfg(target_os = "linux")]
    let _ = rustix::net::sockopt::set_tcp_user_timeout(socket, 60_000);
}

/// Accepting fails when descriptors run out; that passes.
fn pause(error: &std::io::Error) {
    log::warn!("accepting a connection: {error}");
    std::thread::sleep(Duration::from_millis(50));
}

/// Opens the guests' unix socket. Its folder holds nothing else and can be mounted into containers;
/// anybody who can reach the folder may connect.
///
/// # Errors
/// [`Error::Running`] where another daemon answers there, [`Error::Listen`] where the system refuses.
pub fn unix(path: &Path) -> Result<UnixListener, Error> {
    let failed = |source| Error::Listen { what: path.display().to_string(), source };
    if UnixStream::connect(path).is_ok() {
        return Err(Error::Running(path.display().to_string()));
    }
    if let Some(folder) = path.parent() {
        make_folder(folder).map_err(failed)?;
    }
    let _ = std::fs::remove_file(path);
    let listener = UnixListener::bind(path).map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666)).map_err(failed)?;
    Ok(listener)
}

/// Creates the guests' folder, open to read, in a private one: on the host only this user reaches it; a
/// container sees what is mounted.
fn make_folder(folder: &Path) -> std::io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    if let Some(parent) = folder.parent().filter(|parent| !parent.is_dir()) {
        std::fs::create_dir_all(parent)?;
        std::fs::set_permissions(parent, std::fs::Permissions::from_mode(0o700))?;
    }
    std::fs::create_dir(folder)?;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755))
}
