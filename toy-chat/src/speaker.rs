//! Letting the model answer in this process: greedy decoding, without a cache, for the examination.

use std::path::Path;

use candle_core::{Device, Tensor};

use crate::{
    Error,
    chat::{self, CALL_END, CALL_START, Message},
    gguf,
    model::Model,
    packing::causal_mask,
    tokenizer::Tokenizer,
};

/// Tokens after which an answer is cut.
const LONGEST_ANSWER: usize = 120;

/// What was answered: words, or a call.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// Plain words.
    Words(String),
    /// A tool call: the tool's name and its arguments.
    Call(String, serde_json::Value),
}

/// A model read from its file, ready to answer.
pub struct Speaker {
    tokenizer: Tokenizer,
    model: Model,
}

impl Speaker {
    /// Reads the model's file.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let (tokenizer, model) = gguf::read(path)?;
        Ok(Self { tokenizer, model })
    }

    /// The likeliest answer, token by token.
    pub fn answer(&self, messages: &[Message]) -> Result<Reply, Error> {
        let mut tokens = self.tokenizer.encode(&chat::prompt(messages))?;
        let asked = tokens.len();
        while tokens.len() < asked + LONGEST_ANSWER {
            let next = self.likeliest(&tokens)?;
            if next == self.tokenizer.turn_end() {
                break;
            }
            tokens.push(next);
        }
        Ok(reply(self.tokenizer.decode(&tokens[asked..])?))
    }

    fn likeliest(&self, tokens: &[u32]) -> Result<u32, Error> {
        let length = tokens.len();
        let input = Tensor::new(tokens, &Device::Cpu)?.unsqueeze(0)?;
        let scores = self.model.forward(&input, &causal_mask(length)?)?;
        Ok(scores.get(0)?.get(length - 1)?.argmax(0)?.to_scalar::<u32>()?)
    }
}

/// Finds the tool call in an answer's text.
fn reply(text: String) -> Reply {
    let call = text
        .strip_prefix(CALL_START)
        .and_then(|rest| rest.strip_suffix(CALL_END))
        .and_then(|json| serde_json::from_str::<serde_json::Value>(json.trim()).ok());
    match call {
        Some(call) => Reply::Call(
            call["name"].as_str().unwrap_or_default().to_owned(),
            call.get("arguments").cloned().unwrap_or_default(),
        ),
        None => Reply::Words(text),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_call_is_told_from_words() {
        let called = chat::tool_call("get_weather", r#"{"city": "Oslo"}"#);
        assert_eq!(reply(called), Reply::Call("get_weather".to_owned(), json!({"city": "Oslo"})));
        assert_eq!(reply("Hello!".to_owned()), Reply::Words("Hello!".to_owned()));
        let broken = format!("{CALL_START}{{\"name\"{CALL_END}");
        assert_eq!(reply(broken.clone()), Reply::Words(broken));
    }
}
