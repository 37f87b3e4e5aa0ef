//! Steps in processes of their own: a driver that hangs takes that process with it, and nobody else.

use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::{Operation, StepError};

/// Carries out one step by `program worker step STEP`, and waits for at most `deadline`. A process that does not come back is left behind: the
/// kernel ends it when the driver does.
///
/// # Errors
/// [`StepError`].
pub fn in_process(program: &Path, operation: &Operation, deadline: Duration) -> Result<(), StepError> {
    let refused = |source| StepError::Refused { step: operation.to_string(), source };
    let order = serde_json::to_string(operation).map_err(|error| refused(error.into()))?;
    let mut command = Command::new(program);
    // Keys at a terminal are not for it.
    command.process_group(0);
    command
        .args(["worker", "step", &order])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = command.spawn().map_err(refused)?;
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().map_err(refused)? {
            break status;
        }
        if begun.elapsed() > deadline {
            let _ = child.kill();
            return Err(StepError::Late { step: operation.to_string(), seconds: deadline.as_secs() });
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    if status.success() {
        return Ok(());
    }
    let mut said = String::new();
    if let Some(errors) = child.stderr.take() {
        let _ = errors.take(4096).read_to_string(&mut said);
    }
    // The system's own number, where there is one: what is done next depends on it.
    let source = match said.trim().strip_prefix("os error ").and_then(|number| number.parse().ok()) {
        Some(number) => std::io::Error::from_raw_os_error(number),
        None => std::io::Error::other(match said.trim() {
            "" => status.to_string(),
            said => said.to_owned(),
        }),
    };
    Err(refused(source))
}

/// Waits until steps have ended whose helper was killed, for at most `patience`: what they do comes after all that is read
/// before. One that hangs in a driver is left to it.
pub(crate) fn wait_for_orphans(root: &Path, patience: Duration) {
    let begun = Instant::now();
    while begun.elapsed() < patience && has_step(root) {
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Whether a step of this user's runs.
fn has_step(root: &Path) -> bool {
    let own = rustix::process::geteuid().as_raw();
    let processes = std::fs::read_dir(root.join("proc")).into_iter().flatten().flatten();
    processes.into_iter().any(|process| {
        let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        let mut words = line.split(|byte| *byte == 0).skip(1);
        words.next() == Some(b"worker")
            && words.next() == Some(b"step")
            && process.metadata().is_ok_and(|found| found.uid() == own)
    })
}

/// What `worker step` does, and its exit code.
pub fn run(order: &str) -> i32 {
    let operation: Operation = match serde_json::from_str(order) {
        Ok(operation) => operation,
        Err(error) => {
            eprintln!("this is no step: {error}");
            return 2;
        }
    };
    match crate::apply::perform(Path::new("/"), &operation) {
        Ok(()) => 0,
        Err(error) => {
            match error.raw_os_error() {
                Some(number) => eprintln!("os error {number}"),
                None => eprintln!("{error}"),
            }
            1
        }
    }
}

/// This program, for steps: the one that runs, also where its file has been replaced since.
///
/// # Errors
/// What the system said.
pub fn program() -> std::io::Result<PathBuf> {
    match cfg!(target_os = "linux") {
        true => Ok("/proc/self/exe".into()),
        false => std::env::current_exe(),
    }
}
