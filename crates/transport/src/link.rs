//! The two directions of a connection: over a byte stream, or over rings in shared memory with the
//! socket kept as a sign of life.

use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use crate::shared::{Bell, Consumer, LAST_WORDS, Producer, WAKE};
use crate::{Error, system};

/// Bytes that a stream collects before it bothers the system.
const COLLECT: usize = 64 * 1024;
/// Bytes that a stream takes beyond what the system accepts.
const PENDING: usize = 1024 * 1024;
/// Largest write to a vsock.
const VSOCK_WRITE: usize = 32 * 1024;
/// Longest wait without sleeping.
const SPIN_MAX: Duration = Duration::from_micros(50);
/// Shortest wait without sleeping.
const SPIN_MIN: Duration = Duration::from_micros(2);

/// A connected socket.
#[derive(Debug)]
pub enum Socket {
    /// Unix stream socket.
    Unix(UnixStream),
    /// TCP.
    Tcp(TcpStream),
    /// The vsock of a virtual machine, or the unix socket by which a VMM offers it on the host.
    Vsock(OwnedFd),
    /// Plain bytes of a connection that somebody carries further, and why it ended once it has.
    Carried(UnixStream, Arc<OnceLock<String>>),
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(socket) => socket.as_fd(),
            Self::Tcp(socket) => socket.as_fd(),
            Self::Vsock(socket) => socket.as_fd(),
            Self::Carried(socket, _) => socket.as_fd(),
        }
    }
}

impl Socket {
    /// Bytes that may be written at once: some virtual machines' vsock loses larger writes.
    fn largest_write(&self) -> usize {
        if matches!(self, Self::Vsock(_)) { VSOCK_WRITE } else { usize::MAX }
    }

    /// Why the connection ended, where somebody carried it and knows.
    pub fn ended_because(&self) -> Option<String> {
        match self {
            Self::Carried(_, reason) => reason.get().cloned(),
            _ => None,
        }
    }

    fn closed(&self) -> Error {
        self.ended_because().map_or(Error::Closed, Error::Ended)
    }

    fn failed(&self, what: &'static str, errno: Errno) -> Error {
        match Error::io(what)(errno) {
            Error::Closed => self.closed(),
            error => error,
        }
    }

    /// Ends both directions; whoever waits on the socket wakes up.
    pub fn shut_down(&self) {
        let _ = rustix::net::shutdown(self, rustix::net::Shutdown::Both);
    }
}

#[derive(Debug)]
enum Out {
    Ring { producer: Producer, bell: Bell },
    Stream { pending: Vec<u8>, sent: usize },
}

/// The sending direction. Nothing here blocks, except [`Sender::wait_for_room`].
#[derive(Debug)]
pub struct Sender {
    socket: Arc<Socket>,
    out: Out,
}

impl Sender {
    /// Sends over the socket itself.
    pub fn stream(socket: Arc<Socket>) -> Self {
        if let Socket::Tcp(tcp) = &*socket {
            let _ = tcp.set_nodelay(true);
        }
        Self { socket, out: Out::Stream { pending: Vec::new(), sent: 0 } }
    }

    /// Sends over a ring; `bell` wakes the peer.
    pub fn ring(socket: Arc<Socket>, producer: Producer, bell: Bell) -> Self {
        Self { socket, out: Out::Ring { producer, bell } }
    }

    /// Takes as much of `bytes` as there is room for; how much that was. The peer may see it only after
    /// [`Sender::flush`].
    ///
    /// # Errors
    /// [`Error::Closed`], [`Error::Corrupt`] or [`Error::Io`]: the connection is over.
    #[inline]
    pub fn push(&mut self, bytes: &[u8]) -> Result<usize, Error> {
        if let Out::Stream { pending, sent } = &self.out
            && pending.len() - sent >= COLLECT
        {
            self.flush()?;
        }
        match &mut self.out {
            Out::Ring { producer, .. } => producer.push(bytes),
            Out::Stream { pending, sent } => {
                let room = PENDING.saturating_sub(pending.len() - *sent);
                let len = room.min(bytes.len());
                pending.extend_from_slice(&bytes[..len]);
                Ok(len)
            }
        }
    }

    /// Makes sure that the peer sees what was pushed; whether all of it is on its way.
    ///
    /// # Errors
    /// [`Error::Closed`] or [`Error::Io`]: the connection is over.
    #[inline]
    pub fn flush(&mut self) -> Result<bool, Error> {
        match &mut self.out {
            Out::Ring { producer, bell } => {
                producer.wake(bell);
                Ok(true)
            }
            Out::Stream { pending, sent } => send_pending(&self.socket, pending, sent),
        }
    }

