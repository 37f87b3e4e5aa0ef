//! `/pontoon/v1`: what only Pontoon has. `pontoon model …` on the host asks here, on the admin socket.

use bytes::Bytes;
use hyper::StatusCode;
use pontoon_engines::{Change, Settings};
use serde::Deserialize;
use serde_json::json;

use super::{blocking, flag, parse, query, resolve};
use crate::dialect::DialectError;
use crate::infer::refusal;
use crate::reply::{self, Answer};
use crate::route::Pontoon;
use crate::server::Ask;

/// Answers.
pub async fn answer(ask: &Ask, pontoon: Pontoon, body: Bytes) -> Answer {
    let shared = &ask.shared;
    match pontoon {
        Pontoon::Ps => {
            let mut running = shared.runner.ps().await;
            running.retain(|one| ask.sees_running(&one.model));
            reply::json(StatusCode::OK, &running)
        }
        Pontoon::Queue => queue(ask).await,
        Pontoon::Show => {
            let shown = shared.runner.show(&model(ask)?).await.map_err(refusal)?;
            reply::json(StatusCode::OK, &shown)
        }
        Pontoon::Configure => configure(ask, parse(&body)?).await,
        Pontoon::Pin => {
            let Pin { model, pinned } = parse(&body)?;
            resolve(shared, &model).await?;
            shared.runner.pin(&model, pinned).await.map_err(refusal)?;
            reply::json(StatusCode::OK, &json!({ "model": model, "pinned": pinned }))
        }
        Pontoon::Prune => {
            let untagged = flag(&ask.query, "untagged")?;
            let pruned = blocking(&shared.store, move |store| store.prune(untagged)).await?;
            shared.runner.refresh();
            reply::json(StatusCode::OK, &pruned)
        }
        Pontoon::Logs => logs(ask).await,
        Pontoon::Df => {
            let store = blocking(&shared.store, |store| store.df()).await?;
            reply::json(StatusCode::OK, &json!({ "store": store, "engines": shared.runner.df().await }))
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Configure {
    model: String,
    /// Whether nothing of the old settings stays.
    #[serde(default)]
    replace: bool,
    /// Names of settings that are taken back.
    #[serde(default)]
    unset: Vec<String>,
    #[serde(default)]
    settings: Settings,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Pin {
    model: String,
    pinned: bool,
}

fn model(ask: &Ask) -> Result<String, DialectError> {
    let name = query(&ask.query, "model").filter(|name| !name.is_empty());
    name.ok_or_else(|| DialectError::invalid("model", "?model=NAME is missing"))
}

/// Who waits: the caller's own requests, or for the operator all.
async fn queue(ask: &Ask) -> Answer {
    let mut waiting = ask.shared.runner.queue().await;
    if ask.manages.is_err() {
        waiting.retain(|waiting| waiting.caller == *ask.caller.id);
    }
    reply::json(StatusCode::OK, &waiting)
}

async fn configure(ask: &Ask, wanted: Configure) -> Answer {
    resolve(&ask.shared, &wanted.model).await?;
    let change = match (wanted.replace, wanted.unset) {
        (true, _) => Change::Replace,
        (false, names) if names.is_empty() => Change::Merge,
        (false, names) => Change::Unset(names),
    };
    let shown = ask.shared.runner.configure(&wanted.model, wanted.settings, change).await.map_err(refusal)?;
    reply::json(StatusCode::OK, &shown)
}

async fn logs(ask: &Ask) -> Answer {
    let name = model(ask)?;
    resolve(&ask.shared, &name).await?;
    let lines = ask.shared.runner.logs(&name).await.map_err(refusal)?.unwrap_or_default();
    let text: String = lines.iter().map(crate::logs::engine_line).collect();
    Ok(reply::bytes(StatusCode::OK, "text/plain; charset=utf-8", text))
}
