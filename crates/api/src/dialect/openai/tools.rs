//! Tools and the choice of one: engines know `auto`, `none` and `required` only, so a named tool becomes the
//! only one that is offered, and is required.

use serde_json::Value;
use serde_json::value::RawValue;

use super::super::error::{DialectError, ErrorKind};
use super::super::grammar;
use super::super::json::{self, Object, Path, wrong};
use super::super::limits;
use super::{Request, fields, put};

/// Which tools the model may or must call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// `auto`, `none` or `required`.
    Plain(&'static str),
    /// One of these tools; the flag says whether it must.
    Among(Vec<String>, bool),
}

impl Choice {
    /// A choice by its name in OpenAI's dialect.
    pub fn named(text: &str) -> Option<Self> {
        ["auto", "none", "required"].into_iter().find(|known| *known == text).map(Self::Plain)
    }

    /// The word that engines know.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Plain(word) => word,
            Self::Among(_, true) => "required",
            Self::Among(_, false) => "auto",
        }
    }

    /// Leaves only the tools that may be called; `name` knows what a tool is called.
    pub fn narrow<T>(
        &self,
        mut tools: Vec<T>,
        name: impl Fn(&T) -> Option<&str>,
        at: &str,
    ) -> Result<Vec<T>, DialectError> {
        let Self::Among(names, _) = self else { return Ok(tools) };
        if let Some(missing) =
            names.iter().find(|wanted| !tools.iter().any(|tool| name(tool) == Some(wanted)))
        {
            let text = format!("{at} names the tool {missing:?}, which is not among the tools");
            return Err(DialectError::invalid(at, text));
        }
        tools.retain(|tool| name(tool).is_some_and(|has| names.iter().any(|wanted| wanted == has)));
        Ok(tools)
    }
}

/// What a tool in OpenAI's form is called.
pub fn tool_name(tool: &Value) -> Option<&str> {
    tool.get("function")?.get("name")?.as_str()
}

/// Copies `tools` and `tool_choice` of a chat request.
pub(super) fn copy(request: &mut Request<'_>) -> Result<(), DialectError> {
    let mut tools = match request.get("tools") {
        Some(raw) => offered(raw)?,
        None => Vec::new(),
    };
    let choice = request.get("tool_choice").map(|raw| parse(&fields::value(raw))).transpose()?;
    // Some engines take an empty array for tools without names.
    if tools.is_empty() {
        return match choice.map(|choice| choice.word()) {
            Some("required") => {
                let text = "tool_choice asks for a tool to be called, but tools has none";
                Err(DialectError::invalid("tool_choice", text))
            }
            _ => Ok(()),
        };
    }
    if let Some(choice) = choice {
        tools = choice.narrow(tools, |tool| Some(tool.name.as_str()), "tool_choice")?;
        put(&mut request.tail, "tool_choice", &format!("\"{}\"", choice.word()));
    }
    let texts: Vec<String> = tools.into_iter().map(|tool| tool.text).collect();
    put(&mut request.tail, "tools", &format!("[{}]", texts.join(",")));
    Ok(())
}

/// A tool of a request.
struct Offered {
    name: String,
    /// As engines want it.
    text: String,
}

/// The tools of a request: functions with names.
fn offered(raw: &RawValue) -> Result<Vec<Offered>, DialectError> {
    let at = Path::Key(&Path::Root, "tools");
    match json::count(raw) {
        None => return Err(wrong(&at, "an array of tools", &fields::value(raw))),
        Some(count) if count > limits::TOOLS => {
            let text = format!("tools has {count} elements, the limit is {}", limits::TOOLS);
            return Err(DialectError::invalid("tools", text));
        }
        Some(_) => grammar::check_text("tools", raw.get())?,
    }
    let tools: Vec<&RawValue> = serde_json::from_str(raw.get())
        .map_err(|error| DialectError::invalid("tools", format!("tools cannot be read: {error}")))?;
    tools.into_iter().enumerate().map(|(index, tool)| offer(&Path::Index(&at, index), tool)).collect()
}