    /// Waits until there may be room again, `limit` at most. A stream also wakes when the peer sends:
    /// it may be stuck until somebody reads.
    ///
    /// # Errors
    /// [`Error::Closed`] or [`Error::Io`]: the connection is over.
    pub fn wait_for_room(&mut self, limit: Duration) -> Result<(), Error> {
        self.wait(limit, PollFlags::OUT | PollFlags::IN)
    }

    /// As [`Sender::wait_for_room`], for a side that does not read before it has sent: the peer's bytes do
    /// not wake it.
    ///
    /// # Errors
    /// [`Error::Closed`] or [`Error::Io`]: the connection is over.
    pub fn wait_to_send(&mut self, limit: Duration) -> Result<(), Error> {
        self.wait(limit, PollFlags::OUT)
    }

    fn wait(&mut self, limit: Duration, stream: PollFlags) -> Result<(), Error> {
        let sent = self.flush()?;
        let (events, limit) = match &self.out {
            // A peer whose end is closed is gone: TCP and vsock do not call that a hang-up.
            Out::Ring { .. } => (system::GONE, limit.min(Duration::from_micros(50))),
            Out::Stream { .. } if sent => return Ok(()),
            Out::Stream { .. } => (stream, limit),
        };
        let mut set = [PollFd::new(&*self.socket, events)];
        poll(&mut set, Some(limit))?;
        let over = match &self.out {
            Out::Ring { .. } => PollFlags::HUP | PollFlags::ERR | system::GONE,
            Out::Stream { .. } => PollFlags::HUP | PollFlags::ERR,
        };
        match set[0].revents().intersects(over) {
            true => Err(self.socket.closed()),
            false => Ok(()),
        }
    }
}

fn send_pending(socket: &Socket, pending: &mut Vec<u8>, sent: &mut usize) -> Result<bool, Error> {
    while *sent < pending.len() {
        let flags = system::NO_SIGNAL | SendFlags::DONTWAIT;
        let end = pending.len().min(sent.saturating_add(socket.largest_write()));
        match rustix::net::send(socket, &pending[*sent..end], flags) {
            Ok(len) => *sent += len,
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                if *sent > COLLECT {
                    pending.drain(..*sent);
                    *sent = 0;
                }
                return Ok(false);
            }
            Err(errno) => return Err(socket.failed("sending", errno)),
        }
    }
    pending.clear();
    *sent = 0;
    Ok(true)
}

#[derive(Debug)]
enum In {
    Ring {
        consumer: Consumer,
        /// Nothing where the connection wakes.
        bell: Option<Bell>,
        aside: Aside,
    },
    Stream,
}

/// What the peer has said on a connection that also wakes.
#[derive(Debug, Default)]
struct Aside {
    /// Whether it has said anything but wakes: then it is over.
    talks: bool,
    /// Its last words.
    words: Vec<u8>,
}

impl Aside {
    /// Takes bytes in: [`WAKE`] is no word, what follows [`LAST_WORDS`] is kept.
    fn hear(&mut self, bytes: &[u8]) {
        if self.talks {
            return self.words.extend_from_slice(bytes);
        }
        if let Some(at) = bytes.iter().position(|byte| *byte != WAKE) {
            self.talks = true;
            if bytes[at] == LAST_WORDS {
                self.words.extend_from_slice(&bytes[at + 1..]);
            }
        }
    }
}

/// Why [`Receiver::wait`] came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// Bytes are here.
    Ready,
    /// Time is up.
    TimedOut,
    /// The peer's socket is closed or says something beside the ring: its last words.
    Hangup,
}

/// The receiving direction.
#[derive(Debug)]
pub struct Receiver {
    socket: Arc<Socket>,
    from: In,
    /// How long it pays to wait awake: doubles when waiting awake met the peer's bytes, halves when not.
    spin: Duration,
}

impl Receiver {
    /// Receives from the socket itself.
    pub fn stream(socket: Arc<Socket>) -> Self {
        Self { socket, from: In::Stream, spin: Duration::ZERO }
    }

    /// Receives from a ring; `bell` is what the peer rings, the connection itself where there is none.
    pub fn ring(socket: Arc<Socket>, consumer: Consumer, bell: Option<Bell>) -> Self {
        Self { socket, from: In::Ring { consumer, bell, aside: Aside::default() }, spin: SPIN_MAX }
    }

    /// Bytes of a connection that also wakes, which were received before this was made.
    pub fn overheard(&mut self, bytes: &[u8]) {
        if let In::Ring { aside, .. } = &mut self.from {
            aside.hear(bytes);
        }
    }

    /// Appends what is here to `out`; how many bytes that were. Never blocks.
    ///
    /// # Errors
    /// [`Error::Closed`], [`Error::Corrupt`] or [`Error::Io`]: the connection is over.
    #[inline]
    pub fn receive(&mut self, out: &mut Vec<u8>) -> Result<usize, Error> {
        match &mut self.from {
            In::Ring { consumer, .. } => consumer.pop(out),
            In::Stream => match receive_from(&self.socket, out) {
                Ok(0) => Err(self.socket.closed()),
                Ok(len) => Ok(len),
                Err(Errno::AGAIN) => Ok(0),
                Err(errno) => Err(self.socket.failed("receiving", errno)),
            },
        }
    }

