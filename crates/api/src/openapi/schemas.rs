//! The bodies of requests and answers, as far as this server checks them itself; engines know more fields.

use serde_json::{Value, json};

/// All of them, by name. `models` are names of models that are here, as examples.
pub fn all(models: &[String]) -> Value {
    let mut schemas = requests();
    schemas["ModelName"] =
        json!({ "type": "string", "pattern": NAME, "minLength": 1, "maxLength": 252, "examples": models });
    for (name, schema) in answers().as_object().into_iter().flatten() {
        schemas[name] = schema.clone();
    }
    schemas
}

/// A name without a registry, which every model can be called by.
const NAME: &str =
    "^[a-z0-9]+([_-][a-z0-9]+)*(/[a-z0-9]+([._-][a-z0-9]+)*){0,3}(:[A-Za-z0-9_][A-Za-z0-9._-]{0,60})?$";

fn model() -> Value {
    json!({ "$ref": "#/components/schemas/ModelName" })
}

fn object(required: &[&str], properties: &Value) -> Value {
    json!({ "type": "object", "required": required, "properties": properties })
}

fn requests() -> Value {
    let stream = json!({ "type": ["boolean", "null"] });
    let text = json!({ "type": "string" });
    let some = json!({ "type": "string", "minLength": 1 });
    // Engines take tokens in place of texts as well.
    let tokens = json!({ "type": "array", "items": { "type": "integer", "minimum": 0, "maximum": 500 }, "minItems": 1 });
    let texts = json!({ "anyOf": [some, { "type": "array", "items": { "anyOf": [some, tokens] }, "minItems": 1 }, tokens] });
    let keep = json!({ "anyOf": [{ "type": "string", "pattern": "^[1-9][0-9]?[smh]$" }, { "type": ["number", "null"] }] });
    let count = json!({ "type": "integer", "minimum": 1, "maximum": i32::MAX });
    let any_count = json!({ "type": ["integer", "null"], "minimum": -1, "maximum": i32::MAX });
    // Ollama's own clients send these to load a model, and for nothing.
    let maybe = json!({ "type": ["string", "null"] });
    let any_texts =
        json!({ "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }] });
    let part = object(&["type", "text"], &json!({ "type": { "const": "text" }, "text": text }));
    let content = json!({ "anyOf": [text, { "type": "array", "items": part }] });
    let messages = |roles: &[&str], content: &Value| {
        let role = json!({ "type": "string", "enum": roles });
        let message = object(&["role", "content"], &json!({ "role": role, "content": content }));
        json!({ "type": "array", "items": message, "minItems": 1 })
    };
    let mut any_messages = messages(&["system", "user", "assistant"], &text);
    any_messages["minItems"] = 0.into();
    let closed = |mut schema: Value| {
        schema["additionalProperties"] = false.into();
        schema
    };
    json!({
        "Chat": object(&["model", "messages"], &json!({
            "model": model(), "stream": stream, "max_tokens": any_count,
            "messages": messages(&["system", "user", "assistant"], &content),
            "temperature": { "type": ["number", "null"], "minimum": 0, "maximum": 10 },
        })),
        "Completion": object(&["model", "prompt"], &json!({ "model": model(), "prompt": text, "stream": stream, "max_tokens": any_count })),
        "Embedding": object(&["model", "input"], &json!({ "model": model(), "input": texts })),
        "Rerank": object(&["model", "query", "documents"], &json!({
            "model": model(), "query": text, "documents": { "type": "array", "items": { "type": "string" }, "minItems": 1 },
        })),
        "Score": object(&["model", "text_1", "text_2"], &json!({ "model": model(), "text_1": texts, "text_2": texts })),
        "Response": object(&["model", "input"], &json!({ "model": model(), "input": text, "stream": stream })),
        "Messages": object(&["model", "messages", "max_tokens"], &json!({
            "model": model(), "messages": messages(&["user", "assistant"], &content), "max_tokens": count, "stream": stream,
        })),
        "CountTokens": object(&["model", "messages"], &json!({ "model": model(), "messages": messages(&["user", "assistant"], &content) })),
        "OllamaChat": object(&["model"], &json!({ "model": model(), "messages": any_messages, "stream": stream })),
        "OllamaGenerate": object(&["model"], &json!({ "model": model(), "prompt": maybe, "stream": stream })),
        "OllamaEmbed": object(&["model"], &json!({ "model": model(), "input": any_texts })),
        "OllamaEmbeddings": object(&["model"], &json!({ "model": model(), "prompt": maybe })),
        "OllamaCreate": object(&["model", "from"], &json!({ "model": model(), "from": model(), "stream": stream })),
        "OllamaCopy": object(&["source", "destination"], &json!({ "source": model(), "destination": model() })),
        "Named": object(&["model"], &json!({ "model": model(), "stream": stream })),
        "Pull": object(&["from"], &json!({ "from": model(), "bearer-token": { "type": "string" } })),
        "Repackage": object(&["target"], &json!({ "target": model(), "context_size": { "type": ["integer", "null"], "minimum": 1, "maximum": u32::MAX } })),
        "Unload": object(&[], &json!({
            "all": { "type": "boolean" }, "backend": text, "models": { "type": ["array", "null"], "items": { "type": "string" } },
        })),
        "Configure": object(&["model"], &json!({
            "model": model(), "context-size": { "type": ["integer", "null"], "minimum": 1, "maximum": u32::MAX },
            "runtime-flags": { "type": ["array", "null"], "items": { "type": "string" } }, "keep_alive": keep,
        })),
        "Settings": closed(object(&["model", "settings"], &json!({
            "model": model(), "replace": { "type": "boolean" },
            "unset": { "type": "array", "items": { "type": "string" } },
            "settings": closed(object(&[], &json!({ "context_size": count }))),
        }))),
        "Pin": closed(object(&["model", "pinned"], &json!({ "model": model(), "pinned": { "type": "boolean" } }))),
    })
}

fn answers() -> Value {
    let message = json!({ "type": "string", "minLength": 1 });
    json!({
        "Object": { "type": "object" },
        "Array": { "type": "array" },
        "Version": object(&["version"], &json!({ "version": { "type": "string" } })),
        "Model": object(&["id", "tags", "created", "config"], &json!({
            "id": { "type": "string", "pattern": "^sha256:[0-9a-f]{64}$" },
            "tags": { "type": "array", "items": { "type": "string" } },
            "created": { "type": "integer" },
            "config": { "type": "object" },
        })),
        "ModelList": { "type": "array", "items": { "$ref": "#/components/schemas/Model" } },
        "OpenAiError": object(&["error"], &json!({ "error": object(&["message", "type"], &json!({
            "message": message, "type": { "type": "string" }, "param": { "type": ["string", "null"] }, "code": { "type": ["string", "null"] },
        })) })),
        "AnthropicError": object(&["type", "error"], &json!({
            "type": { "const": "error" }, "error": object(&["type", "message"], &json!({ "type": { "type": "string" }, "message": message })),
        })),
        "OllamaError": object(&["error"], &json!({ "error": message })),
    })
}
