//! Guests that mean harm, against a real daemon: each loses its own session at most.

#[path = "../common/mod.rs"]
mod common;
mod memory;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use common::raw::{PATIENCE, Raw, Via, WAYS, dial, file, hello, hello_frame, read_refusal, refusal};
use common::{Daemon, Gpu, Setup, cpu_seconds, is_alive, wait_until};
use pontoon_wire::command::DeviceRequest;
use pontoon_wire::frame::{self, Payload, WriteBuffer, code};
use pontoon_wire::hello::{Hello, RefusalKind};
use pontoon_wire::limits::{MAX_FRAME_BODY, MAX_HELLO_BODY};
use pontoon_wire::{Command, Event, Id, PROTOCOL_VERSION, Text, WGPU_MAJOR};

const TOML: &str = "
[limits]
handshake_seconds = 1
sessions = 300
sessions_per_tenant = 200
[[listen.tokens]]
tenant = 'other'
token = 'another token, of another tenant'
";

/// A daemon of this test's own, for tests that count.
fn daemon() -> Daemon {
    Setup::noop().tcp().toml(TOML).start()
}

/// The daemon that the others share: a hostile guest of one test is no business of another's.
fn shared() -> &'static Daemon {
    /// Ends the daemon with the process: statics are not dropped.
    extern "C" fn end() {
        if let Some(daemon) = DAEMON.get()
            && let Some(pid) = rustix::process::Pid::from_raw(daemon.pid() as i32)
        {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            let _ = std::fs::remove_dir_all(daemon.folder());
        }
    }
    unsafe extern "C" {
        fn atexit(function: extern "C" fn()) -> i32;
    }
    static DAEMON: OnceLock<Daemon> = OnceLock::new();
    DAEMON.get_or_init(|| {
        // SAFETY: `end` may be called at exit: it touches nothing but a static that is never dropped.
        unsafe { atexit(end) };
        daemon()
    })
}

fn request_device() -> Command {
    let desc = DeviceRequest {
        label: None,
        features: wgpu::Features::empty(),
        limits: wgpu::Limits::default(),
        low_memory: false,
    };
    Command::RequestDevice { call: 1, adapter: 0, id: Id::new(0, 1), desc: Box::new(desc) }
}

fn create_buffer(index: u32, usage: wgpu::BufferUsages, label: &str) -> Command {
    let label = Some(Text::cut(label));
    let desc = wgpu::wgt::BufferDescriptor { label, size: 256, usage, mapped_at_creation: false };
    Command::CreateBuffer { device: Id::new(0, 1), id: Id::new(index, 1), desc }
}

/// One sentence that a person can act on: not empty, one line, no debug output.
fn assert_sentence(text: &str) {
    assert!(text.len() > 20 && !text.contains('\n') && !text.contains("Some("), "{text}");
}

// --- First words ---

#[test]
fn other_first_words_are_refused_with_a_sentence() {
    let mut other_code = hello_frame(&hello(""));
    other_code[4] = code::COMMAND;
    let mut reserved = hello_frame(&hello(""));
    reserved[6] = 1;
    let mut cut = Vec::new();
    frame::put(&mut cut, code::HELLO, |out| {
        out.extend_from_slice(&[PROTOCOL_VERSION as u8, WGPU_MAJOR as u8, 1])
    });
    let mut trailing = Vec::new();
    frame::put(&mut trailing, code::HELLO, |out| {
        pontoon_wire::encode(&hello(""), out);
        out.push(0);
    });
    let words: [&[u8]; 8] = [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        &[0xff; 64],
        &[0; 8],
        &other_code,
        &reserved,
        &cut,
        &trailing,
    ];
    for via in [Via::Unix, Via::Tcp] {
        for words in words {
            let refusal = refusal(shared(), via, words);
            assert_eq!(refusal.kind, RefusalKind::Malformed, "{words:?}: {refusal:?}");
            assert!(refusal.message.contains("this is a Pontoon host"), "{refusal:?}");
            assert_sentence(&refusal.message);
        }
    }
}

#[test]
fn an_oversized_hello_is_refused_before_it_is_read() {
    let header = |len: usize| [&(len as u32).to_le_bytes()[..], &[code::HELLO, 0, 0, 0]].concat();
    for len in [MAX_HELLO_BODY + 1, MAX_FRAME_BODY, u32::MAX as usize] {
        let refusal = refusal(shared(), Via::Unix, &header(len));
        assert_eq!(refusal.kind, RefusalKind::Malformed);
        assert!(
            refusal.message.contains(&format!("frame body is {len}, the maximum is {MAX_HELLO_BODY}")),
            "{refusal:?}"
        );
    }
}

