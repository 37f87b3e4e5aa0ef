//! Workers that are ready before anybody asks for one.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};

use crate::admin::AdapterRow;
use crate::config::{Backend, Gpu};
use crate::control::{self, Notice};

/// How long a caller waits for a worker: a cold driver takes seconds to load.
const PATIENCE: Duration = Duration::from_secs(45);
/// Pause after a worker that could not start.
const RETRY: Duration = Duration::from_secs(1);

/// A confined worker without a session.
#[derive(Debug)]
pub struct Worker {
    /// The process.
    pub child: Child,
    /// The socket to it.
    pub control: OwnedFd,
}

#[derive(Debug, Default)]
struct State {
    ready: VecDeque<Worker>,
    starting: usize,
    waiting: usize,
    adapters: Vec<AdapterRow>,
    failure: Option<(String, Instant)>,
    weaknesses_told: bool,
}

/// The pool.
#[derive(Debug)]
pub struct Pool {
    gpu: Gpu,
    state: Mutex<State>,
    changed: Condvar,
}

impl Pool {
    /// A pool, and the thread that keeps it full. That thread must outlive all workers: they end when
    /// the thread that started them does.
    ///
    /// # Errors
    /// What the system said.
    pub fn start(gpu: Gpu) -> std::io::Result<Arc<Self>> {
        let pool = Arc::new(Self { gpu, state: Mutex::default(), changed: Condvar::new() });
        let spawner = pool.clone();
        std::thread::Builder::new().name("pool".into()).spawn(move || spawner.keep_full())?;
        Ok(pool)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the workers offer.
    pub fn adapters(&self) -> Vec<AdapterRow> {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.lock();
        while state.adapters.is_empty() && state.failure.is_none() && Instant::now() < deadline {
            state = self.changed.wait_timeout(state, RETRY).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.adapters.clone()
    }

    /// A ready worker; one is started to take its place.
    ///
    /// # Errors
    /// Why there is none.
    pub fn take(&self) -> Result<Worker, String> {
        let deadline = Instant::now() + PATIENCE;
        let asked = Instant::now();
        let mut state = self.lock();
        state.waiting += 1;
        self.changed.notify_all();
        let result = loop {
            if let Some(worker) = state.ready.pop_front() {
                break Ok(worker);
            }
            if let Some((message, when)) = &state.failure
                && *when > asked
            {
                break Err(message.clone());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break Err(format!("no worker became ready within {} s", PATIENCE.as_secs()));
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        };
        state.waiting -= 1;
        self.changed.notify_all();
        result
    }

    fn keep_full(self: Arc<Self>) {
        loop {
            let mut state = self.lock();
            while state.ready.len() + state.starting >= self.gpu.pool + state.waiting {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            state.starting += 1;
            drop(state);
            match spawn(&self.gpu) {
                Ok(worker) => {
                    let pool = self.clone();
                    let greeter = std::thread::Builder::new().name("worker-start".into());
                    if greeter.spawn(move || pool.await_ready(worker)).is_err() {
                        // The worker ends with its control socket.
                        self.failed("no thread for a worker".into());
                    }
                }
                Err(error) => self.failed(format!("a worker cannot be started: {error}")),
            }
            let failed = self.lock().failure.as_ref().is_some_and(|(_, when)| when.elapsed() < RETRY);
            if failed {
                std::thread::sleep(RETRY);
            }
        }
    }

    fn failed(&self, message: String) {
        log::error!("{message}");
        let mut state = self.lock();
        state.starting -= 1;
        state.failure = Some((message, Instant::now()));
        self.changed.notify_all();
    }

    fn await_ready(&self, mut worker: Worker) {
        if !becomes_readable(&worker.control, PATIENCE) {
            let _ = worker.child.kill();
            let _ = worker.child.wait();
            return self.failed(format!("a worker did not become ready within {} s", PATIENCE.as_secs()));
        }
        match control::receive::<Notice>(&worker.control) {
            Ok(Some((Notice::Ready { adapters, weaknesses, confinement_micros }, _))) => {
                let mut state = self.lock();
                if !std::mem::replace(&mut state.weaknesses_told, true) {
                    log::info!(
                        "workers are confined (in {confinement_micros} µs); serving {}",
                        names(&adapters)
                    );
                    weaknesses.iter().for_each(|weakness| log::warn!("sandbox: {weakness}"));
                }
                state.adapters = adapters;
                state.failure = None;
                state.starting -= 1;
                state.ready.push_back(worker);
                self.changed.notify_all();
            }
            Ok(Some((Notice::Failed { message }, _))) => {
                let _ = worker.child.wait();
                self.failed(message);
            }
            _ => {
                let status =
                    worker.child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
                self.failed(format!("a worker ended before it was ready: {status}"));
            }
        }
    }
}

fn becomes_readable(socket: &OwnedFd, patience: Duration) -> bool {
    let timeout = Timespec { tv_sec: patience.as_secs() as i64, tv_nsec: 0 };
    let mut set = [PollFd::new(socket, PollFlags::IN)];
    matches!(rustix::event::poll(&mut set, Some(&timeout)), Ok(1..))
}

fn names(adapters: &[AdapterRow]) -> String {
    let usable: Vec<_> = adapters.iter().filter(|row| row.usable).map(|row| row.name.as_str()).collect();
    if usable.is_empty() { "no adapter".into() } else { usable.join(", ") }
}

fn spawn(gpu: &Gpu) -> std::io::Result<Worker> {
    let (ours, theirs) = control::pair()?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["worker", "gpu"]);
    if gpu.backend == Backend::Noop {
        command.arg("--noop");
    }
    if gpu.require_gpu {
        command.arg("--require-gpu");
    }
    if let Some(adapter) = &gpu.adapter {
        command.args(["--adapter", adapter]);
    }
    if gpu.worker_uid != 0 && rustix::process::geteuid().is_root() {
        command.args(["--uid", &gpu.worker_uid.to_string(), "--gid", &gpu.worker_gid.to_string()]);
    }
    command.args(["--parent", &std::process::id().to_string()]);
    command.envs(pontoon_sandbox::QUIET_DRIVER_ENV.iter().copied());
    command.stdin(Stdio::from(theirs)).stdout(Stdio::null());
    Ok(Worker { child: command.spawn()?, control: ours })
}
