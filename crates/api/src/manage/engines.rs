//! `/engines`: what Docker's CLI asks of engines, and sets.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hyper::StatusCode;
use hyper::body::Incoming;
use pontoon_engines::engine::Installed;
use pontoon_engines::{Change, KeepAlive, Mode, Running, Settings, Which};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{cards, flag, parse, query, resolve, runner};
use crate::body::AnswerBody;
use crate::dialect::{DialectError, ErrorKind, parse_keep_alive};
use crate::infer::refusal;
use crate::recorder::Filter;
use crate::reply::{self, Answer};
use crate::route::Engines;
use crate::server::handle::read;
use crate::server::{Ask, Shared};

/// Answers.
pub async fn answer(ask: &Ask, engines: Engines, body: Incoming) -> Answer {
    match engines {
        Engines::Status => status(ask).await,
        Engines::Ps => ps(ask).await,
        Engines::Df => df(ask).await,
        Engines::Requests => requests(ask).await,
        Engines::Unload => unload(ask, parse(&read(ask, body).await?)?).await,
        Engines::Configuration => configuration(ask).await,
        Engines::Configure => configure(ask, parse(&read(ask, body).await?)?).await,
        Engines::Install => {
            let message = "engines are installed on the host: `pontoon engine install`, `pontoon engine rm`";
            Err(DialectError::new(ErrorKind::NotSupported, message))
        }
    }
}

async fn status(ask: &Ask) -> Answer {
    let mut engines = BTreeMap::from([("llama.cpp".to_owned(), "Not Installed".to_owned())]);
    for engine in installed(&ask.shared).await? {
        engines.insert(engine.name.clone(), format!("Running: {} {}", engine.name, engine.version));
    }
    reply::json(StatusCode::OK, &engines)
}

async fn installed(shared: &Shared) -> Result<Vec<Installed>, DialectError> {
    let catalog = shared.runner.engines().clone();
    tokio::task::spawn_blocking(move || catalog.list()).await.map_err(runner)
}

async fn ps(ask: &Ask) -> Answer {
    let mut running = ask.shared.runner.ps().await;
    running.retain(|one| ask.sees_running(&one.model));
    reply::json(StatusCode::OK, &running.iter().map(row).collect::<Vec<_>>())
}

fn row(running: &Running) -> Value {
    let backend = running.engine.split([' ', '@']).next().unwrap_or_default();
    let last_used = SystemTime::now() - running.idle;
    let keep_alive = match running.expires_in {
        Some(left) => go_duration(left + running.idle),
        None => "-1".into(),
    };
    json!({
        "backend_name": backend,
        "model_name": running.model,
        "mode": running.modes.first().map_or("completion", |mode| mode_word(*mode)),
        "last_used": humantime::format_rfc3339_millis(last_used).to_string(),
        "in_use": running.serving > 0,
        "loading": running.state == "loading",
        "keep_alive": keep_alive,
    })
}

fn mode_word(mode: Mode) -> &'static str {
    match mode {
        Mode::Chat => "completion",
        Mode::Embedding => "embedding",
        Mode::Rerank => "reranking",
    }
}

/// A duration as Go writes and reads it.
fn go_duration(duration: Duration) -> String {
    format!("{}s", duration.as_secs())
}

async fn df(ask: &Ask) -> Answer {
    let df = ask.shared.runner.df().await;
    let store = super::blocking(&ask.shared.store, |store| store.df()).await?;
    reply::json(
        StatusCode::OK,
        &json!({ "models_disk_usage": store.blobs_bytes, "default_backend_disk_usage": df.engines_bytes }),
    )
}

#[derive(Deserialize)]
struct Unload {
    #[serde(default)]
    all: bool,
    #[serde(default)]
    models: Option<Vec<String>>,
    #[serde(default)]
    backend: String,
}

async fn unload(ask: &Ask, wanted: Unload) -> Answer {
    let shared = &ask.shared;
    let mut gone = 0;
    let names = wanted.models.unwrap_or_default();
    if wanted.all || (names.is_empty() && !wanted.backend.is_empty()) {
        gone += shared.runner.unload(Which::All).await.map_err(refusal)?.len();
    }
    for name in names {
        gone += shared.runner.unload(Which::Model(name)).await.map_err(refusal)?.len();
    }
    reply::json(StatusCode::OK, &json!({ "unloaded_runners": gone }))
}

/// What Docker's CLI and Compose set.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Configure {
    model: String,
    #[serde(default)]
    mode: Option<String>,
    #[serde(default)]
    context_size: Option<f64>,
    #[serde(default)]
    runtime_flags: Option<Vec<String>>,
    #[serde(default)]
    raw_runtime_flags: Option<String>,
    #[serde(default)]
    speculative: Option<Speculative>,
    #[serde(default, rename = "keep_alive")]
    keep_alive: Option<Value>,
    #[serde(default)]
    llamacpp: Option<LlamaCpp>,
    #[serde(default)]
    vllm: Option<Value>,
}

