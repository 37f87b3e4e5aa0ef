//! Sessions and tenants: nothing of one reaches another.

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::raw::{PATIENCE, Raw, Via};
use common::{Gpu, Setup, TOKEN, wait_until};
use pontoon_client::{Endpoint, Options};
use pontoon_wire::command::DeviceRequest;
use pontoon_wire::frame::{self, MappedBytes, Payload, WriteBuffer, code};
use pontoon_wire::{Command, Event, Id};
use wgpu::BufferUsages as B;

const PATTERN: [u8; 16] = *b"a tenant's bytes";

fn request_device() -> Command {
    let desc = DeviceRequest {
        label: None,
        features: wgpu::Features::empty(),
        limits: wgpu::Limits::default(),
        low_memory: false,
    };
    Command::RequestDevice { call: 1, adapter: 0, id: Id::new(0, 1), desc: Box::new(desc) }
}

fn create_buffer(index: u32, size: u64, usage: B, mapped_at_creation: bool) -> Command {
    let desc = wgpu::wgt::BufferDescriptor { label: None, size, usage, mapped_at_creation };
    Command::CreateBuffer { device: Id::new(0, 1), id: Id::new(index, 1), desc }
}

/// The same numbers in two sessions name two objects, and what only one has does not exist in the other.
#[test]
fn names_of_one_session_mean_nothing_in_another() {
    let daemon = Setup::noop().start();
    let (mut one, mut other) = (Raw::connect(&daemon, Via::Arena), Raw::connect(&daemon, Via::Arena));
    for guest in [&mut one, &mut other] {
        guest.command(&request_device());
        guest.command(&create_buffer(0, 64, B::MAP_READ | B::COPY_DST, true));
    }
    one.command(&create_buffer(1, 64, B::COPY_DST, false));
    let bytes = [9; 64];
    let payload = Payload::Inline(&bytes);
    let write = WriteBuffer { buffer: Id::new(0, 1), offset: 0, total: 64, at: 0, payload };
    let mut words = Vec::new();
    write.put(&mut words, code::WRITE_MAPPED);
    one.send(&words);
    // The other's buffer 0 is as it was: zero.
    other.command(&Command::UnmapBuffer { buffer: Id::new(0, 1) });
    other.command(&Command::MapBuffer { buffer: Id::new(0, 1), map: 3, write: false, offset: 0, size: 64 });
    let mapped = loop {
        match other.event(PATIENCE).expect("an answer") {
            Event::Mapped { map: 3, bytes } => break bytes,
            Event::Reply { .. } => {}
            event => panic!("{event:?}"),
        }
    };
    if let Some(pontoon_wire::event::MappedAt::Arena(at)) = mapped {
        let memory = other.memory.as_ref().unwrap();
        let upload = other.upload.as_ref().unwrap().size();
        let mut bytes = [1; 64];
        // The part for mapped ranges lies behind the rings and the uploads.
        memory.read(4096 + (1 << 20) + (1 << 18) + upload + at, &mut bytes).unwrap();
        assert_eq!(bytes, [0; 64]);
    } else {
        panic!("{mapped:?}");
    }
    other.command(&Command::DestroyBuffer { buffer: Id::new(1, 1) });
    assert!(other.end().contains("buffer 1.1 does not exist"));
    // And the one whose buffer it is goes on.
    one.command(&Command::DestroyBuffer { buffer: Id::new(1, 1) });
    one.command(&Command::Barrier { call: 8 });
    loop {
        match one.event(PATIENCE).expect("an answer") {
            Event::Reply { call: 8, .. } => break,
            Event::Reply { .. } => {}
            event => panic!("{event:?}"),
        }
    }
}

