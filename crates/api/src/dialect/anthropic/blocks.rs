//! Content blocks of messages, turned into chat messages.

use serde_json::{Map, Value, json};

use super::super::error::{DialectError, ErrorKind};
use super::super::json::{self, Object, Path, missing, wrong};
use super::super::limits;
use super::super::openai;

/// Appends one message; tool results become messages of their own, before the rest.
pub fn message(message: Object<'_, '_>, out: &mut Vec<Value>) -> Result<(), DialectError> {
    let at = Path::Key(message.at, "content");
    let content = message.get("content").ok_or_else(|| missing(&at))?;
    match message.need_text("role")? {
        "user" => user(content, &at, out),
        "assistant" => assistant(content, &at, out),
        "system" => {
            out.push(json!({"role": "system", "content": plain_text(content, &at)?}));
            Ok(())
        }
        other => {
            let at = Path::Key(message.at, "role");
            Err(wrong(&at, "user, assistant or system", &Value::from(other)))
        }
    }
}

/// A string, or text blocks one below the other.
pub fn plain_text(content: &Value, at: &Path<'_>) -> Result<String, DialectError> {
    if let Some(text) = content.as_str() {
        return Ok(text.to_owned());
    }
    let mut texts = Vec::new();
    for (index, item) in json::list(content, at, limits::PARTS)?.iter().enumerate() {
        let at = Path::Index(at, index);
        let block = Object::new(item, &at)?;
        match block.need_text("type")? {
            "text" => texts.push(block.need_text("text")?),
            other => return Err(unsupported(&at, other)),
        }
    }
    Ok(texts.join("\n"))
}

fn unsupported(at: &Path<'_>, kind: &str) -> DialectError {
    let shown = json::short(&Value::from(kind));
    DialectError::new(
        ErrorKind::NotSupported,
        format!("{at} is a block of type {shown}, which is not supported here"),
    )
    .with_param(at.to_string())
}

fn user(content: &Value, at: &Path<'_>, out: &mut Vec<Value>) -> Result<(), DialectError> {
    if let Some(text) = content.as_str() {
        out.push(json!({"role": "user", "content": text}));
        return Ok(());
    }
    let mut parts = Vec::new();
    for (index, item) in json::list(content, at, limits::PARTS)?.iter().enumerate() {
        let at = Path::Index(at, index);
        let block = Object::new(item, &at)?;
        match block.need_text("type")? {
            "tool_result" => out.push(tool_result(block, &mut parts)?),
            _ => part(block, &mut parts)?,
        }
    }
    if let Some(content) = collapse(parts) {
        out.push(json!({"role": "user", "content": content}));
    }
    Ok(())
}

/// Parts of text only become one string: some templates take nothing else.
fn collapse(parts: Vec<Value>) -> Option<Value> {
    if parts.is_empty() {
        return None;
    }
    let texts: Option<Vec<&str>> = parts.iter().map(|part| part.get("text")?.as_str()).collect();
    Some(match texts {
        Some(texts) => texts.join("\n").into(),
        None => parts.into(),
    })
}

/// Appends what a block of a user's message or a tool's result shows to the model.
fn part(block: Object<'_, '_>, parts: &mut Vec<Value>) -> Result<(), DialectError> {
    match block.need_text("type")? {
        "text" => parts.push(json!({"type": "text", "text": block.need_text("text")?})),
        "image" => parts.push(image(block)?),
        "document" => document(block, parts)?,
        "search_result" => {
            let text =
                plain_text(block.get("content").unwrap_or(&Value::Null), &Path::Key(block.at, "content"))?;
            let head = [block.text("title")?, block.text("source")?]
                .into_iter()
                .flatten()
                .collect::<Vec<_>>()
                .join("\n");
            parts.push(json!({"type": "text", "text": format!("{head}\n{text}")}));
        }
        other => return Err(unsupported(block.at, other)),
    }
    Ok(())
}

fn image(block: Object<'_, '_>) -> Result<Value, DialectError> {
    let at = Path::Key(block.at, "source");
    let source = Object::new(block.get("source").ok_or_else(|| missing(&at))?, &at)?;
    let url = match source.need_text("type")? {
        "base64" => {
            let media_type = source.need_text("media_type")?;
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
            if !media_type.strip_prefix("image/").is_some_and(|kind| kind.chars().all(plain)) {
                let at = Path::Key(&at, "media_type");
                return Err(wrong(&at, "a type of image like image/png", &Value::from(media_type)));
            }
            format!("data:{media_type};base64,{}", source.need_text("data")?)
        }
        "url" => {
            let url = source.need_text("url")?;
            openai::check_address(url.as_bytes())?;
            url.to_owned()
        }
        other => return Err(unsupported(&at, other)),
    };
    Ok(json!({"type": "image_url", "image_url": {"url": url}}))
}

