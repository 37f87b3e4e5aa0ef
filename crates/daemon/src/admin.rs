//! The admin socket: what the daemon tells its own operator, one JSON question and answer a line.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use pontoon_callers::Container;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::forward;
use crate::forward::{Forward, Forwards, NewMachine};
use crate::listen::Door;
use crate::machine::MachineMemory;
use crate::session::Registry;

/// Bytes of a question.
const MAX_QUESTION: usize = 64 << 10;

/// A question.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Question {
    /// The live sessions.
    Sessions,
    /// The GPUs that workers offer.
    Adapters,
    /// Serve the model runner on the listener that comes beside this, which is in a container's network.
    Forward(Forward),
    /// Serve a virtual machine on the two listeners that come beside this.
    Machine(NewMachine),
}

/// An answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The live sessions.
    Sessions(Vec<SessionRow>),
    /// The GPUs.
    Adapters(Vec<AdapterRow>),
    /// What was asked for is done.
    Done,
    /// The question made no sense, or cannot be met.
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
    /// The container that it is in, as far as is known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub container: Option<Container>,
    /// The policy that is about it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub policy: Option<String>,
    /// Name that the guest program gave itself.
    pub program: String,
    /// `unix`, `unix+arena`, `tcp`, `tls`, `vsock` or `vsock+arena`.
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
    /// Bytes of data among them, without commands.
    #[serde(default)]
    pub uploaded_bytes: u64,
    /// Bytes of data that the guest named instead, since its tenant had sent them before.
    #[serde(default)]
    pub named_bytes: u64,
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

/// What answers come from.
pub(crate) struct Desk {
    /// The bridge's sessions.
    pub registry: Arc<Registry>,
    /// What guests meet.
    pub door: Arc<Door>,
    /// Whether there will be a model runner.
    pub models: bool,
    /// The model runner in containers' networks, once it runs.
    pub forwards: OnceLock<Forwards>,
    /// Virtual machines that were started with us, and their monitors' processes.
    pub machines: Mutex<BTreeMap<u32, OwnedFd>>,
}

/// Answers questions until the process ends.
pub(crate) fn serve(listener: UnixListener, desk: &Arc<Desk>) {
    for stream in listener.incoming().flatten() {
        let desk = desk.clone();
        let answering = std::thread::Builder::new().name("admin".into());
        let _ = answering.spawn(move || {
            let _ = stream.set_read_timeout(Some(Duration::from_secs(10)));
            if let Err(error) = answer(&stream, &desk) {
                log::debug!("admin connection: {error}");
            }
        });
    }
}

fn answer(stream: &UnixStream, desk: &Desk) -> std::io::Result<()> {
    let (line, descriptors) = question(stream)?;
    let answer = match serde_json::from_slice(&line) {
        Ok(Question::Sessions) => Answer::Sessions(desk.registry.rows()),
        Ok(Question::Adapters) => Answer::Adapters(desk.registry.adapters()),
        Ok(Question::Machine(machine)) => match served(desk, &machine, descriptors) {
            Ok(()) => Answer::Done,
            Err(message) => Answer::Error(message),
        },
        Ok(Question::Forward(forward)) => match forwarded(desk, forward, descriptors) {
            Ok(()) => Answer::Done,
            Err(message) => Answer::Error(message),
        },
        Err(error) => Answer::Error(error.to_string()),
    };
    let mut text = serde_json::to_vec(&answer)?;
    text.push(b'\n');
    (&mut &*stream).write_all(&text)
}

/// One line and the descriptors beside it.
fn question(stream: &UnixStream) -> std::io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let (mut line, mut descriptors, mut chunk) = (Vec::new(), Vec::new(), [0; 4096]);
    while !line.ends_with(b"\n") {
        let (len, more) =
            pontoon_transport::receive_with_descriptors(stream, &mut chunk).map_err(std::io::Error::other)?;
        line.extend_from_slice(&chunk[..len]);
        descriptors.extend(more);
        if len == 0 || line.len() > MAX_QUESTION {
            break;
        }
    }
    Ok((line, descriptors))
}

fn served(desk: &Desk, machine: &NewMachine, descriptors: Vec<OwnedFd>) -> Result<(), String> {
    if machine.cid < 3 {
        return Err(format!("{} is no context id of a virtual machine: those begin at 3", machine.cid));
    }
    {
        let mut machines = desk.machines.lock().unwrap_or_else(PoisonError::into_inner);
        machines.retain(|_, monitor| !forward::has_ended(monitor));
        if machines.contains_key(&machine.cid) {
            return Err(format!(
                "a machine with the context id {} runs already: give this one another --cid",
                machine.cid
            ));
        }
        machines.insert(machine.cid, forward::process(machine.pid)?);
    }
    let mut descriptors = descriptors.into_iter();
    let (Some(bridge), Some(models)) = (descriptors.next(), descriptors.next()) else {
        return Err("two listeners are needed".into());
    };
    let memory = descriptors.next().map(MachineMemory::new).transpose()?;
    // Without a model runner the second is closed here.
    if let Some(forwards) = ready(desk) {
        forwards.start_machine(machine, models)?;
    }
    desk.door.machine(bridge.into(), machine.cid, forward::process(machine.pid)?, memory)
}

/// The model runner in others' networks. Containers that start with the host come before it is ready; a host that has
/// none says so at once.
fn ready(desk: &Desk) -> Option<&Forwards> {
    let deadline = Instant::now() + Duration::from_secs(5);
    while desk.models && desk.forwards.get().is_none() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    desk.forwards.get()
}

fn forwarded(desk: &Desk, forward: Forward, descriptors: Vec<OwnedFd>) -> Result<(), String> {
    let forwards =
        ready(desk).ok_or("the model runner is not running here (http.enabled), or is still starting")?;
    forwards.start(forward, descriptors.into_iter().next())
}

/// Asks a running daemon, with descriptors beside the question.
///
/// # Errors
/// As [`ask`].
pub fn ask_with(path: &Path, question: &Question, descriptors: &[BorrowedFd<'_>]) -> Result<Answer, Error> {
    let stream = UnixStream::connect(path).map_err(|source| match source.kind() {
        std::io::ErrorKind::PermissionDenied => Error::Io {
            what: format!("{} belongs to another user: ask as that user, or as root", path.display()),
            source,
        },
        _ => Error::NotRunning { path: path.display().to_string(), source },
    })?;
    let asking = || Error::io(format!("asking the daemon on {}", path.display()));
    stream.set_read_timeout(Some(Duration::from_secs(30))).map_err(asking())?;
    let mut text = serde_json::to_vec(question).map_err(|error| asking()(error.into()))?;
    text.push(b'\n');
    match descriptors {
        [] => (&mut &stream).write_all(&text).map_err(asking())?,
        descriptors => pontoon_transport::send_with_descriptors(&stream, &text, descriptors)
            .map_err(|error| asking()(std::io::Error::other(error)))?,
    }
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line).map_err(asking())?;
    serde_json::from_str(&line).map_err(|error| asking()(error.into()))
}

/// Asks a running daemon.
///
/// # Errors
/// [`Error::NotRunning`] where none answers, [`Error::Io`] where it breaks off.
pub fn ask(path: &Path, question: &Question) -> Result<Answer, Error> {
    ask_with(path, question, &[])
}
