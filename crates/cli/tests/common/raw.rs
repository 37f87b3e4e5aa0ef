//! A guest that says whatever it likes.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pontoon_transport::shared::{Bell, Mapping, Shared, Side, Sizes, Upload};
use pontoon_transport::{Receiver, Sender, Socket, Wake, receive_with_descriptors};
use pontoon_wire::event::Event;
use pontoon_wire::frame::{self, FrameBuffer, code};
use pontoon_wire::hello::{Hello, Refusal, SharedLayout, Welcome};
use pontoon_wire::limits::MAX_FRAME_BODY;
use pontoon_wire::{Command, PROTOCOL_VERSION, Text, WGPU_MAJOR};

use super::Daemon;

/// How a guest reaches the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    Arena,
    Unix,
    Tcp,
}

pub const WAYS: [Via; 3] = [Via::Arena, Via::Unix, Via::Tcp];

/// Longest wait for anything that a host says.
pub const PATIENCE: Duration = Duration::from_secs(15);

pub fn hello(token: &str) -> Hello {
    Hello {
        protocol: PROTOCOL_VERSION,
        wgpu: WGPU_MAJOR,
        shared_memory: false,
        token: Text::cut(token),
        program: Text::cut("raw"),
    }
}

pub fn hello_frame(hello: &Hello) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::put_encoded(&mut bytes, code::HELLO, hello);
    bytes
}

pub fn dial(daemon: &Daemon, via: Via) -> Socket {
    match via {
        Via::Tcp => {
            let socket = TcpStream::connect(daemon.tcp().expect("TCP")).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            Socket::Tcp(socket)
        }
        _ => {
            let socket = UnixStream::connect(daemon.socket()).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            Socket::Unix(socket)
        }
    }
}

/// A file on the socket, to read and write plainly.
pub fn file(socket: &Socket) -> std::fs::File {
    socket.as_fd().try_clone_to_owned().unwrap().into()
}

/// Sends `bytes` as the first words and reads the refusal.
pub fn refusal(daemon: &Daemon, via: Via, bytes: &[u8]) -> Refusal {
    let socket = dial(daemon, via);
    let _ = file(&socket).write_all(bytes);
    read_refusal(&socket).expect("a refusal")
}

/// Reads to the end; the refusal, if there was one.
pub fn read_refusal(socket: &Socket) -> Option<Refusal> {
    let mut answer = Vec::new();
    // A host that closes with unread words of ours in its buffers resets a TCP connection.
    let _ = file(socket).read_to_end(&mut answer);
    let (code, body, _) = frame::split(&answer, MAX_FRAME_BODY).unwrap()?;
    assert_eq!(code, code::REFUSAL);
    Some(pontoon_wire::decode(body).unwrap())
}

/// A guest with a session.
pub struct Raw {
    pub socket: Arc<Socket>,
    pub sender: Sender,
    pub receiver: Receiver,
    pub welcome: Welcome,
    /// The shared memory as such, to write anything anywhere.
    pub memory: Option<Mapping>,
    pub upload: Option<Upload>,
    /// What wakes the host.
    pub bell: Option<Bell>,
    frames: FrameBuffer,
}

impl Raw {
    pub fn connect(daemon: &Daemon, via: Via) -> Self {
        Self::named(daemon, via, "raw")
    }

    pub fn named(daemon: &Daemon, via: Via, program: &str) -> Self {
        let socket = dial(daemon, via);
        let token = if via == Via::Tcp { super::TOKEN } else { "" };
        let hello = Hello { shared_memory: via == Via::Arena, program: Text::cut(program), ..hello(token) };
        file(&socket).write_all(&hello_frame(&hello)).unwrap();
        let (mut bytes, mut descriptors, mut layout) = (Vec::new(), Vec::new(), None);
        let welcome: Welcome = loop {
            if let Some((code, body, taken)) = frame::split(&bytes, MAX_FRAME_BODY).unwrap() {
                match code {
                    code::SHARED => layout = Some(pontoon_wire::decode(body).unwrap()),
                    code::WELCOME => {
                        let welcome = pontoon_wire::decode(body).unwrap();
                        bytes.drain(..taken);
                        break welcome;
                    }
                    code => panic!("frame {code}: {:?}", pontoon_wire::decode::<Refusal>(body)),
                }
                bytes.drain(..taken);
                continue;
            }
            let mut chunk = [0; 4096];
            let (len, more) = receive_with_descriptors(&socket, &mut chunk).unwrap();
            assert!(len > 0, "closed before the welcome");
            bytes.extend_from_slice(&chunk[..len]);
            descriptors.extend(more);
        };
        let mut frames = FrameBuffer::default();
        frames.space().extend_from_slice(&bytes);
        Self::open(socket, welcome, layout, descriptors, frames)
    }

