//! Data that a tenant has sent before is named instead of sent, and nobody else can name it.

mod common;

use std::path::PathBuf;
use std::process::Command as Process;
use std::time::Duration;

use common::models::variable;
use common::raw::{Raw, Via};
use common::{Daemon, Gpu, Setup, TOKEN, wait_until};
use pontoon_client::Options;
use pontoon_testbed::ready;
use pontoon_uploads::digest;
use pontoon_wire::command::DeviceRequest;
use pontoon_wire::frame::{Payload, WriteBuffer, code};
use pontoon_wire::hello::Digest;
use pontoon_wire::{Command, Id};
use serde_json::Value;
use wgpu::BufferUsages as B;

/// Bytes that no compression and no repetition makes fewer.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    };
    (0..len).map(|_| next()).collect()
}

fn over_tcp(daemon: &Daemon) -> Gpu {
    let endpoint = format!("tcp:{}", daemon.tcp().unwrap()).parse().unwrap();
    let options = Options { token: TOKEN.into(), program: "uploader".into(), ..Options::new(endpoint) };
    Gpu::on(pontoon_client::connect(options).unwrap())
}

/// Bytes of data that the one session that lives has sent, and has named.
fn accounts(daemon: &Daemon) -> (u64, u64) {
    let rows = daemon.ps();
    let row = rows.iter().find(|row| row["program"] == "uploader").expect("the session");
    (row["uploaded_bytes"].as_u64().unwrap(), row["named_bytes"].as_u64().unwrap())
}

#[test]
fn what_was_sent_before_is_named_and_arrives_whole() {
    let Some(setup) = Setup::gpu() else { return };
    let daemon = setup.tcp().start();
    let data = noise(3 << 20, 7);
    for run in 0..3 {
        let gpu = over_tcp(&daemon);
        let buffer = gpu.buffer(data.len() as u64, B::COPY_DST | B::COPY_SRC);
        gpu.queue.write_buffer(&buffer, 0, &data);
        let mapped = gpu.device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: data.len() as u64,
            usage: B::COPY_SRC,
            mapped_at_creation: true,
        });
        mapped.slice(..).get_mapped_range_mut().unwrap().copy_from_slice(&data);
        mapped.unmap();
        assert!(gpu.read(&buffer).unwrap() == data, "run {run}");
        assert!(gpu.read(&mapped).unwrap() == data, "run {run}");
        let (sent, named) = accounts(&daemon);
        // The first session names what it has sent itself.
        let expected = if run == 0 { (data.len(), data.len()) } else { (0, 2 * data.len()) };
        assert_eq!((sent, named), (expected.0 as u64, expected.1 as u64), "run {run}");
    }
}

#[test]
fn what_is_compressed_arrives_whole_and_is_smaller() {
    let Some(setup) = Setup::gpu() else { return };
    let daemon = setup.tcp().start();
    let even: Vec<u8> = (0..2u32 << 20).map(|at| (at / 999) as u8).collect();
    let data = [even.clone(), noise(1 << 20, 3), even].concat();
    let endpoint: pontoon_client::Endpoint = format!("tcp:{}", daemon.tcp().unwrap()).parse().unwrap();
    let options =
        Options { token: TOKEN.into(), program: "uploader".into(), compress: true, ..Options::new(endpoint) };
    let gpu = Gpu::on(pontoon_client::connect(options).unwrap());
    let buffer = gpu.buffer(data.len() as u64, B::COPY_DST | B::COPY_SRC);
    gpu.queue.write_buffer(&buffer, 0, &data);
    assert!(gpu.read(&buffer).unwrap() == data);
    let (sent, _) = accounts(&daemon);
    assert!(sent < 3 << 20, "{sent} bytes for {}", data.len());
    // The same bytes in clear are known by their names.
    drop((gpu, buffer));
    let gpu = over_tcp(&daemon);
    let buffer = gpu.buffer(data.len() as u64, B::COPY_DST | B::COPY_SRC);
    gpu.queue.write_buffer(&buffer, 0, &data);
    assert!(gpu.read(&buffer).unwrap() == data);
    assert_eq!(accounts(&daemon), (0, data.len() as u64));
}

#[test]
fn a_block_that_does_not_unpack_ends_the_session() {
    let daemon = Setup::noop().tcp().start();
    for (len, block) in
        [(4096, &b"\x1fA\x01\x00\xff"[..]), (1 << 18, &[0xff; 64]), (16, b""), (4, b"\x40abcde")]
    {
        let mut guest = Raw::connect(&daemon, Via::Tcp);
        furnish(&mut guest);
        write(&mut guest, Payload::Packed { len, block });
        guest.command(&Command::Barrier { call: 9 });
        let end = guest.barrier_or_end(9).expect("it is refused");
        assert!(end.contains("does not unpack"), "{end}");
    }
}

#[test]
fn a_host_that_keeps_nothing_or_little_is_sent_everything() {
    for (limit, named) in [("kept_upload_bytes = 0", 0), ("kept_upload_bytes = 600000", 2 << 18)] {
        let daemon = Setup::noop().tcp().toml(&format!("[limits]\n{limit}\n")).start();
        let data = noise(4 << 18, 11);
        for run in 0..2 {
            let gpu = over_tcp(&daemon);
            let buffer = gpu.buffer(data.len() as u64, B::COPY_DST);
            gpu.queue.write_buffer(&buffer, 0, &data);
            gpu.queue.submit([]);
            gpu.device.poll(wgpu::PollType::wait_indefinitely()).unwrap();
            let expected = if run == 0 { 0 } else { named };
            assert_eq!(accounts(&daemon), (data.len() as u64 - expected, expected), "{limit}, run {run}");
        }
    }
}

