//! How the unprivileged part asks the helper: as a child where this process is root, else through `sudo` or `pkexec`.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::helper::{Answer, Order};

/// A helper that has answered once.
#[derive(Debug)]
pub struct Helper {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

/// The command that starts it with the rights it needs.
fn command() -> Result<Command, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let words = ["worker", "passthrough"];
    if rustix::process::geteuid().is_root() {
        let mut command = Command::new(program);
        command.args(words);
        return Ok(command);
    }
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let found = |name: &str| std::env::split_paths(&folders).any(|folder| folder.join(name).is_file());
    for asker in ["sudo", "pkexec"] {
        if found(asker) {
            let mut command = Command::new(asker);
            command.arg(program).args(words);
            return Ok(command);
        }
    }
    Err("devices are taken and put back by root: run this as root, or install sudo".into())
}

impl Helper {
    /// Starts it with an order, and waits for its first answer.
    ///
    /// # Errors
    /// A sentence where it cannot be started or does not answer.
    pub fn start(order: &Order) -> Result<(Self, Answer), String> {
        let mut command = command()?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let failed = |error: std::io::Error| format!("the helper that takes devices: {error}");
        let mut child = command.spawn().map_err(failed)?;
        let mut input = child.stdin.take().ok_or("the helper has no input")?;
        let output = child.stdout.take().ok_or("the helper has no output")?;
        let line = serde_json::to_string(order).map_err(|error| error.to_string())?;
        input.write_all(line.as_bytes()).and_then(|()| input.write_all(b"\n")).map_err(failed)?;
        let mut helper = Self { child, input: Some(input), output: BufReader::new(output) };
        let answer = helper.answer()?;
        Ok((helper, answer))
    }

    fn answer(&mut self) -> Result<Answer, String> {
        let mut line = String::new();
        self.output.read_line(&mut line).map_err(|error| error.to_string())?;
        if line.is_empty() {
            let status =
                self.child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
            return Err(format!(
                "the helper that takes devices ended without an answer ({status}): `pontoon vfio status` shows what is taken, `pontoon vfio restore` puts it back"
            ));
        }
        serde_json::from_str(&line).map_err(|error| format!("the helper's answer: {error}"))
    }

    /// Ends what it holds, and waits until all is put back.
    ///
    /// # Errors
    /// A sentence where it does not answer.
    pub fn end(&mut self) -> Result<Answer, String> {
        drop(self.input.take());
        let answer = self.answer();
        let _ = self.child.wait();
        answer
    }
}

/// Has an order carried out.
///
/// # Errors
/// A sentence where the helper cannot be started or does not answer; what it could not do is in its answer.
pub fn ask(order: &Order) -> Result<Answer, String> {
    let (mut helper, answer) = Helper::start(order)?;
    drop(helper.input.take());
    let _ = helper.child.wait();
    Ok(answer)
}
