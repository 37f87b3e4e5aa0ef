//! Tools and the choice of one: engines know `auto`, `none` and `required` only, so a named tool becomes the
//! only one that is offered, and is required.

use serde_json::Value;

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

    /// Leaves only the tools that may be called.
    pub fn narrow(&self, tools: Vec<Value>, at: &str) -> Result<Vec<Value>, DialectError> {
        let Self::Among(names, _) = self else { return Ok(tools) };
        for name in names {
            if !tools.iter().any(|tool| tool_name(tool) == Some(name)) {
                let text = format!("{at} names the tool {name:?}, which is not among the tools");
                return Err(DialectError::invalid(at, text));
            }
        }
        Ok(tools
            .into_iter()
            .filter(|tool| tool_name(tool).is_some_and(|has| names.iter().any(|name| name == has)))
            .collect())
    }
}

fn tool_name(tool: &Value) -> Option<&str> {
    tool.get("function")?.get("name")?.as_str()
}

/// Copies `tools` and `tool_choice` of a chat request.
pub(super) fn copy(request: &mut Request<'_>) -> Result<(), DialectError> {
    let tools = match request.get("tools") {
        Some(raw) => offered(&fields::value(raw))?,
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
    match &choice {
        Some(among @ Choice::Among(..)) => {
            let left = Value::from(among.narrow(tools, "tool_choice")?);
            put(&mut request.tail, "tools", &left.to_string());
        }
        _ => request.copy("tools"),
    }
    if let Some(choice) = choice {
        put(&mut request.tail, "tool_choice", &format!("\"{}\"", choice.word()));
    }
    Ok(())
}

/// The tools of a request: functions with names.
fn offered(value: &Value) -> Result<Vec<Value>, DialectError> {
    let at = Path::Key(&Path::Root, "tools");
    if !value.is_array() {
        return Err(wrong(&at, "an array of tools", value));
    }
    let tools = json::list(value, &at, limits::TOOLS)?;
    for (index, tool) in tools.iter().enumerate() {
        let at = Path::Index(&at, index);
        let tool = Object::new(tool, &at)?;
        let kind = tool.need_text("type")?;
        if kind != "function" {
            let text = format!("{at}.type is {kind:?}; the model can be offered tools of type function only");
            return Err(DialectError::new(ErrorKind::NotSupported, text).with_param("tools"));
        }
        let at = Path::Key(&at, "function");
        let function = tool.get("function").ok_or_else(|| json::missing(&at))?;
        let function = Object::new(function, &at)?;
        if function.need_text("name")?.is_empty() {
            let name = Path::Key(&at, "name");
            return Err(wrong(&name, "the name of a function", &Value::from("")));
        }
        function.text("description")?;
        if let Some(parameters) = function.get("parameters") {
            Object::new(parameters, &Path::Key(&at, "parameters"))?;
        }
    }
    grammar::check_schema("tools", value)?;
    Ok(tools.to_vec())
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
