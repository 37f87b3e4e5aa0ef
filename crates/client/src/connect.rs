//! From an address to an open session.

use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use pontoon_transport::{Endpoint, Receiver, Sender, Socket, Ticket, receive_with_descriptors};
use pontoon_wire::event::Event;
use pontoon_wire::frame::{self, code};
use pontoon_wire::hello::{Hello, Refusal, SharedLayout, Welcome};
use pontoon_wire::limits::MAX_FRAME_BODY;
use pontoon_wire::{PROTOCOL_VERSION, Text, WGPU_MAJOR};

use crate::{Error, Options};

/// How long a host may take to answer. Starting a worker with a cold driver takes seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// Kind of the error where somebody answers and the connection would not be secure.
const INSECURE: std::io::ErrorKind = std::io::ErrorKind::InvalidData;

/// An open connection, before anything was sent on it.
pub(crate) struct Connection {
    /// Whether data is compressed.
    pub compress: bool,
    pub welcome: Welcome,
    pub sender: Sender,
    pub receiver: Receiver,
    pub socket: Arc<Socket>,
    /// Bytes that came behind the welcome.
    pub early: Vec<u8>,
    pub shared: Option<pontoon_transport::shared::Shared>,
}

pub(crate) fn connect(options: &Options) -> Result<Connection, Error> {
    let shared_memory = options.shared_memory && may_share(&options.endpoint);
    match attempt(options, shared_memory) {
        // The host shares memory with this machine that is not to be found here.
        Err(Error::Broken { message, .. }) if message.contains(ELSEWHERE) => attempt(options, false),
        other => other,
    }
}

/// Said where the host's memory is none of this machine's devices.
const ELSEWHERE: &str = "the memory that the host shares is none of this machine's devices";

/// Whether memory could be shared with a host at this address.
fn may_share(endpoint: &Endpoint) -> bool {
    match endpoint {
        Endpoint::Unix(_) => cfg!(target_os = "linux"),
        Endpoint::Vsock { .. } | Endpoint::Tcp(_) => crate::ivshmem::is_there(),
        _ => false,
    }
}

fn attempt(options: &Options, shared_memory: bool) -> Result<Connection, Error> {
    let endpoint = || options.endpoint.clone();
    let broken = |message: String| Error::Broken { endpoint: endpoint(), message };
    let socket = dial(&options.endpoint).map_err(|source| match source.kind() {
        INSECURE => Error::Insecure { endpoint: endpoint(), message: source.to_string() },
        _ => Error::Unreachable { endpoint: endpoint(), source },
    })?;
    let hello = Hello {
        protocol: PROTOCOL_VERSION,
        wgpu: WGPU_MAJOR,
        shared_memory,
        token: Text::cut(match &options.endpoint {
            Endpoint::Tls(ticket) => ticket.secret.as_str(),
            _ => options.token.as_str(),
        }),
        program: Text::cut(options.program.as_str()),
    };
    let mut greeting = Vec::new();
    frame::put_encoded(&mut greeting, code::HELLO, &hello);
    // A host that refuses before it hears us out has answered all the same.
    let _ = pontoon_transport::send_all(&socket, &greeting);
    let mut answers = Answers::default();
    let (mut code, mut body) = answers.next(&socket).map_err(broken)?;
    let mut layout = None;
    if code == code::SHARED {
        layout = Some(pontoon_wire::decode(&body).map_err(|error| broken(error.to_string()))?);
        (code, body) = answers.next(&socket).map_err(broken)?;
    }
    match code {
        code::WELCOME => {
            let welcome = pontoon_wire::decode(&body).map_err(|error| broken(error.to_string()))?;
            open(socket, welcome, layout, answers, options.compress)
                .map_err(|error| broken(error.to_string()))
        }
        code::REFUSAL => {
            let refusal: Refusal = pontoon_wire::decode(&body).map_err(|error| broken(error.to_string()))?;
            let message = refusal.message.into_string();
            Err(Error::Refused { endpoint: endpoint(), kind: refusal.kind, message })
        }
        code::EVENT => match pontoon_wire::decode(&body) {
            Ok(Event::End { message }) => Err(broken(message.into_string())),
            _ => Err(broken("it began in the middle".into())),
        },
        code => Err(broken(format!("its first words have code {code}; is it a Pontoon host?"))),
    }
}

fn dial(endpoint: &Endpoint) -> std::io::Result<Socket> {
    match endpoint {
        Endpoint::Vsock { cid, port } => {
            let socket = vsock::VsockStream::connect_with_cid_port(*cid, *port)?;
            socket.set_read_timeout(Some(PATIENCE))?;
            Ok(Socket::Vsock(socket.as_fd().try_clone_to_owned()?))
        }
        Endpoint::Tls(ticket) => secure(ticket),
        Endpoint::Unix(path) => {
            let socket = UnixStream::connect(path)?;
            socket.set_read_timeout(Some(PATIENCE))?;
            Ok(Socket::Unix(socket))
        }
        Endpoint::Tcp(address) => {
            let socket = tcp(address)?;
            socket.set_read_timeout(Some(PATIENCE))?;
            Ok(Socket::Tcp(socket))
        }
    }
}

