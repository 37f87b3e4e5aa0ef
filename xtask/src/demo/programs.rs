//! Runs the example programs, natively and in the container, and reads what they report.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use tinyjson::JsonValue;

use crate::{
    demo::{
        Folders,
        build::Programs,
        container::Guest,
        serve::{Host, print_indented},
    },
    driver::Driver,
};

/// Nothing in the demo takes this long on any machine.
const LIMIT: Duration = Duration::from_secs(600);
/// When the live session is shown.
const SHOW_AFTER: Duration = Duration::from_millis(1500);
const POLL: Duration = Duration::from_millis(50);

/// The members of a report that must not depend on where the program ran.
const RESULTS: [&str; 2] = ["accuracy", "sha256"];

/// One of the example programs.
pub struct Program {
    pub name: &'static str,
    pub what: &'static str,
    /// The option that takes a place for pictures, and the file in it.
    out: Option<(&'static str, &'static str)>,
}

pub const PROGRAMS: [Program; 3] = [
    Program { name: "digits", what: "trains a network on handwritten digits", out: None },
    Program { name: "scene", what: "draws a lit 3D scene", out: Some(("--out", "scene.png")) },
    Program { name: "photo", what: "removes the noise from a photograph", out: Some(("--out-dir", "")) },
];

impl Program {
    /// The arguments that make it write its pictures to `folder`.
    fn args(&self, folder: &str) -> Vec<String> {
        let mut args = vec!["--json".to_owned()];
        if let Some((option, file)) = self.out {
            let place = match file {
                "" => folder.to_owned(),
                file => format!("{folder}/{file}"),
            };
            args.extend([option.to_owned(), place]);
        }
        args
    }
}

/// What a program said about one run.
#[derive(Debug, PartialEq)]
pub struct Report {
    pub adapter: String,
    pub seconds: f64,
    /// What must be equal wherever it ran, as text.
    pub results: BTreeMap<&'static str, String>,
}

/// One program's two runs.
#[derive(Debug)]
pub struct Row {
    pub program: &'static str,
    pub native: Report,
    pub container: Report,
}

pub fn run_both(
    program: &Program,
    programs: &Programs,
    driver: &Driver,
    host: &Host,
    guest: &Guest,
    folders: &Folders,
) -> anyhow::Result<Row> {
    println!("   on the host:");
    let native_out = folders.native.to_str().context("a path is not UTF-8")?;
    let mut native = Command::new(programs.host.join(program.name));
    native.args(program.args(native_out)).envs(driver.env()).env_remove("PONTOON_HOST");
    // Mesa's device selection looks for a desktop and complains where there is none.
    native.env("NODEVICE_SELECT", "1");
    let native = run(&mut native, || Ok(true)).context("on the host")?;

    println!("   in the container ({}):", guest.engine_name());
    let path = format!("/bin/{}", program.name);
    let args = program.args("/mnt");
    let mut words = vec![path.as_str()];
    words.extend(args.iter().map(String::as_str));
    let mut container = guest.command(host, Some(&folders.container), &words);
    // A session that has done something is worth showing.
    let started = Instant::now();
    let watch = || if started.elapsed() < SHOW_AFTER { Ok(false) } else { show_sessions(host) };
    let container = run(&mut container, watch).context("in the container")?;
    Ok(Row { program: program.name, native, container })
}

