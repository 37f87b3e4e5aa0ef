//! The bridge: where the host is, what it offers, how far away it is, and whether it computes rightly.

use std::time::{Duration, Instant, SystemTime};

use pontoon_client::{Error, Options};
use wgpu::util::DeviceExt as _;

use crate::Finding;

/// Round trips that are measured.
const TRIPS: usize = 64;
/// Bytes that are sent there and back, at most; a slow way gets as many as it takes in about half a second.
const LARGEST: usize = 32 << 20;
/// Bytes of the first try.
const FIRST: usize = 1 << 20;
/// Numbers that the host doubles.
const NUMBERS: u32 = 4096;

const DOUBLE: &str = "
@group(0) @binding(0) var<storage, read_write> numbers: array<u32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    numbers[id.x] = numbers[id.x] * 2u;
}";

pub fn examine() -> Vec<Finding> {
    let mut findings = Vec::new();
    let Some(instance) = connect(&mut findings) else { return findings };
    let Some((device, queue)) = open(&instance, &mut findings) else { return findings };
    findings.push(round_trip(&device));
    findings.push(computes(&device, &queue));
    findings.extend(bandwidth(&device, &queue));
    findings
}

/// The way to the host.
fn connect(findings: &mut Vec<Finding>) -> Option<wgpu::Instance> {
    let named = std::env::var("PONTOON_HOST").ok().filter(|host| !host.is_empty());
    let options = match Options::from_environment() {
        Ok(options) => options,
        Err(Error::Nowhere { tried }) => {
            let advice = "start `pontoon serve` on the host, and give the container the device pontoon.dev/gpu=all, or set PONTOON_HOST";
            findings.push(Finding::failed(
                "host",
                format!("PONTOON_HOST is not set, and nobody answers: {tried}"),
                advice,
            ));
            return None;
        }
        Err(error) => {
            let advice =
                "correct that variable, or unset it: without PONTOON_HOST the usual places are tried";
            findings.push(Finding::failed("host", error.to_string(), advice));
            return None;
        }
    };
    let endpoint = options.endpoint.clone();
    findings.push(Finding::ok(
        "host",
        match named {
            Some(_) => format!("PONTOON_HOST says {endpoint}"),
            None => format!("PONTOON_HOST is not set; found {endpoint}"),
        },
    ));
    let begun = Instant::now();
    match pontoon_client::connect(options) {
        Ok(instance) => {
            let elapsed = begun.elapsed();
            findings.push(Finding::measured(
                "session",
                format!("opened in {:.1} ms", millis(elapsed)),
                micros(elapsed),
            ));
            Some(instance)
        }
        Err(error) => {
            findings.push(Finding::failed("session", error.to_string(), advice(&error, &endpoint)));
            None
        }
    }
}

fn advice(error: &Error, endpoint: &pontoon_client::Endpoint) -> &'static str {
    use pontoon_client::Endpoint;
    match (error, endpoint) {
        (Error::Insecure { message, .. }, _) if message.contains("without TLS") => {
            "use a program that was built with pontoon-client's feature `tls` (for this one: --features tls)"
        }
        (Error::Insecure { .. }, _) => {
            "check that the address is the host's, and ask its operator for a new ticket"
        }
        (Error::Broken { .. }, _) => {
            "something else than Pontoon's bridge may listen there: the model runner, or a TLS port, which needs a ticket"
        }
        (_, Endpoint::Unix(path)) if path.is_dir() => "it is a folder: name the socket in it",
        (Error::Refused { .. }, _) => {
            "the host is there and says no: its operator's policies, limits or tokens decide"
        }
        (_, Endpoint::Unix(path)) if !path.exists() => {
            "the socket is not mounted here: give the container the device pontoon.dev/gpu=all, or mount the host's folder of sockets; then check that `pontoon serve` runs on the host"
        }
        (_, Endpoint::Unix(_)) => {
            "the socket is here and nobody listens: start `pontoon serve` on the host; after a restart of the daemon a container needs the folder mounted, not the socket alone"
        }
        (_, Endpoint::Vsock { .. }) => {
            "the host must listen there: `vsock` or `vms` under [listen] in its pontoon.toml, and the machine needs a vsock device"
        }
        _ => {
            "check the address, the way there (firewalls, routes), and that the host listens: `tcp` or `tls` under [listen] in its pontoon.toml"
        }
    }
}

fn open(instance: &wgpu::Instance, findings: &mut Vec<Finding>) -> Option<(wgpu::Device, wgpu::Queue)> {
    let adapter = match pollster::block_on(instance.request_adapter(&wgpu::RequestAdapterOptions::default()))
    {
        Ok(adapter) => adapter,
        Err(error) => {
            findings.push(Finding::failed(
                "adapter",
                error.to_string(),
                "the host offers none: `pontoon doctor` there says why",
            ));
            return None;
        }
    };
    let info = adapter.get_info();
    let seen = format!("{} ({:?}, {})", info.name, info.device_type, info.backend);
    findings.push(match info.device_type {
        wgpu::DeviceType::Cpu => Finding::warning(
            "adapter",
            seen,
            "this is software on the host's CPU, not a GPU: `pontoon gpu list` there says what it has",
        ),
        _ => Finding::ok("adapter", seen),
    });
    match pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor::default())) {
        Ok(found) => Some(found),
        Err(error) => {
            findings.push(Finding::failed("device", error.to_string(), "the host's log says why"));
            None
        }
    }
}

