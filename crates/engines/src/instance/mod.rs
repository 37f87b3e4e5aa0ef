//! Owns one running engine: its process, its socket, its log, its memory, its end.

pub mod growth;
mod log;
mod measure;
mod slots;
mod spawn;
mod talk;

use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

pub use log::{Log, LogLine};
pub use measure::{detect_budget, gpu_memory_of, memory_of};
pub use slots::{SlotCache, SlotKey};
pub use spawn::{GATHER, Launcher, Spawner};
pub use talk::{Answer, get, post};

use crate::launcher::{Job, MARK, MODEL_REFUSED};

/// How the line in a log begins behind which a new run's stand.
pub const LOADING: &str = "pontoon: loading ";

/// Why an engine did not become ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotReady {
    /// One sentence.
    pub reason: String,
    /// Memory was lacking: another try with more room may do.
    pub out_of_memory: bool,
}

/// How to start it and when to give up.
#[derive(Clone, Debug)]
pub struct Start {
    pub job: Job,
    /// Where it will listen; its folder exists, is private, and goes with the engine.
    pub socket: PathBuf,
    /// Path of its health check.
    pub health: String,
    /// A large model on a slow disk takes minutes.
    pub patience: Duration,
}

/// A process that was started.
#[derive(Debug)]
pub struct Instance {
    process: Arc<spawn::Process>,
    pub socket: PathBuf,
    pub log: Log,
    /// How long it took until it was ready.
    pub took: Duration,
}

impl Instance {
    /// Starts it and waits until it can serve.
    ///
    /// # Errors
    /// [`NotReady`]; the process is gone then.
    pub async fn start(spawner: &Spawner, start: &Start, log: Log) -> Result<Instance, NotReady> {
        let began = Instant::now();
        let plain = |reason: String| NotReady { reason, out_of_memory: false };
        let process = spawner.spawn(&start.job, log.clone()).await.map_err(plain)?;
        let mut instance = Instance { process, socket: start.socket.clone(), log, took: Duration::ZERO };
        let outcome = instance.until_ready(start).await;
        instance.took = began.elapsed();
        match outcome {
            Ok(()) => Ok(instance),
            Err(not_ready) => {
                instance.kill().await;
                Err(not_ready)
            }
        }
    }

    /// Asks often at first, since a small model is ready in milliseconds.
    async fn until_ready(&self, start: &Start) -> Result<(), NotReady> {
        let deadline = tokio::time::Instant::now() + start.patience;
        let mut pause = Duration::from_millis(2);
        let mut exited = self.exited();
        loop {
            if let Ok(answer) = get(&self.socket, &start.health, Duration::from_secs(5)).await
                && answer.status == 200
            {
                return Ok(());
            }
            tokio::select! {
                status = ended(&mut exited) => {
                    // Its last lines may be on their way.
                    tokio::time::sleep(2 * spawn::GATHER).await;
                    return Err(self.why_it_ended(status));
                }
                () = tokio::time::sleep(pause) => pause = (pause * 5 / 4).min(Duration::from_millis(25)),
                () = tokio::time::sleep_until(deadline) => {
                    let reason = format!("it was not ready after {} s", start.patience.as_secs());
                    return Err(NotReady { reason, out_of_memory: false });
                }
            }
        }
    }

    /// The reason in its own words where it gave one.
    fn why_it_ended(&self, status: Option<ExitStatus>) -> NotReady {
        let lines = self.log.tail(80);
        let said = |line: &&LogLine| line.text.starts_with(MARK);
        let launcher = lines.iter().rev().find(said).map(|line| line.text[MARK.len()..].to_owned());
        if status.and_then(|status| status.code()) == Some(MODEL_REFUSED) {
            let reason = launcher.unwrap_or_else(|| "the model was refused".to_owned());
            return NotReady { reason, out_of_memory: false };
        }
        let texts: Vec<&str> = lines.iter().map(|line| line.text.as_str()).collect();
        let texts = this_run(&texts);
        let out_of_memory = memory_was_lacking(texts) || killed_by_kernel(status);
        let how = status.map_or("ended".to_owned(), |status| format!("ended with {status}"));
        let said = complaint(texts).map_or(String::new(), |text| format!(": {}", text.trim()));
        let lack = if out_of_memory { " for want of memory" } else { "" };
        NotReady { reason: format!("the engine {how}{lack}{said}"), out_of_memory }
    }

    pub fn pid(&self) -> u32 {
        self.process.pid
    }

    /// Bounds what it takes from here on to so many bytes more; what it may have then.
    ///
    /// # Errors
    /// The system's, also where it has no such bounds.
    pub fn bound(&self, growth: u64) -> std::io::Result<u64> {
        self.process.bound(growth)
    }

    /// Becomes `Some` when the process has ended.
    pub fn exited(&self) -> watch::Receiver<Option<ExitStatus>> {
        self.process.exited.clone()
    }

