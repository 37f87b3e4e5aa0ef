//! Owns resource limits and the worker's place in the kernel's lists of victims.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setpriority_process, setrlimit};

use crate::{Error, Level, Limits, Mechanism, Policy, Report, sys};

/// Lowers the limits of this process. They can never be raised again without privileges.
pub fn lower(policy: &Policy, report: &mut Report) -> Result<(), Error> {
    let Limits { address_space, files, file_size, processes } = policy.limits;
    let core_bytes = (!policy.core_dumps).then_some(0);
    if file_size.is_some() {
        sys::ignore_file_size_signal()
            .map_err(|source| Error::Limit { what: "the size of files", source })?;
    }
    let wishes = [
        (Resource::Core, core_bytes, "core dumps"),
        (Resource::Nofile, Some(files), "open files"),
        (Resource::Fsize, file_size, "the size of files"),
        (Resource::As, address_space, "address space"),
        (Resource::Nproc, processes, "processes of the user"),
    ];
    let mut set = Vec::new();
    for (resource, wish, what) in wishes {
        let Some(wish) = wish else { continue };
        let value = limit(resource, wish).map_err(|source| Error::Limit { what, source })?;
        set.push(format!("{what} {value}"));
    }
    report.note(Mechanism::Limits, Level::InForce, set.join(", "));
    Ok(())
}

/// Sets soft and hard limit, but never above the hard limit already in force.
fn limit(resource: Resource, wish: u64) -> io::Result<u64> {
    let hard = getrlimit(resource).maximum.unwrap_or(u64::MAX);
    let value = wish.min(hard);
    let new = Rlimit { current: Some(value), maximum: Some(value) };
    setrlimit(resource, new)?;
    Ok(value)
}

/// Makes this worker the first to go when memory runs out. Must come before the process is made
/// undumpable: from then on the file belongs to root.
pub fn volunteer_for_oom(policy: &Policy, report: &mut Report) {
    let Some(wish) = policy.oom_score_adj else {
        return report.note(Mechanism::OutOfMemory, Level::Absent, "not asked for");
    };
    match raise_oom_score(wish) {
        Ok(score) => {
            let detail = format!("oom_score_adj {score}");
            report.note(Mechanism::OutOfMemory, Level::InForce, detail);
        }
        Err(e) => report.note(Mechanism::OutOfMemory, Level::Absent, e.to_string()),
    }
}

/// Never lowers what the supervisor (or a container engine) has set higher.
fn raise_oom_score(wish: i32) -> io::Result<i32> {
    const FILE: &str = "/proc/self/oom_score_adj";
    let now = std::fs::read_to_string(FILE)?;
    let score = now.trim().parse().map_or(wish, |now: i32| now.max(wish));
    std::fs::write(FILE, score.to_string())?;
    Ok(score)
}

/// Being nicer is always permitted; a refusal to be *less* nice is not worth an error.
pub fn be_nice(policy: &Policy, report: &mut Report) {
    let Some(nice) = policy.nice else { return };
    let outcome = setpriority_process(None, nice);
    let (level, result) = match outcome {
        Ok(()) => (Level::InForce, "set".to_owned()),
        Err(e) => (Level::Absent, e.to_string()),
    };
    report.note(Mechanism::Niceness, level, format!("niceness {nice}: {result}"));
}
