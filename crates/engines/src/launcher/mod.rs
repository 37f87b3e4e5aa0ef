//! Owns the launcher: the process that checks a model, confines itself, and becomes the engine.
//!
//! `pontoon worker engine` calls [`run`] first of all, while the process has one thread. The job comes as
//! JSON on standard input. Nobody else has talked to this process, and the model's files are the first
//! hostile bytes it reads: it does so after it gave up files, network and privileges, and before the
//! engine, which is less careful with them, ever sees them.

mod elf;
mod job;

use std::convert::Infallible;
use std::io::Read;

use pontoon_models::check;
use pontoon_sandbox::{Identity, Policy, Program, Report};

pub use job::{Job, Limits, User};

/// Begins each line that the launcher itself writes to standard error.
pub const MARK: &str = "pontoon-launcher: ";

/// How the launcher ends if the model is to blame.
pub const MODEL_REFUSED: i32 = 65;
/// How it ends for any other reason.
pub const FAILED: i32 = 70;

/// A job is small: paths, arguments, environment.
const MAX_JOB: u64 = 4 << 20;

/// Why there is no engine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error("the job on standard input is not one: {0}")]
    Job(String),
    #[error("the model was refused: {0}")]
    Model(pontoon_models::Error),
    #[error("{0}")]
    Confinement(#[from] pontoon_sandbox::Error),
    #[error("{path} is no program: {reason}")]
    Program { path: String, reason: String },
    #[error("the process cannot go to /: {0}")]
    Root(std::io::Error),
}

impl Error {
    /// With what status the launcher ends.
    pub fn status(&self) -> i32 {
        match self {
            Error::Model(_) => MODEL_REFUSED,
            _ => FAILED,
        }
    }
}

/// Reads the job, does it, and becomes the engine. On failure it writes the reason, marked, to standard
/// error; the caller has only to exit with the status returned.
pub fn run() -> i32 {
    let outcome = read_job().and_then(|job| launch(&job));
    let error = match outcome {
        Err(error) => error,
        Ok(never) => match never {},
    };
    say(&error.to_string());
    error.status()
}

fn read_job() -> Result<Job, Error> {
    let mut text = Vec::new();
    let input = std::io::stdin().lock();
    input.take(MAX_JOB).read_to_end(&mut text).map_err(|e| Error::Job(e.to_string()))?;
    serde_json::from_slice(&text).map_err(|e| Error::Job(e.to_string()))
}

fn launch(job: &Job) -> Result<Infallible, Error> {
    // Engines load plug-ins from where they stand.
    std::env::set_current_dir("/").map_err(Error::Root)?;
    let entered = pontoon_sandbox::enter(&policy(job)?)?;
    for bundle in &job.check {
        check::bundle(bundle).map_err(Error::Model)?;
    }
    let program = Program {
        path: job.program.clone(),
        arguments: job.arguments.clone(),
        environment: job.environment.clone(),
    };
    let never = entered.become_program(&program, tell)?;
    match never {}
}

/// One line for each fence that is weaker than it could be, for the engine's log.
fn tell(report: &Report) {
    for weak in report.weaknesses() {
        say(&format!("{} {}: {}", weak.mechanism, weak.level, weak.detail));
    }
    say(&format!("confined in {} µs", report.enter_micros + report.seal_micros));
}

fn say(line: &str) {
    eprintln!("{MARK}{}", line.replace('\n', " "));
}

fn policy(job: &Job) -> Result<Policy, Error> {
    let mut policy = Policy::engine();
    policy.read_paths.extend(job.read.iter().cloned());
    policy.write_paths.extend(job.write.iter().cloned());
    policy.execute_paths = vec![job.program.clone()];
    policy.execute_paths.extend(elf::interpreter(&job.program)?);
    policy.parent = job.parent;
    policy.landlock_required = job.landlock_required;
    policy.limits.files = job.limits.files;
    policy.limits.address_space = job.limits.address_space;
    policy.limits.file_size = job.limits.file_size;
    if let Some(User { uid, gid }) = job.user {
        let identity = Identity::for_devices(uid, gid, &policy.device_paths);
        let identity = identity.map_err(|e| Error::Job(format!("the GPU's groups cannot be found: {e}")))?;
        policy.user = Some(identity);
    }
    policy.add_driver_environment(|name| {
        let found = job.environment.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.clone())
    });
    Ok(policy)
}