    /// Waits for the end.
    pub async fn wait(&self) -> Option<ExitStatus> {
        ended(&mut self.exited()).await
    }

    /// Ends it and waits until it is gone. An engine that serves nobody has nothing to tidy up.
    pub async fn kill(&self) {
        self.process.kill();
        let _ = tokio::time::timeout(Duration::from_secs(30), self.wait()).await;
        let _ = tokio::fs::remove_file(&self.socket).await;
    }

    /// The folder of its socket.
    pub fn folder(&self) -> Option<&Path> {
        self.socket.parent()
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.process.kill();
        let _ = std::fs::remove_file(&self.socket);
        // It stays where the engine has put something into it, until the next start.
        let _ = self.folder().map(std::fs::remove_dir);
    }
}

/// Waits for the end of a process; `None` if nobody can tell how it was.
pub async fn ended(exited: &mut watch::Receiver<Option<ExitStatus>>) -> Option<ExitStatus> {
    match exited.wait_for(Option::is_some).await {
        Ok(status) => *status,
        Err(_) => None,
    }
}

/// The lines since the model was loaded the last time.
fn this_run<'t, 'l>(lines: &'t [&'l str]) -> &'t [&'l str] {
    &lines[lines.iter().rposition(|line| line.starts_with(LOADING)).map_or(0, |at| at + 1)..]
}

/// The line that says why. llama.cpp marks errors, and what follows from the first one follows from it; others end
/// with the reason.
fn complaint<'l>(lines: &[&'l str]) -> Option<&'l str> {
    let marked = lines.iter().find_map(|line| {
        let (time, text) = line.split_once(" E ")?;
        time.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.').then_some(text)
    });
    let last = || lines.iter().rev().find(|text| is_complaint(text)).or_else(|| lines.last()).copied();
    marked.or_else(last)
}

/// Phrases with which engines and their libraries say that memory is lacking.
const COMPLAINTS_OF_MEMORY: &[&str] = &[
    "out of memory",
    "outofdevicememory",
    "outofhostmemory",
    "cannot allocate memory",
    "failed to allocate",
    "unable to allocate",
    "bad_alloc",
    "cudamalloc failed",
    "memoryerror",
    "insufficient memory",
    // A thread for whose stack there is no room.
    "resource temporarily unavailable",
];

/// Whether the last lines of a log say that memory was lacking.
pub fn lacked_memory(log: &Log) -> bool {
    let lines = log.tail(40);
    let texts: Vec<&str> = lines.iter().map(|line| line.text.as_str()).collect();
    memory_was_lacking(this_run(&texts))
}

fn memory_was_lacking(lines: &[&str]) -> bool {
    lines.iter().any(|line| {
        let line = line.to_ascii_lowercase();
        COMPLAINTS_OF_MEMORY.iter().any(|phrase| line.contains(phrase))
    })
}

/// Nobody here kills a loading engine with SIGKILL before its deadline: it was the kernel.
fn killed_by_kernel(status: Option<ExitStatus>) -> bool {
    use std::os::unix::process::ExitStatusExt;
    status.and_then(|status| status.signal()) == Some(rustix::process::Signal::KILL.as_raw())
}

fn is_complaint(line: &str) -> bool {
    let line = line.to_ascii_lowercase();
    ["error", "failed", "unable", "terminate", "what()", "exception"].iter().any(|word| line.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_of_memory_are_recognised() {
        for line in [
            "ggml_backend_cpu_buffer_type_alloc_buffer: failed to allocate buffer of size 1",
            "terminate called after throwing an instance of 'std::bad_alloc'",
            "ggml_vulkan: vk::Device::allocateMemory: ErrorOutOfDeviceMemory",
            "cudaMalloc failed: out of memory",
        ] {
            assert!(memory_was_lacking(&[line]), "{line}");
        }
        assert!(!memory_was_lacking(&["error loading model: tensor 'x' not found"]));
    }

    #[test]
    fn the_first_marked_error_of_this_run_is_told_or_the_last_complaint() {
        let lines = [
            "0.00.003.001 E ggml: out of memory",
            "pontoon: loading demo/x with llama.cpp",
            "0.00.003.114 I srv    load_model: loading model 'failed.gguf'",
            "0.00.009.779 E llama_adapter_lora_init: failed to apply lora adapter: tensor 'x' has incorrect shape",
            "0.00.010.732 E srv  llama_server: exiting due to model loading error",
        ];
        let run = this_run(&lines);
        assert_eq!(run.len(), 3);
        assert!(complaint(run).unwrap().starts_with("llama_adapter_lora_init: failed to apply"));
        let python = ["Traceback:", "    raise ValueError(text)", "ValueError: no such file"];
        assert_eq!(complaint(&python), Some("ValueError: no such file"));
        assert_eq!(complaint(&["one", "two"]), Some("two"));
        assert_eq!(complaint(this_run(&[])), None);
    }
}
