//! The table of operations.

/// One operation.
pub struct Operation {
    /// In lower case.
    pub method: &'static str,
    /// With parameters in braces.
    pub path: &'static str,
    /// Unique within its prefix.
    pub id: &'static str,
    /// One line.
    pub summary: &'static str,
    /// Only the operator may.
    pub operator: bool,
    /// Schema of the body, if there is one.
    pub body: Option<&'static str>,
    /// `(status, content type, schema)`; an empty content type is no body.
    pub answers: &'static [(&'static str, &'static str, &'static str)],
    /// Parameters of the query: name, schema type, required.
    pub query: &'static [(&'static str, &'static str, bool)],
    /// Schema of errors, or nothing for a sentence in plain text.
    pub error: &'static str,
}

pub const JSON: &str = "application/json";
const SSE: &str = "text/event-stream";
const LINES: &str = "application/x-ndjson";
pub const TEXT: &str = "text/plain";
const TAR: &str = "application/x-tar";
pub const BYTES: &str = "application/octet-stream";

/// A request that an engine answers.
const fn infer(
    path: &'static str,
    id: &'static str,
    summary: &'static str,
    body: &'static str,
    answers: &'static [(&'static str, &'static str, &'static str)],
    error: &'static str,
) -> Operation {
    Operation {
        method: "post",
        path,
        id,
        summary,
        operator: false,
        body: Some(body),
        answers,
        query: &[],
        error,
    }
}

/// A look at something, for everybody.
const fn look(
    path: &'static str,
    id: &'static str,
    summary: &'static str,
    answers: &'static [(&'static str, &'static str, &'static str)],
    error: &'static str,
) -> Operation {
    Operation { method: "get", path, id, summary, operator: false, body: None, answers, query: &[], error }
}

/// Something that only the operator may do.
const fn manage(
    method: &'static str,
    path: &'static str,
    id: &'static str,
    summary: &'static str,
    body: Option<&'static str>,
    answers: &'static [(&'static str, &'static str, &'static str)],
    error: &'static str,
) -> Operation {
    Operation { method, path, id, summary, operator: true, body, answers, query: &[], error }
}

impl Operation {
    const fn asking(mut self, query: &'static [(&'static str, &'static str, bool)]) -> Self {
        self.query = query;
        self
    }
}

/// Those that stand below `/v1`, `/engines/v1` and `/engines/{backend}/v1`.
pub const OPENAI: &[Operation] = &[
    infer(
        "/chat/completions",
        "chat",
        "Answer a conversation",
        "Chat",
        &[("200", JSON, "Object"), ("200", SSE, "")],
        "OpenAiError",
    ),
    infer(
        "/completions",
        "complete",
        "Continue a text",
        "Completion",
        &[("200", JSON, "Object"), ("200", SSE, "")],
        "OpenAiError",
    ),
    infer("/embeddings", "embed", "Vectors of texts", "Embedding", &[("200", JSON, "Object")], "OpenAiError"),
    infer(
        "/rerank",
        "rerank",
        "Order documents by a query",
        "Rerank",
        &[("200", JSON, "Object")],
        "OpenAiError",
    ),
    infer(
        "/responses",
        "respond",
        "The Responses API",
        "Response",
        &[("200", JSON, "Object"), ("200", SSE, "")],
        "OpenAiError",
    ),
    look(
        "/responses/{id}",
        "response",
        "A kept response of the caller's",
        &[("200", JSON, "Object")],
        "OpenAiError",
    ),
    Operation {
        method: "delete",
        path: "/responses/{id}",
        id: "forget_response",
        summary: "Forget a kept response of the caller's",
        operator: false,
        body: None,
        answers: &[("200", JSON, "Object")],
        query: &[],
        error: "OpenAiError",
    },
    look(
        "/responses/{id}/input_items",
        "response_inputs",
        "What a kept response answered",
        &[("200", JSON, "Object")],
        "OpenAiError",
    ),
    look("/models", "models", "The models that are here", &[("200", JSON, "Object")], "OpenAiError"),
    look("/models/{name}", "model", "One of them", &[("200", JSON, "Object")], "OpenAiError"),
    infer(
        "/messages",
        "message",
        "Answer a conversation, as Anthropic does",
        "Messages",
        &[("200", JSON, "Object"), ("200", SSE, "")],
        "AnthropicError",
    ),
    infer(
        "/messages/count_tokens",
        "count_tokens",
        "Tokens of a conversation",
        "CountTokens",
        &[("200", JSON, "Object")],
        "AnthropicError",
    ),
];

