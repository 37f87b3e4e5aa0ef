//! Workers, daemons and guests that die, shaders that never end, disks that are full: what a guest sees
//! of each, and that nobody else sees anything.

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use common::{Daemon, Gpu, Setup, is_alive, kill_9, open_device, wait_until};
use wgpu::BufferUsages as B;

/// Longest wait for anything that must happen at once.
const SOON: Duration = Duration::from_secs(10);

fn watch_loss(device: &wgpu::Device) -> Receiver<(wgpu::DeviceLostReason, String)> {
    let (lost, loss) = channel();
    device.set_device_lost_callback(move |reason, message| drop(lost.send((reason, message))));
    loss
}

/// What keeps a queue busy for as many workgroups as are dispatched. lavapipe ends all loops of a shader
/// after 65 535 rounds together, so that only many workgroups last.
fn work(gpu: &Gpu) -> (wgpu::ComputePipeline, wgpu::BindGroup) {
    let source = "@group(0) @binding(0) var<storage, read_write> data: array<atomic<u32>>;
        @compute @workgroup_size(64) fn main(@builtin(local_invocation_index) index: u32) {
            for (var round = 0u; round < 60000u; round++) { atomicAdd(&data[index], 1u); }
        }";
    let source = wgpu::ShaderSource::Wgsl(source.into());
    let module = gpu.device.create_shader_module(wgpu::ShaderModuleDescriptor { label: None, source });
    let pipeline = gpu.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: None,
        layout: None,
        module: &module,
        entry_point: None,
        compilation_options: Default::default(),
        cache: None,
    });
    let buffer = gpu.buffer(256, B::STORAGE);
    let group = gpu.device.create_bind_group(&wgpu::BindGroupDescriptor {
        label: None,
        layout: &pipeline.get_bind_group_layout(0),
        entries: &[wgpu::BindGroupEntry { binding: 0, resource: buffer.as_entire_binding() }],
    });
    (pipeline, group)
}

fn submit(gpu: &Gpu, (pipeline, group): &(wgpu::ComputePipeline, wgpu::BindGroup), workgroups: [u32; 3]) {
    let mut encoder = gpu.device.create_command_encoder(&Default::default());
    let mut pass = encoder.begin_compute_pass(&Default::default());
    pass.set_pipeline(pipeline);
    pass.set_bind_group(0, group, &[]);
    let [x, y, z] = workgroups;
    pass.dispatch_workgroups(x, y, z);
    drop(pass);
    gpu.queue.submit([encoder.finish()]);
}

/// Enough for years.
const FOR_EVER: [u32; 3] = [65_535; 3];

/// A guest in mid-submission, with a mapping that waits, and what comes of `fault`.
fn lose(daemon: &mut Daemon, fault: impl FnOnce(&mut Daemon)) -> (Gpu, String) {
    let gpu = Gpu::named(daemon, "victim");
    let loss = watch_loss(&gpu.device);
    let endless = work(&gpu);
    let target = gpu.buffer(64, B::MAP_READ | B::COPY_DST);
    submit(&gpu, &endless, FOR_EVER);
    let (answer, answered) = channel();
    let waiting = gpu.buffer(64, B::MAP_READ | B::COPY_DST);
    let mut encoder = gpu.device.create_command_encoder(&Default::default());
    encoder.clear_buffer(&waiting, 0, None);
    gpu.queue.submit([encoder.finish()]);
    waiting.map_async(wgpu::MapMode::Read, .., move |result| answer.send(result.is_ok()).unwrap_or_default());
    let (done, work_done) = channel();
    gpu.queue.on_submitted_work_done(move || done.send(()).unwrap_or_default());
    let _ = gpu.device.poll(wgpu::PollType::Poll);
    std::thread::sleep(Duration::from_millis(100));
    fault(daemon);
    // A program that waits for its work, and one that only looks now and then, both come to hear of it.
    let begin = Instant::now();
    let _ = gpu.device.poll(wgpu::PollType::wait_indefinitely());
    assert!(begin.elapsed() < SOON, "poll hangs");
    let (reason, message) = loss.recv_timeout(SOON).expect("the device-lost callback");
    assert_eq!(reason, wgpu::DeviceLostReason::Unknown);
    assert!(message.len() > 20 && !message.contains('\n'), "no clear message: {message}");
    assert_eq!(answered.recv_timeout(SOON), Ok(false), "a waiting mapping fails");
    work_done.recv_timeout(SOON).expect("work-done callbacks are called, as on a lost local device");
    // Whatever the program does with the lost device does nothing.
    submit(&gpu, &endless, FOR_EVER);
    gpu.queue.write_buffer(&target, 0, &[1; 64]);
    let (answer, answered) = channel();
    target.map_async(wgpu::MapMode::Read, .., move |result| answer.send(result.is_ok()).unwrap_or_default());
    let _ = gpu.device.poll(wgpu::PollType::wait_indefinitely());
    assert_eq!(answered.recv_timeout(SOON), Ok(false), "a mapping on a lost device fails");
    (gpu, message)
}