/// One of them. What is `null` is left out and the rest of the function is passed on as it was written: engines take `null` for a value
/// of the wrong kind, and the order of a schema's properties is that of the answer's.
fn offer(at: &Path<'_>, raw: &RawValue) -> Result<Offered, DialectError> {
    let tool = members(at, raw)?;
    let kind = member(&tool, "type").map(fields::value).filter(|kind| kind != "function");
    if let Some(kind) = kind {
        let kind = json::short(&kind);
        let text = format!("{at}.type is {kind}; the model can be offered tools of type function only");
        return Err(DialectError::new(ErrorKind::NotSupported, text).with_param("tools"));
    }
    let at = Path::Key(at, "function");
    let function = members(&at, member(&tool, "function").ok_or_else(|| json::missing(&at))?)?;
    let name_at = Path::Key(&at, "name");
    let name = match fields::value(member(&function, "name").ok_or_else(|| json::missing(&name_at))?) {
        Value::String(name) if !name.is_empty() => name,
        other => return Err(wrong(&name_at, "the name of a function", &other)),
    };
    for (key, start, kind) in [("description", '"', "a string"), ("parameters", '{', "an object")] {
        if let Some(value) = member(&function, key).filter(|value| !value.get().starts_with(start)) {
            return Err(wrong(&Path::Key(&at, key), kind, &fields::value(value)));
        }
    }
    let function = function.iter().map(|(key, value)| format!("{}:{value}", Value::from(key.as_ref())));
    let text =
        format!("{{\"type\":\"function\",\"function\":{{{}}}}}", function.collect::<Vec<_>>().join(","));
    Ok(Offered { name, text })
}

/// The members of an object that are not `null`.
fn members<'a>(at: &Path<'_>, raw: &'a RawValue) -> Result<Vec<json::Field<'a>>, DialectError> {
    if !raw.get().starts_with('{') {
        return Err(wrong(at, "an object", &fields::value(raw)));
    }
    let mut members = json::fields(raw.get().as_bytes())?;
    members.retain(|(_, value)| value.get() != "null");
    Ok(members)
}

fn member<'a>(members: &[json::Field<'a>], name: &str) -> Option<&'a RawValue> {
    members.iter().find(|(key, _)| key == name).map(|(_, value)| *value)
}

/// `"auto"`, `{"type":"function","function":{"name":…}}`, or `{"type":"allowed_tools","allowed_tools":{…}}`.
fn parse(value: &Value) -> Result<Choice, DialectError> {
    let at = Path::Key(&Path::Root, "tool_choice");
    let expected = "auto, none, required or an object that names a function";
    if let Some(text) = value.as_str() {
        return Choice::named(text).ok_or_else(|| wrong(&at, expected, value));
    }
    let object = Object::new(value, &at).map_err(|_| wrong(&at, expected, value))?;
    match object.text("type")? {
        Some("allowed_tools") => {
            let inner = object.get("allowed_tools").unwrap_or(value);
            let inner_at = Path::Key(&at, "allowed_tools");
            allowed(Object::new(inner, &inner_at)?)
        }
        Some("function") | None => {
            let function_at = Path::Key(&at, "function");
            let function = object.get("function").ok_or_else(|| json::missing(&function_at))?;
            let name = Object::new(function, &function_at)?.need_text("name")?;
            Ok(Choice::Among(vec![name.to_owned()], true))
        }
        Some(_) => Err(wrong(&at, expected, value)),
    }
}

/// A list of tools with a mode; the tools are named by `function.name` or by `name`.
pub fn allowed(object: Object<'_, '_>) -> Result<Choice, DialectError> {
    let required = match object.text("mode")? {
        Some("required") => true,
        Some("auto") | None => false,
        Some(other) => {
            let at = Path::Key(object.at, "mode");
            return Err(wrong(&at, "auto or required", &Value::from(other)));
        }
    };
    let tools_at = Path::Key(object.at, "tools");
    let tools = object.list("tools", limits::TOOLS)?.ok_or_else(|| json::missing(&tools_at))?;
    let mut names = Vec::with_capacity(tools.len());
    for (index, tool) in tools.iter().enumerate() {
        let at = Path::Index(&tools_at, index);
        let name = tool_name(tool).or_else(|| tool.get("name")?.as_str());
        names.push(name.ok_or_else(|| wrong(&at, "an object that names a function", tool))?.to_owned());
    }
    Ok(Choice::Among(names, required))
}
