//! What a sealed worker must still be able to do.

use std::fs;
use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use pontoon_sandbox::{Level, Mechanism, Report};
use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use rustix::process::{DumpableBehavior, Pid, dumpable_behavior, test_kill_process};

use crate::child::{Mode, begin, seal};
use crate::raw::map_and_make_executable;
use crate::scene::Kit;

/// Does all of it and exits, successfully if all worked.
pub fn all(mode: Mode) -> ! {
    let kit = Kit::pack().unwrap();
    let message = Kit::pack().unwrap();
    send_descriptor(&message.stream, kit.shell.as_fd()).unwrap();
    let report = seal(begin(mode));
    fences(&report);
    threads();
    memory();
    events();
    files();
    ourselves();
    sockets(&kit);
    let received = receive_descriptor(&message.peer).expect("a descriptor");
    let mut magic = [0; 4];
    fs::File::from(received).read_exact(&mut magic).unwrap();
    assert_eq!(&magic, b"\x7fELF");
    let sent = send_descriptor(&kit.stream, kit.shell.as_fd());
    assert_eq!(sent.is_ok(), mode != Mode::ReceiveOnly, "{sent:?}");
    std::process::exit(0)
}

/// What can be seen of the report's claims from inside.
fn fences(report: &Report) {
    assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
    let score = fs::read_to_string("/proc/self/oom_score_adj").unwrap();
    assert!(score.trim().parse::<i32>().unwrap() >= 500);
    let interfaces = fs::read_to_string("/proc/self/net/dev").unwrap();
    let others = interfaces.lines().skip(2).filter(|line| !line.trim().starts_with("lo:"));
    if report.level(Mechanism::NetworkNamespace) == Level::InForce {
        assert_eq!(others.count(), 0, "{interfaces}");
    }
}

fn threads() {
    let named = std::thread::Builder::new().name("worker".to_owned());
    let nested = || std::thread::spawn(|| 6 * 7).join().unwrap();
    assert_eq!(named.spawn(nested).unwrap().join().unwrap(), 42);
    assert!(std::thread::available_parallelism().is_ok());
}

fn memory() {
    map_and_make_executable(None, 1 << 16).unwrap();
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memfd = memfd_create("arena", flags).unwrap();
    ftruncate(&memfd, 1 << 20).unwrap();
    map_and_make_executable(Some(memfd.as_raw_fd()), 1 << 20).unwrap();
    fcntl_add_seals(&memfd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL).unwrap();
    let mut random = [0u8; 16];
    fs::File::open("/dev/urandom").unwrap().read_exact(&mut random).unwrap();
    assert_ne!(random, [0; 16]);
}

fn events() {
    let event = eventfd(1, EventfdFlags::CLOEXEC).unwrap();
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
    let interest = epoll::EventData::new_u64(7);
    epoll::add(&epoll, &event, interest, epoll::EventFlags::IN).unwrap();
    let mut ready = Vec::with_capacity(4);
    let second = Timespec { tv_sec: 1, tv_nsec: 0 };
    let buffer = rustix::buffer::spare_capacity(&mut ready);
    assert_eq!(epoll::wait(&epoll, buffer, Some(&second)).unwrap(), 1);
    let before = Instant::now();
    std::thread::sleep(Duration::from_millis(2));
    assert!(before.elapsed() >= Duration::from_millis(2));
}

fn files() {
    assert!(!fs::read("/proc/cpuinfo").unwrap().is_empty());
    assert!(fs::read_dir("/usr/lib").unwrap().next().is_some());
    fs::OpenOptions::new().write(true).open("/dev/null").unwrap().write_all(b"!").unwrap();
}

fn ourselves() {
    test_kill_process(Pid::from_raw(std::process::id() as i32).unwrap()).unwrap();
    let limit = rustix::process::getrlimit(rustix::process::Resource::Core);
    assert_eq!(limit.maximum, Some(0));
    let caught = std::panic::catch_unwind(|| panic!("this panic is part of the test"));
    assert!(caught.is_err());
}

fn sockets(kit: &Kit) {
    let (mut here, mut there) = (&kit.stream, &kit.peer);
    here.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    here.set_nonblocking(true).unwrap();
    here.set_nonblocking(false).unwrap();
    there.write_all(b"frame").unwrap();
    let mut frame = [0; 5];
    here.read_exact(&mut frame).unwrap();
    assert_eq!(&frame, b"frame");
    let parts = [IoSlice::new(b"a"), IoSlice::new(b"b")];
    assert_eq!(here.write_vectored(&parts).unwrap(), 2);
    there.read_exact(&mut frame[..2]).unwrap();
}

fn send_descriptor(to: &UnixStream, fd: std::os::fd::BorrowedFd<'_>) -> rustix::io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [fd];
    assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
    sendmsg(to, &[IoSlice::new(b"!")], &mut control, SendFlags::empty()).map(drop)
}

fn receive_descriptor(from: &UnixStream) -> Option<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let into = &mut [IoSliceMut::new(&mut byte)];
    recvmsg(from, into, &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
    control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    })
}
