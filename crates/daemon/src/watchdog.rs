//! The limit on the time of one command.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::control::{self, Notice};

/// Ends the process when one command takes too long: the thread that executes it may be stuck in the
/// driver and cannot end itself.
pub struct Watchdog {
    started: Instant,
    /// Milliseconds since `started`, plus one, at which the command under way began; 0 where none is.
    since: Arc<AtomicU64>,
}

impl Watchdog {
    /// Starts the thread that watches; `limit` is in seconds.
    ///
    /// # Errors
    /// What the system said.
    pub fn start(limit: u64, control: &OwnedFd) -> std::io::Result<Self> {
        let (started, since) = (Instant::now(), Arc::new(AtomicU64::new(0)));
        let (control, watched) = (control.try_clone()?, since.clone());
        std::thread::Builder::new().name("watchdog".into()).spawn(move || {
            loop {
                std::thread::sleep(Duration::from_millis(100));
                let began = watched.load(Ordering::Relaxed);
                let now = started.elapsed().as_millis() as u64 + 1;
                if began != 0 && now.saturating_sub(began) > limit.saturating_mul(1000) {
                    let message = format!(
                        "a command took more than {limit} s on the host (limits.command_seconds) and was ended: use smaller shaders or raise the limit"
                    );
                    let _ = control::send(&control, &Notice::Ended { message, told: false }, &[]);
                    std::process::abort();
                }
            }
        })?;
        Ok(Self { started, since })
    }

    /// A command begins.
    pub fn command_begins(&self) {
        self.since.store(self.started.elapsed().as_millis() as u64 + 1, Ordering::Relaxed);
    }

    /// It is done.
    pub fn command_ends(&self) {
        self.since.store(0, Ordering::Relaxed);
    }
}
