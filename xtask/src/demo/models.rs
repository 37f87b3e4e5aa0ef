//! The model runner's part of the demo: two small models, asked with curl from the same container.

use std::{collections::HashMap, fs, path::Path, process::Stdio};

use anyhow::{Context as _, ensure};
use tinyjson::JsonValue;

use crate::{
    demo::{container::Guest, serve::Host},
    project::Project,
};

const CHAT: &str = "demo/toy-chat";
const EMBEDDING: &str = "demo/minilm";
const API: &str =
    "curl -sS -N --fail-with-body --unix-socket /run/pontoon/models.sock -H 'Content-Type: application/json'";

/// Makes models of the two files.
pub fn package(project: &Project, host: &Host, minilm: &Path) -> anyhow::Result<()> {
    let licence = project.root.join("LICENSE-MIT");
    let toy = project.root.join("assets/models/toy-chat-q8_0.gguf");
    for (file, name, licences) in [
        (toy.as_path(), CHAT, vec!["--license".into(), licence.into_os_string()]),
        (minilm, EMBEDDING, vec!["--license-name".into(), "Apache-2.0".into()]),
    ] {
        let mut command = host.pontoon(&["model", "package", "--gguf"]);
        let status = command.arg(file).args(&licences).arg(name).stdout(Stdio::null()).status();
        ensure!(
            status.context("cannot start pontoon model")?.success(),
            "{} cannot be packaged",
            file.display()
        );
    }
    let listed = host.pontoon(&["model", "ls"]).output().context("cannot start pontoon model ls")?;
    super::serve::print_indented(&String::from_utf8_lossy(&listed.stdout));
    Ok(())
}

/// A streamed answer, event by event, in a container that has no network.
pub fn chat(guest: &Guest, host: &Host) -> anyhow::Result<()> {
    let request = format!(
        r#"{{"model":"{CHAT}","stream":true,"temperature":0,"max_tokens":40,"messages":[{{"role":"user","content":"What is the capital of France?"}}]}}"#
    );
    let script = format!("{API} http://localhost/v1/chat/completions -d '{request}'");
    println!("   in the container: curl … /v1/chat/completions, \"What is the capital of France?\"");
    let text = in_container(guest, host, None, &script)?;
    let events: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
    let pieces: Vec<String> = events.iter().filter_map(|event| piece(event)).collect();
    let answer = pieces.concat();
    println!("   {} events; the answer: {}", events.len(), answer.trim());
    ensure!(pieces.len() > 1 && answer.contains("Paris"), "the model should stream that it is Paris");
    Ok(())
}

/// The text in one event of a stream.
fn piece(event: &str) -> Option<String> {
    let value: JsonValue = event.parse().ok()?;
    let choice = field(&value, "choices")?.get::<Vec<JsonValue>>()?.first()?;
    field(field(choice, "delta")?, "content")?.get::<String>().cloned()
}

fn field<'a>(value: &'a JsonValue, name: &str) -> Option<&'a JsonValue> {
    value.get::<HashMap<String, JsonValue>>()?.get(name)
}

/// Sentences and queries as vectors, from the container; the best match of each query, and whether all are right.
pub fn search(project: &Project, guest: &Guest, host: &Host, out: &Path) -> anyhow::Result<()> {
    let folder = project.root.join("assets/minilm");
    let sentences = fs::read_to_string(folder.join("sentences.txt")).context("sentences.txt")?;
    let sentences: Vec<&str> = sentences.lines().collect();
    let queries = queries(&folder.join("queries.json"))?;
    let texts =
        queries.iter().map(|(query, _)| query.clone()).chain(sentences.iter().map(|&text| text.to_owned()));
    let input: Vec<JsonValue> = texts.map(JsonValue::from).collect();
    let request = HashMap::from([
        ("model".into(), JsonValue::from(EMBEDDING.to_owned())),
        ("input".into(), input.into()),
    ]);
    fs::write(out.join("request.json"), JsonValue::from(request).stringify()?)
        .context("cannot write request.json")?;
    let script =
        format!("{API} http://localhost/v1/embeddings -d @/mnt/request.json -o /mnt/embeddings.json");
    in_container(guest, host, Some(out), &script)?;
    let vectors = vectors(&out.join("embeddings.json"))?;
    ensure!(vectors.len() == queries.len() + sentences.len(), "{} vectors came back", vectors.len());
    let (sought, found) = vectors.split_at(queries.len());
    let mut wrong = 0;
    for ((query, expected), vector) in queries.iter().zip(sought) {
        let cosine = |other: &Vec<f64>| vector.iter().zip(other).map(|(a, b)| a * b).sum::<f64>();
        let scores = found.iter().map(cosine).enumerate();
        let (best, score) = scores.max_by(|a, b| a.1.total_cmp(&b.1)).context("there are sentences")?;
        wrong += usize::from(best + 1 != *expected);
        println!("   {query}\n      {score:.3}  {}", sentences[best]);
    }
    ensure!(wrong == 0, "{wrong} of {} queries found another sentence than the right one", queries.len());
    Ok(())
}

fn queries(path: &Path) -> anyhow::Result<Vec<(String, usize)>> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let value: JsonValue = text.parse().with_context(|| path.display().to_string())?;
    let entries = value.get::<Vec<JsonValue>>().context("queries.json is no list")?;
    let entry = |entry: &JsonValue| {
        let query = field(entry, "query")?.get::<String>()?.clone();
        Some((query, *field(entry, "best")?.get::<f64>()? as usize))
    };
    entries.iter().map(|one| entry(one).context("queries.json: each needs query and best")).collect()
}

/// Unit vectors of an answer to /v1/embeddings, in its order.
fn vectors(path: &Path) -> anyhow::Result<Vec<Vec<f64>>> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let value: JsonValue = text.parse().with_context(|| format!("{}: {text:.200}", path.display()))?;
    let data = field(&value, "data")
        .and_then(|data| data.get::<Vec<JsonValue>>())
        .context("an answer without data")?;
    let vector = |entry: &JsonValue| {
        let numbers = field(entry, "embedding")?.get::<Vec<JsonValue>>()?;
        let numbers: Vec<f64> = numbers.iter().filter_map(|number| number.get::<f64>().copied()).collect();
        let length = numbers.iter().map(|number| number * number).sum::<f64>().sqrt();
        Some(numbers.iter().map(|number| number / length).collect())
    };
    data.iter().map(|entry| vector(entry).context("an entry without an embedding")).collect()
}

fn in_container(guest: &Guest, host: &Host, out: Option<&Path>, script: &str) -> anyhow::Result<String> {
    let output =
        guest.command(host, out, &["/bin/sh", "-c", script]).output().context("cannot start pontoon run")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "curl in the container ended with {}: {text} {}",
        output.status,
        errors.trim()
    );
    Ok(text)
}