#[test]
fn a_killed_worker_is_a_lost_device_and_the_next_one_comes_at_once() {
    let Some(setup) = Setup::gpu() else { return };
    let mut daemon = setup.start();
    let bystander = Gpu::named(&daemon, "bystander");
    let mut worker = 0;
    let (gpu, message) = lose(&mut daemon, |daemon| {
        worker = daemon.worker_of("victim").expect("a worker");
        kill_9(worker);
    });
    assert!(message.contains("worker was killed"), "{message}");
    assert!(!is_alive(worker));
    let begin = Instant::now();
    let again = Gpu::on(gpu.instance);
    assert!(again.works());
    assert!(begin.elapsed() < SOON, "a new device took {:?}", begin.elapsed());
    assert!(bystander.works());
    assert_eq!(daemon.ps().len(), 2);
}

#[test]
fn a_killed_daemon_takes_its_workers_along_and_its_successor_serves_the_same_instance() {
    let Some(setup) = Setup::gpu() else { return };
    let mut daemon = setup.start();
    wait_until("workers", SOON, || daemon.workers().len() >= 2);
    let mut workers = Vec::new();
    let (gpu, message) = lose(&mut daemon, |daemon| {
        workers = daemon.workers();
        daemon.kill();
    });
    println!("without a daemon: {message}");
    assert!(workers.len() >= 2);
    wait_until("its workers to end", SOON, || workers.iter().all(|worker| !is_alive(*worker)));
    // No daemon: no adapter, and no panic.
    assert!(pollster::block_on(gpu.instance.request_adapter(&Default::default())).is_err());
    daemon.restart();
    assert!(Gpu::on(gpu.instance).works(), "an instance finds the new daemon");
}

/// A guest for other tests to kill: this test binary, started again.
#[test]
fn a_guest_that_waits_to_be_killed() {
    let Some(socket) = std::env::var_os("PONTOON_TEST_VICTIM") else { return };
    let mut options = pontoon_client::Options::new(pontoon_client::Endpoint::Unix(socket.into()));
    options.program = "victim".into();
    let gpu = Gpu::on(pontoon_client::connect(options).unwrap());
    let endless = work(&gpu);
    let _kept = gpu.buffer(1 << 20, B::COPY_DST);
    submit(&gpu, &endless, FOR_EVER);
    let _ = gpu.device.poll(wgpu::PollType::Poll);
    println!("VICTIM READY");
    std::thread::sleep(Duration::from_secs(60));
}

#[test]
fn a_killed_guest_leaves_no_session_and_no_worker() {
    let Some(setup) = Setup::gpu() else { return };
    let daemon = setup.start();
    let mut guest = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_guest_that_waits_to_be_killed", "--nocapture"])
        .env("PONTOON_TEST_VICTIM", daemon.socket())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(guest.stdout.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line.contains("VICTIM READY")), "the guest did not start");
    wait_until("its memory in pontoon ps", SOON, || {
        daemon.ps().iter().any(|row| row["memory_bytes"].as_u64() >= Some(1 << 20))
    });
    let worker = daemon.worker_of("victim").expect("a worker");
    guest.kill().unwrap();
    guest.wait().unwrap();
    // Also while its last submission would run for ever.
    let took = wait_until("pontoon ps to empty", SOON, || daemon.ps().is_empty());
    wait_until("the worker to end", SOON, || !is_alive(worker));
    println!("gone after {took:?}");
    assert!(Gpu::new(&daemon).works());
}

#[test]
fn an_endless_shader_costs_its_own_session_only() {
    let Some(setup) = Setup::gpu() else { return };
    let daemon = setup.toml("[limits]\nsubmission_seconds = 1").start();
    let bystander = Gpu::named(&daemon, "bystander");
    assert!(bystander.works());
    let gpu = Gpu::named(&daemon, "victim");
    let loss = watch_loss(&gpu.device);
    let endless = work(&gpu);
    // Compiled and warm before the clock starts.
    let _ = gpu.device.poll(wgpu::PollType::wait_indefinitely());
    let begin = Instant::now();
    submit(&gpu, &endless, FOR_EVER);
    let poll = std::thread::spawn({
        let device = gpu.device.clone();
        move || {
            let _ = device.poll(wgpu::PollType::wait_indefinitely());
            begin.elapsed()
        }
    });
    let (mut rounds, mut slowest) = (0, Duration::ZERO);
    let (reason, message) = loop {
        let round = Instant::now();
        assert!(bystander.works(), "the bystander lost its device too");
        slowest = slowest.max(round.elapsed());
        rounds += 1;
        match loss.try_recv() {
            Ok(loss) => break loss,
            Err(_) => assert!(begin.elapsed() < SOON, "the endless shader goes on"),
        }
    };
    let took = begin.elapsed();
    println!("lost after {took:?}; meanwhile {rounds} rounds of the bystander, the slowest {slowest:?}");
    assert_eq!(reason, wgpu::DeviceLostReason::Unknown);
    assert!(message.contains("limits.submission_seconds"), "{message}");
    assert!((0.9..4.0).contains(&took.as_secs_f64()), "lost after {took:?}");
    assert!(
        rounds >= 5 && slowest < Duration::from_secs(2),
        "the bystander was held up: {rounds} rounds, {slowest:?}"
    );
    assert!(poll.join().unwrap() < SOON);
    wait_until("the endless worker to end", SOON, || daemon.ps().len() == 1);
    assert!(Gpu::on(gpu.instance).works());
}

