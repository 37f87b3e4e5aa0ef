//! From a method and a path to what is asked for: every path form of every dialect, and nothing else.

use hyper::Method;

use crate::dialect::{Dialect, Endpoint};

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// `/`: that somebody is here.
    Root,
    /// `/health`.
    Health,
    /// `/version`.
    Version,
    /// `/openapi.json`.
    OpenApi,
    /// Run a model.
    Infer(Endpoint),
    /// `images/generations`, which no engine of ours does.
    Images,
    /// A kept answer of the Responses API.
    Response(Stored, String),
    /// The list of models, or one of them, as OpenAI or Anthropic show it.
    Cards(Dialect, Option<String>),
    /// The native interface to models.
    Models(Models),
    /// Engines and what they do.
    Engines(Engines),
    /// Ollama's management.
    Ollama(Ollama),
    /// What only Pontoon has.
    Pontoon(Pontoon),
    /// `/metrics`.
    Metrics,
    /// `/logs`.
    Logs,
}

/// What is asked of a kept answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// The answer.
    Get,
    /// Forget it.
    Delete,
    /// What it answered.
    Inputs,
}

/// `/models`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Models {
    /// All of them.
    List,
    /// One.
    Inspect(String),
    /// Pull.
    Create,
    /// Take a tar.
    Load,
    /// Give a tar.
    Export(String),
    /// A further name.
    Tag(String),
    /// To a registry.
    Push(String),
    /// Another artifact of the same weights.
    Repackage(String),
    /// Remove one.
    Delete(String),
    /// Remove all.
    Purge,
}

/// `/engines`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engines {
    /// Which engines there are.
    Status,
    /// What is loaded.
    Ps,
    /// Bytes on disk.
    Df,
    /// Recent requests.
    Requests,
    /// Unload models.
    Unload,
    /// Settings of models.
    Configuration,
    /// Set settings of a model.
    Configure,
    /// Install an engine, or remove it: not over HTTP.
    Install,
}

/// `/api`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ollama {
    /// Version.
    Version,
    /// Models.
    Tags,
    /// Loaded models.
    Ps,
    /// One model.
    Show,
    /// Pull.
    Pull,
    /// Push.
    Push,
    /// Make a model of another.
    Create,
    /// A further name.
    Copy,
    /// Remove.
    Delete,
}

/// `/pontoon/v1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pontoon {
    /// Everything known of what is loaded.
    Ps,
    /// Who waits.
    Queue,
    /// Each setting of a model, and where it comes from.
    Show,
    /// Set settings, by name.
    Configure,
    /// Keep a model loaded, or no longer.
    Pin,
    /// Remove what nobody needs.
    Prune,
    /// An engine's last lines.
    Logs,
    /// Bytes on disk.
    Df,
}

/// Why a path leads nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoRoute {
    /// Nothing is there.
    NotFound,
    /// Something is, with other methods.
    Method(&'static str),
    /// The path cannot be read.
    Malformed,
}

impl Route {
    /// Whether only the operator may ask this. Everything that changes the host, reaches out to other
    /// hosts, or shows what other callers do.
    pub fn manages(&self) -> bool {
        match self {
            Self::Models(models) => !matches!(models, Models::List | Models::Inspect(_)),
            Self::Engines(engines) => !matches!(engines, Engines::Status | Engines::Ps | Engines::Requests),
            Self::Ollama(ollama) => {
                !matches!(ollama, Ollama::Version | Ollama::Tags | Ollama::Ps | Ollama::Show)
            }
            Self::Pontoon(pontoon) => !matches!(pontoon, Pontoon::Queue),
            Self::Metrics | Self::Logs => true,
            _ => false,
        }
    }

    /// The dialect in which errors are told.
    pub fn dialect(&self) -> Dialect {
        match self {
            Self::Infer(endpoint) => endpoint.dialect(),
            Self::Cards(dialect, _) => *dialect,
            Self::Ollama(_) => Dialect::Ollama,
            _ => Dialect::OpenAi,
        }
    }
}

/// The dialect that a path's own clients speak, for errors where there is no route.
pub fn dialect_of(path: &str) -> Dialect {
    match path.trim_start_matches('/').split('/').next() {
        Some("api") => Dialect::Ollama,
        Some("anthropic") => Dialect::Anthropic,
        _ if path.contains("/v1/messages") => Dialect::Anthropic,
        _ => Dialect::OpenAi,
    }
}