/// Runs one program to its end; calls `watch` meanwhile until it says that it has seen enough.
fn run(command: &mut Command, mut watch: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<Report> {
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", command.get_program().to_string_lossy()))?;
    let stdout = child.stdout.take().context("no standard output")?;
    let reader = thread::spawn(move || echo(stdout));
    let outcome = wait(&mut child, &mut watch);
    if outcome.is_err() {
        let _ = child.kill();
        let _ = child.wait();
    }
    outcome?;
    let last = reader.join().ok().flatten();
    parse_report(&last.context("it printed no report")?)
}

fn wait(child: &mut Child, watch: &mut impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let started = Instant::now();
    let mut seen = false;
    loop {
        if let Some(status) = child.try_wait()? {
            ensure!(status.success(), "it ended with {status}");
            return Ok(());
        }
        ensure!(started.elapsed() < LIMIT, "no end after {} s", LIMIT.as_secs());
        seen = seen || watch()?;
        thread::sleep(POLL);
    }
}

/// Shows what a program prints, except for its report, which is returned.
fn echo(stdout: impl Read) -> Option<String> {
    let mut report = None;
    for line in BufReader::new(stdout).lines().map_while(Result::ok) {
        if line.starts_with('{') {
            report = Some(line);
        } else {
            println!("     {line}");
        }
    }
    report
}

/// Prints `pontoon ps` once it lists something below its heading.
fn show_sessions(host: &Host) -> anyhow::Result<bool> {
    let output = host.pontoon(&["ps"]).output().context("cannot start pontoon ps")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let live = output.status.success() && text.trim().lines().count() > 1;
    if live {
        println!("   pontoon ps, meanwhile:");
        print_indented(&text);
    }
    Ok(live)
}

fn parse_report(line: &str) -> anyhow::Result<Report> {
    let value: JsonValue = line.parse().with_context(|| format!("its report is no JSON: {line}"))?;
    let JsonValue::Object(members) = &value else {
        bail!("its report is no object: {line}");
    };
    let text = |name: &str| members.get(name).map(JsonValue::stringify).transpose();
    let mut results = BTreeMap::new();
    for name in RESULTS {
        if let Some(result) = text(name).context("a result cannot be shown")? {
            results.insert(name, result);
        }
    }
    ensure!(!results.is_empty(), "its report names no result: {line}");
    let seconds: Option<&f64> = members.get("seconds").and_then(JsonValue::get);
    let adapter: Option<&String> = members.get("adapter").and_then(JsonValue::get);
    Ok(Report {
        adapter: adapter.context("its report names no adapter")?.clone(),
        seconds: *seconds.context("its report names no seconds")?,
        results,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    const REPORT: &str =
        r#"{"program":"digits","adapter":"llvmpipe (LLVM 15)","seconds":1.5,"accuracy":0.9731}"#;

    #[test]
    fn reads_the_report_and_watches_meanwhile() {
        let mut calls = 0;
        let script = format!("echo epoch 1; sleep 0.3; echo '{REPORT}'");
        let report = run(&mut sh(&script), || {
            calls += 1;
            Ok(calls == 2)
        });
        let expected = Report {
            adapter: "llvmpipe (LLVM 15)".into(),
            seconds: 1.5,
            results: BTreeMap::from([("accuracy", "0.9731".to_owned())]),
        };
        assert_eq!(report.unwrap(), expected);
        assert_eq!(calls, 2);
    }

    #[test]
    fn failures_are_sentences() {
        let fail = |script: &str| format!("{:#}", run(&mut sh(script), || Ok(true)).unwrap_err());
        assert_eq!(fail("exit 2"), "it ended with exit status: 2");
        assert_eq!(fail("true"), "it printed no report");
        assert!(fail("echo '{nonsense'").starts_with("its report is no JSON: {nonsense"));
        assert_eq!(
            fail(r#"echo '{"adapter":"a","seconds":1}'"#),
            r#"its report names no result: {"adapter":"a","seconds":1}"#
        );
        assert_eq!(fail(r#"echo '{"seconds":1,"sha256":"x"}'"#), "its report names no adapter");
    }

    #[test]
    fn pictures_go_where_they_are_wanted() {
        assert_eq!(PROGRAMS[0].args("/mnt"), ["--json"]);
        assert_eq!(PROGRAMS[1].args("/mnt"), ["--json", "--out", "/mnt/scene.png"]);
        assert_eq!(PROGRAMS[2].args("/mnt"), ["--json", "--out-dir", "/mnt"]);
    }
}
