//! `/models`: the native interface of Docker's runner.

use hyper::StatusCode;
use hyper::body::Incoming;
use pontoon_engines::Which;
use pontoon_models::package::Builder;
use pontoon_models::{Model, Progress, Reference};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::transfer::{self, Style};
use super::{blocking, cards, flag, parse, query, reference, resolve, tar, told};
use crate::dialect::{DialectError, ErrorKind};
use crate::infer::refusal;
use crate::reply::{self, Answer};
use crate::route::Models;
use crate::server::handle::read;
use crate::server::{Ask, Shared};

/// Answers.
pub async fn answer(ask: &Ask, models: Models, body: Incoming) -> Answer {
    match models {
        Models::List => list(ask).await,
        Models::Inspect(name) => inspect(ask, name).await,
        Models::Create => create(ask, body).await,
        Models::Load => tar::load(ask, body).await,
        Models::Export(name) => tar::export(ask, name).await,
        Models::Tag(name) => tag(ask, name).await,
        Models::Push(name) => {
            let body = read(ask, body).await?;
            let Pushed { token } =
                if body.trim_ascii().is_empty() { Pushed::default() } else { parse(&body)? };
            transfer::push(ask, Style::Docker, &name, token, true).await
        }
        Models::Repackage(name) => repackage(ask, name, parse(&read(ask, body).await?)?).await,
        Models::Delete(name) => {
            let removed = remove(&ask.shared, name, flag(&ask.query, "force")?).await?;
            reply::json(StatusCode::OK, &removed)
        }
        Models::Purge => purge(ask).await,
    }
}

#[derive(Deserialize)]
struct Create {
    from: String,
    #[serde(default, rename = "bearer-token")]
    token: Option<String>,
}

#[derive(Default, Deserialize)]
struct Pushed {
    #[serde(default, rename = "bearer-token")]
    token: Option<String>,
}

#[derive(Deserialize)]
struct Repackage {
    target: String,
    #[serde(default)]
    context_size: Option<u32>,
}

/// A model as Docker's CLI reads it.
fn shown(model: &Model) -> serde_json::Value {
    let tags: Vec<String> = model.names.iter().map(Reference::familiar).collect();
    let created = model.created.and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
    json!({
        "id": model.digest.to_string(),
        "tags": tags,
        "created": created.unwrap_or_default().as_secs(),
        "config": model.config,
    })
}

async fn list(ask: &Ask) -> Answer {
    let models = blocking(&ask.shared.store, |store| store.list()).await?;
    reply::json(StatusCode::OK, &models.iter().filter(|model| ask.sees(model)).map(shown).collect::<Vec<_>>())
}

async fn inspect(ask: &Ask, name: String) -> Answer {
    if flag(&ask.query, "remote")? {
        // The daemon asks registries for its operator only.
        if let Err(why) = &ask.manages {
            return Err(DialectError::new(ErrorKind::Forbidden, why.clone()));
        }
        let (shared, wanted) = (&ask.shared, reference(&name)?);
        let model = shared.registry.remote_model(&shared.store, &wanted).await;
        return reply::json(StatusCode::OK, &shown(&model.map_err(|error| told(&error))?));
    }
    let model = blocking(&ask.shared.store, move |store| cards::by_last_part(store, &name)).await?;
    reply::json(StatusCode::OK, &shown(&ask.seen(model)?))
}

async fn create(ask: &Ask, body: Incoming) -> Answer {
    let Create { from, token } = parse(&read(ask, body).await?)?;
    transfer::pull(ask, Style::Docker, &from, token, true).await
}

async fn tag(ask: &Ask, name: String) -> Answer {
    let part = |key: &str| query(&ask.query, key).filter(|value| !value.is_empty());
    let (Some(repository), Some(tag)) = (part("repo"), part("tag")) else {
        let message = "a new name needs ?repo=REPOSITORY&tag=TAG";
        return Err(DialectError::new(ErrorKind::InvalidRequest, message));
    };
    let target = format!("{repository}:{tag}");
    let new = reference(&target)?;
    blocking(&ask.shared.store, move |store| store.tag(&name, &new)).await?;
    ask.shared.runner.refresh();
    let message = format!("Model tagged successfully with {target:?}");
    reply::json(StatusCode::CREATED, &json!({ "message": message, "target": target }))
}

async fn repackage(ask: &Ask, name: String, wanted: Repackage) -> Answer {
    make(&ask.shared, &name, &wanted.target, wanted.context_size).await?;
    let message = format!("Model repackaged successfully as {:?}", wanted.target);
    reply::json(StatusCode::CREATED, &json!({ "message": message, "source": name, "target": wanted.target }))
}

/// Another artifact of the same weights.
///
/// # Errors
/// The store's and the policy's.
pub async fn make(
    shared: &Shared,
    from: &str,
    target: &str,
    context: Option<u32>,
) -> Result<(), DialectError> {
    if context == Some(0) {
        return Err(DialectError::new(ErrorKind::InvalidRequest, "context_size is 0; it must be at least 1"));
    }
    let (target, from, policy) =
        (reference(target)?, from.to_owned(), shared.registry_options.policy.clone());
    blocking(&shared.store, move |store| {
        let mut builder = Builder::from(store, &from)?;
        if let Some(tokens) = context {
            builder = builder.context_size(tokens);
        }
        builder.build(store, &target, &policy, &Progress::none())
    })
    .await?;
    shared.runner.refresh();
    Ok(())
}

/// One thing that a removal did, as Docker's CLI reads it.
#[derive(Debug, Serialize)]
pub enum Removed {
    /// A name.
    Untagged(String),
    /// A model.
    Deleted(String),
}

/// Removes a name, and the model with its last one. An idle model is unloaded; a busy one needs `force`.
///
/// # Errors
/// [`ErrorKind::Conflict`] for a busy model, and the store's.
pub async fn remove(shared: &Shared, name: String, force: bool) -> Result<Vec<Removed>, DialectError> {
    let model = resolve(shared, &name).await?;
    if shared.runner.in_use(&model.digest.to_string()).await && model.names.len() <= 1 {
        let shown = model.display_name();
        let busy =
            shared.runner.ps().await.iter().any(|row| row.model == shown && row.serving + row.waiting > 0);
        if busy && !force {
            let message = format!("{shown} is answering requests; wait, or remove it with force");
            return Err(DialectError::new(ErrorKind::Conflict, message));
        }
        shared.runner.unload(Which::Model(shown)).await.map_err(refusal)?;
    }
    let removal = blocking(&shared.store, move |store| store.remove(&name, force)).await?;
    shared.runner.refresh();
    let untagged = removal.untagged.into_iter().map(Removed::Untagged);
    Ok(untagged
        .chain(removal.deleted.into_iter().map(|digest| Removed::Deleted(digest.to_string())))
        .collect())
}

async fn purge(ask: &Ask) -> Answer {
    ask.shared.runner.unload(Which::All).await.map_err(refusal)?;
    let removal = blocking(&ask.shared.store, |store| store.purge()).await?;
    ask.shared.runner.refresh();
    reply::json(StatusCode::OK, &removal)
}