/// Finds the route.
///
/// # Errors
/// [`NoRoute`].
pub fn find(method: &Method, path: &str) -> Result<Route, NoRoute> {
    let path = decode(path).ok_or(NoRoute::Malformed)?;
    // Doubled and trailing slashes are forgiven, as Docker's runner does.
    let mut parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    if parts.len() >= 2 && parts[0] == "exp" && parts[1].starts_with("vDD") {
        parts.drain(..2);
    }
    if parts.iter().any(|part| *part == "." || *part == "..") {
        return Err(NoRoute::Malformed);
    }
    match parts.as_slice() {
        [] => get(method, Route::Root),
        ["health"] => get(method, Route::Health),
        ["version"] => get(method, Route::Version),
        ["openapi.json"] => get(method, Route::OpenApi),
        ["metrics"] => get(method, Route::Metrics),
        ["logs"] => get(method, Route::Logs),
        ["engines", rest @ ..] => engines(method, rest),
        ["models", rest @ ..] => models(method, rest).map(Route::Models),
        ["anthropic", "v1", rest @ ..] => anthropic(method, rest),
        ["api", rest @ ..] => api(method, rest),
        ["pontoon", "v1", rest @ ..] => pontoon(method, rest).map(Route::Pontoon),
        rest => inference(method, rest),
    }
}

/// `/v1/…`, `/responses…`, `/rerank`, `/score`: what may also follow `/engines` and `/engines/{backend}`.
fn inference(method: &Method, parts: &[&str]) -> Result<Route, NoRoute> {
    let rest = match parts {
        ["v1", rest @ ..] => rest,
        ["rerank" | "reranking" | "score" | "responses", ..] => parts,
        _ => return Err(NoRoute::NotFound),
    };
    match rest {
        ["chat", "completions"] => infer(method, Endpoint::ChatCompletions),
        ["completions"] => infer(method, Endpoint::Completions),
        ["embeddings"] => infer(method, Endpoint::Embeddings),
        ["rerank" | "reranking"] => infer(method, Endpoint::Rerank),
        ["score"] => infer(method, Endpoint::Score),
        ["messages", ..] => anthropic(method, rest),
        ["images", "generations"] => post(method, Route::Images),
        ["responses"] => infer(method, Endpoint::Responses),
        ["responses", id] if method == Method::DELETE => Ok(Route::Response(Stored::Delete, (*id).into())),
        ["responses", id] => get(method, Route::Response(Stored::Get, (*id).into()))
            .map_err(|_| NoRoute::Method("GET, DELETE")),
        ["responses", id, "input_items"] => get(method, Route::Response(Stored::Inputs, (*id).into())),
        ["models"] => get(method, Route::Cards(Dialect::OpenAi, None)),
        ["models", name @ ..] => get(method, Route::Cards(Dialect::OpenAi, Some(name.join("/")))),
        _ => Err(NoRoute::NotFound),
    }
}

fn anthropic(method: &Method, parts: &[&str]) -> Result<Route, NoRoute> {
    match parts {
        ["messages"] => infer(method, Endpoint::Messages),
        ["messages", "count_tokens"] => infer(method, Endpoint::CountTokens),
        ["models"] => get(method, Route::Cards(Dialect::Anthropic, None)),
        ["models", name @ ..] => get(method, Route::Cards(Dialect::Anthropic, Some(name.join("/")))),
        _ => Err(NoRoute::NotFound),
    }
}

fn engines(method: &Method, parts: &[&str]) -> Result<Route, NoRoute> {
    let control = match parts {
        ["status"] => get(method, Engines::Status),
        ["ps"] => get(method, Engines::Ps),
        ["df"] => get(method, Engines::Df),
        ["requests"] => get(method, Engines::Requests),
        ["unload"] => post(method, Engines::Unload),
        ["install-backend" | "uninstall-backend"] => post(method, Engines::Install),
        ["_configure"] if method == Method::GET => Ok(Engines::Configuration),
        ["_configure"] => post(method, Engines::Configure).map_err(|_| NoRoute::Method("GET, POST")),
        [backend, ..] if !is_word(backend) => return Err(NoRoute::NotFound),
        [_backend, "_configure"] => post(method, Engines::Configure),
        ["v1" | "rerank" | "reranking" | "score" | "responses", ..] => return inference(method, parts),
        // The engine follows from the model's format; the segment is accepted and says nothing new.
        [_backend, rest @ ..] => return inference(method, rest),
        [] => return Err(NoRoute::NotFound),
    };
    control.map(Route::Engines)
}

