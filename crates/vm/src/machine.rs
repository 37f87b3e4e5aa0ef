//! A machine that runs: its processes, its console, its end.

use std::io::Read;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::mounts::Served;
use crate::vsock::Vsock;
use crate::{Accelerator, Error, Request};

/// How long a machine with hardware acceleration may take, before it is started again without.
const ACCELERATED_BOOT: Duration = Duration::from_secs(15);

/// A running machine.
#[derive(Debug)]
struct Running {
    qemu: Child,
    _vsock: Option<Vsock>,
    _mounts: Vec<Served>,
    /// What its console says, in pieces; few wait, so that a guest that prints without end waits too.
    console: mpsc::Receiver<Vec<u8>>,
    /// What its first process has told the host.
    control: Arc<Mutex<String>>,
}

impl Request {
    fn start(&self, accelerator: Accelerator) -> Result<Running, Error> {
        let there = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
            .any(|folder| folder.join("qemu-system-x86_64").is_file());
        if !there {
            return Err(Error::Missing("qemu-system-x86_64", "qemu-system-x86"));
        }
        let vsock = self.vsock.as_ref().map(|program| Vsock::start(program, self)).transpose()?;
        let mounts = self.mounts.iter().enumerate().map(|(number, mount)| Served::start(number, mount, self));
        let mounts = mounts.collect::<Result<Vec<_>, _>>()?;
        let path = self.control_socket();
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).map_err(|error| Error::file(&path, error))?;
        // QEMU ends with this program, however that ends.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "qemu-system-x86_64"]);
        command
            .args(self.arguments(accelerator)?)
            .stdin(if self.interactive { Stdio::inherit() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit());
        let mut qemu = command.spawn().map_err(|_| Error::Missing("setpriv", "util-linux"))?;
        let control = Arc::new(Mutex::new(String::new()));
        let heard = control.clone();
        std::thread::spawn(move || {
            if let Ok((stream, _)) = listener.accept() {
                hear(stream, &heard);
            }
        });
        let (tell, console) = mpsc::sync_channel(16);
        if let Some(mut output) = qemu.stdout.take() {
            std::thread::spawn(move || {
                let mut chunk = vec![0; 64 << 10];
                while let Ok(len @ 1..) = output.read(&mut chunk) {
                    if tell.send(chunk[..len].to_vec()).is_err() {
                        break;
                    }
                }
            });
        }
        Ok(Running { qemu, _vsock: vsock, _mounts: mounts, console, control })
    }

    /// Starts the machine, with another accelerator where the wanted one starts nothing, and runs it to its end.
    /// `started` is told what executes it and QEMU's process id; `output` gets what the command prints, in pieces.
    ///
    /// # Errors
    /// [`Error`].
    pub fn run(
        &self,
        wanted: Option<Accelerator>,
        started: &mut dyn FnMut(Accelerator, u32) -> Result<(), String>,
        output: &mut dyn FnMut(&[u8]),
    ) -> Result<i32, Error> {
        let first = wanted.unwrap_or_else(Accelerator::guess);
        let alone = wanted.is_some() || first == Accelerator::Tcg;
        match self.attempt(
            first,
            if alone || !(self.devices.is_empty() && self.slices.is_empty()) {
                self.boot_timeout
            } else {
                ACCELERATED_BOOT
            },
            started,
            output,
        ) {
            Err(Error::Boot { .. } | Error::Died { .. }) if !alone => {
                self.attempt(Accelerator::Tcg, self.boot_timeout, started, output)
            }
            other => other,
        }
    }

    fn attempt(
        &self,
        accelerator: Accelerator,
        patience: Duration,
        started: &mut dyn FnMut(Accelerator, u32) -> Result<(), String>,
        output: &mut dyn FnMut(&[u8]),
    ) -> Result<i32, Error> {
        let mut machine = self.start(accelerator)?;
        started(accelerator, machine.qemu.id()).map_err(Error::Ended)?;
        let begun = Instant::now();
        // What firmware and kernel say comes before the first process's line, and is not the command's.
        let mut before = Some(Vec::new());
        loop {
            match (machine.console.recv_timeout(Duration::from_millis(100)), &mut before) {
                (Ok(bytes), None) => output(&self.shown(&bytes)),
                (Ok(bytes), Some(boot)) => {
                    boot.extend_from_slice(&bytes);
                    if let Some(at) = find(boot, READY) {
                        let rest = self.shown(&boot[at + READY.len()..]);
                        output(rest.strip_prefix(b"\n").unwrap_or(&rest));
                        before = None;
                    } else if boot.len() > MAX_BOOT {
                        boot.drain(..MAX_BOOT / 2);
                    }
                }
                (Err(RecvTimeoutError::Timeout), None) => {}
                (Err(RecvTimeoutError::Timeout), Some(_)) if begun.elapsed() <= patience => {}
                (Err(RecvTimeoutError::Timeout), Some(boot)) => return Err(no_boot(patience, boot)),
                (Err(RecvTimeoutError::Disconnected), _) => break,
            }
        }
        let status = machine.qemu.wait().map_err(|error| Error::Ended(error.to_string()))?;
        if let Some(boot) = before {
            return Err(Error::Died { status: status.to_string(), words: last_words(&boot) });
        }
        let control = machine.control.lock().unwrap_or_else(PoisonError::into_inner).replace('\r', "");
        let code =
            control.lines().find_map(|line| line.strip_prefix("pontoon-vm-exit ")?.trim().parse().ok());
        code.ok_or_else(|| Error::Ended(format!("QEMU: {status}")))
    }
}

/// What the first process writes before the command begins.
const READY: &[u8] = b"pontoon-vm-ready\r\n";
/// Bytes that are kept of what is said before that.
const MAX_BOOT: usize = 64 << 10;
/// Bytes that the first process may tell the host.
const MAX_CONTROL: usize = 4096;

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

impl Request {
    /// What the console says: it ends its lines as terminals want it, and nobody else.
    fn shown(&self, bytes: &[u8]) -> Vec<u8> {
        bytes.iter().copied().filter(|byte| self.interactive || *byte != b'\r').collect()
    }
}

fn no_boot(waited: Duration, boot: &[u8]) -> Error {
    Error::Boot { seconds: waited.as_secs(), words: last_words(boot) }
}

/// The end of what was said before the command began, as a part of a sentence.
fn last_words(boot: &[u8]) -> String {
    let end = &boot[boot.len().saturating_sub(500)..];
    let text = String::from_utf8_lossy(end).replace(char::is_control, " ");
    match text.trim() {
        "" => String::new(),
        words => format!("; its last words: {words}"),
    }
}

/// Keeps the first of what a guest says, and lets the rest go by.
fn hear(mut stream: UnixStream, heard: &Mutex<String>) {
    let mut chunk = [0; 1024];
    while let Ok(len @ 1..) = stream.read(&mut chunk) {
        let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
        if heard.len() < MAX_CONTROL {
            heard.push_str(&String::from_utf8_lossy(&chunk[..len]));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}
