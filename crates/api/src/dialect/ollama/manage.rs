//! Requests that manage models, and the lines that tell how they get on.

use serde_json::{Map, Value, json};

use super::super::error::DialectError;
use super::super::json::{self, Object, Path, missing, wrong};
use super::super::openai;
use super::super::sse;

/// What is to be done with a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manage {
    /// `POST /api/pull`
    Pull,
    /// `POST /api/push`
    Push,
    /// `POST /api/create`
    Create,
    /// `POST /api/copy`
    Copy,
    /// `DELETE /api/delete`
    Delete,
    /// `POST /api/show`
    Show,
}

/// A request that manages a model.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ManageRequest {
    /// The model; for a copy, the one that is copied.
    pub model: String,
    /// Copy: the new name.
    pub destination: Option<String>,
    /// Create: the model that it is made from.
    pub from: Option<String>,
    /// Create: the new system prompt.
    pub system: Option<String>,
    /// Create: the new chat template.
    pub template: Option<String>,
    /// Create: the new licence texts.
    pub licenses: Vec<String>,
    /// Create: new default parameters.
    pub parameters: Map<String, Value>,
    /// Whether progress is wanted line by line.
    pub stream: bool,
    /// Whether the registry may be spoken to without TLS.
    pub insecure: bool,
    /// Show: everything, long lists included.
    pub verbose: bool,
    /// Fields that were asked for and that this request cannot have here.
    pub unsupported: Vec<String>,
}

/// Understands a request that manages a model.
///
/// # Errors
/// The first thing in it that cannot be right.
pub fn manage(kind: Manage, body: &[u8]) -> Result<ManageRequest, DialectError> {
    let map = json::object(body)?;
    let object = Object::root(&map);
    let named = match kind {
        Manage::Copy => object.get("source"),
        _ => object.get("model").or_else(|| object.get("name")),
    };
    let key = if kind == Manage::Copy { "source" } else { "model" };
    let model = openai::model_name(named.ok_or_else(|| missing(&Path::Key(&Path::Root, key)))?)?;
    let mut request = ManageRequest {
        model,
        stream: object.flag("stream")?.unwrap_or(true),
        insecure: object.flag("insecure")?.unwrap_or(false),
        verbose: object.flag("verbose")?.unwrap_or(false),
        ..ManageRequest::default()
    };
    match kind {
        Manage::Copy => {
            let to =
                object.get("destination").ok_or_else(|| missing(&Path::Key(&Path::Root, "destination")))?;
            request.destination = Some(openai::model_name(to)?);
        }
        Manage::Create => create(object, &mut request)?,
        _ => {}
    }
    Ok(request)
}

fn create(object: Object<'_, '_>, request: &mut ManageRequest) -> Result<(), DialectError> {
    request.from = object.text("from")?.map(str::to_owned);
    request.system = object.text("system")?.map(str::to_owned);
    request.template = object.text("template")?.map(str::to_owned);
    request.licenses =
        object.texts("license", 64)?.unwrap_or_default().into_iter().map(str::to_owned).collect();
    if let Some(value) = object.get("parameters") {
        let at = Path::Key(object.at, "parameters");
        request.parameters = value.as_object().ok_or_else(|| wrong(&at, "an object", value))?.clone();
    }
    for key in ["files", "adapters", "quantize", "quantization", "messages", "modelfile", "path"] {
        if object.get(key).is_some_and(|value| value.as_object().is_none_or(|map| !map.is_empty())) {
            request.unsupported.push(key.to_owned());
        }
    }
    Ok(())
}

/// How a pull, push or create gets on.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct Progress {
    /// `pulling manifest`, `pulling <digest>`, `verifying sha256 digest`, `writing manifest`, `success`
    pub status: String,
    /// The layer, as `sha256:…`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Its bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    /// Those that are there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completed: Option<u64>,
}

/// One line of progress.
pub fn progress(progress: &Progress) -> Vec<u8> {
    let mut out = Vec::with_capacity(160);
    sse::write_line(&mut out, progress);
    out
}

/// The line that says that it failed.
pub fn progress_error(message: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(160);
    sse::write_line(&mut out, &json!({"error": message}));
    out
}
