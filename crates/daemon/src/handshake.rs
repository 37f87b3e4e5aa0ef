//! The first words of a caller: the only bytes of a guest that the supervisor understands.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use pontoon_callers::{Facts, Via};
use pontoon_transport::shared::LAST_WORDS;
use pontoon_wire::event::{Event, Message};
use pontoon_wire::frame::{self, Header, code};
use pontoon_wire::hello::{Hello, Refusal, RefusalKind};
use pontoon_wire::limits::{FRAME_HEADER, MAX_HELLO_BODY};
use pontoon_wire::{PROTOCOL_VERSION, Reader, Text};

use rustix::net::{RecvFlags, sockopt};

use crate::caller::Caller;
use crate::control::Line;
use crate::greetings::From;
use crate::listen::Door;
use crate::machine::MachineMemory;
use crate::peer::Peer;

/// A caller's connection.
#[derive(Debug)]
pub enum Connection {
    /// On this machine.
    Unix(UnixStream),
    /// From anywhere.
    Tcp(TcpStream),
    /// From anywhere, over TLS: the plain end of what a thread carries, and where it comes from.
    Tls(UnixStream, SocketAddr),
    /// From a virtual machine with this context id: a vsock, or the unix socket of its monitor; and the memory that
    /// the machine shares, if it does.
    Vsock(OwnedFd, u32, Option<Arc<MachineMemory>>),
}

impl Connection {
    fn set_read_timeout(&self, timeout: Duration) -> std::io::Result<()> {
        sockopt::set_socket_timeout(self, sockopt::Timeout::Recv, Some(timeout)).map_err(Into::into)
    }

    fn read(&self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let (len, _) = rustix::net::recv(self, buffer, RecvFlags::empty())?;
        Ok(len)
    }

    fn write_all(&self, bytes: &[u8]) -> std::io::Result<()> {
        sockopt::set_socket_timeout(self, sockopt::Timeout::Send, Some(Duration::from_secs(1)))?;
        pontoon_transport::send_all(self, bytes).map_err(std::io::Error::other)
    }

    /// Where it comes from, before it has said a word; none where its process has ended already.
    pub fn neighbourhood(&self) -> Option<From> {
        Some(match self {
            Self::Unix(socket) => {
                let peer = Peer::of(socket).ok()?;
                let groups = match peer.pid {
                    1.. => pontoon_callers::groups(peer.pid)?,
                    _ => String::new(),
                };
                match pontoon_callers::foreign_in(&groups) {
                    Some(container) => From::Container(container.to_owned()),
                    None => From::User(peer.uid),
                }
            }
            Self::Tcp(socket) => {
                From::machine(socket.peer_addr().map_or(Ipv4Addr::UNSPECIFIED.into(), |address| address.ip()))
            }
            Self::Tls(_, address) => From::machine(address.ip()),
            Self::Vsock(_, cid, _) => From::Vm(*cid),
        })
    }

    /// How bytes travel, for the worker.
    pub fn line(&self) -> Line {
        match self {
            Self::Unix(_) | Self::Tls(..) => Line::Unix,
            Self::Tcp(_) => Line::Tcp,
            Self::Vsock(..) => Line::Vsock,
        }
    }

    /// How it is called in `pontoon ps`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Unix(_) => "unix",
            Self::Tcp(_) => "tcp",
            Self::Tls(..) => "tls",
            Self::Vsock(..) => "vsock",
        }
    }

    /// Tells a caller in one breath why it is not even heard: where its line is full, it is hung up on.
    pub fn turn_away(&self, kind: RefusalKind, message: &str) {
        let mut frame = Vec::new();
        frame::put_encoded(&mut frame, code::REFUSAL, &Refusal { kind, message: Text::cut(message) });
        let flags = rustix::net::SendFlags::DONTWAIT | pontoon_transport::NO_SIGNAL;
        let _ = rustix::net::send(self, &frame, flags);
        let mut unread = [0; MAX_HELLO_BODY];
        let _ = rustix::net::recv(self, &mut unread, RecvFlags::DONTWAIT);
    }

    /// Tells the caller why it gets no session. Whoever does not listen is not waited for.
    pub fn refuse(&self, kind: RefusalKind, message: &str) {
        let mut frame = Vec::new();
        frame::put_encoded(&mut frame, code::REFUSAL, &Refusal { kind, message: Text::cut(message) });
        let _ = self.write_all(&frame);
        // Closing a socket with unread bytes would take the refusal back before the caller reads it.
        let mut unread = [0; MAX_HELLO_BODY];
        let _ = rustix::net::recv(self, &mut unread, RecvFlags::DONTWAIT);
    }

    /// Tells a guest why its session is over, where its worker could not. `woken` is a guest that sleeps on the
    /// connection, where such words need a sign before them.
    pub fn end(&self, message: &str, woken: bool) {
        let mut frame = if woken { vec![LAST_WORDS] } else { Vec::new() };
        frame::put_encoded(&mut frame, code::EVENT, &Event::End { message: Message::cut(message) });
        let _ = self.write_all(&frame);
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(socket) => socket.as_fd(),
            Self::Tcp(socket) => socket.as_fd(),
            Self::Tls(socket, ..) => socket.as_fd(),
            Self::Vsock(socket, ..) => socket.as_fd(),
        }
    }
}