#[test]
fn a_hello_that_dribbles_in_is_cut_off_in_time() {
    let daemon = daemon();
    std::thread::scope(|scope| {
        for via in [Via::Unix, Via::Tcp] {
            for silent in [false, true] {
                let daemon = &daemon;
                scope.spawn(move || {
                    let socket = dial(daemon, via);
                    let begin = Instant::now();
                    let dribble = socket_writer(&socket);
                    let words = hello_frame(&Hello { token: Text::cut("x".repeat(200)), ..hello("") });
                    let writer = std::thread::spawn(move || {
                        let mut dribble = dribble;
                        for byte in words {
                            if silent || dribble.write_all(&[byte]).is_err() {
                                return;
                            }
                            std::thread::sleep(Duration::from_millis(50));
                        }
                    });
                    let refusal = read_refusal(&socket);
                    let took = begin.elapsed().as_secs_f64();
                    assert!((0.9..3.0).contains(&took), "cut off after {took} s");
                    // A TCP connection that is reset by a late byte may lose its refusal.
                    if let Some(refusal) = refusal {
                        assert!(refusal.message.contains("did not come in time"), "{refusal:?}");
                    }
                    drop(socket);
                    writer.join().unwrap();
                });
            }
        }
    });
    assert!(Gpu::new(&daemon).works());
}

fn socket_writer(socket: &pontoon_transport::Socket) -> std::fs::File {
    file(socket)
}

#[test]
fn other_versions_are_named_on_both_sides() {
    let cases = [
        (Hello { protocol: 7, ..hello("") }, "protocol 7".to_owned(), format!("host {PROTOCOL_VERSION}")),
        (Hello { protocol: 0, ..hello("") }, "protocol 0".to_owned(), format!("host {PROTOCOL_VERSION}")),
        (
            Hello { protocol: u32::MAX, ..hello("") },
            format!("protocol {}", u32::MAX),
            format!("host {PROTOCOL_VERSION}"),
        ),
        (Hello { wgpu: 99, ..hello("") }, "wgpu 99".to_owned(), format!("wgpu {WGPU_MAJOR}")),
    ];
    for (hello, theirs, ours) in cases {
        let refusal = refusal(shared(), Via::Unix, &hello_frame(&hello));
        assert_eq!(refusal.kind, RefusalKind::Version, "{refusal:?}");
        assert!(refusal.message.contains(&theirs) && refusal.message.contains(&ours), "{refusal:?}");
        assert_sentence(&refusal.message);
    }
    // A Hello of a later version, whose other fields this host cannot know.
    let mut later = Vec::new();
    frame::put(&mut later, code::HELLO, |out| out.extend_from_slice(&[9, 200, 200, 200, 1, 2, 3]));
    let refusal = refusal(shared(), Via::Unix, &later);
    assert_eq!(refusal.kind, RefusalKind::Version, "{refusal:?}");
    assert!(refusal.message.contains("protocol 9"), "{refusal:?}");
}

// --- TCP ---

#[test]
fn tcp_needs_the_right_token() {
    let daemon = shared();
    let close = &common::TOKEN[..common::TOKEN.len() - 1];
    for (token, what) in [
        ("", "a token is needed"),
        (close, "not one of"),
        ("wrong", "not one of"),
        (&format!("{}x", common::TOKEN), "not one of"),
    ] {
        let refusal = refusal(daemon, Via::Tcp, &hello_frame(&hello(token)));
        assert_eq!(refusal.kind, RefusalKind::Unauthorized, "{token}: {refusal:?}");
        assert!(refusal.message.contains(what) && refusal.message.contains("PONTOON_TOKEN"), "{refusal:?}");
        assert!(!refusal.message.contains(common::TOKEN));
    }
    let _guest = Raw::named(daemon, Via::Tcp, "by-token");
    let row = daemon.ps().into_iter().find(|row| row["program"] == "by-token").expect("a row");
    assert_eq!((&row["tenant"], &row["transport"]), (&"default".into(), &"tcp".into()));
    assert!(!daemon.log().contains(common::TOKEN), "a token is in the log");
}

#[test]
fn tcp_without_a_token_refuses_to_start() {
    let folder = pontoon_testbed::Scratch::new("token").unwrap();
    let socket = folder.path().join("g/pontoon.sock");
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_pontoon"))
        .args(["serve", "--noop", "--tcp", "127.0.0.1:0", "--socket"])
        .arg(&socket)
        .current_dir(folder.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("TCP in clear text needs at least one token"), "{text}");
    assert!(!socket.exists(), "a socket is left behind");
}

#[test]
fn no_port_is_open_unless_asked_for() {
    let quiet = Setup::noop().start();
    assert_eq!(listening_ports(quiet.pid()), 0);
    assert_eq!(listening_ports(shared().pid()), 1, "this test sees ports at all");
}

