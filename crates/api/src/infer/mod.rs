//! Running a model for a caller: the request to a turn on an engine, and its answer back.

pub mod account;
pub mod engine;
pub mod stream;

use std::future::poll_fn;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Response, StatusCode};
use pontoon_engines as engines;
use serde::Deserialize;

use crate::body::AnswerBody;
use crate::dialect::{self, Action, Call, DialectError, Endpoint, EngineRequest, ErrorKind, Meta, Usage};
use crate::rates::Turn;
use crate::recorder::Record;
use crate::reply::{self, Answer, names};
use crate::server::Ask;
use account::{Account, Outcome};
use engine::{Carrier, Trouble};
use stream::Stream;

/// Bytes of an engine's answer that is not streamed: 2048 embeddings of 8192 numbers fit.
const MAX_ANSWER: usize = 512 << 20;

/// An engine that breaks off this soon was dying before it saw the request.
const DYING: Duration = Duration::from_millis(250);

/// Tokens that are counted for an answer whose length nobody has limited, when turns are given.
const USUAL_ANSWER: u32 = 256;

/// Answers an inference request.
///
/// # Errors
/// In the words of the caller's dialect.
pub async fn run(ask: &Ask, endpoint: Endpoint, body: Bytes) -> Answer {
    let shared = &ask.shared;
    let admit = || {
        let mut turn = shared.rates.admit(&ask.caller.id, ask.started).map_err(|exceeded| {
            DialectError::new(ErrorKind::QueueFull, exceeded.message).with_retry_after(exceeded.retry_after)
        })?;
        let weight = ask.caller.policy.as_ref().and_then(|policy| policy.weight);
        turn.weight = weight.unwrap_or(turn.weight);
        Ok(turn)
    };
    if ask.headers.get(&names::PRELOAD).is_some_and(|value| value == "true") {
        return preload(ask, &body, admit()?).await;
    }
    let call = Arc::new(understand(ask, endpoint, &body).await?);
    permitted(ask, &call.model).await?;
    let turn = admit()?;
    let mut account = Account::open(shared.clone(), endpoint, turn, ask.started, record(ask, &body));
    drop(body);
    let answer = match &call.action {
        Action::Run(request) => exchange(ask, &call, request, &mut account).await,
        Action::Load => load(ask, &call, &mut account).await,
        Action::Unload => unload(ask, &call).await,
    };
    let answer = match answer {
        Ok(Exchange::Whole(reply, usage)) => {
            let settled = account.settle(usage);
            reply.map(|body| body.leaving(Box::new(settled)))
        }
        Ok(Exchange::Stream(response, carrier, meta)) => {
            let stream = Stream::new(carrier, call.translator(&meta), account);
            reply::with_body(response, AnswerBody::engine(stream))
        }
        Err(error) => {
            account.close(
                Outcome::Failed,
                error.status(endpoint.dialect()),
                Usage::default(),
                Some(&error.message),
            );
            return Err(error);
        }
    };
    Ok(ignored(answer, &call))
}

/// Whether the caller's policy gives it the model, by any of the model's names.
async fn permitted(ask: &Ask, name: &str) -> Result<(), DialectError> {
    let Some(policy) = ask.caller.policy.as_ref().filter(|policy| policy.allowed_models.is_some()) else {
        return Ok(());
    };
    let model = crate::manage::resolve(&ask.shared, name).await?;
    match crate::manage::cards::allowed(policy, &model) {
        true => Ok(()),
        false => {
            let name = model.display_name();
            let message = format!("the host's policy '{}' does not give you the model {name}", policy.name);
            Err(DialectError::new(ErrorKind::Forbidden, message))
        }
    }
}

