//! Owns the starting of launchers, and the wait for their end.
//!
//! Linux ties "end with your supervisor" to the *thread* that started a process, so one thread that lives
//! as long as the supervisor starts them all.

use std::ffi::OsString;
use std::io::{BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};

use super::{Log, growth};
use crate::launcher::Job;

/// How a launcher is started: a program that calls [`crate::launcher::run`].
#[derive(Clone, Debug)]
pub struct Launcher {
    pub program: PathBuf,
    pub arguments: Vec<OsString>,
}

impl Launcher {
    /// This program, as `worker engine`.
    ///
    /// # Errors
    /// What the system said about the program's path.
    pub fn this_program() -> std::io::Result<Launcher> {
        let program = std::env::current_exe()?;
        Ok(Launcher { program, arguments: vec!["worker".into(), "engine".into()] })
    }
}

/// A process that was started.
#[derive(Debug)]
pub struct Process {
    pub pid: u32,
    pub exited: watch::Receiver<Option<ExitStatus>>,
    /// Until it is collected: a number that is not ours any more is never signalled.
    child: Arc<Mutex<Option<Child>>>,
}

impl Process {
    /// Bounds what it takes from here on; see [`growth::bound`].
    ///
    /// # Errors
    /// As there; also if it has ended.
    pub fn bound(&self, growth: u64) -> std::io::Result<u64> {
        let child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        let child = child.as_ref().ok_or_else(|| std::io::Error::other("it has ended"))?;
        growth::bound(child.id(), growth)
    }

    /// Ends it, if it has not ended.
    pub fn kill(&self) {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(child) = child.as_mut() {
            // It may have ended by itself in this moment.
            let _ = child.kill();
        }
    }
}

type Order = (Job, Log, oneshot::Sender<Result<Arc<Process>, String>>);

/// The thread that starts launchers. All of them end when it does.
#[derive(Clone, Debug)]
pub struct Spawner {
    orders: mpsc::Sender<Order>,
}

impl Spawner {
    /// Starts the thread.
    ///
    /// # Errors
    /// What the system said.
    pub fn start(launcher: Launcher) -> std::io::Result<Spawner> {
        let (orders, incoming) = mpsc::channel::<Order>();
        let work = move || {
            for (job, log, answer) in incoming {
                // Whoever asked may be gone; then the process is ended by the drop.
                let _ = answer.send(spawn(&launcher, &job, &log));
            }
        };
        std::thread::Builder::new().name("engine-spawner".into()).spawn(work)?;
        Ok(Spawner { orders })
    }

    /// Starts one engine.
    pub async fn spawn(&self, job: &Job, log: Log) -> Result<Arc<Process>, String> {
        let (answer, started) = oneshot::channel();
        let stopped = || "the thread that starts engines has stopped".to_owned();
        self.orders.send((job.clone(), log, answer)).map_err(|_| stopped())?;
        started.await.map_err(|_| stopped())?
    }
}

fn spawn(launcher: &Launcher, job: &Job, log: &Log) -> Result<Arc<Process>, String> {
    let failed = |e: std::io::Error| format!("{} cannot be started: {e}", launcher.program.display());
    let mut child = Command::new(&launcher.program)
        .args(&launcher.arguments)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    for output in [child.stdout.take().map(boxed), child.stderr.take().map(boxed)].into_iter().flatten() {
        let log = log.clone();
        std::thread::Builder::new()
            .name("engine-log".into())
            .spawn(move || copy(output, &log))
            .map_err(failed)?;
    }
    let text = serde_json::to_vec(job).map_err(|e| e.to_string())?;
    if let Some(mut input) = child.stdin.take() {
        // A launcher that does not listen says why in its log and by its end.
        let _ = input.write_all(&text);
    }
    watch_over(child).map_err(failed)
}

fn boxed(output: impl Read + Send + 'static) -> Box<dyn Read + Send> {
    Box::new(output)
}

/// How late a line may come into the log.
pub const GATHER: Duration = Duration::from_millis(20);

/// Copies lines, however long, in bounded pieces. Those of a process that has been up for a while are
/// fetched many at a time: no thread of ours wakes for each while a request is worked on.
fn copy(output: Box<dyn Read + Send>, log: &Log) {
    use std::io::BufRead;
    const PIECE: u64 = 64 << 10;
    const NEW: Duration = Duration::from_secs(5);
    let begun = Instant::now();
    let mut reader = BufReader::with_capacity(PIECE as usize, output);
    let mut line = Vec::new();
    loop {
        if reader.buffer().is_empty() && begun.elapsed() > NEW {
            std::thread::sleep(GATHER);
        }
        line.clear();
        match (&mut reader).take(PIECE).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => match std::str::from_utf8(&line) {
                Ok(text) => log.push(text),
                Err(_) => log.push(&String::from_utf8_lossy(&line)),
            },
        }
    }
}

/// A thread that waits for the end, without collecting the process before nobody can signal it.
fn watch_over(child: Child) -> std::io::Result<Arc<Process>> {
    let pid = child.id();
    let (tell, exited) = watch::channel(None);
    let child = Arc::new(Mutex::new(Some(child)));
    let held = child.clone();
    let wait = move || {
        wait_for_end(pid);
        let mut held = held.lock().unwrap_or_else(PoisonError::into_inner);
        let status = held.take().and_then(|mut child| child.wait().ok());
        tell.send_replace(status);
    };
    std::thread::Builder::new().name("engine-wait".into()).spawn(wait)?;
    Ok(Arc::new(Process { pid, exited, child }))
}

fn wait_for_end(pid: u32) {
    use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return };
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    while let Err(rustix::io::Errno::INTR) = waitid(WaitId::Pid(pid), options) {}
}
