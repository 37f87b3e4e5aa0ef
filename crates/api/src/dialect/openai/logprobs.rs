//! Log probabilities of text completions: llama-server writes them as chat does, the path's clients expect lists.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

/// Turns the one shape into the other, chunk by chunk.
#[derive(Debug, Default)]
pub struct Legacy {
    /// Characters of each choice so far, for `text_offset`.
    offsets: HashMap<u64, usize>,
}

impl Legacy {
    /// An event with its log probabilities changed, or `None` where there is nothing to change.
    pub fn event(&mut self, data: &[u8]) -> Option<Vec<u8>> {
        let changed = self.body(data)?;
        let mut event = Vec::with_capacity(changed.len() + 8);
        event.extend_from_slice(b"data: ");
        event.extend_from_slice(&changed);
        event.extend_from_slice(b"\n\n");
        Some(event)
    }

    /// An answer with its log probabilities changed, or `None` where there is nothing to change.
    pub fn body(&mut self, body: &[u8]) -> Option<Vec<u8>> {
        let mut value: Value = serde_json::from_slice(body).ok()?;
        let mut changed = false;
        for choice in value.get_mut("choices")?.as_array_mut()? {
            let Some(tokens) = choice.pointer("/logprobs/content").and_then(Value::as_array) else {
                continue;
            };
            let index = choice.get("index").and_then(Value::as_u64).unwrap_or(0);
            let lists = lists(tokens, self.offsets.entry(index).or_default());
            choice["logprobs"] = lists;
            changed = true;
        }
        changed.then(|| value.to_string().into_bytes())
    }
}

fn lists(tokens: &[Value], offset: &mut usize) -> Value {
    let text = |token: &Value| token.get("token").and_then(Value::as_str).unwrap_or("").to_owned();
    let (mut names, mut probabilities, mut tops, mut offsets) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for token in tokens {
        let name = text(token);
        offsets.push(*offset);
        *offset += name.chars().count();
        probabilities.push(token.get("logprob").cloned().unwrap_or(Value::Null));
        let alternatives = token.get("top_logprobs").and_then(Value::as_array);
        let top: Map<String, Value> = alternatives
            .into_iter()
            .flatten()
            .map(|other| (text(other), other.get("logprob").cloned().unwrap_or(Value::Null)))
            .collect();
        tops.push(top);
        names.push(name);
    }
    json!({"tokens": names, "token_logprobs": probabilities, "top_logprobs": tops, "text_offset": offsets})
}