fn tcp(address: &str) -> std::io::Result<TcpStream> {
    let mut last = std::io::Error::other("the name has no address");
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, Duration::from_secs(10)) {
            Ok(socket) => {
                socket.set_nodelay(true)?;
                // A host that vanished without a word is noticed.
                let _ = rustix::net::sockopt::set_socket_keepalive(&socket, true);
                let _ = rustix::net::sockopt::set_tcp_keepidle(&socket, Duration::from_secs(30));
                return Ok(socket);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

#[cfg(feature = "tls")]
fn secure(ticket: &Ticket) -> std::io::Result<Socket> {
    let socket =
        pontoon_transport::tls::connect(tcp(&ticket.address)?, ticket.fingerprint, Duration::from_secs(10))
            .map_err(|error| match error {
            pontoon_transport::tls::TlsError::Io(error) => error,
            error => std::io::Error::new(INSECURE, error),
        })?;
    if let Socket::Carried(plain, _) = &socket {
        plain.set_read_timeout(Some(PATIENCE))?;
    }
    Ok(socket)
}

#[cfg(not(feature = "tls"))]
fn secure(_: &Ticket) -> std::io::Result<Socket> {
    let message = "this program was built without TLS: pontoon-client's feature `tls` brings it";
    Err(std::io::Error::new(INSECURE, message))
}

/// What the host has sent so far.
#[derive(Default)]
struct Answers {
    bytes: Vec<u8>,
    descriptors: Vec<OwnedFd>,
}

impl Answers {
    /// The next frame.
    fn next(&mut self, socket: &Socket) -> Result<(u8, Vec<u8>), String> {
        loop {
            let frame = frame::split(&self.bytes, MAX_FRAME_BODY).map_err(|error| error.to_string())?;
            if let Some((code, body, taken)) = frame {
                let body = body.to_vec();
                self.bytes.drain(..taken);
                return Ok((code, body));
            }
            let mut chunk = [0; 16 * 1024];
            let (len, more) =
                receive_with_descriptors(socket, &mut chunk).map_err(|error| error.to_string())?;
            if len == 0 {
                return Err("it closed the connection before it answered".into());
            }
            self.bytes.extend_from_slice(&chunk[..len]);
            self.descriptors.extend(more);
        }
    }
}

fn open(
    socket: Socket,
    welcome: Welcome,
    layout: Option<SharedLayout>,
    answers: Answers,
    compress: bool,
) -> Result<Connection, pontoon_transport::Error> {
    use pontoon_transport::shared::{Bell, Shared, Side, Sizes};
    let socket = Arc::new(socket);
    let Answers { bytes: early, descriptors } = answers;
    let Some(layout) = layout else {
        let (sender, receiver) = (Sender::stream(socket.clone()), Receiver::stream(socket.clone()));
        return Ok(Connection { compress, welcome, sender, receiver, socket, early, shared: None });
    };
    let sizes = Sizes {
        to_host: layout.to_host.into(),
        to_guest: layout.to_guest.into(),
        upload: layout.upload,
        download: layout.download,
    };
    if let Some(place) = layout.place {
        let here = crate::ivshmem::devices().into_iter().find_map(|device| {
            let shared = Shared::within(device, place.offset, sizes).ok()?;
            (shared.mark() == place.mark).then_some(shared)
        });
        let shared = here.ok_or(pontoon_transport::Error::Corrupt(ELSEWHERE))?;
        let (producer, consumer) = shared.rings(Side::Guest)?;
        let sender = Sender::ring(socket.clone(), producer, Bell::Connection(socket.clone()));
        let mut receiver = Receiver::ring(socket.clone(), consumer, None);
        // Frames travel in the ring by now: what came on the connection is beside it.
        receiver.overheard(&early);
        return Ok(Connection {
            compress,
            welcome,
            sender,
            receiver,
            socket,
            early: Vec::new(),
            shared: Some(shared),
        });
    }
    let Ok([memory, to_host, to_guest]) = <[OwnedFd; 3]>::try_from(descriptors) else {
        return Err(pontoon_transport::Error::Corrupt("descriptors are missing"));
    };
    let shared = Shared::open(memory, sizes)?;
    let (producer, consumer) = shared.rings(Side::Guest)?;
    let sender = Sender::ring(socket.clone(), producer, Bell::from(to_host));
    let receiver = Receiver::ring(socket.clone(), consumer, Some(Bell::from(to_guest)));
    Ok(Connection { compress, welcome, sender, receiver, socket, early, shared: Some(shared) })
}
