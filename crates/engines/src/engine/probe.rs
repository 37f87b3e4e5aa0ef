//! Owns questions to an engine's program: which version it is and which flags it knows.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::Error;

/// Even a cold disk answers sooner.
const PATIENCE: Duration = Duration::from_secs(20);
const MAX_OUTPUT: u64 = 4 << 20;

/// Runs a program that the operator chose and returns what it wrote to both outputs.
pub fn ask(program: &Path, arguments: &[&str]) -> Result<String, Error> {
    let refused = |reason: String| Error::NoEngine { reason: format!("{} {reason}", program.display()) };
    let mut child = Command::new(program)
        .args(arguments)
        .env_remove("LLAMA_ARG_MODEL")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| refused(format!("cannot be started: {e}")))?;
    let readers = [child.stdout.take().map(read_all), child.stderr.take().map(read_all)];
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(2)),
            other => {
                let _ = child.kill();
                let _ = child.wait();
                let why = other.err().map_or("did not answer".to_owned(), |e| e.to_string());
                return Err(refused(format!("{}: {why}", arguments.join(" "))));
            }
        }
    };
    let text: String =
        readers.into_iter().flatten().map(|reader| reader.join().unwrap_or_default()).collect();
    match status.success() {
        true => Ok(text),
        false => Err(refused(format!("{}: {status}: {}", arguments.join(" "), last_line(&text)))),
    }
}

fn read_all(from: impl Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = from.take(MAX_OUTPUT).read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn last_line(text: &str) -> &str {
    text.trim().lines().next_back().unwrap_or("it said nothing")
}

/// Flags in the help of a `llama-server`: words at the beginning of a line, up to its explanation.
pub fn flags(help: &str) -> BTreeSet<String> {
    let lines = help.lines().filter(|line| line.starts_with('-') && !line.starts_with("---"));
    let words = lines
        .flat_map(|line| line.split([' ', ',', '\t']).take_while(|word| word.is_empty() || is_flag(word)));
    words.filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

fn is_flag(word: &str) -> bool {
    word.starts_with('-')
}

/// The version in the answer to `--version`.
pub fn version(text: &str) -> String {
    let line = text.lines().find_map(|line| line.strip_prefix("version:")).unwrap_or_default();
    let mut words = line.split_whitespace();
    words.next().map_or_else(|| "unknown".to_owned(), |version| version.trim_end_matches(',').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_read_from_help() {
        let help = "----- common params -----\n\n-h,    --help, --usage          print --usage and exit\n\
                    -c,    --ctx-size N            size\n                         see --other\n--jinja, --no-jinja  x\n";
        let found = flags(help);
        let expected = ["-c", "--ctx-size", "-h", "--help", "--usage", "--jinja", "--no-jinja"];
        assert_eq!(found, expected.map(str::to_owned).into_iter().collect());
    }

    #[test]
    fn versions_are_read() {
        assert_eq!(version("version: 0.5.0-dev (build 1, commit 0c1e570)\nbuilt with"), "0.5.0-dev");
        assert_eq!(version("version: 6123 (abc)"), "6123");
        assert_eq!(version("nonsense"), "unknown");
    }

    #[test]
    fn a_program_that_fails_says_why() {
        let error = ask(Path::new("/bin/sh"), &["-c", "echo broken >&2; exit 3"]).unwrap_err();
        assert!(error.to_string().contains("broken"), "{error}");
    }
}