    /// Waits until bytes are here, at first awake, then asleep.
    ///
    /// # Errors
    /// [`Error::Corrupt`] or [`Error::Io`]: the connection is over.
    pub fn wait(&mut self, timeout: Option<Duration>) -> Result<Wake, Error> {
        match &mut self.from {
            In::Ring { consumer, bell, aside } => {
                if spin(consumer, &mut self.spin, timeout)? {
                    return Ok(Wake::Ready);
                }
                consumer.set_sleeping(true);
                let woken = match consumer.available()? {
                    0 => match bell {
                        Some(bell) => sleep_on_bell(&self.socket, bell, timeout),
                        None => sleep_on_connection(&self.socket, timeout, aside),
                    },
                    _ => Ok(Wake::Ready),
                };
                consumer.set_sleeping(false);
                match (woken?, consumer.available()?) {
                    (wake, 0) => Ok(wake),
                    _ => Ok(Wake::Ready),
                }
            }
            In::Stream => {
                let mut set = [PollFd::new(&*self.socket, PollFlags::IN)];
                poll(&mut set, timeout)?;
                match set[0].revents().is_empty() {
                    true => Ok(Wake::TimedOut),
                    false => Ok(Wake::Ready),
                }
            }
        }
    }

    /// What the peer said on the socket beside the ring, up to its end. Never blocks.
    pub fn last_words(&mut self) -> Vec<u8> {
        let mut words = match &mut self.from {
            In::Ring { aside, .. } => std::mem::take(&mut aside.words),
            In::Stream => Vec::new(),
        };
        while let Ok(1..) = receive_from(&self.socket, &mut words) {}
        words
    }
}

fn receive_from(socket: &Socket, out: &mut Vec<u8>) -> Result<usize, Errno> {
    out.reserve(COLLECT);
    rustix::io::retry_on_intr(|| {
        rustix::net::recv(socket, rustix::buffer::spare_capacity(out), RecvFlags::DONTWAIT)
    })
    .map(|(len, _)| len)
}

fn spin(consumer: &Consumer, budget: &mut Duration, timeout: Option<Duration>) -> Result<bool, Error> {
    if consumer.available()? > 0 {
        return Ok(true);
    }
    let begin = Instant::now();
    let limit = timeout.map_or(*budget, |timeout| timeout.min(*budget));
    while begin.elapsed() < limit {
        for _ in 0..16 {
            std::hint::spin_loop();
        }
        if consumer.available()? > 0 {
            *budget = (*budget * 2).min(SPIN_MAX);
            return Ok(true);
        }
    }
    *budget = (*budget / 2).max(SPIN_MIN);
    Ok(false)
}

fn sleep_on_bell(socket: &Socket, bell: &Bell, timeout: Option<Duration>) -> Result<Wake, Error> {
    let mut set = [PollFd::new(bell, PollFlags::IN), PollFd::new(socket, PollFlags::IN)];
    poll(&mut set, timeout)?;
    if !set[0].revents().is_empty() {
        bell.clear();
        return Ok(Wake::Ready);
    }
    match set[1].revents().is_empty() {
        true => Ok(Wake::TimedOut),
        false => Ok(Wake::Hangup),
    }
}

/// Sleeps until the peer sends a byte.
fn sleep_on_connection(socket: &Socket, timeout: Option<Duration>, aside: &mut Aside) -> Result<Wake, Error> {
    if aside.talks {
        return Ok(Wake::Hangup);
    }
    let mut set = [PollFd::new(socket, PollFlags::IN)];
    poll(&mut set, timeout)?;
    if set[0].revents().is_empty() {
        return Ok(Wake::TimedOut);
    }
    let mut bytes = [0; 64];
    match rustix::net::recv(socket, &mut bytes, RecvFlags::DONTWAIT) {
        Err(Errno::AGAIN | Errno::INTR) => return Ok(Wake::TimedOut),
        Err(_) | Ok((0, _)) => return Ok(Wake::Hangup),
        Ok((len, _)) => aside.hear(&bytes[..len]),
    }
    Ok(if aside.talks { Wake::Hangup } else { Wake::Ready })
}

fn poll(set: &mut [PollFd<'_>], timeout: Option<Duration>) -> Result<(), Error> {
    let timeout = timeout
        .map(|timeout| Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: timeout.subsec_nanos().into() });
    match rustix::event::poll(set, timeout.as_ref()) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(errno) => Err(Error::io("waiting for the peer")(errno)),
    }
}