/// What the request asks for.
async fn understand(ask: &Ask, endpoint: Endpoint, body: &Bytes) -> Result<Call, DialectError> {
    let (shared, caller, started, body) =
        (ask.shared.clone(), ask.caller.id.clone(), ask.started, body.clone());
    // What is packed in pictures is unpacked to be measured.
    let unpacked = body.len().saturating_mul(16);
    let bytes = if unpacked > AT_ONCE && dialect::pictures::possible(&body) { unpacked } else { body.len() };
    aside(ask, bytes, move || {
        dialect::prepare(endpoint, &body, &|id: &str| shared.answers.find(&caller, id, started))
    })
    .await
}

/// Bytes that are worked on at once. More of them would keep the other connections of this event loop waiting.
const AT_ONCE: usize = 256 << 10;

/// Does work on so many bytes: here, or on another thread where they are many, of which there are few.
async fn aside<T: Send + 'static>(
    ask: &Ask,
    bytes: usize,
    work: impl FnOnce() -> Result<T, DialectError> + Send + 'static,
) -> Result<T, DialectError> {
    if bytes <= AT_ONCE {
        return work();
    }
    let _turn = ask.shared.aside.acquire().await;
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(DialectError::new(ErrorKind::Internal, error.to_string())))
}

enum Exchange {
    Whole(Response<AnswerBody>, Usage),
    Stream(HeaderMap, Carrier, Meta),
}

/// Takes a turn and asks the engine. An engine that was dying when the turn was given is replaced once: the
/// caller has seen nothing of it.
async fn exchange(
    ask: &Ask,
    call: &Arc<Call>,
    request: &EngineRequest,
    account: &mut Account,
) -> Result<Exchange, DialectError> {
    let mut first = true;
    let ((status, carrier), streams, meta, position) = loop {
        let lease = acquire(ask, call, Some(request), account).await?;
        let (meta, position) =
            (Meta { request_id: ask.id.clone(), started: ask.at, load: lease.load }, lease.position);
        let posted = Instant::now();
        match post(ask, request, lease).await {
            Ok((sent, streams)) => break (sent, streams, meta, position),
            // A request that kills engines takes longer, and is not tried on another.
            Err(Posting::Failed(Trouble::Broken(failure))) if first && posted.elapsed() < DYING => {
                log::info!("an engine was gone when its turn came: {failure}");
                let _ = tokio::time::timeout(Duration::from_secs(1), lease.gone()).await;
                account.returned();
                first = false;
            }
            Err(Posting::Failed(Trouble::Broken(failure))) => {
                return Err(DialectError::new(ErrorKind::EngineFailed, failure.to_string()));
            }
            Err(Posting::Failed(silent)) => {
                return Err(DialectError::new(ErrorKind::Timeout, silent.to_string()));
            }
            Err(Posting::Refused(error)) => return Err(error),
        }
    };
    let mut headers = HeaderMap::new();
    headers.insert(&names::QUEUE_POSITION, position.into());
    if call.stream && streams && status == 200 {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(call.content_type()));
        return Ok(Exchange::Stream(headers, carrier, meta));
    }
    let body = whole(carrier).await?;
    let (call, elapsed) = (call.clone(), account.elapsed());
    let reply = aside(ask, body.len(), move || call.reply(&meta, elapsed, status, &body)).await?;
    account.answered(&reply.body);
    if let Some(stored) = reply.stored {
        account.keep(stored);
    }
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(reply.content_type));
    Ok(Exchange::Whole(reply::with_body(headers, AnswerBody::whole(reply.body)), reply.usage))
}

/// Why an engine did not begin to answer.
enum Posting {
    Failed(Trouble),
    /// The model that was loaded cannot answer it.
    Refused(DialectError),
}

/// Posts a request, or what stands in for it where the engine does not know its path. Also whether what was
/// posted asks for a stream.
async fn post(
    ask: &Ask,
    mut request: &EngineRequest,
    lease: &engines::Lease,
) -> Result<((u16, Carrier), bool), Posting> {
    let patience = Duration::from_secs(ask.shared.config.limits.engine_seconds);
    loop {
        let at = &lease.at;
        let body = request.adapted_body(&at.engine_model, &at.adapters).map_err(Posting::Refused)?;
        let sent = ask.shared.engines.post(at, request.path, &body, patience).await;
        let sent = sent.map_err(|trouble| {
            if matches!(trouble, Trouble::Broken(_)) {
                ask.shared.engines.forget(at);
            }
            Posting::Failed(trouble)
        })?;
        match &request.fallback {
            // The carrier goes with the answer that nobody reads.
            Some(fallback) if matches!(sent.0, 404 | 405 | 501) => request = fallback,
            _ => return Ok((sent, request.stream)),
        }
    }
}

