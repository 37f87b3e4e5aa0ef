//! The item of a response that is being written.

use serde_json::{Value, json};

/// What kind of item it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The model's reasoning.
    Reasoning,
    /// What it says.
    Message,
    /// A call of a tool, with its index in the engine's stream.
    Call(u64),
}

/// An item that is being written.
#[derive(Debug)]
pub struct Item {
    pub kind: Kind,
    pub id: String,
    /// Its text or its arguments.
    pub text: String,
    pub logprobs: Vec<Value>,
    pub name: String,
    pub call_id: String,
}

impl Item {
    /// The item with `status`: `in_progress`, `completed` or `incomplete`.
    pub fn value(&self, status: &str) -> Value {
        let begun = status != "in_progress";
        match self.kind {
            Kind::Reasoning => {
                let content = if begun { json!([self.part()]) } else { json!([]) };
                json!({"id": self.id, "type": "reasoning", "summary": [], "content": content, "status": status})
            }
            Kind::Message => {
                let content = if begun { json!([self.part()]) } else { json!([]) };
                json!({"id": self.id, "type": "message", "role": "assistant", "status": status, "content": content})
            }
            Kind::Call(_) => json!({
                "id": self.id,
                "type": "function_call",
                "call_id": self.call_id,
                "name": self.name,
                "arguments": self.text,
                "status": status,
            }),
        }
    }

    /// Its content part as far as it is written.
    pub fn part(&self) -> Value {
        match self.kind {
            Kind::Reasoning => json!({"type": "reasoning_text", "text": self.text}),
            _ => {
                json!({"type": "output_text", "text": self.text, "annotations": [], "logprobs": self.logprobs})
            }
        }
    }
}
