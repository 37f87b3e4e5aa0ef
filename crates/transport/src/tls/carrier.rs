//! Carrying bytes between TLS and a socket, in one thread.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustls::Connection;

use crate::system::GONE;

/// Plain bytes that are taken from one side before the other has got rid of them.
pub(super) const CHUNK: usize = 256 * 1024;
/// How long a side may take for what is left once the other has ended.
const GRACE: Duration = Duration::from_secs(2);

/// Carries bytes between TLS and the plain end, in one thread. Nothing in it blocks but `poll`, and once a side has
/// ended the other one has [`GRACE`] to take what is left.
pub(super) struct Carrier<'a> {
    socket: &'a TcpStream,
    plain: &'a UnixStream,
    connection: Connection,
    /// Plain bytes on their way inward, from `at` on.
    inward: Vec<u8>,
    at: usize,
    /// Whether the network's side will send no more; there may be something left to read.
    outside_gone: bool,
    /// Why the network's side has ended, once all of it is read.
    outside_ended: Option<String>,
    /// Whether the plain end is closed and read to its end.
    inside_ended: bool,
    /// Whether the plain end is closed; there may be something left to read.
    inside_gone: bool,
    /// When all ends, once one side has.
    deadline: Option<Instant>,
}

impl<'a> Carrier<'a> {
    pub(super) fn new(socket: &'a TcpStream, plain: &'a UnixStream, connection: Connection) -> Self {
        Self {
            socket,
            plain,
            connection,
            inward: Vec::new(),
            at: 0,
            outside_gone: false,
            outside_ended: None,
            inside_ended: false,
            inside_gone: false,
            deadline: None,
        }
    }

    /// Carries until one side ends; why it did.
    pub(super) fn run(mut self) -> String {
        let mut chunk = vec![0; CHUNK];
        // The first words may have come in one piece with the end of the handshake.
        if let Err(error) = self.decrypt(&mut chunk) {
            return format!("the connection broke: {error}");
        }
        loop {
            match self.step(&mut chunk) {
                Ok(None) => {}
                Ok(Some(ended)) => return ended,
                Err(error) => return format!("the connection broke: {error}"),
            }
        }
    }

    fn step(&mut self, chunk: &mut [u8]) -> std::io::Result<Option<String>> {
        let (inward, outward) = (self.at < self.inward.len(), self.connection.wants_write());
        if let Some(reason) = self.over(inward, outward) {
            return Ok(Some(reason));
        }
        let (outside, inside) = self.wait(inward, outward)?;
        if outside.contains(GONE) {
            self.outside_gone = true;
            self.ending();
        }
        if outward && outside.intersects(PollFlags::OUT | PollFlags::HUP | PollFlags::ERR) {
            would_block(self.connection.write_tls(&mut &*self.socket))?;
        }
        if !inward && self.outside_ended.is_none() && !outside.is_empty() {
            self.take_in(chunk)?;
        } else if outside.intersects(PollFlags::HUP | PollFlags::ERR) && !outward {
            // Nobody is left there to hear or to say anything.
            return Ok(Some(self.outside_ended.take().unwrap_or_else(|| "the connection broke".into())));
        }
        if self.at < self.inward.len() && !self.inside_gone {
            self.hand_in()?;
        }
        if inside.intersects(PollFlags::HUP | PollFlags::ERR) {
            self.inside_gone = true;
            self.ending();
        }
        if !outward && !self.inside_ended && !inside.is_empty() {
            let read = match would_block((&mut &*self.plain).read(chunk)) {
                // It went with something unread: nothing more will come.
                Err(error) if error.kind() == ErrorKind::ConnectionReset => Some(0),
                other => other?,
            };
            match read {
                Some(0) => {
                    self.inside_ended = true;
                    self.connection.send_close_notify();
                    self.ending();
                }
                Some(len) => self.send(&chunk[..len])?,
                None => {}
            }
        }
        Ok(None)
    }

