//! Anthropic's list of models. It shares OpenAI's path; the header `anthropic-version` tells them apart.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::super::cards::{Capability, ModelCard};
use super::super::duration::rfc3339;

/// `GET …/v1/models`
pub fn models(cards: &[ModelCard]) -> Vec<u8> {
    let data: Vec<Value> = cards.iter().map(one).collect();
    let first = cards.first().map(|card| &card.name);
    let last = cards.last().map(|card| &card.name);
    json!({"data": data, "has_more": false, "first_id": first, "last_id": last}).to_string().into_bytes()
}

/// `GET …/v1/models/{name}`
pub fn model(card: &ModelCard) -> Vec<u8> {
    one(card).to_string().into_bytes()
}

fn one(card: &ModelCard) -> Value {
    let created = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(card.created));
    let can = |capability| json!({"supported": card.capabilities.contains(&capability)});
    json!({
        "type": "model",
        "id": card.name,
        "display_name": card.name,
        "created_at": rfc3339(created.unwrap_or(SystemTime::UNIX_EPOCH)),
        "lifecycle": "active",
        "max_input_tokens": card.context_length,
        "capabilities": {"image_input": can(Capability::Vision), "thinking": can(Capability::Thinking)},
    })
}
