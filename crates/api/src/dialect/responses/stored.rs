//! Responses that later ones may continue.

use std::sync::Arc;

use serde_json::{Value, json};

/// A response with the turn that led to it. Whoever keeps it keeps it in bounds, by [`Stored::bytes`].
#[derive(Debug)]
pub struct Stored {
    id: String,
    response: Vec<u8>,
    input: Vec<Value>,
    output: Vec<Value>,
    previous: Option<Arc<Stored>>,
    turns: usize,
    bytes: usize,
}

impl Stored {
    pub(super) fn new(
        id: String,
        response: &Value,
        input: Vec<Value>,
        output: Vec<Value>,
        previous: Option<Arc<Self>>,
    ) -> Self {
        let response = response.to_string().into_bytes();
        let size = |items: &[Value]| items.iter().map(weight).sum::<usize>();
        let before = previous.as_ref().map_or(0, |previous| previous.bytes);
        let bytes = before + response.len() + size(&input) + size(&output) + 256;
        let turns = previous.as_ref().map_or(0, |previous| previous.turns) + 1;
        Self { id, response, input, output, previous, turns, bytes }
    }

    /// The id by which later requests name it.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Bytes of memory, those of the turns before included: they live as long as this one.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The body of `GET …/responses/{id}`.
    pub fn response(&self) -> &[u8] {
        &self.response
    }

    /// The body of `GET …/responses/{id}/input_items`.
    pub fn input_items(&self) -> Vec<u8> {
        let id = |item: Option<&Value>| item.and_then(|item| item.get("id")).cloned().unwrap_or(Value::Null);
        json!({
            "object": "list",
            "data": self.input,
            "first_id": id(self.input.first()),
            "last_id": id(self.input.last()),
            "has_more": false,
        })
        .to_string()
        .into_bytes()
    }

    /// Turns up to and with this one.
    pub(super) fn turns(&self) -> usize {
        self.turns
    }

    /// All items of the conversation, the oldest first.
    pub(super) fn conversation(&self) -> Vec<&Value> {
        let mut turns = vec![self];
        let mut at = &self.previous;
        while let Some(previous) = at {
            turns.push(previous);
            at = &previous.previous;
        }
        turns.iter().rev().flat_map(|turn| turn.input.iter().chain(&turn.output)).collect()
    }
}

/// About how much memory a value takes.
fn weight(value: &Value) -> usize {
    let inside = match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(weight).sum(),
        Value::Object(map) => map.iter().map(|(key, value)| key.len() + 48 + weight(value)).sum(),
        _ => 0,
    };
    inside + size_of::<Value>()
}

/// The body of `DELETE …/responses/{id}`.
pub fn deleted(id: &str) -> Vec<u8> {
    json!({"id": id, "object": "response", "deleted": true}).to_string().into_bytes()
}