/// A turn on an engine with the call's model.
async fn acquire<'a>(
    ask: &Ask,
    call: &Call,
    request: Option<&EngineRequest>,
    account: &'a mut Account,
) -> Result<&'a engines::Lease, DialectError> {
    let (cost, prompt) = request.map_or((1, 0), |request| (request.cost(), request.prompt()));
    let wanted = wanted(ask, call, cost, account.weight());
    match ask.shared.runner.acquire(wanted).await {
        Ok(lease) => Ok(account.granted(lease, cost, prompt)),
        Err(refused) => {
            // The caller's own word for a model is no name for records until the store knows it.
            if !matches!(refused.kind, engines::Refusal::NotFound | engines::Refusal::Invalid) {
                account.known_model(&call.model);
            }
            Err(refusal(refused))
        }
    }
}

fn wanted(ask: &Ask, call: &Call, cost: u32, weight: u32) -> engines::Request {
    engines::Request {
        model: call.model.clone(),
        caller: engines::Caller { id: ask.caller.id.clone(), weight },
        mode: match call.mode {
            dialect::Mode::Chat => engines::Mode::Chat,
            dialect::Mode::Embedding => engines::Mode::Embedding,
            dialect::Mode::Rerank => engines::Mode::Rerank,
        },
        cost,
        keep_alive: call.keep_alive.map(|keep| match keep {
            dialect::KeepAlive::Forever => engines::KeepAlive::Forever,
            dialect::KeepAlive::For(time) => engines::KeepAlive::For(time),
        }),
        context_size: call.context_size,
    }
}

/// Reads an engine's whole answer.
async fn whole(mut carrier: Carrier) -> Result<Vec<u8>, DialectError> {
    let mut all = Vec::new();
    loop {
        let piece = poll_fn(|context| carrier.poll_into(&mut all, context)).await;
        let failed = |trouble: Trouble| {
            let kind = match trouble {
                Trouble::Broken(_) => ErrorKind::EngineFailed,
                Trouble::Silent(_) => ErrorKind::Timeout,
            };
            DialectError::new(kind, format!("in the middle of its answer, {trouble}"))
        };
        if piece.map_err(failed)?.is_none() {
            break;
        }
        if all.len() > MAX_ANSWER {
            let message =
                format!("the engine's answer is longer than {MAX_ANSWER} bytes; ask for less at once");
            return Err(DialectError::new(ErrorKind::EngineFailed, message));
        }
    }
    carrier.finish();
    Ok(all)
}

async fn load(ask: &Ask, call: &Call, account: &mut Account) -> Result<Exchange, DialectError> {
    let (load, position) = {
        let lease = acquire(ask, call, None, account).await?;
        (lease.load, lease.position)
    };
    let meta = Meta { request_id: ask.id.clone(), started: ask.at, load };
    let mut answer = immediate(call.immediate(&meta, account.elapsed()));
    answer.headers_mut().insert(&names::QUEUE_POSITION, position.into());
    Ok(Exchange::Whole(answer, Usage::default()))
}

/// Unloads a model that nobody else uses; one that somebody uses stays until it is idle.
async fn unload(ask: &Ask, call: &Call) -> Result<Exchange, DialectError> {
    let runner = &ask.shared.runner;
    let model = crate::manage::resolve(&ask.shared, &call.model).await?;
    let name = model.display_name();
    // Whoever has its answer is not in the way.
    ask.shared.settled().await;
    let busy = runner
        .ps()
        .await
        .iter()
        .any(|running| running.model == name && running.serving + running.waiting > 0);
    if !busy {
        let gone = runner.unload(engines::Which::Model(call.model.clone())).await;
        gone.map_err(refusal)?;
    }
    let meta = Meta { request_id: ask.id.clone(), started: ask.at, load: Duration::ZERO };
    Ok(Exchange::Whole(immediate(call.immediate(&meta, ask.started.elapsed())), Usage::default()))
}

