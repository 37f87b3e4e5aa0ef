//! OpenAI's list of models.

use serde_json::{Value, json};

use super::super::cards::ModelCard;

/// `GET …/v1/models`
pub fn models(cards: &[ModelCard]) -> Vec<u8> {
    let data: Vec<Value> = cards.iter().map(one).collect();
    json!({"object": "list", "data": data}).to_string().into_bytes()
}

/// `GET …/v1/models/{name}`
pub fn model(card: &ModelCard) -> Vec<u8> {
    one(card).to_string().into_bytes()
}

fn one(card: &ModelCard) -> Value {
    let owner = card.name.rsplit_once('/').map_or("pontoon", |(owner, _)| owner);
    json!({"id": card.name, "object": "model", "created": card.created, "owned_by": owner})
}
