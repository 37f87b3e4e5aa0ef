//! Input items, turned into chat messages.

use serde_json::{Map, Value, json};

use super::super::error::{DialectError, ErrorKind};
use super::super::json::{self, Object, Path, missing, wrong};
use super::super::limits;
use super::super::openai;

/// Chat messages while they are built. An assistant's reasoning, text and tool calls are items of their own in this
/// API and one message in chat completions.
#[derive(Default)]
pub struct Messages {
    done: Vec<Value>,
    thoughts: Vec<String>,
    said: Option<String>,
    calls: Vec<Value>,
}

impl Messages {
    /// Adds one item.
    pub fn item(&mut self, item: Object<'_, '_>) -> Result<(), DialectError> {
        match item.text("type")?.unwrap_or("message") {
            "message" => self.message(item),
            "function_call" => self.function_call(item),
            "function_call_output" => self.function_output(item),
            "reasoning" => self.reasoning(item),
            other => {
                let at = Path::Key(item.at, "type");
                let shown = json::short(&Value::from(other));
                let text = format!("{at} is {shown}, which is not supported here");
                Err(DialectError::new(ErrorKind::NotSupported, text).with_param(at.to_string()))
            }
        }
    }

    /// The messages.
    pub fn finish(mut self) -> Vec<Value> {
        self.flush();
        self.done
    }

    /// Adds a message of the system.
    pub fn system(&mut self, text: &str) {
        self.flush();
        self.done.push(json!({"role": "system", "content": text}));
    }

    fn flush(&mut self) {
        if self.said.is_none() && self.calls.is_empty() && self.thoughts.is_empty() {
            return;
        }
        let mut message = Map::new();
        message.insert("role".into(), "assistant".into());
        message.insert("content".into(), self.said.take().unwrap_or_default().into());
        if !self.thoughts.is_empty() {
            message.insert("reasoning_content".into(), std::mem::take(&mut self.thoughts).join("\n").into());
        }
        if !self.calls.is_empty() {
            message.insert("tool_calls".into(), std::mem::take(&mut self.calls).into());
        }
        self.done.push(message.into());
    }

    fn message(&mut self, item: Object<'_, '_>) -> Result<(), DialectError> {
        let at = Path::Key(item.at, "content");
        let content = item.get("content").ok_or_else(|| missing(&at))?;
        match item.need_text("role")? {
            "user" => {
                self.flush();
                self.done.push(json!({"role": "user", "content": user_content(content, &at)?}));
            }
            "system" | "developer" => {
                let text = text_content(content, &at)?;
                self.system(&text);
            }
            "assistant" => {
                if self.said.is_some() || !self.calls.is_empty() {
                    self.flush();
                }
                self.said = Some(text_content(content, &at)?);
            }
            other => {
                let at = Path::Key(item.at, "role");
                return Err(wrong(&at, "user, assistant, system or developer", &Value::from(other)));
            }
        }
        Ok(())
    }

    fn function_call(&mut self, item: Object<'_, '_>) -> Result<(), DialectError> {
        let function = json!({"name": item.need_text("name")?, "arguments": item.need_text("arguments")?});
        self.calls.push(json!({"id": item.need_text("call_id")?, "type": "function", "function": function}));
        Ok(())
    }

    fn function_output(&mut self, item: Object<'_, '_>) -> Result<(), DialectError> {
        let id = item.need_text("call_id")?;
        let at = Path::Key(item.at, "output");
        let text = text_content(item.get("output").ok_or_else(|| missing(&at))?, &at)?;
        self.flush();
        self.done.push(json!({"role": "tool", "tool_call_id": id, "content": text}));
        Ok(())
    }

    fn reasoning(&mut self, item: Object<'_, '_>) -> Result<(), DialectError> {
        let at = Path::Key(item.at, "content");
        let Some(parts) = item.list("content", limits::PARTS)? else { return Ok(()) };
        if self.said.is_some() || !self.calls.is_empty() {
            self.flush();
        }
        for (index, part) in parts.iter().enumerate() {
            let part_at = Path::Index(&at, index);
            self.thoughts.push(Object::new(part, &part_at)?.need_text("text")?.to_owned());
        }
        Ok(())
    }
}

/// Text, or parts that are all text.
fn text_content(content: &Value, at: &Path<'_>) -> Result<String, DialectError> {
    if let Some(text) = content.as_str() {
        return Ok(text.to_owned());
    }
    let mut texts = Vec::new();
    for (index, part) in json::list(content, at, limits::PARTS)?.iter().enumerate() {
        let at = Path::Index(at, index);
        let part = Object::new(part, &at)?;
        match part.need_text("type")? {
            "input_text" | "output_text" | "text" => texts.push(part.need_text("text")?),
            "refusal" => texts.push(part.need_text("refusal")?),
            other => return Err(unsupported(&at, other)),
        }
    }
    Ok(texts.join("\n"))
}

fn unsupported(at: &Path<'_>, kind: &str) -> DialectError {
    let shown = json::short(&Value::from(kind));
    DialectError::new(
        ErrorKind::NotSupported,
        format!("{at} is a part of type {shown}, which is not supported here"),
    )
    .with_param(at.to_string())
}

/// What a user says and shows.
fn user_content(content: &Value, at: &Path<'_>) -> Result<Value, DialectError> {
    if content.is_string() {
        return Ok(content.clone());
    }
    let parts = json::list(content, at, limits::PARTS)?;
    let is_image = |part: &Value| part.get("type").is_some_and(|kind| kind == "input_image");
    if !parts.iter().any(is_image) {
        return text_content(content, at).map(Value::from);
    }
    let mut out = Vec::with_capacity(parts.len());
    for (index, item) in parts.iter().enumerate() {
        let at = Path::Index(at, index);
        let part = Object::new(item, &at)?;
        match part.need_text("type")? {
            "input_text" | "output_text" | "text" => {
                out.push(json!({"type": "text", "text": part.need_text("text")?}));
            }
            "input_image" => {
                if part.get("file_id").is_some() {
                    let text = format!("{at}.file_id is not supported: send the image inline as a data: URL");
                    return Err(DialectError::new(ErrorKind::NotSupported, text).with_param(at.to_string()));
                }
                let url = part.need_text("image_url")?;
                openai::check_address(url.as_bytes())?;
                out.push(json!({"type": "image_url", "image_url": {"url": url}}));
            }
            other => return Err(unsupported(&at, other)),
        }
    }
    Ok(out.into())
}