fn immediate(reply: dialect::Reply) -> Response<AnswerBody> {
    reply::bytes(StatusCode::OK, reply.content_type, reply.body)
}

/// Docker's CLI loads a model before the first prompt: an empty chat with a header.
async fn preload(ask: &Ask, body: &Bytes, turn: Turn) -> Answer {
    #[derive(Deserialize)]
    struct Named {
        model: String,
    }
    let body = body.clone();
    let Named { model } = aside(ask, body.len(), move || {
        serde_json::from_slice(&body).map_err(|error| {
            DialectError::new(ErrorKind::InvalidRequest, format!("no model is named: {error}"))
        })
    })
    .await?;
    permitted(ask, &model).await?;
    let request = engines::Request {
        model,
        caller: engines::Caller { id: ask.caller.id.clone(), weight: turn.weight },
        mode: engines::Mode::Chat,
        cost: 1,
        keep_alive: None,
        context_size: None,
    };
    let lease = ask.shared.runner.acquire(request).await.map_err(refusal)?;
    lease.finish(engines::Usage::default());
    Ok(reply::bytes(StatusCode::OK, "application/json", b"{}".as_slice()))
}

/// A refusal in words that dialects have a status for.
pub fn refusal(refused: engines::AcquireError) -> DialectError {
    use engines::Refusal;
    let (kind, retry_after) = match refused.kind {
        Refusal::NotFound => (ErrorKind::ModelNotFound, None),
        Refusal::WrongMode => (ErrorKind::NotSupported, None),
        Refusal::Invalid => (ErrorKind::InvalidRequest, None),
        Refusal::TooBig => (ErrorKind::NotSupported, None),
        Refusal::QueueFull { retry_after } => (ErrorKind::QueueFull, Some(retry_after)),
        Refusal::LoadFailed { retry_after } => (ErrorKind::LoadFailed, retry_after),
        Refusal::NoEngine => (ErrorKind::Unavailable, None),
        Refusal::Draining => (ErrorKind::Unavailable, Some(Duration::from_secs(5))),
    };
    let error = DialectError::new(kind, refused.message);
    match retry_after {
        Some(after) => error.with_retry_after(after),
        None => error,
    }
}

fn record(ask: &Ask, body: &[u8]) -> Record {
    let agent = ask.headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Record {
        id: ask.id.clone(),
        method: "POST",
        url: ask.path.clone(),
        request: ask.shared.recorder.body(body),
        timestamp: now.as_secs(),
        user_agent: agent.chars().take(200).collect(),
        caller: ask.caller.id.clone(),
        policy: ask.caller.policy.as_ref().map(|policy| policy.name.as_str().into()).unwrap_or_default(),
        ..Record::default()
    }
}

/// Tells the caller which of its fields were left out.
fn ignored(mut answer: Response<AnswerBody>, call: &Call) -> Response<AnswerBody> {
    if !call.ignored.is_empty() {
        let mut names = call.ignored.join(",");
        names.retain(|c| c.is_ascii_graphic());
        names.truncate(500);
        if let Ok(value) = names.parse() {
            answer.headers_mut().insert("x-pontoon-ignored", value);
        }
    }
    answer
}

impl EngineRequest {
    /// Tokens that this request is likely to take, for the order of turns.
    fn cost(&self) -> u32 {
        self.prompt().saturating_add(self.max_tokens.unwrap_or(USUAL_ANSWER))
    }

    /// Tokens that the prompt is likely to have.
    fn prompt(&self) -> u32 {
        u32::try_from(self.prompt_bytes / 4).unwrap_or(u32::MAX)
    }
}
