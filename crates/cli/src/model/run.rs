//! `pontoon model run`: a chat in the terminal.

use std::borrow::Cow;
use std::io::{IsTerminal, Read, Write};
use std::process::ExitCode;

use http_body_util::BodyExt;
use hyper::Method;
use pontoon_daemon::Config;
use pontoon_models::Error;
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;
use serde_json::{Value, json};

use super::http::Daemon;
use super::{bars, reference, store};
use crate::config::block_on;

/// Chat with a model in the terminal
///
/// With a prompt, answers it and ends; without, or with none on standard input, opens a conversation: Ctrl-C
/// stops an answer, Ctrl-D ends. What you type is kept nowhere. A model that is not here is pulled first. Options may
/// stand behind the prompt too; behind `--`, everything is prompt.
#[derive(clap::Args)]
pub struct Arguments {
    /// Name or id of the model
    #[arg(value_name = "MODEL")]
    model: String,
    /// The prompt
    #[arg(value_name = "PROMPT")]
    prompt: Vec<String>,
    /// Instructions to the model
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// Most tokens of an answer
    #[arg(long, value_name = "COUNT")]
    max_tokens: Option<u32>,
    /// Randomness of the choice of tokens; 0 for none
    #[arg(long, value_name = "NUMBER")]
    temperature: Option<f64>,
    /// Seed of that choice
    #[arg(long, value_name = "NUMBER")]
    seed: Option<i64>,
    /// Print the whole answer as JSON, as the HTTP interface gives it; needs a prompt
    #[arg(long)]
    json: bool,
}

pub fn run(config: &Config, arguments: Arguments) -> Result<ExitCode, String> {
    fetch(config, &arguments.model)?;
    let daemon = Daemon::here(config)?;
    let mut prompt = arguments.prompt.join(" ");
    if prompt.is_empty() && !std::io::stdin().is_terminal() {
        std::io::stdin()
            .read_to_string(&mut prompt)
            .map_err(|error| format!("reading the prompt from standard input: {error}"))?;
    }
    let mut chat = Chat::new(daemon, &arguments);
    if prompt.trim().is_empty() {
        if arguments.json || !std::io::stdin().is_terminal() {
            return Err("there is no prompt: give one as an argument or on standard input".into());
        }
        return chat.converse();
    }
    if arguments.json {
        chat.add("user", &prompt);
        let answer = chat.daemon.post("/v1/chat/completions", &chat.request(false))?;
        crate::print_json(&answer)?;
        return Ok(ExitCode::SUCCESS);
    }
    match chat.answer(&prompt)? {
        true => Ok(ExitCode::SUCCESS),
        // As a shell says of a program that an interrupt ended.
        false => Ok(ExitCode::from(130)),
    }
}

/// Pulls a model that is not in the store.
fn fetch(config: &Config, name: &str) -> Result<(), String> {
    let store = store(config)?;
    match store.resolve(name) {
        Err(Error::NotFound(_)) => {}
        Err(error) => return Err(error.to_string()),
        Ok(_) => return Ok(()),
    }
    let (name, client) = (reference(name)?, super::client(config)?);
    eprintln!("{} is not here: pulling it", name.familiar());
    block_on(async {
        client.pull(&store, &name, bars::progress(None)).await.map_err(|error| error.to_string())
    })?;
    Ok(())
}

/// A conversation.
struct Chat<'a> {
    daemon: Daemon,
    arguments: &'a Arguments,
    messages: Vec<Value>,
}

impl<'a> Chat<'a> {
    fn new(daemon: Daemon, arguments: &'a Arguments) -> Self {
        let mut chat = Self { daemon, arguments, messages: Vec::new() };
        if let Some(system) = &arguments.system {
            chat.add("system", system);
        }
        chat
    }

    fn add(&mut self, role: &str, text: &str) {
        self.messages.push(json!({ "role": role, "content": text }));
    }

