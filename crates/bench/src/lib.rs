//! Measures wgpu natively and over the bridge, interleaved in one run, and compares them.
//!
//! The crate knows nothing of bridges: a [`Target`] is a name and a way to open a `wgpu::Instance`, and
//! the first one is what the others are measured against. Every benchmark is prepared on all targets
//! and then sampled in turn, in an order that changes from round to round, so that a machine that
//! grows slower half-way through slows all of them alike.
//!
//! | module | owns |
//! |---|---|
//! | [`cases`] | what is measured, one function per benchmark |
//! | [`interleave`] | how: repetitions, rounds, order, medians; [`placement`]: on which CPU |
//! | [`session`] | one device per target, and what went wrong on it |
//! | [`report`], [`machine`] | what comes out, as JSON and as a table |

#![forbid(unsafe_code)]

mod cases;
mod error;
mod interleave;
mod machine;
mod placement;
mod report;
mod session;

pub use error::Error;
pub use machine::Machine;
pub use report::{Benchmark, ByTarget, Report};

use cases::{Case, Scale, Setup};
use interleave::Pace;
use session::Session;

/// Opens an instance of wgpu; each call opens a fresh one, which over a bridge is a fresh session.
pub type Connect<'a> = Box<dyn Fn() -> Result<wgpu::Instance, String> + 'a>;

/// One way to reach the GPU.
pub struct Target<'a> {
    /// `native`, `unix`, `tcp`, or what a line is called; the keys of the report.
    pub name: String,
    /// Opens an instance.
    pub connect: Connect<'a>,
}

/// What to measure.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Fewer rounds and smaller batches: well under a minute instead of three.
    pub quick: bool,
    /// Only the benchmarks whose names contain one of these; all where there is none.
    pub only: Vec<String>,
}

/// The names of all benchmarks, in the order they run in.
pub fn names() -> impl Iterator<Item = &'static str> {
    cases::ALL.iter().map(|case| case.name)
}

/// Runs the benchmarks on all `targets`; the first is what the others are compared with.
///
/// `progress` is told a line before each benchmark.
///
/// # Errors
/// [`Error`]: the first target and benchmark that failed; a comparison with holes in it is not made.
pub fn run(
    targets: &[Target<'_>],
    options: &Options,
    progress: &mut dyn FnMut(&str),
) -> Result<Report, Error> {
    let mut machine = Machine::here();
    let selected = select(&options.only)?;
    if targets.is_empty() {
        return Err(Error::NoTarget);
    }
    progress("opening a session on every target");
    let sessions = targets.iter().map(open).collect::<Result<Vec<_>, _>>()?;
    same_adapter(targets, &sessions)?;
    machine.describe(&sessions[0].info);
    let scale = Scale::new(options.quick, sessions[0].info.device_type);
    machine.notes = notes(&machine, &scale, &selected);

    let mut benchmarks = Vec::with_capacity(selected.len());
    for (index, case) in selected.iter().enumerate() {
        progress(&format!("[{}/{}] {}", index + 1, selected.len(), case.name));
        let values = measure(case, targets, &sessions, &scale)?;
        let names = targets.iter().map(|target| target.name.clone());
        benchmarks.push(Benchmark::new(case.name, case.unit, names.zip(values)));
    }
    Ok(Report { machine, benchmarks })
}

fn select(only: &[String]) -> Result<Vec<&'static Case>, Error> {
    let wanted = |case: &&Case| only.is_empty() || only.iter().any(|part| case.name.contains(part));
    let selected: Vec<_> = cases::ALL.iter().filter(wanted).collect();
    match selected.is_empty() {
        true => Err(Error::NoBenchmark { filter: only.join("' or '") }),
        false => Ok(selected),
    }
}

fn open(target: &Target<'_>) -> Result<Session, Error> {
    Session::open(target).map_err(|problem| Error::Open { target: target.name.clone(), problem })
}

/// Numbers of two different GPUs would say nothing about the bridge.
fn same_adapter(targets: &[Target<'_>], sessions: &[Session]) -> Result<(), Error> {
    let describe = |session: &Session| format!("{} ({:?})", session.info.name, session.info.backend);
    // A bridged adapter's name also says that it is bridged.
    let identity = |session: &Session| (session.info.vendor, session.info.device, session.info.backend);
    let first = describe(&sessions[0]);
    match sessions.iter().position(|session| identity(session) != identity(&sessions[0])) {
        None => Ok(()),
        Some(other) => Err(Error::Adapters {
            first: targets[0].name.clone(),
            first_adapter: first,
            other: targets[other].name.clone(),
            other_adapter: describe(&sessions[other]),
        }),
    }
}

/// The value of `case` on every target, in the unit of the case.
fn measure(
    case: &Case,
    targets: &[Target<'_>],
    sessions: &[Session],
    scale: &Scale,
) -> Result<Vec<f64>, Error> {
    let failed = |index: usize, problem| Error::Benchmark {
        target: targets[index].name.clone(),
        benchmark: case.name,
        problem,
    };
    let mut probes = Vec::with_capacity(targets.len());
    for (index, (target, session)) in targets.iter().zip(sessions).enumerate() {
        let probe = (case.prepare)(&Setup { target, session, scale: *scale })
            .and_then(|probe| session.drain().map(|()| probe));
        probes.push(probe.map_err(|problem| failed(index, problem))?);
    }
    let pace = Pace::new(scale.quick, case.most);
    let seconds =
        interleave::medians(&mut probes, &pace).map_err(|(index, problem)| failed(index, problem))?;
    drop(probes);
    // What the benchmark leaves behind is cleared away now, not in the middle of the next one.
    for (index, session) in sessions.iter().enumerate() {
        session.drain().map_err(|problem| failed(index, problem))?;
    }
    Ok(seconds.into_iter().map(|seconds| case.unit.value(seconds, case.work)).collect())
}

fn notes(machine: &Machine, scale: &Scale, selected: &[&Case]) -> Vec<String> {
    let mut notes = vec!["numbers are medians of the faster half of interleaved samples".to_owned()];
    if machine.load_average[0] > machine.cores as f64 / 2.0 {
        notes.push("the machine was busy when the run began: mind the ratios more than the numbers".into());
    }
    if scale.quick {
        notes.push("quick: fewer rounds; ratios within about 10% of 1 are noise".into());
    }
    for case in selected {
        notes.extend(cases::note(case.name, scale));
    }
    notes
}