fn document(block: Object<'_, '_>, parts: &mut Vec<Value>) -> Result<(), DialectError> {
    let at = Path::Key(block.at, "source");
    let source = Object::new(block.get("source").ok_or_else(|| missing(&at))?, &at)?;
    if let Some(title) = block.text("title")? {
        parts.push(json!({"type": "text", "text": title}));
    }
    match source.need_text("type")? {
        "text" => parts.push(json!({"type": "text", "text": source.need_text("data")?})),
        "content" => {
            let at = Path::Key(&at, "content");
            let content = source.get("content").ok_or_else(|| missing(&at))?;
            if let Some(text) = content.as_str() {
                parts.push(json!({"type": "text", "text": text}));
                return Ok(());
            }
            for (index, item) in json::list(content, &at, limits::PARTS)?.iter().enumerate() {
                let at = Path::Index(&at, index);
                let inner = Object::new(item, &at)?;
                match inner.need_text("type")? {
                    "text" => parts.push(json!({"type": "text", "text": inner.need_text("text")?})),
                    "image" => parts.push(image(inner)?),
                    other => return Err(unsupported(&at, other)),
                }
            }
        }
        other => return Err(unsupported(&at, other)),
    }
    Ok(())
}

/// A tool's result. Tools speak in text; images they return are shown in the user's message that follows.
fn tool_result(block: Object<'_, '_>, shown: &mut Vec<Value>) -> Result<Value, DialectError> {
    let id = block.need_text("tool_use_id")?;
    let at = Path::Key(block.at, "content");
    let mut text = match block.get("content") {
        None => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(content) => {
            let mut parts = Vec::new();
            for (index, item) in json::list(content, &at, limits::PARTS)?.iter().enumerate() {
                part(Object::new(item, &Path::Index(&at, index))?, &mut parts)?;
            }
            let (texts, images): (Vec<_>, Vec<_>) =
                parts.into_iter().partition(|part| part.get("text").is_some());
            shown.extend(images);
            texts.iter().filter_map(|part| part.get("text")?.as_str()).collect::<Vec<_>>().join("\n")
        }
    };
    if block.flag("is_error")?.unwrap_or(false) {
        text.insert_str(0, "Error: ");
    }
    Ok(json!({"role": "tool", "tool_call_id": id, "content": text}))
}

fn assistant(content: &Value, at: &Path<'_>, out: &mut Vec<Value>) -> Result<(), DialectError> {
    if let Some(text) = content.as_str() {
        out.push(json!({"role": "assistant", "content": text}));
        return Ok(());
    }
    let (mut texts, mut thoughts, mut calls) = (Vec::new(), Vec::new(), Vec::new());
    for (index, item) in json::list(content, at, limits::PARTS)?.iter().enumerate() {
        let at = Path::Index(at, index);
        let block = Object::new(item, &at)?;
        match block.need_text("type")? {
            "text" => texts.push(block.need_text("text")?),
            "thinking" => thoughts.push(block.need_text("thinking")?),
            // Encrypted by another service; nobody here can read it.
            "redacted_thinking" => {}
            "tool_use" => calls.push(tool_use(block)?),
            other => return Err(unsupported(&at, other)),
        }
    }
    let mut message = Map::new();
    message.insert("role".into(), "assistant".into());
    message.insert("content".into(), texts.join("\n").into());
    if !thoughts.is_empty() {
        message.insert("reasoning_content".into(), thoughts.join("\n").into());
    }
    if !calls.is_empty() {
        message.insert("tool_calls".into(), calls.into());
    }
    out.push(message.into());
    Ok(())
}

fn tool_use(block: Object<'_, '_>) -> Result<Value, DialectError> {
    let at = Path::Key(block.at, "input");
    let input = block.get("input").ok_or_else(|| missing(&at))?;
    Object::new(input, &at)?;
    let function = json!({"name": block.need_text("name")?, "arguments": input.to_string()});
    Ok(json!({"id": block.need_text("id")?, "type": "function", "function": function}))
}