/// How many TCP sockets of a process listen.
fn listening_ports(pid: u32) -> usize {
    let inodes: Vec<String> = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .filter_map(|link| link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']').map(str::to_owned))
        .collect();
    let tables = ["tcp", "tcp6"]
        .map(|file| std::fs::read_to_string(format!("/proc/{pid}/net/{file}")).unwrap_or_default());
    let listens = |line: &str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        fields.get(3) == Some(&"0A")
            && fields.get(9).is_some_and(|inode| inodes.iter().any(|own| own == inode))
    };
    tables.iter().flat_map(|table| table.lines()).filter(|line| listens(line)).count()
}

// --- Within a session ---

fn frame_of(code: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::put(&mut bytes, code, |out| out.extend_from_slice(body));
    bytes
}

fn encoded(command: &Command) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::put_encoded(&mut bytes, code::COMMAND, command);
    bytes
}

#[test]
fn what_no_guest_says_ends_that_session_with_a_reason() {
    let forged = encoded(&Command::DestroyBuffer { buffer: Id::new(77, 3) });
    let oversized = [&(MAX_FRAME_BODY as u32 + 1).to_le_bytes()[..], &[code::COMMAND, 0, 0, 0]].concat();
    let reserved = [&4u32.to_le_bytes()[..], &[code::COMMAND, 0, 0, 9], &[0; 4]].concat();
    let words = [
        (forged, "buffer 77.3 does not exist"),
        (oversized, "frame body is"),
        (reserved, "invalid frame header"),
        (frame_of(99, &[]), "unknown frame code 99"),
        (frame_of(code::HELLO, &[]), "unknown frame code 0"),
        (frame_of(code::WELCOME, &[]), "unknown frame code 128"),
        (frame_of(code::COMMAND, &[0xff; 9]), "descriptor does not decode"),
        (frame_of(code::FORGET, &[200, 0, 0, 0, 0, 0, 0, 0, 0]), "unknown kind of object 200"),
        (frame_of(code::ENCODE, &[0; 7]), "message ends 1 bytes early"),
    ];
    for via in WAYS {
        for (words, why) in &words {
            let mut guest = Raw::connect(shared(), via);
            guest.command(&request_device());
            guest.send(words);
            let end = guest.end();
            assert!(end.contains("the guest broke the protocol") && end.contains(why), "{via:?}: {end}");
        }
    }
}

/// All that was executed before the mistake is still reported, then the reason, then nothing.
#[test]
fn the_reason_comes_after_the_errors_before_it() {
    for via in WAYS {
        let mut guest = Raw::connect(shared(), via);
        guest.command(&request_device());
        guest.command(&create_buffer(0, wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::STORAGE, "bad"));
        guest.command(&Command::UnmapBuffer { buffer: Id::new(5, 1) });
        let mut events = Vec::new();
        while let Some(event) = guest.event(PATIENCE) {
            events.push(event);
        }
        let [Event::Reply { call: 1, .. }, Event::Error { sequence: 2, .. }, Event::End { .. }] = &events[..]
        else {
            panic!("{via:?}: {events:?}")
        };
    }
}

fn shut(socket: &pontoon_transport::Socket, how: Shutdown) {
    let how = match how {
        Shutdown::Read => rustix::net::Shutdown::Read,
        Shutdown::Write => rustix::net::Shutdown::Write,
        Shutdown::Both => rustix::net::Shutdown::Both,
    };
    rustix::net::shutdown(socket, how).unwrap();
}

#[test]
fn half_closed_and_half_said() {
    let daemon = shared();
    for via in WAYS {
        for how in [Shutdown::Write, Shutdown::Read, Shutdown::Both] {
            let name = format!("half-{via:?}-{how:?}");
            let mut guest = Raw::named(daemon, via, &name);
            guest.command(&request_device());
            wait_until("a worker", PATIENCE, || daemon.worker_of(&name).is_some());
            // Half a frame, and then nothing any more.
            guest.send(&encoded(&create_buffer(0, wgpu::BufferUsages::COPY_DST, "x"))[..9]);
            shut(&guest.socket, how);
            if how == Shutdown::Read {
                // The host cannot know of it before it has something to say.
                drop(guest);
            }
            wait_until(&name, PATIENCE, || daemon.worker_of(&name).is_none());
        }
    }
}

#[test]
fn a_stall_in_mid_frame_is_that_guests_own() {
    let daemon = shared();
    let mut guests: Vec<_> = WAYS.iter().map(|via| Raw::named(daemon, *via, "stalled")).collect();
    for guest in &mut guests {
        guest.send(&encoded(&request_device())[..20]);
    }
    let worker = daemon.worker_of("stalled").expect("a worker");
    let before = cpu_seconds(worker);
    assert!(Gpu::new(daemon).works());
    std::thread::sleep(Duration::from_millis(500));
    assert!(cpu_seconds(worker) - before < 0.2, "a stalled guest keeps its worker busy");
    for guest in &mut guests {
        guest.send(&encoded(&request_device())[20..]);
        assert!(matches!(guest.event(PATIENCE), Some(Event::Reply { .. })), "it may go on after all");
    }
}

