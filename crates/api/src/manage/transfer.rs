//! Pulls and pushes that tell how far they have come, line by line. They go on as long as somebody
//! listens; what has come stays, and the next pull continues there.

use std::future::Future;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use hyper::StatusCode;
use pontoon_models::{Error, Event, Progress, Transfer, registry};
use tokio::sync::mpsc;

use super::{reference, told};
use crate::body::AnswerBody;
use crate::dialect::{DialectError, ErrorKind, ollama};
use crate::reply::{self, Answer};
use crate::server::{Ask, Shared};

/// How long an answer waits for something to move; what fails later is told in its stream.
const EARLY: Duration = Duration::from_secs(5);

/// Whose progress stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Docker's runner's.
    Docker,
    /// Ollama's.
    Ollama,
}

/// Brings a model into the store, with a token of the caller's own for it.
pub async fn pull(ask: &Ask, style: Style, name: &str, token: Option<String>, stream: bool) -> Answer {
    let (shared, wanted) = (ask.shared.clone(), reference(name)?);
    let client = client(&shared, token)?;
    let (progress, events) = Progress::channel();
    let work = async move {
        let model = client.pull(&shared.store, &wanted, progress).await?;
        shared.runner.refresh();
        Ok(format!("{} is here", model.display_name()))
    };
    run(ask, (style, Transfer::Pull), work, events, stream).await
}

/// Sends a model of the store to its registry.
pub async fn push(ask: &Ask, style: Style, name: &str, token: Option<String>, stream: bool) -> Answer {
    let (shared, to) = (ask.shared.clone(), reference(name)?);
    // What is not here is told at once, not in the stream.
    super::resolve(&shared, name).await?;
    let client = client(&shared, token)?;
    let (progress, events) = Progress::channel();
    let name = name.to_owned();
    let work = async move {
        let digest = client.push(&shared.store, &name, &to, progress).await?;
        Ok(format!("{} is there as {digest}", to.familiar()))
    };
    run(ask, (style, Transfer::Push), work, events, stream).await
}

/// The daemon's client, or one with the caller's own token for the hub.
fn client(shared: &Shared, token: Option<String>) -> Result<registry::Client, DialectError> {
    let Some(token) = token.filter(|token| !token.is_empty()) else { return Ok(shared.registry.clone()) };
    let mut options = shared.registry_options.clone();
    options.hub.token = Some(token);
    registry::Client::new(options).map_err(|error| told(&error))
}

/// Runs the work. An error before anything has moved is an error of the request; one after it is the last
/// line of the stream.
async fn run(
    ask: &Ask,
    told_as: (Style, Transfer),
    work: impl Future<Output = Result<String, Error>> + Send + 'static,
    mut events: mpsc::UnboundedReceiver<Event>,
    stream: bool,
) -> Answer {
    let (lines, answer) = mpsc::channel::<io::Result<Bytes>>(64);
    let (begun, mut begins) = mpsc::channel::<Result<(), DialectError>>(1);
    tokio::spawn(async move {
        let mut work = std::pin::pin!(work);
        let mut moved = false;
        let ended = loop {
            tokio::select! {
                Some(event) = events.recv() => {
                    if !moved && matches!(event, Event::Progress { .. }) {
                        moved = true;
                        let _ = begun.send(Ok(())).await;
                    }
                    // The end is told by the work's own result.
                    if !matches!(event, Event::Success(_)) && lines.send(Ok(line(told_as, &event))).await.is_err() {
                        return;
                    }
                }
                () = lines.closed() => return,
                ended = &mut work => break ended,
            }
        };
        while let Ok(event) = events.try_recv() {
            if !matches!(event, Event::Success(_)) && lines.send(Ok(line(told_as, &event))).await.is_err() {
                return;
            }
        }
        let last = match ended {
            Ok(message) => line(told_as, &Event::Success(message)),
            // Nothing has been answered, unless that took too long.
            Err(error) if !moved && begun.send(Err(told(&error))).await.is_ok() => return,
            Err(error) => error_line(told_as, &error.to_string()),
        };
        drop(begun);
        let _ = lines.send(Ok(last)).await;
    });
    // Many lines can come before anything moves only where names are resolved slowly; they wait in the
    // channel, which then holds the work up until the answer is read.
    let early = tokio::time::timeout(EARLY, begins.recv()).await.unwrap_or_else(|_| {
        begins.close();
        begins.try_recv().ok()
    });
    if let Some(Err(error)) = early {
        return Err(error);
    }
    if !stream {
        return last_line(answer).await;
    }
    let style = told_as.0;
    let plain = style == Style::Docker && !accepts_json(ask);
    let content_type = match style {
        Style::Ollama => "application/x-ndjson",
        Style::Docker if plain => "text/plain; charset=utf-8",
        Style::Docker => "application/json",
    };
    let mut reply = reply::bytes(StatusCode::OK, content_type, Bytes::new());
    *reply.body_mut() = AnswerBody::channel(answer);
    Ok(reply)
}

fn accepts_json(ask: &Ask) -> bool {
    ask.headers.get("accept").is_some_and(|accept| accept.as_bytes().starts_with(b"application/json"))
}

/// For callers that want only the end.
async fn last_line(mut lines: mpsc::Receiver<io::Result<Bytes>>) -> Answer {
    let mut last = Bytes::new();
    while let Some(Ok(line)) = lines.recv().await {
        last = line;
    }
    let text: serde_json::Value = serde_json::from_slice(&last).unwrap_or_default();
    match text.get("error").and_then(serde_json::Value::as_str) {
        Some(message) => Err(DialectError::new(ErrorKind::EngineFailed, message)),
        None => reply::written(last.to_vec()),
    }
}

fn line((style, mode): (Style, Transfer), event: &Event) -> Bytes {
    match (style, event) {
        (Style::Docker, event) => (event.to_line(mode) + "\n").into(),
        (Style::Ollama, event) => ollama::progress(&ollama_progress(event)).into(),
    }
}

fn error_line((style, mode): (Style, Transfer), message: &str) -> Bytes {
    match style {
        Style::Docker => (Event::error_line(message, mode) + "\n").into(),
        Style::Ollama => ollama::progress_error(message).into(),
    }
}

/// Ollama's clients show `pulling DIGEST` as a bar, and look for `success` at the end.
fn ollama_progress(event: &Event) -> ollama::Progress {
    let status =
        |status: &str| ollama::Progress { status: status.into(), digest: None, total: None, completed: None };
    match event {
        Event::Progress { layer, transfer, .. } => {
            let verb = if *transfer == Transfer::Pull { "pulling" } else { "pushing" };
            let short = layer.id.trim_start_matches("sha256:").get(..12).unwrap_or(&layer.id);
            ollama::Progress {
                status: format!("{verb} {short}"),
                digest: Some(layer.id.clone()),
                total: Some(layer.size),
                completed: Some(layer.current),
            }
        }
        Event::Status(message) | Event::Warning(message) => status(message),
        Event::Success(_) => status("success"),
    }
}