    fn open(
        socket: Socket,
        welcome: Welcome,
        layout: Option<SharedLayout>,
        descriptors: Vec<OwnedFd>,
        frames: FrameBuffer,
    ) -> Self {
        let socket = Arc::new(socket);
        let Some(layout) = layout else {
            let (sender, receiver) = (Sender::stream(socket.clone()), Receiver::stream(socket.clone()));
            return Self {
                socket,
                sender,
                receiver,
                welcome,
                memory: None,
                upload: None,
                bell: None,
                frames,
            };
        };
        let [memory, to_host, to_guest] = <[OwnedFd; 3]>::try_from(descriptors).expect("three descriptors");
        let sizes = Sizes {
            to_host: layout.to_host.into(),
            to_guest: layout.to_guest.into(),
            upload: layout.upload,
            download: layout.download,
        };
        let len = 4096 + sizes.to_host + sizes.to_guest + sizes.upload + sizes.download;
        let mapping = Mapping::new(memory.as_fd(), len as usize).unwrap();
        let shared = Shared::open(memory, sizes).unwrap();
        let (producer, consumer) = shared.rings(Side::Guest).unwrap();
        let bell = Bell::from(to_host.try_clone().unwrap());
        Self {
            sender: Sender::ring(socket.clone(), producer, Bell::from(to_host)),
            receiver: Receiver::ring(socket.clone(), consumer, Some(Bell::from(to_guest))),
            socket,
            welcome,
            memory: Some(mapping),
            upload: Some(shared.upload().unwrap()),
            bell: Some(bell),
            frames,
        }
    }

    /// Sends bytes; `false` where the host has gone meanwhile.
    pub fn send(&mut self, mut bytes: &[u8]) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while !bytes.is_empty() {
            assert!(Instant::now() < deadline, "the host takes nothing");
            let Ok(len) = self.sender.push(bytes) else { return false };
            bytes = &bytes[len..];
            if self.sender.wait_for_room(Duration::from_millis(1)).is_err() {
                return false;
            }
        }
        while let Ok(false) = self.sender.flush() {
            assert!(Instant::now() < deadline, "the host takes nothing");
            let _ = self.sender.wait_for_room(Duration::from_millis(1));
        }
        true
    }

    pub fn command(&mut self, command: &Command) -> bool {
        let mut bytes = Vec::new();
        frame::put_encoded(&mut bytes, code::COMMAND, command);
        self.send(&bytes)
    }

    /// The next event; nothing where the connection is over or `limit` has passed.
    pub fn event(&mut self, limit: Duration) -> Option<Event> {
        let deadline = Instant::now() + limit;
        let mut over = false;
        loop {
            while let Some((code, body)) = self.frames.next_frame().expect("frames from the host") {
                if code == code::EVENT {
                    return Some(pontoon_wire::decode(body).expect("an event"));
                }
            }
            if over || Instant::now() > deadline {
                return None;
            }
            match self.receiver.receive(self.frames.space()) {
                Ok(0) => over = self.rest(),
                Ok(_) => {}
                Err(_) => over = true,
            }
        }
    }

    /// Waits for more. Whether no more will come: then the host's words beside the ring are here.
    fn rest(&mut self) -> bool {
        let hangup =
            !matches!(self.receiver.wait(Some(Duration::from_millis(50))), Ok(Wake::Ready | Wake::TimedOut));
        if hangup {
            let _ = self.receiver.receive(self.frames.space());
            let words = self.receiver.last_words();
            self.frames.space().extend_from_slice(&words);
        }
        hangup
    }

    /// Reads until the barrier `call` is answered, or the session ends: then what the host said last.
    pub fn barrier_or_end(&mut self, call: u32) -> Option<String> {
        loop {
            match self.event(PATIENCE).expect("an answer") {
                Event::End { message } => return Some(message.into_string()),
                Event::Reply { call: answered, .. } if answered == call => return None,
                _ => {}
            }
        }
    }

    /// Reads until the session ends; what the host said last.
    pub fn end(&mut self) -> String {
        let deadline = Instant::now() + PATIENCE;
        while let Some(event) = self.event(deadline.saturating_duration_since(Instant::now())) {
            if let Event::End { message } = event {
                return message.into_string();
            }
        }
        panic!("the session did not end with a reason");
    }
}
