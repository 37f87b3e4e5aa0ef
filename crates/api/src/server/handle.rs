//! One request: let in, routed, answered, and its answer's common headers.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::{HeaderMap, Method, Request, Response, StatusCode};

use super::{Ask, Shared, gate};
use crate::body::AnswerBody;
use crate::caller::Peer;
use crate::dialect::{Dialect, DialectError, ErrorKind};
use crate::reply::{self, Answer, names};
use crate::route::{self, Engines, Models, NoRoute, Pontoon, Route};
use crate::{infer, logs, manage, openapi};

/// Bytes of a body that are read although its request is refused.
const REFUSED_BODY: usize = 64 << 10;

/// Answers a request. There is always an answer.
pub async fn answer(
    shared: Arc<Shared>,
    peer: Arc<Peer>,
    request: Request<Incoming>,
) -> Response<AnswerBody> {
    let started = Instant::now();
    let id = shared.id();
    let origin = request.headers().get(header::ORIGIN).cloned();
    let path = request.uri().path();
    let found = match gate::check_source(&shared, &peer, request.headers(), request.uri()) {
        Ok(()) if request.method() == Method::OPTIONS => return preflight(origin, &id),
        Ok(()) => route::find(request.method(), path),
        Err(error) => return with_headers(told(&error, shape_of(path), &id), None, &id),
    };
    let mut answer = match found {
        Ok(route) => {
            let shape = shape(&route);
            let answered = routed(shared, peer, request, route, id.clone(), started).await;
            answered.unwrap_or_else(|error| told(&error, shape, &id))
        }
        Err(no_route) => lost(no_route, request.method(), path, &id),
    };
    if answer.body().size_hint().exact().is_none() {
        answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    }
    with_headers(answer, origin, &id)
}

/// The answer to a caller that has too many connections.
pub fn crowded(shared: &Shared, path: &str, limit: usize) -> Response<AnswerBody> {
    let message = format!("you have {limit} connections open, which is the limit; use fewer");
    let error = DialectError::new(ErrorKind::QueueFull, message).with_retry_after(Duration::from_secs(1));
    told(&error, shape_of(path), &shared.id())
}

async fn routed(
    shared: Arc<Shared>,
    peer: Arc<Peer>,
    request: Request<Incoming>,
    route: Route,
    id: String,
    started: Instant,
) -> Answer {
    let (head, body) = request.into_parts();
    let mut caller = gate::identify(&shared, &peer, &head.headers).await?;
    let acting = head.headers.contains_key(&names::ON_BEHALF);
    // Finding out costs a look through /proc, so it is done only for requests that it matters for.
    let matters = match route {
        Route::Engines(Engines::Requests) | Route::Pontoon(Pontoon::Queue) => true,
        Route::Models(Models::Inspect(_)) => head.uri.query().is_some(),
        _ => false,
    };
    let manages = if route.manages() || matters || acting {
        gate::may_manage(&peer, &head.headers).await
    } else {
        Err(String::new())
    };
    if let (true, Err(why)) = (route.manages(), &manages) {
        log::info!("refused {} {} of {}: {why}", head.method, head.uri.path(), caller.description);
        // Who is still sending would hear of a broken connection instead of the answer.
        let rest = Limited::new(body, REFUSED_BODY).collect();
        let _ = tokio::time::timeout(Duration::from_secs(1), rest).await;
        return Err(DialectError::new(ErrorKind::Forbidden, why.clone()));
    }
    if manages.is_ok()
        && let Some(other) = gate::on_behalf(&head.headers)?
    {
        caller = other;
    }
    let ask = Ask {
        id,
        caller,
        manages,
        path: head.uri.path().to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        headers: head.headers,
        started,
        at: SystemTime::now(),
        shared,
    };
    dispatch(&ask, route, body).await
}