#[test]
fn the_memory_limit_is_each_sessions_own() {
    let daemon = Setup::noop().toml("[limits]\nmemory_bytes = 1048576").start();
    let (greedy, modest) = (Gpu::named(&daemon, "greedy"), Gpu::named(&daemon, "modest"));
    let errors = Arc::new(Mutex::new(Vec::new()));
    let sink = errors.clone();
    greedy.device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| sink.lock().unwrap().push(error)));
    let kept = greedy.buffer(1 << 20, B::COPY_DST);
    let _refused = greedy.buffer(4096, B::COPY_DST);
    let _ = greedy.device.poll(wgpu::PollType::wait_indefinitely());
    let seen: Vec<_> = std::mem::take(&mut *errors.lock().unwrap());
    assert!(
        matches!(&seen[..], [wgpu::Error::OutOfMemory { source }] if source.to_string().contains("limits.memory_bytes")),
        "{seen:?}"
    );
    let _whole = modest.buffer(1 << 19, B::COPY_DST);
    assert!(modest.works(), "another session has its own memory");
    kept.destroy();
    let _fits = greedy.buffer(4096, B::COPY_DST);
    let _ = greedy.device.poll(wgpu::PollType::wait_indefinitely());
    assert!(errors.lock().unwrap().is_empty());
    assert!(greedy.works());
}

#[test]
fn sessions_of_a_tenant_and_of_all_have_limits() {
    let toml = "
[limits]
sessions_per_tenant = 2
sessions = 3
[[listen.tokens]]
tenant = 'astra'
token = 'the token of the tenant astra'
[[listen.tokens]]
tenant = 'boris'
token = 'the token of the tenant boris'
";
    let daemon = Setup::noop().tcp().toml(toml).start();
    let over_tcp = |token: &str, program: &str| {
        let mut options = Options::new(Endpoint::Tcp(daemon.tcp().unwrap()));
        (options.token, options.program) = (token.into(), program.into());
        pontoon_client::connect(options)
    };
    let mut held = vec![Gpu::named(&daemon, "first"), Gpu::named(&daemon, "second")];
    let error = pontoon_client::connect(daemon.options()).unwrap_err().to_string();
    assert!(
        error.contains("has 2 sessions, the limit of one tenant (limits.sessions_per_tenant)"),
        "{error}"
    );
    // Tokens are tenants, whose sessions count apart; then the limit of all is reached.
    let astra = over_tcp("the token of the tenant astra", "third").expect("another tenant has room");
    let error = over_tcp("the token of the tenant boris", "fourth").unwrap_err().to_string();
    assert!(error.contains("serves 3 sessions, its limit (limits.sessions)"), "{error}");
    let mut rows: Vec<_> =
        daemon.ps().iter().map(|row| (row["program"].to_string(), row["tenant"].to_string())).collect();
    rows.sort();
    let uid = format!("\"uid:{}\"", rustix::process::geteuid().as_raw());
    // In a container the tenant of a unix socket is the container.
    assert_eq!(rows.len(), 3);
    assert!(rows[0].1 == uid || rows[0].1.starts_with("\"container:"), "{rows:?}");
    assert_eq!(rows[2], ("\"third\"".to_owned(), "\"astra\"".to_owned()));
    // Refused sessions leave nothing, and a place that is given up can be had again.
    held.pop();
    wait_until("a place", PATIENCE, || daemon.ps().len() == 2);
    drop(astra);
    wait_until("another", PATIENCE, || daemon.ps().len() == 1);
    let boris = over_tcp("the token of the tenant boris", "fifth").expect("a place");
    assert!(Gpu::on(boris).works());
    let wrong = over_tcp(TOKEN.strip_prefix('a').unwrap(), "sixth").unwrap_err().to_string();
    assert!(wrong.contains("PONTOON_TOKEN"), "{wrong}");
}

#[test]
fn memory_of_an_ended_session_never_comes_back() {
    let Some(setup) = Setup::gpu() else { return };
    let daemon = setup.start();
    const SIZE: u64 = 4 << 20;
    for round in 0..3 {
        let writer = Gpu::named(&daemon, "writer");
        let secrets: Vec<_> = (0..4).map(|_| writer.buffer(SIZE, B::COPY_DST | B::COPY_SRC)).collect();
        let pattern: Vec<u8> = PATTERN.iter().copied().cycle().take(SIZE as usize).collect();
        secrets.iter().for_each(|secret| writer.queue.write_buffer(secret, 0, &pattern));
        assert!(writer.read(&secrets[0]).expect("read") == pattern);
        drop((secrets, writer));
        if round > 0 {
            wait_until("the writer to end", PATIENCE, || daemon.ps().is_empty());
        }
        let reader = Gpu::named(&daemon, "reader");
        for _ in 0..4 {
            let fresh = reader.buffer(SIZE, B::COPY_SRC);
            let bytes = reader.read(&fresh).expect("read");
            assert!(bytes.iter().all(|byte| *byte == 0), "round {round}: old bytes");
        }
    }
}