/// Those that stand alone.
pub const OTHERS: &[Operation] = &[
    look("/", "root", "That somebody is here", &[("200", TEXT, "")], "OpenAiError"),
    look("/health", "health", "That somebody is here, in JSON", &[("200", JSON, "Object")], "OpenAiError"),
    look("/version", "version", "Pontoon's version", &[("200", JSON, "Version")], "OpenAiError"),
    look("/openapi.json", "description", "This description", &[("200", JSON, "Object")], "OpenAiError"),
    infer(
        "/rerank",
        "rerank",
        "Order documents by a query",
        "Rerank",
        &[("200", JSON, "Object")],
        "OpenAiError",
    ),
    infer(
        "/engines/rerank",
        "rerank_engines",
        "The same",
        "Rerank",
        &[("200", JSON, "Object")],
        "OpenAiError",
    ),
    infer("/score", "score", "Score pairs of texts", "Score", &[("200", JSON, "Object")], "OpenAiError"),
    infer("/engines/score", "score_engines", "The same", "Score", &[("200", JSON, "Object")], "OpenAiError"),
    infer(
        "/responses",
        "respond",
        "The Responses API",
        "Response",
        &[("200", JSON, "Object"), ("200", SSE, "")],
        "OpenAiError",
    ),
    infer(
        "/anthropic/v1/messages",
        "anthropic_message",
        "Answer a conversation",
        "Messages",
        &[("200", JSON, "Object"), ("200", SSE, "")],
        "AnthropicError",
    ),
    infer(
        "/anthropic/v1/messages/count_tokens",
        "anthropic_count",
        "Tokens of a conversation",
        "CountTokens",
        &[("200", JSON, "Object")],
        "AnthropicError",
    ),
    look(
        "/anthropic/v1/models",
        "anthropic_models",
        "The models that are here",
        &[("200", JSON, "Object")],
        "AnthropicError",
    ),
    infer(
        "/api/chat",
        "ollama_chat",
        "Answer a conversation",
        "OllamaChat",
        &[("200", JSON, "Object"), ("200", LINES, "")],
        "OllamaError",
    ),
    infer(
        "/api/generate",
        "ollama_generate",
        "Continue a text",
        "OllamaGenerate",
        &[("200", JSON, "Object"), ("200", LINES, "")],
        "OllamaError",
    ),
    infer(
        "/api/embed",
        "ollama_embed",
        "Vectors of texts",
        "OllamaEmbed",
        &[("200", JSON, "Object")],
        "OllamaError",
    ),
    infer(
        "/api/embeddings",
        "ollama_embeddings",
        "The vector of a text",
        "OllamaEmbeddings",
        &[("200", JSON, "Object")],
        "OllamaError",
    ),
    look("/api/version", "ollama_version", "The version", &[("200", JSON, "Version")], "OllamaError"),
    look("/api/tags", "ollama_tags", "The models that are here", &[("200", JSON, "Object")], "OllamaError"),
    look("/api/ps", "ollama_ps", "The models that are loaded", &[("200", JSON, "Object")], "OllamaError"),
    infer("/api/show", "ollama_show", "One model", "Named", &[("200", JSON, "Object")], "OllamaError"),
    manage(
        "post",
        "/api/pull",
        "ollama_pull",
        "Fetch a model",
        Some("Named"),
        &[("200", JSON, "Object"), ("200", LINES, "")],
        "OllamaError",
    ),
    manage(
        "post",
        "/api/push",
        "ollama_push",
        "Send a model to its registry",
        Some("Named"),
        &[("200", JSON, "Object"), ("200", LINES, "")],
        "OllamaError",
    ),
    manage(
        "post",
        "/api/create",
        "ollama_create",
        "Make a model of another",
        Some("OllamaCreate"),
        &[("200", JSON, "Object"), ("200", LINES, "")],
        "OllamaError",
    ),
    manage(
        "post",
        "/api/copy",
        "ollama_copy",
        "Give a model another name",
        Some("OllamaCopy"),
        &[("200", "", "")],
        "OllamaError",
    ),
    manage(
        "delete",
        "/api/delete",
        "ollama_delete",
        "Remove a model",
        Some("Named"),
        &[("200", "", "")],
        "OllamaError",
    ),
    look("/models", "list", "The models that are here", &[("200", JSON, "ModelList")], ""),
    look("/models/{name}", "inspect", "One of them", &[("200", JSON, "Model")], ""),
    manage(
        "delete",
        "/models/{name}",
        "remove",
        "Remove a name, and the model with its last one",
        None,
        &[("200", JSON, "Array")],
        "",
    )
    .asking(&[("force", "boolean", false)]),
    manage(
        "post",
        "/models/create",
        "pull",
        "Fetch a model; lines of JSON tell how far it is",
        Some("Pull"),
        &[("200", JSON, ""), ("200", TEXT, "")],
        "",
    ),
    manage("post", "/models/load", "load", "Take a model as a tar", Some("Tar"), &[("200", JSON, "")], ""),
    manage("get", "/models/{name}/export", "export", "Give a model as a tar", None, &[("200", TAR, "")], ""),
    manage(
        "post",
        "/models/{name}/tag",
        "tag",
        "Give a model another name",
        None,
        &[("201", JSON, "Object")],
        "",
    )
    .asking(&[("repo", "repository", true), ("tag", "tag", true)]),
    manage(
        "post",
        "/models/{name}/push",
        "push",
        "Send a model to its registry",
        None,
        &[("200", JSON, ""), ("200", TEXT, "")],
        "",
    ),
    manage(
        "post",
        "/models/{name}/repackage",
        "repackage",
        "Another artifact of the same weights",
        Some("Repackage"),
        &[("201", JSON, "Object")],
        "",
    ),
    manage("delete", "/models/purge", "purge", "Remove all models", None, &[("200", JSON, "Object")], ""),
    look("/engines/status", "engines", "Which engines there are", &[("200", JSON, "Object")], ""),
    look("/engines/ps", "loaded", "What is loaded", &[("200", JSON, "Array")], ""),
    look(
        "/engines/requests",
        "requests",
        "Recent requests: the caller's own, or for the operator all",
        &[("200", JSON, "Array"), ("200", SSE, "")],
        "",
    )
    .asking(&[("model", "model", false)]),
    manage("get", "/engines/df", "disk", "Bytes on disk", None, &[("200", JSON, "Object")], ""),
    manage(
        "post",
        "/engines/unload",
        "unload",
        "Unload models",
        Some("Unload"),
        &[("200", JSON, "Object")],
        "",
    ),
    manage(
        "get",
        "/engines/_configure",
        "configuration",
        "Settings of models",
        None,
        &[("200", JSON, "Array")],
        "",
    )
    .asking(&[("model", "model", false)]),
    manage(
        "post",
        "/engines/_configure",
        "configure",
        "Set settings of a model",
        Some("Configure"),
        &[("202", "", "")],
        "",
    ),
    manage(
        "post",
        "/engines/{backend}/_configure",
        "configure_backend",
        "The same",
        Some("Configure"),
        &[("202", "", "")],
        "",
    ),
    manage(
        "get",
        "/metrics",
        "metrics",
        "Counters, as OpenMetrics",
        None,
        &[("200", "application/openmetrics-text", "")],
        "",
    ),
    manage("get", "/logs", "logs", "The last lines of daemon and engines", None, &[("200", TEXT, "")], "")
        .asking(&[("no-engines", "boolean", false)]),
    look(
        "/pontoon/v1/queue",
        "queue",
        "Who waits: the caller's own requests, or for the operator all",
        &[("200", JSON, "Array")],
        "",
    ),
    manage("get", "/pontoon/v1/ps", "ps", "All about what is loaded", None, &[("200", JSON, "Array")], ""),
    manage(
        "get",
        "/pontoon/v1/show",
        "show",
        "Each setting of a model and where it comes from",
        None,
        &[("200", JSON, "Object")],
        "",
    )
    .asking(&[("model", "model", true)]),
    manage(
        "post",
        "/pontoon/v1/configure",
        "set",
        "Set settings of a model by name",
        Some("Settings"),
        &[("200", JSON, "Object")],
        "",
    ),
    manage(
        "post",
        "/pontoon/v1/pin",
        "pin",
        "Keep a model loaded, or no longer",
        Some("Pin"),
        &[("200", JSON, "Object")],
        "",
    ),
    manage(
        "post",
        "/pontoon/v1/prune",
        "prune",
        "Remove what nobody needs",
        None,
        &[("200", JSON, "Object")],
        "",
    )
    .asking(&[("untagged", "boolean", false)]),
    manage("get", "/pontoon/v1/logs", "engine_log", "An engine's last lines", None, &[("200", TEXT, "")], "")
        .asking(&[("model", "model", true)]),
    manage("get", "/pontoon/v1/df", "df", "All about what is on disk", None, &[("200", JSON, "Object")], ""),
];