#[derive(Deserialize)]
struct Speculative {
    #[serde(default)]
    draft_model: Option<String>,
    #[serde(default)]
    num_tokens: Option<u32>,
    #[serde(default)]
    min_acceptance_rate: Option<f64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct LlamaCpp {
    #[serde(default)]
    reasoning_budget: Option<i32>,
}

async fn configure(ask: &Ask, wanted: Configure) -> Answer {
    let settings = settings(&wanted)?;
    let (shared, model) = (ask.shared.clone(), wanted.model);
    resolve(&shared, &model).await?;
    let set = shared.runner.configure(&model, settings, Change::Merge).await;
    set.map_err(refusal)?;
    let caller = ask.caller.id.clone();
    // Compose configures what it is about to use: the model is loaded meanwhile.
    tokio::spawn(async move {
        if let Err(error) = preload(&shared, model.clone(), caller).await {
            log::warn!("{model} was configured, but does not load: {error}");
        }
    });
    Ok(reply::empty(StatusCode::ACCEPTED))
}

async fn preload(shared: &Shared, model: String, caller: Arc<str>) -> Result<(), String> {
    let (_, found) = cards::one(shared, &model).await.map_err(|error| error.message)?;
    let facts = super::blocking(&shared.store, move |store| store.facts(&found))
        .await
        .map_err(|error| error.message)?;
    let mode = match facts.mode {
        pontoon_models::check::Mode::Embedding => Mode::Embedding,
        pontoon_models::check::Mode::Rerank => Mode::Rerank,
        _ => Mode::Chat,
    };
    let caller = pontoon_engines::Caller { id: caller, weight: 1 };
    let request =
        pontoon_engines::Request { model, caller, mode, cost: 1, keep_alive: None, context_size: None };
    shared.runner.acquire(request).await.map(drop).map_err(|error| error.to_string())
}

fn settings(wanted: &Configure) -> Result<Settings, DialectError> {
    let invalid = |message: String| DialectError::new(ErrorKind::InvalidRequest, message);
    if wanted.vllm.is_some() {
        return Err(invalid(
            "vllm's overrides can run code of the caller's and are not taken; use `pontoon model configure`"
                .into(),
        ));
    }
    let mut flags = wanted.runtime_flags.clone().unwrap_or_default();
    if let Some(raw) = &wanted.raw_runtime_flags {
        flags.extend(raw.split_whitespace().map(str::to_owned));
    }
    let mut settings = Settings::from_flags(&flags).map_err(|error| invalid(error.to_string()))?;
    if let Some(context) = wanted.context_size {
        let whole = context.fract() == 0.0 && (1.0..=f64::from(u32::MAX)).contains(&context);
        let wrong = || invalid(format!("context-size must be a whole number of at least 1, not {context}"));
        settings.context_size = Some(whole.then_some(context as u32).ok_or_else(wrong)?);
    }
    if let Some(keep) = &wanted.keep_alive {
        settings.keep_alive = Some(match parse_keep_alive(keep)? {
            crate::dialect::KeepAlive::Forever => KeepAlive::Forever,
            crate::dialect::KeepAlive::For(time) => KeepAlive::For(time),
        });
    }
    if let Some(budget) = wanted.llamacpp.as_ref().and_then(|llama| llama.reasoning_budget) {
        settings.reasoning_budget = Some(budget);
    }
    if let Some(speculative) = &wanted.speculative {
        settings.draft_model = speculative.draft_model.clone().filter(|model| !model.is_empty());
        settings.draft_max = speculative.num_tokens.filter(|tokens| *tokens > 0);
        settings.draft_p_min = speculative.min_acceptance_rate.filter(|rate| *rate > 0.0);
    }
    match wanted.mode.as_deref() {
        Some("embedding") => settings.embeddings = Some(true),
        Some("reranking") => settings.reranking = Some(true),
        None | Some("" | "completion") => {}
        Some(other) => {
            return Err(invalid(format!("mode is '{other}'; it must be completion, embedding or reranking")));
        }
    }
    settings.check().map_err(|error| invalid(error.to_string()))?;
    Ok(settings)
}

async fn configuration(ask: &Ask) -> Answer {
    let wanted = match query(&ask.query, "model") {
        Some(name) => Some(resolve(&ask.shared, &name).await?),
        None => None,
    };
    let models = super::blocking(&ask.shared.store, |store| store.list()).await?;
    let mut rows = Vec::new();
    for model in
        models.iter().filter(|model| wanted.as_ref().is_none_or(|wanted| wanted.digest == model.digest))
    {
        let name = model.display_name();
        let settings = ask.shared.runner.configuration(&name).await.map_err(refusal)?;
        if settings == Settings::default() {
            continue;
        }
        rows.push(json!({
            "Backend": "llama.cpp",
            "Model": name,
            "ModelID": model.digest.to_string(),
            "Mode": docker_mode(&settings),
            "Config": docker_config(&settings),
        }));
    }
    reply::json(StatusCode::OK, &rows)
}

fn docker_config(settings: &Settings) -> Value {
    let mut config = serde_json::Map::new();
    if let Some(context) = settings.context_size {
        config.insert("context-size".into(), context.into());
    }
    match settings.keep_alive {
        Some(KeepAlive::Forever) => drop(config.insert("keep_alive".into(), "-1".into())),
        Some(KeepAlive::For(time)) => drop(config.insert("keep_alive".into(), go_duration(time).into())),
        None => {}
    }
    if let Some(budget) = settings.reasoning_budget {
        config.insert("llamacpp".into(), json!({ "reasoning-budget": budget }));
    }
    if let Some(draft) = &settings.draft_model {
        let mut speculative = json!({ "draft_model": draft, "num_tokens": settings.draft_max.unwrap_or(0) });
        if let Some(least) = settings.draft_p_min {
            speculative["min_acceptance_rate"] = least.into();
        }
        config.insert("speculative".into(), speculative);
    }
    // What has a field of its own is told there.
    let rest = Settings {
        context_size: None,
        reasoning_budget: None,
        embeddings: None,
        reranking: None,
        draft_max: settings.draft_max.filter(|_| settings.draft_model.is_none()),
        draft_p_min: settings.draft_p_min.filter(|_| settings.draft_model.is_none()),
        ..settings.clone()
    };
    let flags = rest.flags();
    if !flags.is_empty() {
        config.insert("runtime-flags".into(), flags.into());
    }
    Value::Object(config)
}

/// The engine's mode as Docker names it.
fn docker_mode(settings: &Settings) -> &'static str {
    match (settings.embeddings, settings.reranking) {
        (_, Some(true)) => "reranking",
        (Some(true), _) => "embedding",
        _ => "completion",
    }
}

