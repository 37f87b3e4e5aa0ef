//! Reading a real host: while a driver waits for programs to let go of a device, the kernel does not come back from some
//! files of that device, and whoever reads them cannot be killed. So another process reads, and is given up.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Address, Inventory, step};

/// How long it may say nothing.
const SILENCE: Duration = Duration::from_secs(8);

/// What the process says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Word {
    /// It reads a device now.
    Reading(Address),
    /// All of it.
    Whole(Inventory),
    /// It cannot.
    Failed(String),
}

/// Reads this host's devices, by `worker look`. Devices that the kernel does not come back from are `stuck`.
///
/// # Errors
/// What the system said.
pub fn look() -> io::Result<Inventory> {
    let mut stuck: Vec<Address> = Vec::new();
    loop {
        match attempt(&stuck)? {
            Ok(inventory) => return Ok(inventory),
            Err(address) if stuck.contains(&address) => {
                return Err(io::Error::other(format!("the kernel does not say what {address} is")));
            }
            Err(address) => stuck.push(address),
        }
    }
}

/// One attempt, and the device at which it stopped.
fn attempt(stuck: &[Address]) -> io::Result<Result<Inventory, Address>> {
    let mut command = Command::new(step::program()?);
    command.args(["worker", "look"]).args(stuck.iter().map(ToString::to_string));
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let output = child.stdout.take().ok_or_else(|| io::Error::other("it has no output"))?;
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if tell.send(line).is_err() {
                break;
            }
        }
    });
    let mut last = None;
    loop {
        let line = match told.recv_timeout(SILENCE) {
            Ok(line) => line,
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                let status = child.wait()?;
                return Err(io::Error::other(format!("who reads them ended ({status})")));
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {
                // It is not waited for: it ends when the kernel lets it.
                let _ = child.kill();
                return last.map(Err).ok_or_else(|| io::Error::other("the kernel does not list them"));
            }
        };
        match serde_json::from_str(&line)? {
            Word::Reading(address) => last = Some(address),
            Word::Whole(inventory) => {
                let _ = child.wait();
                return Ok(Ok(inventory));
            }
            Word::Failed(message) => return Err(io::Error::other(message)),
        }
    }
}

/// What `worker look` does.
pub fn run(stuck: &[Address]) {
    let mut out = io::stdout().lock();
    let mut say = |word: &Word| {
        if let Ok(line) = serde_json::to_string(word) {
            let _ = writeln!(out, "{line}").and_then(|()| out.flush());
        }
    };
    let read = Inventory::read_but(Path::new("/"), stuck, &mut |address| say(&Word::Reading(address)));
    match read {
        Ok(inventory) => say(&Word::Whole(inventory)),
        Err(error) => say(&Word::Failed(error.to_string())),
    }
}
