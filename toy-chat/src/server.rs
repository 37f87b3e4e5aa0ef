//! Letting a server answer: one question to an OpenAI-compatible chat endpoint.

use serde_json::{Value, json};

use crate::{
    Error,
    chat::{Message, Role},
    facts::WEATHER_TOOL,
    speaker::Reply,
};

/// Asks the server at `url` (without `/v1`), greedily; with the weather tool on offer where `tool` says so.
pub fn ask(url: &str, messages: &[Message], tool: bool) -> Result<Reply, Error> {
    let failed = |reason: String| Error::Server { url: url.to_owned(), reason };
    let endpoint = format!("{}/v1/chat/completions", url.trim_end_matches('/'));
    let answer: Value = ureq::post(&endpoint)
        .send_json(request(messages, tool))
        .and_then(|mut response| response.body_mut().read_json())
        .map_err(|error| failed(error.to_string()))?;
    reply(&answer["choices"][0]["message"]).ok_or_else(|| failed(format!("there is no answer in {answer}")))
}

fn request(messages: &[Message], tool: bool) -> Value {
    let turns: Vec<Value> = messages.iter().map(turn).collect();
    let mut request = json!({"messages": turns, "temperature": 0, "max_tokens": 120});
    if tool {
        request["tools"] = json!([{
            "type": "function",
            "function": {
                "name": WEATHER_TOOL,
                "description": "The weather in a city",
                "parameters": {
                    "type": "object",
                    "properties": {"city": {"type": "string"}},
                    "required": ["city"],
                },
            },
        }]);
    }
    request
}

fn turn(message: &Message) -> Value {
    let mut turn = json!({"role": message.role.to_string(), "content": message.content});
    if message.role == Role::Tool {
        turn["tool_call_id"] = json!("call-1");
    }
    turn
}

fn reply(message: &Value) -> Option<Reply> {
    let call = &message["tool_calls"][0]["function"];
    if let (Some(name), Some(arguments)) = (call["name"].as_str(), call["arguments"].as_str()) {
        return Some(Reply::Call(name.to_owned(), serde_json::from_str(arguments).ok()?));
    }
    Some(Reply::Words(message["content"].as_str()?.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_calls_are_read_and_everything_else_refused() {
        let words = reply(&json!({"content": "Hello!"}));
        assert_eq!(words, Some(Reply::Words("Hello!".to_owned())));
        let function = json!({"name": "get_weather", "arguments": "{\"city\":\"Oslo\"}"});
        let call = reply(&json!({"content": null, "tool_calls": [{"function": function}]}));
        assert_eq!(call, Some(Reply::Call("get_weather".to_owned(), json!({"city": "Oslo"}))));
        assert_eq!(reply(&json!({"error": "no"})), None);
    }
}
