//! Owns what goes into the runner and what comes out of it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pontoon_models::Store;
use serde::{Deserialize, Serialize};

use crate::engine::Catalog;
use crate::instance::Launcher;
use crate::launcher::{Limits, User};
use crate::scheduler;
use crate::settings::Value;
use crate::{KeepAlive, Memory, Settings};

/// How the runner is set up.
#[derive(Clone, Debug)]
pub struct Options {
    pub store: Store,
    pub engines: Catalog,
    /// Folder for configuration, measurements and saved slots; private.
    pub state: PathBuf,
    /// Folder for engines' sockets; private, with a path so short that a socket's name fits.
    pub run: PathBuf,
    pub launcher: Launcher,
    /// What engines may take; `None` asks the host.
    pub budget: Option<Memory>,
    /// Bytes that an engine may take beyond what it had when it was ready, its prompt cache apart; 0 bounds nothing,
    /// `None` is [`growth::usual`].
    ///
    /// [`growth::usual`]: crate::instance::growth::usual
    pub growth: Option<u64>,
    pub queue: scheduler::Limits,
    /// Settings from `pontoon.toml`, for every model.
    pub defaults: Settings,
    /// Bytes of saved slots on disk; 0 keeps none.
    pub slot_cache_bytes: u64,
    /// Lines kept of each model's log.
    pub log_lines: usize,
    /// The largest context that a request may ask for, in tokens.
    pub max_context: u32,
    /// How long a load may take.
    pub load_patience: Duration,
    pub limits: Limits,
    /// Whom engines become; only root can.
    pub user: Option<User>,
    /// Refuse to run engines on a kernel without Landlock.
    pub landlock_required: bool,
}

impl Options {
    /// Usual values, below one folder.
    pub fn new(store: Store, engines: Catalog, folder: PathBuf, launcher: Launcher) -> Options {
        Options {
            store,
            engines,
            state: folder.join("state"),
            run: folder.join("run"),
            launcher,
            budget: None,
            growth: None,
            queue: scheduler::Limits::default(),
            defaults: Settings::default(),
            slot_cache_bytes: 4 << 30,
            log_lines: 2000,
            max_context: 131_072,
            load_patience: Duration::from_secs(600),
            limits: Limits::default(),
            user: None,
            landlock_required: true,
        }
    }
}

/// What a request wants of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Text: chat and plain completions.
    Chat,
    Embedding,
    Rerank,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::Chat => "chat",
            Mode::Embedding => "embeddings",
            Mode::Rerank => "reranking",
        })
    }
}

/// Who asks: the unit of fairness.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Caller {
    pub id: Arc<str>,
    /// Share against others; at least 1.
    pub weight: u32,
}

/// A request for a turn at a model.
#[derive(Clone, Debug)]
pub struct Request {
    /// As the caller wrote it.
    pub model: String,
    pub caller: Caller,
    pub mode: Mode,
    /// Tokens expected, prompt and answer.
    pub cost: u32,
    pub keep_alive: Option<KeepAlive>,
    /// Tokens of context that it wants the model loaded with; all else is the host's business.
    pub context_size: Option<u32>,
}

/// Why there is no turn.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct AcquireError {
    pub kind: Refusal,
    /// One sentence for the caller.
    pub message: String,
}

/// Sorted by what a client should do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such model here.
    NotFound,
    /// The name or a value cannot be one.
    Invalid,
    /// The model cannot do that.
    WrongMode,
    /// It does not fit into this host's memory, or not beside what is pinned.
    TooBig,
    /// Too many wait.
    QueueFull { retry_after: Duration },
    /// The model or its engine is broken.
    LoadFailed { retry_after: Option<Duration> },
    /// No engine for this kind of model is installed.
    NoEngine,
    /// The host is shutting down.
    Draining,
}

impl AcquireError {
    pub(crate) fn new(kind: Refusal, message: impl Into<String>) -> AcquireError {
        AcquireError { kind, message: message.into() }
    }
}

/// What an answer took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub prompt_tokens: u32,
    pub completion_tokens: u32,
}

/// A process, as `ps` shows it.
#[derive(Clone, Debug, Serialize)]
pub struct Running {
    pub digest: String,
    pub model: String,
    pub names: Vec<String>,
    /// `loading`, `ready`, `busy`, `draining` or `evicting`.
    pub state: String,
    pub engine: String,
    pub modes: Vec<Mode>,
    pub pid: Option<u32>,
    pub memory: Memory,
    /// Not measured yet.
    pub estimated: bool,
    /// Tokens of each slot.
    pub context_size: u32,
    pub slots: u32,
    pub serving: usize,
    pub waiting: usize,
    pub idle: Duration,
    /// `None` if it will not leave by itself.
    pub expires_in: Option<Duration>,
    pub pinned: bool,
    pub up: Option<Duration>,
    /// What the last load took.
    pub load: Option<Duration>,
    /// Bytes of its files.
    pub size: u64,
}

/// Somebody in the queue.
#[derive(Clone, Debug, Serialize)]
pub struct Waiting {
    pub caller: String,
    pub model: String,
    pub digest: String,
    /// How many are served before it.
    pub position: usize,
    pub waited: Duration,
    /// Until its turn, by experience.
    pub expected: Duration,
}

/// Everything about how a model would be, or is, run.
#[derive(Clone, Debug, Serialize)]
pub struct Shown {
    pub model: String,
    pub digest: String,
    pub engine: String,
    /// Why this engine.
    pub engine_found: String,
    pub modes: Vec<Mode>,
    /// Each setting in force, and where it came from.
    pub settings: BTreeMap<String, Value>,
    /// The engine's command line; paths as they would be now.
    pub argv: Vec<String>,
    pub footprint: Memory,
    /// Else it is estimated from metadata.
    pub measured: bool,
    pub loaded: bool,
}

/// What to unload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    All,
    Model(String),
}

/// How new settings meet those that are there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Value by value.
    Merge,
    /// Value by value, and the settings of these names are taken back.
    Unset(Vec<String>),
    /// Nothing of the old stays.
    Replace,
}

/// What of the disk is ours.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Df {
    /// Bytes of saved slots.
    pub slots_bytes: u64,
    /// Models with saved slots.
    pub slots: usize,
    pub engines_bytes: u64,
    pub engines: usize,
}

/// Something that happened, for metrics and logs.
#[derive(Clone, Debug, PartialEq)]
pub enum Notice {
    Loaded { model: String, digest: String, took: Duration, footprint: Memory, restored_slots: usize },
    LoadFailed { model: String, digest: String, reason: String, out_of_memory: bool },
    Evicted { model: String, digest: String, why: scheduler::Why, saved_slots: usize },
    Died { model: String, digest: String },
}

/// Sums since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    pub granted: u64,
    pub rejected: u64,
    pub cancelled: u64,
    pub loads: u64,
    pub load_failures: u64,
    pub oom_retries: u64,
    pub evictions: u64,
    pub deaths: u64,
}
