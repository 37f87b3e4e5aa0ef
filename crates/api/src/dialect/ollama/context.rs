//! `context`: an opaque list of integers by which `/api/generate` continues a conversation.
//!
//! In Ollama they are tokens, but to a client they mean nothing. Ours hold the conversation itself, three bytes to
//! an integer, so that it goes through the model's chat template like any other and nothing is kept on the host.

use serde_json::{Value, json};

use super::super::error::DialectError;
use super::super::json::Path;
use super::super::limits;
use super::options::integers;

/// Stands first, so that tokens of a real Ollama are told apart: it is more than any vocabulary has.
const MARK: u32 = 0x504E_5431;

/// The conversation as integers: the mark, the number of bytes, the bytes.
pub fn encode(turns: &[Value]) -> Vec<u32> {
    let pairs: Vec<(&str, &str)> =
        turns.iter().filter_map(|turn| Some((turn["role"].as_str()?, turn["content"].as_str()?))).collect();
    let bytes = json!(pairs).to_string().into_bytes();
    let mut out = Vec::with_capacity(bytes.len() / 3 + 3);
    out.push(MARK);
    out.push(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    for three in bytes.chunks(3) {
        out.push(three.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte)));
    }
    out
}

/// The conversation behind a `context`; an empty one has none.
pub fn decode(value: &Value) -> Result<Vec<Value>, DialectError> {
    let at = Path::Key(&Path::Root, "context");
    let words = integers(value, &at, limits::CONTEXT)?;
    if words.is_empty() {
        return Ok(Vec::new());
    }
    read(&words).ok_or_else(|| {
        let text =
            "context was not made by this server: send back what the last answer held, or leave it out";
        DialectError::invalid("context", text)
    })
}

fn read(words: &[i64]) -> Option<Vec<Value>> {
    let [mark, length, words @ ..] = words else { return None };
    let length = usize::try_from(*length).ok()?;
    if *mark != i64::from(MARK) || words.len() != length.div_ceil(3) {
        return None;
    }
    let mut bytes = Vec::with_capacity(words.len() * 3);
    for word in words {
        let word = u32::try_from(*word).ok().filter(|word| *word < 1 << 24)?;
        bytes.extend_from_slice(&word.to_le_bytes()[..3]);
    }
    bytes.truncate(length);
    let pairs: Vec<(String, String)> = serde_json::from_slice(&bytes).ok()?;
    let known = |role: &str| ["system", "user", "assistant"].contains(&role);
    if pairs.len() > limits::MESSAGES || !pairs.iter().all(|(role, _)| known(role)) {
        return None;
    }
    Some(pairs.into_iter().map(|(role, content)| json!({"role": role, "content": content})).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comes_back_as_it_was() {
        for text in ["", "a", "ab", "abc", "Grüße 🐈"] {
            let turns =
                vec![json!({"role": "user", "content": text}), json!({"role": "assistant", "content": "x"})];
            assert_eq!(decode(&json!(encode(&turns))).ok(), Some(turns));
        }
    }

    #[test]
    fn strangers_are_refused() {
        let good = encode(&[json!({"role": "user", "content": "hello"})]);
        let mut cut = good.clone();
        cut.pop();
        let mut long = good.clone();
        long[1] = u32::MAX;
        let mut wide = good;
        wide[2] = 1 << 24;
        for bad in [vec![1, 15043, 29892], cut, long, wide, vec![MARK]] {
            assert!(decode(&json!(bad)).is_err(), "{bad:?}");
        }
        assert!(decode(&json!([1.5])).is_err());
        assert!(decode(&json!("x")).is_err());
    }
}
