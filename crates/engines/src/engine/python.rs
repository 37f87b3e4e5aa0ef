//! Owns engines that are Python programs: which interpreter, which folders, which command line.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Engine, Kind, probe};
use crate::{Error, files};

/// Serves mlx_lm on a unix socket; see the file.
const MLX_ON_UNIX: &str = include_str!("../../assets/mlx_unix.py");

/// What an interpreter says about itself.
#[derive(Deserialize)]
struct Answer {
    version: String,
    folders: Vec<PathBuf>,
}

/// The interpreter of the environment that has `kind`: a configured one, else that of the script in
/// `PATH` that the package installs.
pub fn find(kind: Kind, configured: Option<&Path>, state: &Path) -> Result<Engine, Error> {
    let (package, script) = match kind {
        Kind::MlxLm => ("mlx_lm", "mlx_lm.server"),
        _ => ("vllm", "vllm"),
    };
    let (interpreter, found) = match configured {
        Some(path) => (path.to_owned(), "named in the configuration".to_owned()),
        None => {
            let path = super::locate::in_path(script).ok_or_else(|| Error::NoEngine {
                reason: format!(
                    "{} is not installed: there is no `{script}` in PATH and no interpreter in pontoon.toml",
                    kind.name()
                ),
            })?;
            (interpreter_of(&path)?, format!("{} in PATH", path.display()))
        }
    };
    let answer = ask(&interpreter, package)?;
    let mut engine = Engine {
        name: kind.name().to_owned(),
        version: answer.version,
        kind,
        program: interpreter,
        prefix: Vec::new(),
        read: answer.folders,
        environment: environment(),
        flags: Default::default(),
        health: "/health".to_owned(),
        found,
    };
    // Isolated from the user's own modules and variables; nothing is compiled to disk.
    let isolated = ["-I", "-B"].map(str::to_owned);
    engine.prefix.extend(isolated);
    match kind {
        Kind::MlxLm => {
            let wrapper = write_wrapper(state)?;
            engine.prefix.push(wrapper.display().to_string());
            engine.read.push(wrapper);
        }
        _ => engine.prefix.extend(["-m", "vllm.entrypoints.cli.main", "serve"].map(str::to_owned)),
    }
    Ok(engine)
}

/// No hub, no telemetry, no compiler: there is no network and no other program in its sandbox.
fn environment() -> Vec<(std::ffi::OsString, std::ffi::OsString)> {
    let pairs = [
        ("HF_HUB_OFFLINE", "1"),
        ("TRANSFORMERS_OFFLINE", "1"),
        ("HF_HUB_DISABLE_TELEMETRY", "1"),
        ("DO_NOT_TRACK", "1"),
        ("TOKENIZERS_PARALLELISM", "false"),
        ("MLX_DISABLE_COMPILE", "1"),
        ("VLLM_NO_USAGE_STATS", "1"),
        ("VLLM_ENABLE_V1_MULTIPROCESSING", "0"),
        ("PYTHONUNBUFFERED", "1"),
    ];
    pairs.map(|(key, value)| (key.into(), value.into())).to_vec()
}

fn interpreter_of(script: &Path) -> Result<PathBuf, Error> {
    let text = std::fs::read(script).map_err(Error::file(script, "read"))?;
    let line =
        String::from_utf8_lossy(text.split(|byte| *byte == b'\n').next().unwrap_or_default()).into_owned();
    let path = line.strip_prefix("#!").map(|rest| PathBuf::from(rest.trim()));
    path.filter(|path| path.is_absolute() && path.exists()).ok_or_else(|| Error::NoEngine {
        reason: format!(
            "{} names no Python interpreter in its first line; name one in pontoon.toml",
            script.display()
        ),
    })
}

fn ask(interpreter: &Path, package: &str) -> Result<Answer, Error> {
    let question = format!(
        "import sys, json, os, sysconfig, importlib.metadata as m\n\
         paths = [sys.prefix, sys.base_prefix, os.path.dirname(os.path.realpath(sys.executable)), \
                  sysconfig.get_config_var('LIBDIR') or '/usr/lib']\n\
         paths += [p for p in sys.path if os.path.isabs(p)]\n\
         print(json.dumps({{'version': m.version('{}'), 'folders': sorted(set(filter(os.path.exists, paths)))}}))",
        package.replace('_', "-")
    );
    let text = probe::ask(interpreter, &["-I", "-B", "-c", &question])?;
    let line = text.lines().find(|line| line.starts_with('{')).unwrap_or_default();
    let answer: Answer = serde_json::from_str(line).map_err(|e| Error::NoEngine {
        reason: format!("{} does not say where its modules are: {e}", interpreter.display()),
    })?;
    // A stray `/` in the search path would open everything.
    let too_wide =
        |path: &PathBuf| path.parent().is_none() || path == Path::new("/root") || path == Path::new("/home");
    if answer.folders.iter().any(too_wide) {
        return Err(Error::NoEngine {
            reason: format!("{} looks for modules in a folder that holds everything", interpreter.display()),
        });
    }
    Ok(answer)
}

fn write_wrapper(state: &Path) -> Result<PathBuf, Error> {
    std::fs::create_dir_all(state).map_err(Error::file(state, "created"))?;
    let path = state.join("mlx_unix.py");
    if std::fs::read_to_string(&path).is_ok_and(|text| text == MLX_ON_UNIX) {
        return Ok(path);
    }
    files::write_bytes(&path, MLX_ON_UNIX.as_bytes())?;
    Ok(path)
}