/// What is asked for seldom is kept apart, so that what each request takes is small.
async fn dispatch(ask: &Ask, route: Route, body: Incoming) -> Answer {
    if !matches!(route, Route::Infer(_)) {
        ask.shared.settled().await;
    }
    match route {
        Route::Root => Ok(reply::bytes(StatusCode::OK, "text/plain", "Pontoon's model runner is running\n")),
        Route::Health => reply::written(br#"{"status":"ok"}"#.to_vec()),
        Route::Version => reply::json(StatusCode::OK, &serde_json::json!({ "version": ask.shared.version })),
        Route::OpenApi => Box::pin(described(ask)).await,
        Route::Infer(endpoint) => infer::run(ask, endpoint, read(ask, body).await?).await,
        Route::Images => Err(DialectError::new(ErrorKind::NotSupported, "no engine here makes pictures")),
        Route::Response(what, id) => stored(ask, what, &id),
        Route::Cards(dialect, name) => Box::pin(manage::cards::answer(ask, dialect, name)).await,
        Route::Models(models) => Box::pin(manage::models::answer(ask, models, body)).await,
        Route::Engines(engines) => Box::pin(manage::engines::answer(ask, engines, body)).await,
        Route::Ollama(ollama) => {
            let body = read(ask, body).await?;
            Box::pin(manage::ollama::answer(ask, ollama, body)).await
        }
        Route::Pontoon(pontoon) => {
            let body = read(ask, body).await?;
            Box::pin(manage::pontoon::answer(ask, pontoon, body)).await
        }
        Route::Metrics => Box::pin(measured(ask)).await,
        Route::Logs => Box::pin(logs::answer(ask)).await,
    }
}

async fn described(ask: &Ask) -> Answer {
    let models = manage::blocking(&ask.shared.store, |store| store.list()).await?;
    let names = models.iter().filter(|model| ask.sees(model)).take(3);
    let names: Vec<String> = names.map(pontoon_models::Model::display_name).collect();
    reply::written(openapi::document(&ask.shared.version, &names))
}

async fn measured(ask: &Ask) -> Answer {
    let more = ask.shared.more_metrics.as_ref().map(|more| more()).unwrap_or_default();
    let text = ask.shared.metrics.text(&ask.shared.runner, &more).await;
    Ok(reply::bytes(StatusCode::OK, crate::metrics::CONTENT_TYPE, text))
}

/// Reads a body within its limits of size and time.
///
/// # Errors
/// [`ErrorKind::TooLarge`] or [`ErrorKind::InvalidRequest`].
pub async fn read(ask: &Ask, body: Incoming) -> Result<Bytes, DialectError> {
    let limits = &ask.shared.config.limits;
    let (limit, seconds) = (limits.body_bytes, limits.body_seconds);
    let too_large = || {
        let message = format!("the request is longer than {limit} bytes, which is the limit");
        DialectError::new(ErrorKind::TooLarge, message)
    };
    if body.size_hint().lower() > limit as u64 {
        return Err(too_large());
    }
    let reading = tokio::time::timeout(Duration::from_secs(seconds), Limited::new(body, limit).collect());
    match reading.await {
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(too_large()),
        Ok(Err(error)) => Err(DialectError::new(
            ErrorKind::InvalidRequest,
            format!("the request's body broke off: {error}"),
        )),
        Err(_) => {
            let message = format!("the request's body took longer than {seconds} s, which is the limit");
            Err(DialectError::new(ErrorKind::InvalidRequest, message))
        }
    }
}

fn stored(ask: &Ask, what: route::Stored, id: &str) -> Answer {
    let missing = || {
        let id: String = id.chars().take(80).collect();
        DialectError::new(ErrorKind::NotFound, format!("there is no response '{id}' of yours here"))
    };
    let (answers, caller) = (&ask.shared.answers, &ask.caller.id);
    match what {
        route::Stored::Delete if answers.delete(caller, id) => {
            reply::written(crate::dialect::responses::deleted(id))
        }
        route::Stored::Delete => Err(missing()),
        route::Stored::Get => {
            reply::written(answers.find(caller, id, ask.started).ok_or_else(missing)?.response().to_vec())
        }
        route::Stored::Inputs => {
            reply::written(answers.find(caller, id, ask.started).ok_or_else(missing)?.input_items())
        }
    }
}

/// How errors are told: in a dialect, or as a sentence in plain text, which is what Docker's CLI shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Dialect(Dialect),
    Plain,
}

fn shape(route: &Route) -> Shape {
    match route {
        Route::Models(_) | Route::Engines(_) | Route::Pontoon(_) | Route::Metrics | Route::Logs => {
            Shape::Plain
        }
        other => Shape::Dialect(other.dialect()),
    }
}

/// Last parts of paths below `/engines` that control engines.
const CONTROLS: [&str; 8] =
    ["status", "ps", "df", "requests", "unload", "_configure", "install-backend", "uninstall-backend"];

fn shape_of(path: &str) -> Shape {
    match path.trim_start_matches('/').split('/').next() {
        Some("models" | "pontoon" | "metrics" | "logs") => Shape::Plain,
        Some("engines") if CONTROLS.contains(&path.rsplit('/').next().unwrap_or_default()) => Shape::Plain,
        _ => Shape::Dialect(route::dialect_of(path)),
    }
}

fn told(error: &DialectError, shape: Shape, id: &str) -> Response<AnswerBody> {
    match shape {
        Shape::Dialect(dialect) => reply::error(error, dialect, id),
        Shape::Plain => {
            let mut answer = reply::error(error, Dialect::OpenAi, id);
            answer
                .headers_mut()
                .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
            answer.map(|_| AnswerBody::whole(format!("{}\n", error.message)))
        }
    }
}

fn lost(no_route: NoRoute, method: &Method, path: &str, id: &str) -> Response<AnswerBody> {
    let shown: String = path.chars().take(200).collect();
    let (error, allow) = match no_route {
        NoRoute::NotFound => {
            let message = format!("there is nothing at {shown}; /openapi.json lists what there is");
            (DialectError::new(ErrorKind::NotFound, message), None)
        }
        NoRoute::Malformed => {
            (DialectError::new(ErrorKind::InvalidRequest, format!("the path {shown} cannot be read")), None)
        }
        NoRoute::Method(allow) => {
            let message = format!("{shown} does not take {method}; it takes {allow}");
            (DialectError::new(ErrorKind::MethodNotAllowed, message), Some(allow))
        }
    };
    let mut answer = told(&error, shape_of(path), id);
    if let Some(allow) = allow {
        answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allow));
    }
    answer
}

fn preflight(origin: Option<HeaderValue>, id: &str) -> Response<AnswerBody> {
    let mut answer = reply::empty(StatusCode::NO_CONTENT);
    if origin.is_some() {
        let headers = answer.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST, DELETE"));
        headers.insert(
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            HeaderValue::from_static(
                "authorization, content-type, x-api-key, anthropic-version, anthropic-beta",
            ),
        );
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    }
    with_headers(answer, origin, id)
}

fn with_headers(
    mut answer: Response<AnswerBody>,
    origin: Option<HeaderValue>,
    id: &str,
) -> Response<AnswerBody> {
    let headers: &mut HeaderMap = answer.headers_mut();
    let id = reply::value(id);
    headers.insert(&names::X_REQUEST_ID, id.clone());
    headers.insert(&names::REQUEST_ID, id);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Some(origin) = origin {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::VARY, HeaderValue::from_static("origin"));
    }
    answer
}
