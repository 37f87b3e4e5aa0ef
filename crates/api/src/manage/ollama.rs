//! `/api`: Ollama's management, mapped to ours.

use std::io::Read;
use std::time::SystemTime;

use bytes::Bytes;
use hyper::StatusCode;
use pontoon_models::{Model, Role};
use serde_json::{Map, Value};

use super::transfer::{self, Style};
use super::{blocking, cards, models, reference};
use crate::dialect::ollama::{self, Manage};
use crate::dialect::{Details, DialectError, ErrorKind, Running};
use crate::reply::{self, Answer};
use crate::route::Ollama;
use crate::server::Ask;

/// Bytes of a text (licence, template) that are shown.
const MAX_TEXT: u64 = 256 << 10;

/// Answers.
pub async fn answer(ask: &Ask, ollama: Ollama, body: Bytes) -> Answer {
    match ollama {
        Ollama::Version => reply::written(ollama::version(&ask.shared.version)),
        Ollama::Tags => reply::written(ollama::tags(&cards::all(ask).await?)),
        Ollama::Ps => ps(ask).await,
        Ollama::Show => show(ask, &ollama::manage(Manage::Show, &body)?.model).await,
        Ollama::Pull => {
            let wanted = ollama::manage(Manage::Pull, &body)?;
            transfer::pull(ask, Style::Ollama, &wanted.model, None, wanted.stream).await
        }
        Ollama::Push => {
            let wanted = ollama::manage(Manage::Push, &body)?;
            transfer::push(ask, Style::Ollama, &wanted.model, None, wanted.stream).await
        }
        Ollama::Create => create(ask, &body).await,
        Ollama::Copy => copy(ask, &body).await,
        Ollama::Delete => {
            let wanted = ollama::manage(Manage::Delete, &body)?;
            models::remove(&ask.shared, wanted.model, true).await?;
            Ok(reply::empty(StatusCode::OK))
        }
    }
}

async fn ps(ask: &Ask) -> Answer {
    let shared = &ask.shared;
    let now = SystemTime::now();
    let mut rows = Vec::new();
    for running in shared.runner.ps().await {
        // A model that was removed meanwhile is still loaded, but has no card.
        let Ok((card, model)) = cards::one(shared, &running.model).await else { continue };
        if !ask.sees(&model) {
            continue;
        }
        rows.push(Running {
            card,
            memory: running.memory.host + running.memory.gpu,
            device_memory: running.memory.gpu,
            expires: running.expires_in.and_then(|left| now.checked_add(left)),
            context_size: running.context_size,
        });
    }
    reply::written(ollama::ps(&rows, now))
}

async fn show(ask: &Ask, name: &str) -> Answer {
    let (card, model) = cards::one(&ask.shared, name).await?;
    let model = ask.seen(model)?;
    let details = blocking(&ask.shared.store, move |_| {
        let text =
            |role: Role| model.files_of(role).map(|file| read(&file.path)).collect::<Vec<_>>().join("\n");
        let template =
            [Role::OllamaTemplate, Role::Template].into_iter().map(text).find(|text| !text.is_empty());
        let embedded = || model.config.gguf.get("tokenizer.chat_template").cloned();
        let parameters: Map<String, Value> = serde_json::from_str(&text(Role::Params)).unwrap_or_default();
        Ok(Details {
            license: text(Role::License),
            template: template.or_else(embedded).unwrap_or_default(),
            system: text(Role::System),
            parameters: parameters.into_iter().flat_map(|(key, value)| lines(&key, value)).collect(),
            info: info(&model),
            card,
        })
    })
    .await?;
    reply::written(ollama::show(&details))
}

/// A parameter as Ollama's `Modelfile` has it: one line for each value.
fn lines(key: &str, value: Value) -> Vec<(String, String)> {
    let text = |value: Value| match value {
        Value::String(text) => format!("{text:?}"),
        other => other.to_string(),
    };
    match value {
        Value::Array(values) => values.into_iter().map(|value| (key.to_owned(), text(value))).collect(),
        value => vec![(key.to_owned(), text(value))],
    }
}

fn info(model: &Model) -> Map<String, Value> {
    let number =
        |text: &str| text.parse::<i64>().map(Value::from).or_else(|_| text.parse::<f64>().map(Value::from));
    let of = |(key, text): (&String, &String)| {
        let value = number(text).unwrap_or_else(|_| match text.as_str() {
            "true" => true.into(),
            "false" => false.into(),
            text => text.into(),
        });
        (key.clone(), value)
    };
    let shown = |(key, _): &(&String, &String)| *key != "tokenizer.chat_template";
    model.config.gguf.iter().filter(shown).map(of).collect()
}

fn read(path: &std::path::Path) -> String {
    let mut bytes = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(MAX_TEXT).read_to_end(&mut bytes));
    if let Err(error) = read {
        log::warn!("cannot read {}: {error}", path.display());
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn context_size(value: Value) -> Result<u32, DialectError> {
    let tokens = value.as_u64().and_then(|tokens| i32::try_from(tokens).ok()).filter(|tokens| *tokens > 0);
    tokens.map(i32::unsigned_abs).ok_or_else(|| {
        let text = format!("parameters.num_ctx must be a whole number from 1 to {}, got {value}", i32::MAX);
        DialectError::invalid("parameters.num_ctx", text)
    })
}

async fn create(ask: &Ask, body: &[u8]) -> Answer {
    let mut wanted = ollama::manage(Manage::Create, body)?;
    let context = wanted.parameters.remove("num_ctx").map(context_size).transpose()?;
    let mut missing = wanted.unsupported;
    missing.extend(wanted.parameters.into_iter().map(|(key, _)| format!("parameters.{key}")));
    let named = [
        ("system", wanted.system.is_some()),
        ("template", wanted.template.is_some()),
        ("license", !wanted.licenses.is_empty()),
    ];
    missing.extend(named.into_iter().filter(|(_, there)| *there).map(|(name, _)| name.to_owned()));
    if !missing.is_empty() {
        let fields = missing.join(", ");
        let message = format!(
            "a model is made here with 'from' and 'parameters.num_ctx' alone, not with {fields}; use `pontoon model package --from`"
        );
        return Err(DialectError::new(ErrorKind::NotSupported, message));
    }
    let from =
        wanted.from.ok_or_else(|| DialectError::invalid("from", "'from' must name a model that is here"))?;
    models::make(&ask.shared, &from, &wanted.model, context).await?;
    let success = ollama::Progress { status: "success".into(), digest: None, total: None, completed: None };
    let content_type = if wanted.stream { "application/x-ndjson" } else { "application/json" };
    Ok(reply::bytes(StatusCode::OK, content_type, ollama::progress(&success)))
}

async fn copy(ask: &Ask, body: &[u8]) -> Answer {
    let wanted = ollama::manage(Manage::Copy, body)?;
    let to = wanted
        .destination
        .ok_or_else(|| DialectError::invalid("destination", "'destination' must be a name"))?;
    let (from, to) = (wanted.model, reference(&to)?);
    blocking(&ask.shared.store, move |store| store.tag(&from, &to)).await?;
    ask.shared.runner.refresh();
    Ok(reply::empty(StatusCode::OK))
}
