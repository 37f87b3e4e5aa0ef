//! The admin socket: what the daemon tells its own operator, one JSON question and answer a line.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::session::Registry;

/// A question.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Question {
    /// The live sessions.
    Sessions,
    /// The GPUs that workers offer.
    Adapters,
}

/// An answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The live sessions.
    Sessions(Vec<SessionRow>),
    /// The GPUs.
    Adapters(Vec<AdapterRow>),
    /// The question made no sense.
    Error(String),
}

/// One live session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SessionRow {
    /// Number of the session.
    pub session: u64,
    /// Whom limits count for.
    pub tenant: String,
    /// The caller, for people.
    pub who: String,
    /// Name that the guest program gave itself.
    pub program: String,
    /// `unix`, `unix+arena` or `tcp`.
    pub transport: String,
    /// Process id of the worker.
    pub worker: u32,
    /// Seconds since the session began.
    pub seconds: f64,
    /// Bytes in buffers and textures.
    pub memory_bytes: u64,
    /// Live objects.
    pub objects: u64,
    /// Seconds during which the queue had work.
    pub gpu_seconds: f64,
    /// Commands so far.
    pub commands: u64,
    /// Submissions so far.
    pub submissions: u64,
    /// Bytes received from the guest so far, shared memory included.
    pub bytes: u64,
    /// Questions that the guest waited for so far.
    pub round_trips: u64,
    /// Rejected commands so far.
    pub errors: u64,
}

/// One GPU.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AdapterRow {
    /// Name.
    pub name: String,
    /// `discrete`, `integrated`, `virtual`, `cpu` or `other`.
    pub kind: String,
    /// API that drives it.
    pub backend: String,
    /// Driver and its version.
    pub driver: String,
    /// Bytes of device memory, where the driver says.
    pub memory_bytes: Option<u64>,
    /// Whether guests may use it.
    pub usable: bool,
    /// Why, or why not.
    pub why: String,
}

/// Opens the admin socket: its folder and itself only for this user.
pub(crate) fn listen(path: &Path) -> Result<UnixListener, Error> {
    let failed = |source| Error::Listen { what: path.display().to_string(), source };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700)).map_err(failed)?;
    }
    let _ = std::fs::remove_file(path);
    let listener = UnixListener::bind(path).map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(listener)
}

/// Answers questions until the process ends.
pub(crate) fn serve(listener: UnixListener, registry: &Arc<Registry>) {
    for stream in listener.incoming().flatten() {
        let registry = registry.clone();
        let answering = std::thread::Builder::new().name("admin".into());
        let _ = answering.spawn(move || {
            let _ = stream.set_read_timeout(Some(Duration::from_secs(10)));
            if let Err(error) = answer(&stream, &registry) {
                log::debug!("admin connection: {error}");
            }
        });
    }
}

fn answer(stream: &UnixStream, registry: &Registry) -> std::io::Result<()> {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    let answer = match serde_json::from_str(&line) {
        Ok(Question::Sessions) => Answer::Sessions(registry.rows()),
        Ok(Question::Adapters) => Answer::Adapters(registry.adapters()),
        Err(error) => Answer::Error(error.to_string()),
    };
    let mut text = serde_json::to_vec(&answer)?;
    text.push(b'\n');
    (&mut &*stream).write_all(&text)
}

/// Asks a running daemon.
///
/// # Errors
/// [`Error::NotRunning`] where none answers, [`Error::Io`] where it breaks off.
pub fn ask(path: &Path, question: &Question) -> Result<Answer, Error> {
    let stream = UnixStream::connect(path)
        .map_err(|source| Error::NotRunning { path: path.display().to_string(), source })?;
    let asking = || Error::io(format!("asking the daemon on {}", path.display()));
    stream.set_read_timeout(Some(Duration::from_secs(30))).map_err(asking())?;
    let mut text = serde_json::to_vec(question).map_err(|error| asking()(error.into()))?;
    text.push(b'\n');
    (&mut &stream).write_all(&text).map_err(asking())?;
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line).map_err(asking())?;
    serde_json::from_str(&line).map_err(|error| asking()(error.into()))
}
