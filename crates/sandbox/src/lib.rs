//! Owns the confinement of a worker process: what it may still do once a hostile guest talks to it.
//!
//! A worker confines itself in two stages, because a GPU driver needs more to start than to run:
//!
//! 1. [`enter`] is the first thing in `main`, while the process has **one thread**. Landlock,
//!    no-new-privileges, capabilities and user ids belong to a thread and are inherited by the
//!    threads it starts later; a driver thread that already existed would stay free for ever.
//!    (`LANDLOCK_RESTRICT_SELF_TSYNC` would lift that, but only from Linux 7.0 on.)
//! 2. The caller loads the driver, creates the instance and picks the adapter: the *warm-up*. No
//!    byte of the guest has been read yet.
//! 3. [`WarmUp::seal`] installs the seccomp allow-list in all threads at once, then reads back
//!    from the kernel that every thread really is confined.
//! 4. Only now the worker receives the guest's connection.
//!
//! The types keep the order: there is no way to `seal` without having entered. An error in either
//! stage may leave the process half confined; the only right answer is to log it and exit.
//!
//! Nothing here believes itself: [`Report`] says for each [`Mechanism`] whether it is in force and,
//! where it is not, why. `pontoon doctor` should start a worker, let it confine itself, and print
//! its report rather than guess from kernel versions.

#![deny(unsafe_code)]

mod error;
mod policy;
mod program;
mod report;
#[cfg(any(target_os = "linux", target_os = "macos"))]
mod sys;

#[cfg(target_os = "linux")]
mod allowed;
#[cfg(target_os = "linux")]
mod allowed_engine;
#[cfg(target_os = "linux")]
mod identity;
#[cfg(target_os = "linux")]
mod landlock;
#[cfg(target_os = "linux")]
mod limits;
#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
mod seccomp;
#[cfg(target_os = "linux")]
use linux as platform;

#[cfg(target_os = "macos")]
mod macos;
#[cfg(target_os = "macos")]
use macos as platform;

#[cfg(not(any(target_os = "linux", target_os = "macos")))]
mod other;
#[cfg(not(any(target_os = "linux", target_os = "macos")))]
use other as platform;

pub use error::Error;
pub use policy::{Calls, Identity, Limits, Policy, QUIET_DRIVER_ENV};
pub use program::Program;
pub use report::{Finding, Level, Mechanism, Report};

/// A process that has entered its sandbox and may still load drivers; it must not meet a guest yet.
#[must_use = "a worker that is never sealed keeps the right to make any system call"]
pub struct WarmUp {
    report: Report,
    stage: platform::Entered,
}

/// First stage: gives up files, network, identity and privileges. Call it first in `main`.
///
/// Fails, among other reasons, if the process already has a second thread.
pub fn enter(policy: &Policy) -> Result<WarmUp, Error> {
    let started = std::time::Instant::now();
    let mut report = Report::default();
    let stage = platform::enter(policy, &mut report)?;
    report.enter_micros = micros_since(started);
    Ok(WarmUp { report, stage })
}

impl WarmUp {
    /// What the first stage achieved.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Second stage: leaves only the system calls that a loaded driver and its worker need, in
    /// every thread of the process. Call it after the warm-up, before the first byte of a guest.
    pub fn seal(mut self) -> Result<Report, Error> {
        let started = std::time::Instant::now();
        platform::seal(self.stage, &mut self.report)?;
        self.report.seal_micros = micros_since(started);
        Ok(self.report)
    }
}

impl WarmUp {
    /// Second stage for a process that becomes another program: prepares everything, seals, tells
    /// `before` what is in force, and executes the program. Returns only on failure.
    ///
    /// This `execve` is the last: it is allowed for one address of its first argument only, at which
    /// no memory can ever be again (`allowed_engine` says why), and Landlock permits no other program.
    /// Use it with [`Calls::Engine`].
    ///
    /// # Errors
    /// As [`WarmUp::seal`]; [`Error::Execute`] if the program cannot be started.
    pub fn become_program(
        self,
        program: &Program,
        before: impl FnOnce(&Report),
    ) -> Result<std::convert::Infallible, Error> {
        let ready = platform::prepare(program)?;
        let mut report = self.seal()?;
        if report.level(Mechanism::Undumpable) == Level::InForce {
            // The kernel takes this back at `execve`; the limit on core dumps stays.
            report.note(
                Mechanism::Undumpable,
                Level::Partial,
                "no core dumps; debuggers of the same user may look",
            );
        }
        before(&report);
        Err(platform::execute(ready))
    }
}

fn micros_since(started: std::time::Instant) -> u64 {
    u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX)
}