/// As above within one session: what a guest forgets is zero when it comes again.
#[test]
fn memory_of_a_dropped_buffer_comes_back_as_zeros() {
    let Some(setup) = Setup::gpu() else { return };
    let daemon = setup.start();
    let gpu = Gpu::new(&daemon);
    for _ in 0..10 {
        let secret = gpu.buffer(1 << 20, B::COPY_DST | B::COPY_SRC);
        gpu.queue.write_buffer(&secret, 0, &[0x5a; 1 << 20]);
        assert!(gpu.read(&secret).is_some());
        drop(secret);
        let fresh = gpu.buffer(1 << 20, B::COPY_SRC);
        assert!(gpu.read(&fresh).expect("read").iter().all(|byte| *byte == 0));
    }
}

/// The shared memory of a new session holds nothing of an old one's.
#[test]
fn shared_memory_is_fresh() {
    let daemon = Setup::noop().start();
    let mut old = Raw::connect(&daemon, Via::Arena);
    let upload = old.upload.as_mut().unwrap();
    let at = upload.push(&PATTERN.repeat(1000)).unwrap().expect("room");
    let size = upload.size();
    let memory = old.memory.as_ref().unwrap();
    let start = 4096 + (1 << 20) + (1 << 18);
    let mut bytes = [0; 16];
    memory.read(start + at, &mut bytes).unwrap();
    assert_eq!(bytes, PATTERN, "this test knows where uploads are");
    memory.write(start + size, &PATTERN).unwrap();
    drop(old);
    wait_until("the old session's end", PATIENCE, || daemon.ps().is_empty());
    let new = Raw::connect(&daemon, Via::Arena);
    for place in [start + at, start + size] {
        new.memory.as_ref().unwrap().read(place, &mut bytes).unwrap();
        assert_eq!(bytes, [0; 16]);
    }
}

/// Without an arena mapped bytes travel in frames; they are this session's too.
#[test]
fn mapped_bytes_over_tcp_are_this_sessions() {
    let daemon = Setup::noop().tcp().start();
    let mut guest = Raw::connect(&daemon, Via::Tcp);
    guest.command(&request_device());
    guest.command(&create_buffer(0, 64, B::MAP_READ | B::COPY_DST, false));
    guest.command(&Command::MapBuffer { buffer: Id::new(0, 1), map: 1, write: false, offset: 0, size: 64 });
    let (mut bytes, mut frames) = (None, frame::FrameBuffer::default());
    let deadline = std::time::Instant::now() + PATIENCE;
    while bytes.is_none() {
        assert!(std::time::Instant::now() < deadline, "no answer");
        let _ = guest.receiver.wait(Some(Duration::from_millis(50)));
        guest.receiver.receive(frames.space()).expect("open");
        while let Some((code, body)) = frames.next_frame().unwrap() {
            if code == code::MAPPED_BYTES {
                bytes = Some(MappedBytes::decode(body).unwrap().bytes.to_vec());
            }
        }
    }
    assert_eq!(bytes.unwrap(), [0; 64]);
}

/// A policy's weight is its sessions' share of the processors.
#[test]
fn weights_are_shares_of_the_processors() {
    let policies = "
[[listen.tokens]]
tenant = 'night'
token = 'a token of the night shift'
[[policies]]
name = 'day'
match = { token = 'default' }
weight = 100
[[policies]]
name = 'night'
match = { token = 'night' }
weight = 10
";
    let daemon = Setup::noop().tcp().toml(policies).start();
    let endpoint: Endpoint = format!("tcp:{}", daemon.tcp().unwrap()).parse().unwrap();
    let nice = |token: &str, program: &str| {
        let options =
            Options { token: token.into(), program: program.into(), ..Options::new(endpoint.clone()) };
        let instance = pontoon_client::connect(options).unwrap();
        let worker = daemon.worker_of(program).unwrap();
        let stat = std::fs::read_to_string(format!("/proc/{worker}/stat")).unwrap();
        drop(instance);
        stat.rsplit_once(')').unwrap().1.split_whitespace().nth(16).unwrap().parse::<i32>().unwrap()
    };
    assert_eq!(nice(TOKEN, "by-day"), 0);
    assert_eq!(nice("a token of the night shift", "by-night"), 10);
}
