//! Runs one stage after the other: a headline each, quiet ones into a log, a sentence on failure.

use std::{
    fmt::Write as _,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};

use crate::project::Project;

/// Where a command's output goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    Shown,
    /// To a log that is pointed at, with its end, if the command fails.
    Logged,
}

const POLL: Duration = Duration::from_millis(20);
const SIGN_OF_LIFE: Duration = Duration::from_secs(30);
const SHOWN_ON_FAILURE: usize = 40;

/// The stages of one run of `xtask`.
#[derive(Debug)]
pub struct Stages {
    started: Instant,
    logs: PathBuf,
    done: usize,
    skipped: usize,
}

impl Stages {
    pub fn new(project: &Project) -> anyhow::Result<Self> {
        let logs = project.logs();
        fs::create_dir_all(&logs).with_context(|| format!("cannot make {}", logs.display()))?;
        Ok(Self { started: Instant::now(), logs, done: 0, skipped: 0 })
    }

    /// A stage that is one command.
    pub fn run(&mut self, title: &str, output: Output, command: &mut Command) -> anyhow::Result<()> {
        let number = self.done + self.skipped + 1;
        let log = self.logs.join(log_name(number, title));
        self.step(title, || match output {
            Output::Shown => shown(command),
            Output::Logged => logged(command, &log),
        })
    }

    /// A stage of several commands at once, each with a log of its own; all of them end before it does.
    pub fn together(&mut self, title: &str, commands: Vec<(&str, Command)>) -> anyhow::Result<()> {
        let number = self.done + self.skipped + 1;
        let logs = self.logs.clone();
        self.step(title, || {
            let ended: Vec<anyhow::Result<()>> = thread::scope(|scope| {
                let start = |(what, mut command): (&str, Command)| {
                    let log = logs.join(log_name(number, what));
                    println!("   {what}: {}", log.display());
                    scope.spawn(move || logged(&mut command, &log))
                };
                let running: Vec<_> = commands.into_iter().map(start).collect();
                running.into_iter().map(|one| one.join().unwrap_or_else(|_| bail!("panicked"))).collect()
            });
            ended.into_iter().collect()
        })
    }

    /// A stage that is code.
    pub fn step<T>(&mut self, title: &str, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
        println!("\n== {}: {title}", self.done + self.skipped + 1);
        let started = Instant::now();
        let result = work();
        let seconds = started.elapsed().as_secs_f32();
        match result {
            Ok(value) => {
                self.done += 1;
                println!("   done in {seconds:.1} s");
                Ok(value)
            }
            Err(error) => Err(error.context(format!("{title} failed after {seconds:.1} s"))),
        }
    }

    pub fn skip(&mut self, title: &str, reason: &str) {
        println!("\n== {}: {title}", self.done + self.skipped + 1);
        println!("   SKIPPED: {reason}");
        self.skipped += 1;
    }

    /// A line between two parts of a run.
    pub fn halfway(&self, what: &str, next: &str) {
        println!("\n{what}: {} so far; {next}", self.summary());
    }

    /// The last line of a run in which nothing failed.
    pub fn finish(&self, what: &str) {
        println!("\n{what}: {}", self.summary());
    }

    fn summary(&self) -> String {
        let mut text = format!("{} stages passed", self.done);
        if self.skipped > 0 {
            let _ = write!(text, ", {} skipped", self.skipped);
        }
        let seconds = self.started.elapsed().as_secs();
        let _ = write!(text, ", {} min {:02} s in all", seconds / 60, seconds % 60);
        text
    }
}

fn shown(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status().with_context(|| format!("cannot start {}", name(command)))?;
    match status.success() {
        true => Ok(()),
        false => bail!("{} ended with {status}", name(command)),
    }
}

fn logged(command: &mut Command, log: &Path) -> anyhow::Result<()> {
    let file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    let errors = file.try_clone()?;
    command.stdin(Stdio::null()).stdout(file).stderr(errors);
    let status = wait(command)?;
    if !status.success() {
        println!("{}", last_lines(log));
        bail!("{} ended with {status}; the whole log is {}", name(command), log.display());
    }
    Ok(())
}

/// Waits for the end and shows a sign of life now and then.
fn wait(command: &mut Command) -> anyhow::Result<ExitStatus> {
    let mut child = command.spawn().with_context(|| format!("cannot start {}", name(command)))?;
    let started = Instant::now();
    let mut next = SIGN_OF_LIFE;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if started.elapsed() >= next {
            println!("   … {} s", next.as_secs());
            next += SIGN_OF_LIFE;
        }
        thread::sleep(POLL);
    }
}

fn name(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let mut text = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if let Some(verb) = command.get_args().next() {
        let _ = write!(text, " {}", verb.to_string_lossy());
    }
    text
}

fn log_name(number: usize, title: &str) -> String {
    let words: Vec<&str> =
        title.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).collect();
    format!("{number:02}-{}.log", words.join("-").to_lowercase())
}

fn last_lines(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(SHOWN_ON_FAILURE)..].join("\n")
}

#[cfg(test)]
mod tests {
    use pontoon_testbed::Scratch;

    use super::*;

    fn stages(scratch: &Scratch) -> Stages {
        Stages { started: Instant::now(), logs: scratch.path().to_owned(), done: 0, skipped: 0 }
    }

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn counts_and_logs() {
        let scratch = Scratch::new("stages").unwrap();
        let mut stages = stages(&scratch);
        stages.run("Say it, quietly", Output::Logged, &mut sh("echo a; echo b >&2")).unwrap();
        stages.skip("Fly", "no wings");
        let log = scratch.path().join("01-say-it-quietly.log");
        assert_eq!(fs::read_to_string(log).unwrap(), "a\nb\n");
        assert_eq!(stages.summary(), "1 stages passed, 1 skipped, 0 min 00 s in all");
    }

    #[test]
    fn a_failure_is_one_sentence_that_names_the_log() {
        let scratch = Scratch::new("stages").unwrap();
        let error = stages(&scratch).run("break", Output::Logged, &mut sh("exit 3")).unwrap_err();
        let log = scratch.path().join("01-break.log");
        let expected = format!(
            "break failed after 0.0 s: sh -c ended with exit status: 3; the whole log is {}",
            log.display()
        );
        assert_eq!(format!("{error:#}"), expected);
    }

    #[test]
    fn what_runs_together_fails_together() {
        let scratch = Scratch::new("stages").unwrap();
        let mut stages = stages(&scratch);
        stages.together("both", vec![("one", sh("echo 1")), ("two", sh("echo 2"))]).unwrap();
        assert_eq!(fs::read_to_string(scratch.path().join("01-two.log")).unwrap(), "2\n");
        let error = stages.together("both", vec![("one", sh("exit 3")), ("two", sh("true"))]).unwrap_err();
        assert!(format!("{error:#}").contains("exit status: 3; the whole log is"), "{error:#}");
    }

    #[test]
    fn a_missing_program_is_a_sentence() {
        let error = shown(&mut Command::new("no-such-program")).unwrap_err();
        assert!(format!("{error:#}").starts_with("cannot start no-such-program: "));
    }
}