/// How long the host takes to say that nothing went wrong.
fn round_trip(device: &wgpu::Device) -> Finding {
    let mut times: Vec<f64> = (0..TRIPS)
        .map(|_| {
            let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
            // A scope without a command is answered at once.
            drop(device.create_buffer(&wgpu::BufferDescriptor {
                label: None,
                size: 4,
                usage: wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            }));
            let begun = Instant::now();
            let _ = pollster::block_on(scope.pop());
            micros(begun.elapsed())
        })
        .collect();
    times.sort_by(f64::total_cmp);
    let median = times[times.len() / 2];
    Finding::measured(
        "round trip",
        format!("{median:.0} µs, the median of {TRIPS}; the slowest {:.0} µs", times[times.len() - 1]),
        median,
    )
}

/// Whether numbers come back doubled: wrong versions and broken drivers show here.
fn computes(device: &wgpu::Device, queue: &wgpu::Queue) -> Finding {
    let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
    let numbers: Vec<u8> = (0..NUMBERS).flat_map(|number| number.to_le_bytes()).collect();
    let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC;
    let init = wgpu::util::BufferInitDescriptor { label: None, contents: &numbers, usage };
    let buffer = device.create_buffer_init(&init);
    let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
        label: None,
        source: wgpu::ShaderSource::Wgsl(DOUBLE.into()),
    });
    let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: None,
        layout: None,
        module: &module,
        entry_point: None,
        compilation_options: Default::default(),
        cache: None,
    });
    let group = device.create_bind_group(&wgpu::BindGroupDescriptor {
        label: None,
        layout: &pipeline.get_bind_group_layout(0),
        entries: &[wgpu::BindGroupEntry { binding: 0, resource: buffer.as_entire_binding() }],
    });
    let mut encoder = device.create_command_encoder(&Default::default());
    {
        let mut pass = encoder.begin_compute_pass(&Default::default());
        pass.set_pipeline(&pipeline);
        pass.set_bind_group(0, &group, &[]);
        pass.dispatch_workgroups(NUMBERS / 64, 1, 1);
    }
    let back = download_buffer(device, numbers.len());
    encoder.copy_buffer_to_buffer(&buffer, 0, &back, 0, numbers.len() as u64);
    queue.submit([encoder.finish()]);
    let got = read(device, &back);
    let error = pollster::block_on(scope.pop());
    let advice = "what the host computes is wrong: check that guest and host are of the same Pontoon release, and the host's driver";
    match (got, error) {
        (_, Some(error)) => Finding::failed("compute", error.to_string(), advice),
        (Err(error), _) => Finding::failed("compute", error, advice),
        (Ok(bytes), None) => {
            let doubled =
                bytes.chunks_exact(4).zip(0u32..).all(|(bytes, number)| bytes == (number * 2).to_le_bytes());
            match doubled {
                true => Finding::ok("compute", format!("{NUMBERS} numbers came back doubled")),
                false => Finding::failed("compute", "numbers came back wrong", advice),
            }
        }
    }
}

fn download_buffer(device: &wgpu::Device, len: usize) -> wgpu::Buffer {
    let usage = wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ;
    device.create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: len as u64,
        usage,
        mapped_at_creation: false,
    })
}

fn read(device: &wgpu::Device, buffer: &wgpu::Buffer) -> Result<Vec<u8>, String> {
    let (tell, told) = std::sync::mpsc::channel();
    buffer.map_async(wgpu::MapMode::Read, .., move |result| drop(tell.send(result)));
    device.poll(wgpu::PollType::wait_indefinitely()).map_err(|error| error.to_string())?;
    told.recv().map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
    let bytes = buffer.get_mapped_range(..).map_err(|error| error.to_string())?.to_vec();
    buffer.unmap();
    Ok(bytes)
}

/// Bytes a second, there and back.
fn bandwidth(device: &wgpu::Device, queue: &wgpu::Queue) -> Vec<Finding> {
    let first = transfer(device, queue, FIRST);
    let Ok((there, back)) = first else {
        return vec![Finding::failed("bandwidth", "the transfer failed", "the host's log says why")];
    };
    let slower = there.max(back).as_secs_f64();
    let len = ((FIRST as f64 * 0.25 / slower) as usize).clamp(FIRST, LARGEST).next_multiple_of(4096);
    let (there, back) = transfer(device, queue, len).unwrap_or((there, back));
    let rate = |time: Duration| len as f64 / f64::from(1 << 20) / time.as_secs_f64();
    let finding = |part, time| {
        Finding::measured(part, format!("{:.0} MiB/s, with {} MiB", rate(time), len >> 20), rate(time))
    };
    vec![finding("upload", there), finding("read-back", back)]
}

fn transfer(device: &wgpu::Device, queue: &wgpu::Queue, len: usize) -> Result<(Duration, Duration), String> {
    let usage = wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC;
    let desc = wgpu::BufferDescriptor { label: None, size: len as u64, usage, mapped_at_creation: false };
    let (buffer, back) = (device.create_buffer(&desc), download_buffer(device, len));
    let data = noise(len);
    let wait =
        || device.poll(wgpu::PollType::wait_indefinitely()).map(drop).map_err(|error| error.to_string());
    let begun = Instant::now();
    queue.write_buffer(&buffer, 0, &data);
    queue.submit([]);
    wait()?;
    let there = begun.elapsed();
    let mut encoder = device.create_command_encoder(&Default::default());
    encoder.copy_buffer_to_buffer(&buffer, 0, &back, 0, len as u64);
    let begun = Instant::now();
    queue.submit([encoder.finish()]);
    let got = read(device, &back)?;
    let elapsed = begun.elapsed();
    match got == data {
        true => Ok((there, elapsed)),
        false => Err("other bytes came back".into()),
    }
}

/// Bytes that nobody has sent before, and none of them twice: what a host has seen it need not be sent again.
/// (xorshift64, Marsaglia 2003.)
fn noise(len: usize) -> Vec<u8> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let mut state = now.as_nanos() as u64 | 1;
    let mut word = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..len.div_ceil(8)).flat_map(|_| word()).take(len).collect()
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