/// The host has more and more to say, and the guest does not listen: its worker waits, asleep, and takes
/// no more commands than there is room for their answers.
#[test]
fn a_guest_that_never_listens() {
    let daemon = daemon();
    for via in WAYS {
        let name = format!("deaf-{via:?}");
        let mut guest = Raw::named(&daemon, via, &name);
        guest.command(&request_device());
        let worker = daemon.worker_of(&name).expect("a worker");
        // Errors of a kilobyte each, until the host takes no more.
        let label = "x".repeat(1000);
        let mut index = 0;
        let mut stuck = Instant::now();
        let mut frames = Vec::new();
        while stuck.elapsed() < Duration::from_millis(300) {
            if frames.is_empty() {
                frames = encoded(&create_buffer(
                    index,
                    wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::STORAGE,
                    &label,
                ));
                index += 1;
            }
            let pushed = guest.sender.push(&frames).unwrap();
            let _ = guest.sender.flush().unwrap();
            frames.drain(..pushed);
            if pushed > 0 {
                stuck = Instant::now();
            }
        }
        assert!(index < 100_000, "{via:?}: the host took {index} commands whose answers nobody read");
        let memory = resident_megabytes(worker);
        assert!(memory < 600, "{via:?}: its worker holds {memory} MB");
        let before = cpu_seconds(worker);
        std::thread::sleep(Duration::from_secs(2));
        let busy = (cpu_seconds(worker) - before) / 2.0;
        println!("{via:?}: stuck after {index} commands, {memory} MB, {:.0} % of a core", busy * 100.0);
        assert!(Gpu::new(&daemon).works(), "{via:?}: others notice");
        assert!(busy < 0.3, "{via:?}: a worker whose guest does not listen is {:.0} % busy", busy * 100.0);
        drop(guest);
        wait_until(&name, PATIENCE, || !is_alive(worker));
    }
}

fn resident_megabytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0");
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) / 1024
}

// --- Many ---

#[test]
fn callers_that_vanish_leave_nothing_behind() {
    let daemon = daemon();
    let bystander = Gpu::named(&daemon, "bystander");
    assert!(bystander.works());
    let idle = daemon.workers().len();
    let mut slowest = Duration::ZERO;
    for number in 0..200 {
        let via = if number % 2 == 0 { Via::Unix } else { Via::Tcp };
        let socket = dial(&daemon, via);
        let words = hello_frame(&Hello { program: Text::cut("vanishing"), ..hello(common::TOKEN) });
        // Nothing, some, or all of a Hello; every tenth gets a worker that it never meets.
        let said = match number % 10 {
            0 => words.len(),
            part => part * words.len() / 12,
        };
        file(&socket).write_all(&words[..said]).unwrap();
        drop(socket);
        if number % 10 == 0 {
            let begin = Instant::now();
            assert!(bystander.works());
            slowest = slowest.max(begin.elapsed());
        }
    }
    println!("the bystander's slowest round took {slowest:?}");
    assert!(slowest < Duration::from_secs(2), "a bystander waited {slowest:?}");
    assert!(Gpu::new(&daemon).works());
    wait_until("leftovers in pontoon ps", PATIENCE, || daemon.ps().len() == 1);
    assert_eq!(daemon.ps()[0]["program"], "bystander");
    wait_until("leftover workers", PATIENCE, || daemon.workers().len() <= idle + 1);
    assert!(bystander.works());
}

/// More callers at once than may be greeted at once, all silent: whoever comes after them is told to
/// try again, or served, and the host is as it was once they are cut off.
#[test]
fn silent_callers_hold_the_door_for_no_longer_than_they_may() {
    let daemon = daemon();
    let silent: Vec<_> = (0..200).map(|_| dial(&daemon, Via::Unix)).collect();
    let begin = Instant::now();
    loop {
        match pontoon_client::connect(daemon.options()) {
            Ok(instance) => {
                assert!(Gpu::on(instance).works());
                break;
            }
            Err(error) => {
                assert!(error.to_string().contains("too many callers"), "{error}");
                assert!(begin.elapsed() < Duration::from_secs(4), "shut out for {:?}", begin.elapsed());
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    }
    println!("an honest caller was shut out for {:?}", begin.elapsed());
    for socket in &silent {
        let _ = file(socket).read(&mut [0; 64]);
    }
    wait_until("sessions", PATIENCE, || daemon.ps().is_empty());
}