/// Why a caller gets no session, or nothing where it does not even deserve an answer.
pub type Refused = Option<(RefusalKind, String)>;

/// Hears a caller out, within the door's patience. `device` is the policy whose own socket it came by.
///
/// # Errors
/// What to refuse it with.
pub fn greet(connection: &Connection, device: Option<&str>, door: &Door) -> Result<(Hello, Caller), Refused> {
    let deadline = Instant::now() + door.patience;
    let malformed = |what: String| {
        Some((
            RefusalKind::Malformed,
            format!("this is a Pontoon host, and the first words were no Hello: {what}"),
        ))
    };
    let mut header = [0; FRAME_HEADER];
    read_exact(connection, &mut header, deadline)?;
    let header = Header::decode(header, MAX_HELLO_BODY).map_err(|error| malformed(error.to_string()))?;
    if header.code != code::HELLO {
        return Err(malformed(format!("frame code {}", header.code)));
    }
    let mut body = vec![0; header.body];
    read_exact(connection, &mut body, deadline)?;
    let hello: Hello = match pontoon_wire::decode(&body) {
        Ok(hello) => hello,
        Err(error) => return Err(other_version(&body).or(malformed(error.to_string()))),
    };
    if let Some(message) = hello.mismatch() {
        return Err(Some((RefusalKind::Version, message)));
    }
    let caller = match connection {
        Connection::Unix(socket) => Caller::of_unix(socket, device, &door.directory),
        Connection::Vsock(_, cid, _) => {
            Caller::of(Facts { via: Via::Vsock(*cid), ..Facts::default() }, &door.directory)
        }
        Connection::Tcp(socket) => {
            let Ok(address) = socket.peer_addr() else { return Err(None) };
            Caller::of(by_token(address, &hello, door)?, &door.directory)
        }
        Connection::Tls(_, address) => Caller::of(by_token(*address, &hello, door)?, &door.directory),
    };
    Ok((hello, caller.map_err(Some)?))
}

/// A `Hello` of another protocol version may have other fields, but begins with its version.
fn other_version(body: &[u8]) -> Refused {
    let protocol = pontoon_wire_version(body)?;
    let message = format!(
        "the guest speaks protocol {protocol}, this host {PROTOCOL_VERSION}: use the same Pontoon release on both sides"
    );
    (protocol != PROTOCOL_VERSION).then_some((RefusalKind::Version, message))
}

/// The leading postcard varint of a `Hello`: its protocol version.
fn pontoon_wire_version(body: &[u8]) -> Option<u32> {
    let mut reader = Reader::new(body);
    let mut value = 0u32;
    for shift in (0..35).step_by(7) {
        let byte = reader.u8().ok()?;
        value |= u32::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn by_token(address: SocketAddr, hello: &Hello, door: &Door) -> Result<Facts, Refused> {
    let unauthorized = |message: &str| Err(Some((RefusalKind::Unauthorized, message.to_owned())));
    if hello.token.is_empty() {
        return unauthorized(
            "a token is needed over TCP: set PONTOON_TOKEN to one from the host's configuration, or PONTOON_HOST to what `pontoon token create` printed there",
        );
    }
    // Every token is compared, each in a time that does not depend on where it differs.
    let configured = door.tokens.iter().fold(None, |found, token| {
        if same(token.token.as_bytes(), hello.token.as_bytes()) { Some(token.tenant.clone()) } else { found }
    });
    let issued = door.issued.tenant_of(&hello.token, SystemTime::now());
    match (configured, issued) {
        (Some(tenant), _) | (None, Ok(Some(tenant))) => {
            Ok(Facts { via: Via::Tcp(address), token: Some(tenant), ..Facts::default() })
        }
        (None, Err(message)) => unauthorized(&message),
        (None, Ok(None)) => unauthorized(
            "the token is not one of this host's, or was taken back: check PONTOON_TOKEN, or the text from `pontoon token create`, against it",
        ),
    }
}

fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

fn read_exact(connection: &Connection, mut buffer: &mut [u8], deadline: Instant) -> Result<(), Refused> {
    while !buffer.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || connection.set_read_timeout(left).is_err() {
            return Err(Some((RefusalKind::Malformed, "the Hello did not come in time".into())));
        }
        match connection.read(buffer) {
            Ok(0) => return Err(None),
            Ok(len) => buffer = &mut buffer[len..],
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return Err(Some((RefusalKind::Malformed, "the Hello did not come in time".into()))),
        }
    }
    Ok(())
}