/// The record of requests: the caller's own, or for the operator all.
async fn requests(ask: &Ask) -> Answer {
    let model = match query(&ask.query, "model").filter(|name| !name.is_empty()) {
        Some(name) => Some(resolve(&ask.shared, &name).await?.display_name()),
        None => None,
    };
    let caller = if ask.manages.is_ok() { None } else { Some(ask.caller.id.clone()) };
    let filter = Filter { caller, model };
    let streams =
        ask.headers.get("accept").is_some_and(|accept| accept.as_bytes().starts_with(b"text/event-stream"));
    if !streams {
        return reply::json(StatusCode::OK, &ask.shared.recorder.list(&filter));
    }
    follow(ask, filter)
}

/// Records as they come, until the caller goes.
fn follow(ask: &Ask, filter: Filter) -> Answer {
    let (events, body) = tokio::sync::mpsc::channel(64);
    let (shared, existing) = (ask.shared.clone(), flag(&ask.query, "include_existing")?);
    tokio::spawn(async move {
        let mut records = shared.recorder.follow();
        let mut first = String::new();
        for of_model in shared.recorder.list(&filter).into_iter().filter(|_| existing) {
            first += &event("existing_request", &[of_model]);
        }
        first += "event: connected\ndata: {\"status\": \"connected\"}\n\n";
        if events.send(Ok(first.into())).await.is_err() {
            return;
        }
        loop {
            let next = tokio::select! {
                next = records.recv() => next,
                () = events.closed() => return,
            };
            let record = match next {
                Ok(record) if filter.passes(&record) => record,
                // Too slow for all of them: the next ones will do.
                Ok(_) | Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => continue,
                Err(_) => return,
            };
            let model = record.model.clone();
            let of_model = crate::recorder::OfModel {
                count: 1,
                model,
                config: serde_json::Map::new(),
                records: vec![record],
            };
            if events.send(Ok(event("new_request", &[of_model]).into())).await.is_err() {
                return;
            }
        }
    });
    let mut answer = reply::bytes(StatusCode::OK, "text/event-stream", bytes::Bytes::new());
    *answer.body_mut() = AnswerBody::channel(body);
    Ok(answer)
}

fn event(name: &str, data: &[crate::recorder::OfModel]) -> String {
    format!("event: {name}\ndata: {}\n\n", serde_json::to_string(data).unwrap_or_default())
}