fn models(method: &Method, parts: &[&str]) -> Result<Models, NoRoute> {
    let joined = |parts: &[&str]| parts.join("/");
    match (method.as_str(), parts) {
        ("GET" | "HEAD", []) => Ok(Models::List),
        (_, []) => Err(NoRoute::Method("GET")),
        ("POST", ["create"]) => Ok(Models::Create),
        ("POST", ["load"]) => Ok(Models::Load),
        ("DELETE", ["purge"]) => Ok(Models::Purge),
        ("GET" | "HEAD", [name @ .., "export"]) if !name.is_empty() => Ok(Models::Export(joined(name))),
        // A repository that is called like an action is named with its tag: `org/tag:latest`.
        (_, [_, .., "export"]) => Err(NoRoute::Method("GET")),
        ("GET" | "HEAD" | "DELETE", [_, .., "tag" | "push" | "repackage"]) => Err(NoRoute::Method("POST")),
        ("GET" | "HEAD", name) => Ok(Models::Inspect(joined(name))),
        ("DELETE", name) => Ok(Models::Delete(joined(name))),
        ("POST", [name @ .., "tag"]) if !name.is_empty() => Ok(Models::Tag(joined(name))),
        ("POST", [name @ .., "push"]) if !name.is_empty() => Ok(Models::Push(joined(name))),
        ("POST", [name @ .., "repackage"]) if !name.is_empty() => Ok(Models::Repackage(joined(name))),
        ("POST", _) => Err(NoRoute::NotFound),
        _ => Err(NoRoute::Method("GET, POST, DELETE")),
    }
}

fn api(method: &Method, parts: &[&str]) -> Result<Route, NoRoute> {
    let manage = |route: Result<Ollama, NoRoute>| route.map(Route::Ollama);
    match parts {
        ["chat"] => infer(method, Endpoint::OllamaChat),
        ["generate"] => infer(method, Endpoint::OllamaGenerate),
        ["embed"] => infer(method, Endpoint::OllamaEmbed),
        ["embeddings"] => infer(method, Endpoint::OllamaEmbeddings),
        ["version"] => manage(get(method, Ollama::Version)),
        ["tags"] => manage(get(method, Ollama::Tags)),
        ["ps"] => manage(get(method, Ollama::Ps)),
        ["show"] => manage(post(method, Ollama::Show)),
        ["pull"] => manage(post(method, Ollama::Pull)),
        ["push"] => manage(post(method, Ollama::Push)),
        ["create"] => manage(post(method, Ollama::Create)),
        ["copy"] => manage(post(method, Ollama::Copy)),
        ["delete"] if method == Method::DELETE => Ok(Route::Ollama(Ollama::Delete)),
        ["delete"] => Err(NoRoute::Method("DELETE")),
        _ => Err(NoRoute::NotFound),
    }
}

fn pontoon(method: &Method, parts: &[&str]) -> Result<Pontoon, NoRoute> {
    match parts {
        ["ps"] => get(method, Pontoon::Ps),
        ["queue"] => get(method, Pontoon::Queue),
        ["show"] => get(method, Pontoon::Show),
        ["configure"] => post(method, Pontoon::Configure),
        ["pin"] => post(method, Pontoon::Pin),
        ["prune"] => post(method, Pontoon::Prune),
        ["logs"] => get(method, Pontoon::Logs),
        ["df"] => get(method, Pontoon::Df),
        _ => Err(NoRoute::NotFound),
    }
}

fn get<T>(method: &Method, route: T) -> Result<T, NoRoute> {
    if matches!(*method, Method::GET | Method::HEAD) { Ok(route) } else { Err(NoRoute::Method("GET")) }
}

fn post<T>(method: &Method, route: T) -> Result<T, NoRoute> {
    if method == Method::POST { Ok(route) } else { Err(NoRoute::Method("POST")) }
}

fn infer(method: &Method, endpoint: Endpoint) -> Result<Route, NoRoute> {
    post(method, Route::Infer(endpoint))
}

/// Whether a part of a path can be an engine's name.
fn is_word(part: &str) -> bool {
    part.len() <= 64 && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// Undoes `%XX`. `None` where that is no UTF-8, or has control characters.
fn decode(path: &str) -> Option<String> {
    if !path.contains('%') {
        return Some(path.to_owned());
    }
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
        let (high, low) = (digit(rest.next())?, digit(rest.next())?);
        bytes.push((high * 16 + low) as u8);
    }
    let text = String::from_utf8(bytes).ok()?;
    (!text.contains(|c: char| c.is_control())).then_some(text)
}

#[cfg(test)]
mod tests;
