//! The OpenAPI 3.1 description at `/openapi.json`: one table of operations, written out for every path form.

mod operations;
mod schemas;

use operations::{BYTES, JSON, OPENAI, OTHERS, Operation, TEXT};
use serde_json::{Map, Value, json};

/// The document. `models` are names of models that are here, as examples.
pub fn document(version: &str, models: &[String]) -> Vec<u8> {
    let mut paths: Map<String, Value> = Map::new();
    for (prefix, name) in [("/v1", ""), ("/engines/v1", "_engines"), ("/engines/{backend}/v1", "_backend")] {
        for operation in OPENAI {
            add(
                &mut paths,
                operation,
                &format!("{prefix}{}", operation.path),
                &format!("v1{name}_{}", operation.id),
            );
        }
    }
    for operation in OTHERS {
        add(&mut paths, operation, operation.path, operation.id);
    }
    let document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Pontoon model runner",
            "version": version,
            "description": "OpenAI's, Anthropic's and Ollama's interfaces to models on this host, and their management. Operations marked x-pontoon-operator are answered on the admin socket, and on loopback for processes of the user who runs Pontoon, outside any container; everyone else gets 403.",
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "servers": [{ "url": "http://127.0.0.1:12434" }],
        "security": [{}, { "bearer": [] }, { "key": [] }],
        "paths": paths,
        "components": {
            "schemas": schemas::all(models),
            "securitySchemes": {
                "bearer": { "type": "http", "scheme": "bearer" },
                "key": { "type": "apiKey", "in": "header", "name": "x-api-key" },
            },
        },
    });
    document.to_string().into_bytes()
}

fn add(paths: &mut Map<String, Value>, operation: &Operation, path: &str, id: &str) {
    let entry = paths.entry(path.to_owned()).or_insert_with(|| json!({}));
    let Some(entry) = entry.as_object_mut() else { return };
    entry.insert(operation.method.to_owned(), written(operation, path, id));
}

fn written(operation: &Operation, path: &str, id: &str) -> Value {
    let mut written =
        json!({ "operationId": id, "summary": operation.summary, "responses": answers(operation) });
    if operation.operator {
        written["x-pontoon-operator"] = true.into();
    }
    let mut parameters: Vec<Value> = Vec::new();
    for name in path.split('{').skip(1).filter_map(|part| part.split('}').next()) {
        let kind = if name == "name" { "model" } else { "word" };
        parameters.push(json!({ "name": name, "in": "path", "required": true, "schema": value(kind) }));
    }
    for (name, kind, required) in operation.query {
        parameters.push(json!({ "name": name, "in": "query", "required": required, "schema": value(kind) }));
    }
    if !parameters.is_empty() {
        written["parameters"] = parameters.into();
    }
    match operation.body {
        Some("Tar") => {
            written["requestBody"] = json!({ "required": true, "content": { BYTES: { "schema": { "type": "string", "format": "binary" } } } });
        }
        Some(schema) => {
            written["requestBody"] =
                json!({ "required": true, "content": { JSON: { "schema": reference(schema) } } });
        }
        None => {}
    }
    written
}

fn value(kind: &str) -> Value {
    match kind {
        "model" => reference("ModelName"),
        "word" => json!({ "type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$" }),
        "tag" => json!({ "type": "string", "pattern": "^[A-Za-z0-9_][A-Za-z0-9._-]{0,60}$" }),
        "repository" => json!({ "type": "string", "pattern": "^[a-z0-9]{1,20}(/[a-z0-9]{1,20})?$" }),
        kind => json!({ "type": kind }),
    }
}

fn answers(operation: &Operation) -> Value {
    let mut answers = Map::new();
    for (status, content_type, schema) in operation.answers {
        let answer = answers.entry(*status).or_insert_with(|| json!({ "description": "It worked" }));
        if !content_type.is_empty() {
            let content = if schema.is_empty() { json!({}) } else { json!({ "schema": reference(schema) }) };
            answer["content"][content_type] = content;
        }
    }
    let error = match operation.error {
        "" => json!({ TEXT: { "schema": { "type": "string" } } }),
        schema => json!({ JSON: { "schema": reference(schema) } }),
    };
    answers.insert(
        "default".into(),
        json!({ "description": "What is wrong, in one sentence", "content": error }),
    );
    Value::Object(answers)
}

fn reference(schema: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{schema}") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route;

    #[test]
    fn every_described_operation_is_routed_and_marked_as_the_router_marks_it() {
        let document: Value = serde_json::from_slice(&document("1", &[])).unwrap();
        let (mut count, mut ids) = (0, std::collections::HashSet::new());
        for (path, operations) in document["paths"].as_object().unwrap() {
            let real =
                path.replace("{name}", "ai/m:1").replace("{backend}", "llama.cpp").replace("{id}", "resp_1");
            for (method, operation) in operations.as_object().unwrap() {
                let method = method.to_uppercase().parse().unwrap();
                let found =
                    route::find(&method, &real).unwrap_or_else(|error| panic!("{method} {real}: {error:?}"));
                assert_eq!(found.manages(), operation["x-pontoon-operator"] == true, "{method} {real}");
                assert!(
                    ids.insert(operation["operationId"].clone()),
                    "{} is there twice",
                    operation["operationId"]
                );
                count += 1;
            }
        }
        assert!(count > 80, "{count}");
    }
}
