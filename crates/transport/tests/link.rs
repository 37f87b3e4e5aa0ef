//! Links over real sockets: slow peers, full buffers, half-closed connections.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pontoon_transport::{Error, Receiver, Sender, Socket, Wake};

fn unix() -> (Socket, Socket) {
    let (a, b) = UnixStream::pair().unwrap();
    (Socket::Unix(a), Socket::Unix(b))
}

fn tcp() -> (Socket, Socket) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let a = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (Socket::Tcp(a), Socket::Tcp(listener.accept().unwrap().0))
}

const PAIRS: [fn() -> (Socket, Socket); 2] = [unix, tcp];

fn link(socket: Socket) -> (Sender, Receiver) {
    let socket = Arc::new(socket);
    (Sender::stream(socket.clone()), Receiver::stream(socket))
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len as u32).map(|at| (at ^ (at >> 7)) as u8).collect()
}

/// Sends all of `bytes` while taking in what the peer sends, as a guest does.
fn exchange(sender: &mut Sender, receiver: &mut Receiver, bytes: &[u8], expected: usize) -> Vec<u8> {
    let deadline = Instant::now() + Duration::from_secs(15);
    let (mut rest, mut flushed, mut taken) = (bytes, false, Vec::new());
    while !rest.is_empty() || !flushed || taken.len() < expected {
        assert!(Instant::now() < deadline, "stuck with {} to send and {} taken", rest.len(), taken.len());
        if !rest.is_empty() || !flushed {
            rest = &rest[sender.push(rest).unwrap()..];
            flushed = sender.flush().unwrap() && rest.is_empty();
            if !flushed {
                sender.wait_for_room(Duration::from_millis(50)).unwrap();
            }
        } else {
            receiver.wait(Some(Duration::from_millis(50))).unwrap();
        }
        // (A peer that has everything may be gone already.)
        if taken.len() < expected {
            receiver.receive(&mut taken).unwrap();
        }
    }
    taken
}

/// Both sides send much more than sockets hold before either has read: nobody waits for ever.
#[test]
fn both_directions_at_once_without_deadlock() {
    const LEN: usize = 12_000_000;
    for pair in PAIRS {
        let (a, b) = pair();
        let other = std::thread::spawn(move || {
            let (mut sender, mut receiver) = link(b);
            exchange(&mut sender, &mut receiver, &pattern(LEN), LEN)
        });
        let (mut sender, mut receiver) = link(a);
        assert!(exchange(&mut sender, &mut receiver, &pattern(LEN), LEN) == pattern(LEN));
        assert!(other.join().unwrap() == pattern(LEN));
    }
}

#[test]
fn a_slow_reader_gets_every_byte_and_the_sender_takes_no_more_than_its_room() {
    for pair in PAIRS {
        let (a, b) = pair();
        let (mut sender, _receiver) = link(a);
        let bytes = pattern(8_000_000);
        let mut pushed = 0;
        for _ in 0..200 {
            pushed += sender.push(&bytes[pushed..]).unwrap();
        }
        assert!(pushed < bytes.len(), "a sender took {pushed} bytes that nobody reads");
        assert!(!sender.flush().unwrap());
        let begin = Instant::now();
        sender.wait_for_room(Duration::from_millis(20)).unwrap();
        assert!(begin.elapsed() < Duration::from_secs(5));
        let reader = std::thread::spawn(move || {
            let (mut read, mut chunk) = (Vec::new(), [0; 777]);
            let mut file = std::fs::File::from(b.as_fd().try_clone_to_owned().unwrap());
            while read.len() < 8_000_000 {
                let len = file.read(&mut chunk).unwrap();
                assert!(len > 0, "closed after {}", read.len());
                read.extend_from_slice(&chunk[..len]);
            }
            read
        });
        while pushed < bytes.len() {
            pushed += sender.push(&bytes[pushed..]).unwrap();
            sender.wait_for_room(Duration::from_millis(5)).unwrap();
        }
        while !sender.flush().unwrap() {
            sender.wait_for_room(Duration::from_millis(5)).unwrap();
        }
        assert!(reader.join().unwrap() == bytes);
    }
}