    /// Why nothing is left to do, if nothing is.
    fn over(&self, inward: bool, outward: bool) -> Option<String> {
        let late = self.deadline.is_some_and(|deadline| Instant::now() >= deadline);
        if let Some(reason) = self.outside_ended.as_ref().filter(|_| !inward || self.inside_gone || late) {
            return Some(reason.clone());
        }
        if late && self.outside_gone {
            return Some("the other side closed the connection".into());
        }
        ((self.inside_ended && !outward) || late).then(|| "the session ended".into())
    }

    /// Waits until a side can go on; what each side says.
    fn wait(&mut self, inward: bool, outward: bool) -> std::io::Result<(PollFlags, PollFlags)> {
        let when = |wanted: bool, flag: PollFlags| if wanted { flag } else { PollFlags::empty() };
        let reading = !inward && self.outside_ended.is_none();
        let mut set = [
            PollFd::new(
                self.socket,
                when(reading, PollFlags::IN)
                    | when(outward, PollFlags::OUT)
                    // Said once: it stays true, and may have to wait until the plain end takes what is before it.
                    | when(!self.outside_gone, GONE),
            ),
            PollFd::new(self.plain, when(!outward, PollFlags::IN) | when(inward, PollFlags::OUT)),
        ];
        // A closed plain end is always ready: it is left out while it has to wait for the network.
        let watched = if (self.inside_gone && outward) || self.inside_ended { 1 } else { 2 };
        let left = self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let left =
            left.map(|left| Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() });
        match rustix::event::poll(&mut set[..watched], left.as_ref()) {
            Ok(_) => Ok((set[0].revents(), if watched == 2 { set[1].revents() } else { PollFlags::empty() })),
            Err(rustix::io::Errno::INTR) => Ok((PollFlags::empty(), PollFlags::empty())),
            Err(errno) => Err(errno.into()),
        }
    }

    fn ending(&mut self) {
        self.deadline.get_or_insert_with(|| Instant::now() + GRACE);
    }

    /// Appends what is decrypted to what goes inward; whether the other side has said goodbye.
    fn decrypt(&mut self, chunk: &mut [u8]) -> std::io::Result<bool> {
        let state = self.connection.process_new_packets().map_err(std::io::Error::other)?;
        let mut left = state.plaintext_bytes_to_read();
        while left > 0 {
            let len = self.connection.reader().read(chunk)?;
            self.inward.extend_from_slice(&chunk[..len]);
            left -= len;
        }
        Ok(state.peer_has_closed())
    }

    /// Reads what has come over TLS.
    fn take_in(&mut self, chunk: &mut [u8]) -> std::io::Result<()> {
        self.inward.clear();
        self.at = 0;
        while self.inward.len() < CHUNK {
            let read = would_block(self.connection.read_tls(&mut &*self.socket));
            let decrypted = read.and_then(|read| Ok((read, self.decrypt(chunk)?)));
            let (read, closed) = match decrypted {
                Ok(found) => found,
                // What came before the end is still handed in.
                Err(error) => {
                    self.outside_ended = Some(format!("the connection broke: {error}"));
                    self.ending();
                    break;
                }
            };
            if closed || read == Some(0) {
                let how = if closed { "" } else { ", without a word" };
                self.outside_ended = Some(format!("the other side closed the connection{how}"));
                self.ending();
                break;
            }
            if read.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn hand_in(&mut self) -> std::io::Result<()> {
        match would_block((&mut &*self.plain).write(&self.inward[self.at..])) {
            Ok(len) => self.at += len.unwrap_or(0),
            // The plain end is closed; what it said before is still to be read.
            Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
                self.inside_gone = true;
                self.ending();
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Takes at most [`CHUNK`] bytes, when nothing else is on its way out: there is room.
    fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.connection.writer().write_all(bytes)?;
        while self.connection.wants_write()
            && would_block(self.connection.write_tls(&mut &*self.socket))?.is_some()
        {}
        Ok(())
    }
}

fn would_block(result: std::io::Result<usize>) -> std::io::Result<Option<usize>> {
    match result {
        Ok(len) => Ok(Some(len)),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(None),
        Err(error) => Err(error),
    }
}