    fn request(&self, stream: bool) -> Value {
        let mut request =
            json!({ "model": self.arguments.model, "messages": self.messages, "stream": stream });
        let options = [
            ("max_tokens", self.arguments.max_tokens.map(Value::from)),
            ("temperature", self.arguments.temperature.map(Value::from)),
            ("seed", self.arguments.seed.map(Value::from)),
        ];
        for (name, value) in options {
            if let Some(value) = value {
                request[name] = value;
            }
        }
        request
    }

    fn converse(&mut self) -> Result<ExitCode, String> {
        let mut editor = DefaultEditor::new().map_err(|error| error.to_string())?;
        loop {
            match editor.readline("> ") {
                Ok(line) if line.trim().is_empty() => {}
                Ok(line) => {
                    let _ = editor.add_history_entry(&line);
                    // One answer that fails does not end the conversation.
                    if let Err(message) = self.answer(&line) {
                        eprintln!("pontoon: {}", crate::for_a_terminal(&message));
                        self.messages.pop();
                    }
                }
                Err(ReadlineError::Interrupted) => eprintln!("(Ctrl-D ends)"),
                Err(ReadlineError::Eof) => return Ok(ExitCode::SUCCESS),
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    /// Prints the answer to a prompt as it comes; whether it came to its end.
    fn answer(&mut self, prompt: &str) -> Result<bool, String> {
        self.add("user", prompt);
        let mut text = String::new();
        let whole = block_on(async {
            tokio::select! {
                done = self.stream(&mut text) => done.map(|()| true),
                _ = tokio::signal::ctrl_c() => Ok(false),
            }
        })?;
        println!();
        self.add("assistant", &text);
        Ok(whole)
    }

    async fn stream(&self, text: &mut String) -> Result<(), String> {
        let request = self.request(true);
        let response = self.daemon.send(Method::POST, "/v1/chat/completions", Some(&request)).await?;
        let (mut body, mut pending) = (response.into_body(), Vec::new());
        let mut printer = Printer::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| format!("the daemon broke off: {error}"))?;
            pending.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
            while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = pending.drain(..=end).collect();
                let Some(data) = line.strip_prefix(b"data:") else { continue };
                printer.show(data.trim_ascii(), text)?;
            }
        }
        Ok(())
    }
}

/// Prints pieces of an answer; what a model thinks is dim where the terminal can do that.
struct Printer {
    dim: bool,
    styled: bool,
}

impl Printer {
    fn new() -> Self {
        Self { dim: false, styled: std::io::stdout().is_terminal() }
    }

    fn show(&mut self, data: &[u8], text: &mut String) -> Result<(), String> {
        let Ok(event) = serde_json::from_slice::<Value>(data) else { return Ok(()) };
        if let Some(message) = event["error"]["message"].as_str() {
            return Err(message.to_owned());
        }
        let delta = &event["choices"][0]["delta"];
        for (field, thinks) in [("reasoning_content", true), ("content", false)] {
            let Some(piece) = delta[field].as_str().filter(|piece| !piece.is_empty()) else { continue };
            if self.styled && self.dim != thinks {
                print!("{}", if thinks { "\x1b[2m" } else { "\x1b[0m\n" });
            }
            self.dim = thinks;
            match self.styled {
                true => print!("{}", harmless(piece)),
                false => print!("{piece}"),
            }
            if !thinks {
                text.push_str(piece);
            }
        }
        std::io::stdout().flush().map_err(|error| error.to_string())
    }
}

/// What a model says, for a terminal: it must not move the cursor, set titles or answer for the keyboard.
fn harmless(text: &str) -> Cow<'_, str> {
    let commands = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    match text.contains(commands) {
        true => text.replace('\r', "").replace(commands, "\u{fffd}").into(),
        false => text.into(),
    }
}

impl Drop for Printer {
    fn drop(&mut self) {
        if self.styled && self.dim {
            print!("\x1b[0m");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::harmless;

    #[test]
    fn a_model_does_not_command_the_terminal() {
        assert_eq!(harmless("Dear\n\tall: é😀"), "Dear\n\tall: é😀");
        assert_eq!(harmless("\x1b]0;title\x07\r\u{9b}2J"), "\u{fffd}]0;title\u{fffd}\u{fffd}2J");
    }
}