fn half_close(socket: &Socket) {
    rustix::net::shutdown(socket, rustix::net::Shutdown::Write).unwrap();
}

#[test]
fn a_half_closed_peer_is_read_to_its_end_and_can_still_be_told() {
    for pair in PAIRS {
        let (a, b) = pair();
        let mut peer = std::fs::File::from(b.as_fd().try_clone_to_owned().unwrap());
        peer.write_all(b"last").unwrap();
        half_close(&b);
        let (mut sender, mut receiver) = link(a);
        assert_eq!(receiver.wait(Some(Duration::from_secs(5))).unwrap(), Wake::Ready);
        let mut out = Vec::new();
        while !matches!(receiver.receive(&mut out), Err(Error::Closed)) {
            receiver.wait(Some(Duration::from_secs(5))).unwrap();
        }
        assert_eq!(out, b"last");
        sender.push(b"why").unwrap();
        assert!(sender.flush().unwrap());
        let mut answer = [0; 3];
        peer.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"why");
    }
}

#[test]
fn a_closed_peer_is_noticed_by_both_directions() {
    for pair in PAIRS {
        let (a, b) = pair();
        let (mut sender, mut receiver) = link(a);
        drop(b);
        receiver.wait(Some(Duration::from_secs(5))).unwrap();
        assert!(matches!(receiver.receive(&mut Vec::new()), Err(Error::Closed)));
        let begin = Instant::now();
        let error = loop {
            assert!(begin.elapsed() < Duration::from_secs(5), "never noticed");
            if let Err(error) = sender.push(&[0; 100_000]).and_then(|_| sender.flush()) {
                break error;
            }
        };
        assert!(matches!(error, Error::Closed), "{error}");
    }
}

#[test]
fn waiting_ends_in_time_and_when_the_socket_is_shut_down() {
    for pair in PAIRS {
        let (a, _b) = pair();
        let a = Arc::new(a);
        let mut receiver = Receiver::stream(a.clone());
        let begin = Instant::now();
        assert_eq!(receiver.wait(Some(Duration::from_millis(30))).unwrap(), Wake::TimedOut);
        assert!((30..3000).contains(&begin.elapsed().as_millis()));
        let waiter = std::thread::spawn(move || receiver.wait(Some(Duration::from_secs(10))).unwrap());
        std::thread::sleep(Duration::from_millis(20));
        a.shut_down();
        assert_eq!(waiter.join().unwrap(), Wake::Ready);
        assert!(begin.elapsed() < Duration::from_secs(8));
    }
}