/// A shader that ends in time is none of the watchdog's business, and neither is a queue of many.
#[test]
fn many_submissions_that_each_end_in_time_are_left_alone() {
    let Some(setup) = Setup::gpu() else { return };
    let daemon = setup.toml("[limits]\nsubmission_seconds = 1").start();
    let gpu = Gpu::new(&daemon);
    let some = work(&gpu);
    submit(&gpu, &some, [8, 1, 1]);
    let _ = gpu.device.poll(wgpu::PollType::wait_indefinitely());
    let begin = Instant::now();
    submit(&gpu, &some, [8, 1, 1]);
    let _ = gpu.device.poll(wgpu::PollType::wait_indefinitely());
    let one = begin.elapsed().max(Duration::from_millis(1));
    let count = (Duration::from_millis(2500).as_micros() / one.as_micros()).clamp(3, 2000);
    let begin = Instant::now();
    (0..count).for_each(|_| submit(&gpu, &some, [8, 1, 1]));
    let _ = gpu.device.poll(wgpu::PollType::wait_indefinitely());
    println!("{count} submissions of {one:?} took {:?}", begin.elapsed());
    assert!(gpu.works(), "ended by the watchdog");
}

#[test]
fn a_log_on_a_full_disk_costs_nobody_a_session() {
    let daemon = Setup::noop().log_to("/dev/full").start();
    for _ in 0..3 {
        assert!(Gpu::new(&daemon).works());
    }
    let mut raw = common::raw::Raw::connect(&daemon, common::raw::Via::Arena);
    let mut bytes = Vec::new();
    pontoon_wire::frame::put(&mut bytes, 99, |_| {});
    raw.send(&bytes);
    assert!(raw.end().contains("unknown frame code 99"));
    wait_until("sessions to end", SOON, || daemon.ps().is_empty());
    assert!(Gpu::new(&daemon).works());
}

#[test]
fn an_idle_worker_that_is_killed_is_replaced_before_anybody_notices() {
    let daemon = Setup::noop().start();
    wait_until("idle workers", SOON, || daemon.workers().len() == 2);
    std::thread::sleep(Duration::from_millis(300));
    let workers = daemon.workers();
    workers.iter().for_each(|worker| kill_9(*worker));
    wait_until("their end", SOON, || workers.iter().all(|worker| !is_alive(*worker)));
    assert!(Gpu::new(&daemon).works());
}

/// A shell gives 1,024 open files to start with, which is less than the connections that may be there.
#[test]
fn a_shells_limit_of_open_files_is_not_that_of_connections() {
    let daemon = Setup::noop().models().open_files(64).start();
    let connect = || std::os::unix::net::UnixStream::connect(daemon.models_socket()).unwrap();
    let mut crowd: Vec<_> = (0..200).map(|_| connect()).collect();
    for connection in &mut crowd {
        connection.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    }
    for connection in &mut crowd {
        connection.set_read_timeout(Some(SOON)).unwrap();
        let mut head = [0; 12];
        connection.read_exact(&mut head).unwrap();
        assert_eq!(&head, b"HTTP/1.1 200");
    }
}

#[test]
fn a_restarted_daemon_is_found_again() {
    let mut daemon = Setup::noop().start();
    let instance = daemon.instance();
    let (device, _queue) = open_device(&instance);
    let loss = watch_loss(&device);
    daemon.restart();
    // A program that only looks now and then hears of it too.
    wait_until("the loss of the old device", SOON, || {
        let _ = device.poll(wgpu::PollType::Poll);
        loss.try_recv().is_ok()
    });
    let (again, queue) = open_device(&instance);
    assert!(Gpu { instance: instance.clone(), device: again, queue }.works());
    // A second daemon on a socket that is served says so and leaves it alone.
    let output = Command::new(env!("CARGO_BIN_EXE_pontoon"))
        .args(["serve", "--noop", "--socket"])
        .arg(daemon.socket())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains("another Pontoon daemon answers"), "{text}");
    assert!(Gpu::new(&daemon).works());
}