fn furnish(guest: &mut Raw) {
    let desc = DeviceRequest {
        label: None,
        features: wgpu::Features::empty(),
        limits: wgpu::Limits::default(),
        low_memory: false,
    };
    guest.command(&Command::RequestDevice { call: 1, adapter: 0, id: Id::new(0, 1), desc: Box::new(desc) });
    let desc = wgpu::wgt::BufferDescriptor {
        label: None,
        size: 4096,
        usage: B::COPY_DST,
        mapped_at_creation: false,
    };
    guest.command(&Command::CreateBuffer { device: Id::new(0, 1), id: Id::new(0, 1), desc });
}

fn write(guest: &mut Raw, payload: Payload<'_>) {
    let total = payload.len() as u64;
    let mut bytes = Vec::new();
    WriteBuffer { buffer: Id::new(0, 1), offset: 0, total, at: 0, payload }
        .put(&mut bytes, code::WRITE_BUFFER);
    guest.send(&bytes);
}

/// What a guest that names `digest` is told; nothing where the host has it.
fn naming(daemon: &Daemon, via: Via, digest: Digest, len: u32) -> Option<String> {
    let mut guest = Raw::connect(daemon, via);
    furnish(&mut guest);
    write(&mut guest, Payload::Named { digest, len });
    guest.command(&Command::Barrier { call: 9 });
    guest.barrier_or_end(9)
}

#[test]
fn the_name_of_anothers_bytes_tells_nothing() {
    let daemon = Setup::noop().tcp().start();
    let secret = noise(4096, 42);
    let mut owner = Raw::connect(&daemon, Via::Tcp);
    assert!(owner.welcome.kept.as_ref().unwrap().chunks.is_empty());
    furnish(&mut owner);
    write(&mut owner, Payload::Inline(&secret));
    owner.command(&Command::Barrier { call: 9 });
    assert_eq!(owner.barrier_or_end(9), None);
    // While the owner is there, and after.
    let stranger = |digest| naming(&daemon, Via::Unix, digest, 4096).expect("it is refused");
    let nobodys = stranger(digest(b"nobody has sent this"));
    assert!(nobodys.contains("it named bytes that it has not sent"), "{nobodys}");
    assert_eq!(stranger(digest(&secret)), nobodys);
    drop(owner);
    wait_until("the owner's bytes are kept", Duration::from_secs(5), || {
        let again = Raw::connect(&daemon, Via::Tcp);
        again.welcome.kept.as_ref().unwrap().chunks.contains(&digest(&secret))
    });
    assert_eq!(stranger(digest(&secret)), nobodys);
    assert!(Raw::connect(&daemon, Via::Unix).welcome.kept.unwrap().chunks.is_empty());
    // The owner may name them; not with another length.
    assert_eq!(naming(&daemon, Via::Tcp, digest(&secret), 4096), None);
    assert_eq!(naming(&daemon, Via::Tcp, digest(&secret), 4092), Some(nobodys));
    // With shared memory there is nothing to name.
    assert!(Raw::connect(&daemon, Via::Arena).welcome.kept.is_none());
    assert!(naming(&daemon, Via::Arena, digest(&secret), 4096).is_some());
}

fn guests() -> anyhow::Result<PathBuf> {
    let folder = variable("PONTOON_GUEST_BIN")?;
    anyhow::ensure!(folder.join("photo").is_file(), "the static guest program photo is missing");
    Ok(folder)
}

#[test]
fn a_program_that_runs_again_uploads_next_to_nothing() {
    let Some(setup) = Setup::gpu() else { return };
    if !ready(guests().map(drop)) {
        return;
    }
    let daemon = setup.toml("[listen]\ntls = '127.0.0.1:0'\n").start();
    wait_until("TLS is there", Duration::from_secs(10), || daemon.log().contains(", certificate "));
    let log = daemon.log();
    let address = log.split_once("listening on tls:").unwrap().1.split_once(',').unwrap().0.to_owned();
    let made = daemon.pontoon(&["token", "create", "--tenant", "again", "--address", &address]);
    let ticket = String::from_utf8(made.stdout).unwrap();
    for program in ["digits", "photo"] {
        let run = || {
            let before = daemon.log().len();
            let mut command = Process::new(guests().unwrap().join(program));
            let output = command
                .arg("--json")
                .current_dir(daemon.folder())
                .env("PONTOON_HOST", ticket.trim())
                .output()
                .unwrap();
            assert!(output.status.success(), "{output:?}");
            let mut sent = None;
            wait_until("the session is over", Duration::from_secs(10), || {
                sent = daemon.log()[before..].lines().find_map(uploads);
                sent.is_some()
            });
            let mut answer: Value = serde_json::from_slice(&output.stdout).unwrap();
            answer.as_object_mut().unwrap().retain(|key, _| key != "seconds");
            (sent.unwrap(), answer)
        };
        let ((first, _), answer) = run();
        let ((second, named), again) = run();
        eprintln!(
            "{program}: {first} bytes of data sent by the first run, {second} by the second, {named} named"
        );
        assert!(first > 100_000 && second * 100 < first, "{program}: {first}, then {second}");
        assert_eq!(answer, again);
    }
}

/// The bytes of data sent and named of a session that is over, from its line in the log.
fn uploads(line: &str) -> Option<(u64, u64)> {
    let (_, rest) = line.split_once(" over after ")?;
    let number = |text: &str| text.rsplit_once(' ')?.1.parse().ok();
    let (before, _) = rest.split_once(" bytes of data sent")?;
    let (named, _) = rest.split_once(" named")?;
    Some((number(before)?, number(named)?))
}
