//! Owns the list of benchmarks: names, units, how much work one repetition is, and who prepares them.

mod calls;
mod create;
mod fixture;
mod programs;
mod transfer;

use std::time::{Duration, Instant};

use crate::{Target, session::Session};

/// Runs so many repetitions and says how long they took, leaving out what is not being measured.
pub(crate) type Probe<'a> = Box<dyn FnMut(u32) -> Result<Duration, String> + 'a>;

/// What a benchmark is prepared from, on one target.
pub(crate) struct Setup<'a> {
    pub target: &'a Target<'a>,
    pub session: &'a Session,
    pub scale: Scale,
}

/// What decides about sizes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    pub quick: bool,
    /// The adapter is a CPU, such as Mesa's lavapipe: the real networks would take minutes.
    pub cpu: bool,
}

impl Scale {
    pub fn new(quick: bool, device_type: wgpu::DeviceType) -> Self {
        Self { quick, cpu: device_type == wgpu::DeviceType::Cpu }
    }
}

/// What a benchmark's number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Micros,
    MibPerSecond,
    PerSecond,
}

impl Unit {
    pub fn name(self) -> &'static str {
        match self {
            Self::Micros => "us",
            Self::MibPerSecond => "MiB/s",
            Self::PerSecond => "1/s",
        }
    }

    /// The number for `seconds` per repetition of `work` each.
    pub fn value(self, seconds: f64, work: f64) -> f64 {
        match self {
            Self::Micros => seconds / work * 1e6,
            Self::MibPerSecond | Self::PerSecond => work / seconds,
        }
    }

    /// Above 1 where `other` is better.
    pub fn ratio(self, native: f64, other: f64) -> f64 {
        match self {
            Self::Micros => native / other,
            Self::MibPerSecond | Self::PerSecond => other / native,
        }
    }
}

/// One benchmark.
pub(crate) struct Case {
    pub name: &'static str,
    pub unit: Unit,
    /// What one repetition amounts to: calls, dispatches, steps or MiB.
    pub work: f64,
    /// The most repetitions in one sample: bounds what is in flight, and what is alive, at a time.
    pub most: u32,
    pub prepare: for<'a> fn(&Setup<'a>) -> Result<Probe<'a>, String>,
}

const KIB_4: usize = 4 << 10;
const MIB_1: usize = 1 << 20;
const MIB_64: usize = 64 << 20;
const KIB_4_IN_MIB: f64 = 4.0 / 1024.0;

/// All of them, cheap and basic ones first.
#[rustfmt::skip]
pub(crate) const ALL: &[Case] = {
    use Unit::{MibPerSecond, Micros, PerSecond};
    &[
        Case { name: "sync_round_trip", unit: Micros, work: 1.0, most: 4096, prepare: calls::sync_round_trip },
        Case { name: "round_trip_only", unit: Micros, work: 1.0, most: 1024, prepare: calls::round_trip_only },
        Case { name: "async_command", unit: Micros, work: calls::BURST, most: 256, prepare: calls::async_command },
        Case { name: "record_dispatch", unit: Micros, work: calls::PASS, most: 64, prepare: calls::record_dispatch },
        Case { name: "dispatch", unit: PerSecond, work: calls::PASS, most: 64, prepare: calls::dispatch },
        Case { name: "submit", unit: PerSecond, work: 1.0, most: 512, prepare: calls::submit },
        Case { name: "upload_4KiB", unit: MibPerSecond, work: KIB_4_IN_MIB, most: 512, prepare: transfer::upload::<KIB_4> },
        Case { name: "upload_1MiB", unit: MibPerSecond, work: 1.0, most: 32, prepare: transfer::upload::<MIB_1> },
        Case { name: "upload_64MiB", unit: MibPerSecond, work: 64.0, most: 4, prepare: transfer::upload::<MIB_64> },
        Case { name: "readback_4KiB", unit: MibPerSecond, work: KIB_4_IN_MIB, most: 1024, prepare: transfer::readback::<KIB_4> },
        Case { name: "readback_1MiB", unit: MibPerSecond, work: 1.0, most: 64, prepare: transfer::readback::<MIB_1> },
        Case { name: "readback_64MiB", unit: MibPerSecond, work: 64.0, most: 4, prepare: transfer::readback::<MIB_64> },
        Case { name: "create_buffer", unit: Micros, work: 1.0, most: 512, prepare: create::buffer },
        Case { name: "create_bind_group", unit: Micros, work: 1.0, most: 512, prepare: create::bind_group },
        Case { name: "create_pipeline", unit: Micros, work: 1.0, most: 64, prepare: create::pipeline },
        Case { name: "session_start", unit: Micros, work: 1.0, most: 1, prepare: create::session },
        Case { name: "train_step", unit: Micros, work: programs::STEPS, most: 64, prepare: programs::train_step },
        Case { name: "encoder_forward", unit: Micros, work: 1.0, most: 16, prepare: programs::encoder_forward },
        Case { name: "resnet50_forward", unit: Micros, work: 1.0, most: 16, prepare: programs::resnet50_forward },
    ]
};

/// What a reader should know about a benchmark whose size depends on the adapter.
pub(crate) fn note(name: &str, scale: &Scale) -> Option<String> {
    let sizes = match (name, scale.cpu) {
        ("encoder_forward", true) => "the small encoder (2 layers, 64 x 128), since the adapter is a CPU",
        ("encoder_forward", false) => "BERT-base's shape (12 layers, 512 x 768)",
        ("resnet50_forward", true) => {
            "all layers, but 32x32 pixels and 1/8 of the channels: the adapter is a CPU"
        }
        ("resnet50_forward", false) => "the full network (224x224 pixels, 1000 classes)",
        _ => return None,
    };
    Some(format!("{name}: {sizes}"))
}

/// How long `work` takes.
fn timed(work: impl FnOnce() -> Result<(), String>) -> Result<Duration, String> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed())
}
