//! A daemon with models, and what tests ask of it.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use serde_json::Value;

use super::{Daemon, Setup};

pub const CHAT: &str = "demo/toy-chat:latest";
pub const EMBEDDING: &str = "demo/minilm:latest";

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A file of those beside the toy chat model.
pub fn asset(name: &str) -> PathBuf {
    root().join("assets/models").join(name)
}

pub fn variable(name: &str) -> anyhow::Result<PathBuf> {
    std::env::var_os(name)
        .map(PathBuf::from)
        .with_context(|| format!("{name} is not set (cargo xtask test sets it)"))
}

/// A daemon with the toy chat model, or nothing, visibly, where there is no llama-server.
pub fn start(toml: &str) -> Option<Daemon> {
    if !pontoon_testbed::ready(variable("PONTOON_LLAMA_SERVER").map(drop)) {
        return None;
    }
    let daemon = Setup::noop().models().toml(toml).start();
    package(&daemon, &asset("toy-chat-q8_0.gguf"), CHAT);
    Some(daemon)
}

pub fn package(daemon: &Daemon, file: &Path, name: &str) {
    ok(daemon, &["model", "package", "--gguf", file.to_str().unwrap(), "--license-name", "MIT", name]);
}

/// The toy chat model with something beside it: `--adapter` or `--mmproj`, and a file of [`asset`].
pub fn package_with(daemon: &Daemon, flag: &str, file: &str, name: &str) {
    ok(daemon, &["model", "package", "--from", CHAT, flag, asset(file).to_str().unwrap(), name]);
}

/// Standard output of a command that must succeed.
pub fn ok(daemon: &Daemon, arguments: &[&str]) -> String {
    let output = daemon.pontoon(arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// The sentence of a command that must fail.
pub fn fails(daemon: &Daemon, arguments: &[&str]) -> String {
    let output = daemon.pontoon(arguments);
    assert!(!output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stderr).unwrap()
}

/// Sends a request on a socket of the model runner; the connection, for the answer.
pub fn request(socket: &Path, method: &str, path: &str, body: &str) -> UnixStream {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    // In one piece: who is refused is answered before a second one.
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).unwrap();
    stream
}

/// The whole answer, head included.
pub fn answer(socket: &Path, method: &str, path: &str, body: &str) -> String {
    let mut text = String::new();
    request(socket, method, path, body).read_to_string(&mut text).unwrap();
    text
}

/// Status and body of what guests get for JSON that they post.
pub fn post(daemon: &Daemon, path: &str, body: &Value) -> (u16, Value) {
    let text = answer(&daemon.models_socket(), "POST", path, &body.to_string());
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {text}")))
}

pub fn question(text: &str, stream: bool, tokens: u32) -> String {
    serde_json::json!({
        "model": CHAT, "stream": stream, "max_tokens": tokens, "temperature": 0,
        "messages": [{ "role": "user", "content": text }],
    })
    .to_string()
}

pub fn engine_of(daemon: &Daemon) -> u32 {
    let rows: Value = serde_json::from_str(&ok(daemon, &["model", "ps", "--json"])).unwrap();
    rows[0]["pid"].as_u64().expect("a loaded model has a process") as u32
}
