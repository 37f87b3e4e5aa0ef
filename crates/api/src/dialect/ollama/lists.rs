//! Ollama's lists of models, and what it shows of one.

use std::time::{Duration, SystemTime};

use serde_json::{Map, Value, json};

use super::super::cards::{Details, ModelCard, Running};
use super::super::duration::rfc3339;

/// A time so far away that clients show it as for ever.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 86_400);

/// `GET /api/tags`
pub fn tags(cards: &[ModelCard]) -> Vec<u8> {
    let models: Vec<Value> = cards
        .iter()
        .map(|card| {
            let mut map = base(card);
            map.insert("modified_at".into(), time(card).into());
            map.insert("size".into(), card.size.into());
            map.insert("capabilities".into(), capabilities(card));
            map.into()
        })
        .collect();
    json!({"models": models}).to_string().into_bytes()
}

/// `GET /api/ps`
pub fn ps(running: &[Running], now: SystemTime) -> Vec<u8> {
    let models: Vec<Value> = running
        .iter()
        .map(|model| {
            let expires = model.expires.or_else(|| now.checked_add(FOREVER)).unwrap_or(now);
            let mut map = base(&model.card);
            map.insert("size".into(), model.memory.into());
            map.insert("size_vram".into(), model.device_memory.into());
            map.insert("expires_at".into(), rfc3339(expires).into());
            map.insert("context_length".into(), model.context_size.into());
            map.into()
        })
        .collect();
    json!({"models": models}).to_string().into_bytes()
}

/// `POST /api/show`
pub fn show(details: &Details) -> Vec<u8> {
    let parameters: Vec<String> =
        details.parameters.iter().map(|(name, value)| format!("{name:<30} {value}")).collect();
    let modelfile = format!("# {}\nFROM {}\n", details.card.name, details.card.digest);
    json!({
        "license": details.license,
        "modelfile": modelfile,
        "parameters": parameters.join("\n"),
        "template": details.template,
        "system": details.system,
        "details": card_details(&details.card),
        "model_info": details.info,
        "capabilities": capabilities(&details.card),
        "modified_at": time(&details.card),
    })
    .to_string()
    .into_bytes()
}

/// `GET /api/version`
pub fn version(version: &str) -> Vec<u8> {
    json!({"version": version}).to_string().into_bytes()
}

fn base(card: &ModelCard) -> Map<String, Value> {
    let mut map = Map::new();
    map.insert("name".into(), card.name.as_str().into());
    map.insert("model".into(), card.name.as_str().into());
    // Ollama's digests go without their algorithm, and its CLI cuts them at twelve letters.
    map.insert("digest".into(), card.digest.trim_start_matches("sha256:").into());
    map.insert("details".into(), card_details(card));
    map
}

fn card_details(card: &ModelCard) -> Value {
    json!({
        "parent_model": "",
        "format": card.format,
        "family": card.family,
        "families": [card.family],
        "parameter_size": card.parameters,
        "quantization_level": card.quantization,
        "context_length": card.context_length,
        "embedding_length": card.embedding_length,
    })
}

fn capabilities(card: &ModelCard) -> Value {
    card.capabilities.iter().map(|capability| capability.word()).collect::<Vec<_>>().into()
}

fn time(card: &ModelCard) -> String {
    let time = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(card.created));
    rfc3339(time.unwrap_or(SystemTime::UNIX_EPOCH))
}