#[test]
fn descriptors_travel_beside_the_first_byte() {
    let (a, b) = UnixStream::pair().unwrap();
    let null = std::fs::File::open("/dev/null").unwrap();
    let three: [BorrowedFd<'_>; 3] = [null.as_fd(); 3];
    pontoon_transport::send_with_descriptors(&a, b"hello", &three).unwrap();
    let mut first = [0; 2];
    let (len, descriptors) = pontoon_transport::receive_with_descriptors(&b, &mut first).unwrap();
    assert_eq!((len, descriptors.len()), (2, 3));
    let (len, descriptors) = pontoon_transport::receive_with_descriptors(&b, &mut [0; 8]).unwrap();
    assert_eq!((len, descriptors.len()), (3, 0));
    drop::<Vec<OwnedFd>>(descriptors);
    drop(a);
    assert_eq!(pontoon_transport::receive_with_descriptors(&b, &mut [0; 8]).unwrap().0, 0);
}

#[cfg(target_os = "linux")]
mod rings {
    use super::*;
    use pontoon_transport::shared::{Bell, LAST_WORDS, Shared, Side, Sizes};

    const SIZES: Sizes = Sizes { to_host: 4096, to_guest: 4096, upload: 4096, download: 4096 };

    fn bell() -> (Bell, Bell) {
        let bell = Bell::new().unwrap();
        let other = Bell::from(bell.as_fd().try_clone_to_owned().unwrap());
        (bell, other)
    }

    fn links() -> ((Sender, Receiver), (Sender, Receiver)) {
        let (a, b) = unix();
        let (a, b) = (Arc::new(a), Arc::new(b));
        let (host, fd) = Shared::create(SIZES).unwrap();
        let guest = Shared::open(fd, SIZES).unwrap();
        let ((to_guest, from_guest), (to_host, from_host)) =
            (host.rings(Side::Host).unwrap(), guest.rings(Side::Guest).unwrap());
        let (ring_host, hear_host) = bell();
        let (ring_guest, hear_guest) = bell();
        (
            (Sender::ring(a.clone(), to_guest, ring_guest), Receiver::ring(a, from_guest, Some(hear_host))),
            (Sender::ring(b.clone(), to_host, ring_host), Receiver::ring(b, from_host, Some(hear_guest))),
        )
    }

    /// Megabytes through rings of one page in both directions, with sleeping and waking on the way.
    #[test]
    fn both_directions_at_once() {
        const LEN: usize = 3_000_000;
        let ((mut sender, mut receiver), (mut other_sender, mut other_receiver)) = links();
        let other =
            std::thread::spawn(move || exchange(&mut other_sender, &mut other_receiver, &pattern(LEN), LEN));
        assert!(exchange(&mut sender, &mut receiver, &pattern(LEN), LEN) == pattern(LEN));
        assert!(other.join().unwrap() == pattern(LEN));
    }

    /// One byte at a time, each side asleep when it comes: no wake-up is lost.
    #[test]
    fn no_wake_up_is_lost() {
        let ((mut sender, mut receiver), (mut other_sender, mut other_receiver)) = links();
        let echo = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            while bytes.len() < 2000 {
                let before = bytes.len();
                assert_eq!(other_receiver.wait(Some(Duration::from_secs(5))).unwrap(), Wake::Ready);
                other_receiver.receive(&mut bytes).unwrap();
                other_sender.push(&bytes[before..]).unwrap();
                other_sender.flush().unwrap();
            }
        });
        let mut bytes = Vec::new();
        for number in 0..2000u32 {
            if number % 50 == 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
            sender.push(&[number as u8]).unwrap();
            sender.flush().unwrap();
            let len = bytes.len();
            while bytes.len() == len {
                assert_eq!(receiver.wait(Some(Duration::from_secs(5))).unwrap(), Wake::Ready);
                receiver.receive(&mut bytes).unwrap();
            }
        }
        echo.join().unwrap();
    }

    #[test]
    fn a_closed_socket_ends_waits_on_a_ring() {
        let ((mut sender, mut receiver), other) = links();
        let waiter = std::thread::spawn(move || receiver.wait(Some(Duration::from_secs(10))).unwrap());
        std::thread::sleep(Duration::from_millis(20));
        drop(other);
        assert_eq!(waiter.join().unwrap(), Wake::Hangup);
        assert_eq!(sender.push(&[0; 5000]).unwrap(), 4096);
        assert!(matches!(sender.wait_for_room(Duration::from_secs(1)), Err(Error::Closed)));
    }

    /// As between a virtual machine and its host: no descriptors, parts of one memory, wakes on the connection.
    #[test]
    fn a_connection_wakes_where_there_is_no_bell() {
        let (a, b) = unix();
        let (a, b) = (Arc::new(a), Arc::new(b));
        let sizes = Sizes { to_host: 8192, ..SIZES };
        let (whole, memory) = Shared::create(Sizes { upload: 1 << 20, ..sizes }).unwrap();
        drop(whole);
        let part = |offset| Shared::within(&memory, offset, sizes);
        assert!(matches!(part(1 << 20), Err(Error::Corrupt(_))), "beyond the end");
        assert!(matches!(part(4095), Err(Error::Corrupt(_))), "no page begins there");
        let (host, guest) = (part(8192).unwrap(), part(8192).unwrap());
        let (to_guest, from_guest) = host.rings(Side::Host).unwrap();
        let (to_host, from_host) = guest.rings(Side::Guest).unwrap();
        let mut host = (
            Sender::ring(a.clone(), to_guest, Bell::Connection(a.clone())),
            Receiver::ring(a.clone(), from_guest, None),
        );
        let mut guest = (
            Sender::ring(b.clone(), to_host, Bell::Connection(b.clone())),
            Receiver::ring(b.clone(), from_host, None),
        );
        let echo = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            while bytes.len() < 500 {
                let before = bytes.len();
                assert_eq!(host.1.wait(Some(Duration::from_secs(5))).unwrap(), Wake::Ready);
                host.1.receive(&mut bytes).unwrap();
                host.0.push(&bytes[before..]).unwrap();
                host.0.flush().unwrap();
            }
        });
        let mut bytes = Vec::new();
        for number in 0..500u32 {
            if number % 10 == 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
            guest.0.push(&[number as u8]).unwrap();
            guest.0.flush().unwrap();
            while bytes.len() == number as usize {
                assert_ne!(guest.1.wait(Some(Duration::from_secs(5))).unwrap(), Wake::Hangup);
                guest.1.receive(&mut bytes).unwrap();
            }
        }
        echo.join().unwrap();
        // What has woken nobody, then last words.
        for _ in 0..200 {
            Bell::Connection(a.clone()).ring();
        }
        pontoon_transport::send_all(&*a, &[&[LAST_WORDS][..], b"the reason"].concat()).unwrap();
        a.shut_down();
        while guest.1.wait(Some(Duration::from_secs(5))).unwrap() != Wake::Hangup {}
        assert_eq!(guest.1.last_words(), b"the reason");
    }

    /// TCP does not call a closed peer a hang-up while this side's half is open.
    #[test]
    fn a_peer_that_is_gone_does_not_leave_a_full_ring_waiting() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let near = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (far, _) = listener.accept().unwrap();
        let near = Arc::new(Socket::Tcp(near));
        let (host, _fd) = Shared::create(SIZES).unwrap();
        let (producer, consumer) = host.rings(Side::Guest).unwrap();
        let mut sender = Sender::ring(near.clone(), producer, Bell::Connection(near.clone()));
        let mut receiver = Receiver::ring(near, consumer, None);
        assert_eq!(sender.push(&[0; 5000]).unwrap(), 4096);
        assert!(sender.wait_for_room(Duration::from_millis(1)).is_ok(), "the peer is there");
        // Its last words come in two parts, and the ring is empty meanwhile.
        pontoon_transport::send_all(&far, &[&[LAST_WORDS][..], b"the "].concat()).unwrap();
        while receiver.wait(Some(Duration::from_secs(5))).unwrap() != Wake::Hangup {}
        pontoon_transport::send_all(&far, b"\x01\x01reason").unwrap();
        drop(far);
        let begun = std::time::Instant::now();
        while sender.wait_for_room(Duration::from_millis(1)).is_ok() {
            assert!(begun.elapsed() < Duration::from_secs(5), "nobody noticed");
        }
        assert_eq!(receiver.wait(Some(Duration::ZERO)).unwrap(), Wake::Hangup);
        assert_eq!(receiver.last_words(), b"the \x01\x01reason");
    }

    #[test]
    fn last_words_beside_the_ring_are_heard() {
        let (a, b) = unix();
        let (host, _fd) = Shared::create(SIZES).unwrap();
        let (_, consumer) = host.rings(Side::Guest).unwrap();
        let (_, hear) = bell();
        let mut receiver = Receiver::ring(Arc::new(a), consumer, Some(hear));
        pontoon_transport::send_all(&b, b"the reason").unwrap();
        drop(b);
        assert_eq!(receiver.wait(Some(Duration::from_secs(5))).unwrap(), Wake::Hangup);
        assert_eq!(receiver.last_words(), b"the reason");
    }
}
