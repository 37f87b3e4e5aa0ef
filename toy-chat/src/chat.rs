//! Conversations as the model sees them: ChatML, in the very form that the file's chat template produces.

use std::fmt;

/// The Jinja template stored in the GGUF file, by which an engine turns a request into a prompt.
pub fn template() -> &'static str {
    include_str!("chat_template.jinja").trim_end()
}

/// Opens a turn; a role's name and a line break follow.
pub const TURN_START: &str = "<|im_start|>";
/// Closes a turn, and with it an answer.
pub const TURN_END: &str = "<|im_end|>";
/// Opens a tool call.
pub const CALL_START: &str = "<tool_call>";
/// Closes a tool call.
pub const CALL_END: &str = "</tool_call>";

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Instructions, and the names of the tools on offer.
    System,
    /// The one who asks.
    User,
    /// The model.
    Assistant,
    /// The result of a tool call.
    Tool,
}

impl fmt::Display for Role {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
            Role::Tool => "tool",
        })
    }
}

/// One turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Who says it.
    pub role: Role,
    /// What is said, tool calls included.
    pub content: String,
}

impl Message {
    /// A turn of instructions.
    pub fn system(content: impl Into<String>) -> Self {
        Self { role: Role::System, content: content.into() }
    }

    /// A turn of the user's.
    pub fn user(content: impl Into<String>) -> Self {
        Self { role: Role::User, content: content.into() }
    }

    /// A turn of the model's.
    pub fn assistant(content: impl Into<String>) -> Self {
        Self { role: Role::Assistant, content: content.into() }
    }

    /// A tool's result.
    pub fn tool(content: impl Into<String>) -> Self {
        Self { role: Role::Tool, content: content.into() }
    }

    /// What stands before the content.
    pub fn header(&self) -> String {
        header(self.role)
    }
}

fn header(role: Role) -> String {
    format!("{TURN_START}{role}\n")
}

/// The system turn that the template writes where a request offers tools.
pub fn tools_line(names: &[&str]) -> String {
    format!("Tools: {}", names.join(" "))
}

/// A call as the model writes it; `arguments` is JSON.
pub fn tool_call(name: &str, arguments: &str) -> String {
    format!("{CALL_START}\n{{\"name\": \"{name}\", \"arguments\": {arguments}}}\n{CALL_END}")
}

/// Whole turns, one after another.
pub fn render(messages: &[Message]) -> String {
    messages.iter().map(|message| format!("{}{}{TURN_END}\n", message.header(), message.content)).collect()
}

/// Whole turns, and the opening of the answer that the model is to write.
pub fn prompt(messages: &[Message]) -> String {
    render(messages) + &header(Role::Assistant)
}

/// What is said, without turns: a tokenizer that learned from rendered turns would spend merges on them.
pub fn plain_text(messages: &[Message]) -> String {
    messages.iter().map(|message| message.content.as_str()).collect::<Vec<_>>().join("\n")
}
