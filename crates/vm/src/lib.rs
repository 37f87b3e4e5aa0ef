//! `pontoon vm run`: a virtual machine around a root file system folder. The machine has a network that leads nowhere
//! but to two ports, behind which the host's bridge and model runner are; it has no device of the host.

#![forbid(unsafe_code)]

mod initramfs;

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

pub use initramfs::{Contents, write as write_initramfs};

/// How long a machine may take to its first word: emulated ones on a busy host take tens of seconds.
const BOOT: Duration = Duration::from_secs(120);
/// How long a machine with hardware acceleration may take, before it is started again without.
const ACCELERATED_BOOT: Duration = Duration::from_secs(15);
/// Where a machine finds its host.
const HOST: &str = "10.0.2.100";

/// Why there is no machine.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read or written.
    #[error("{}: {source}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A driver is only there compressed.
    #[error("{} is compressed, which busybox cannot load: unpack the kernel's modules, or name others with --modules", .0.display())]
    Module(PathBuf),
    /// A path that QEMU's command line cannot carry.
    #[error("QEMU's options cannot carry the path {}: use one of letters, digits, '/', '.', '_', '-' and '+' (TMPDIR names the folder of sockets)", .0.display())]
    Path(PathBuf),
    /// A program is missing.
    #[error("{0} is missing: install the package {1}")]
    Missing(&'static str, &'static str),
    /// The machine did not start.
    #[error("the machine did not start within {seconds} s; its last words: {words}")]
    Boot {
        /// How long was waited.
        seconds: u64,
        /// What its console said last.
        words: String,
    },
    /// The machine ended without an exit code.
    #[error("the machine ended without the command's exit code ({0})")]
    Ended(String),
}

impl Error {
    fn file(path: &Path, source: std::io::Error) -> Self {
        Self::File { path: path.to_owned(), source }
    }
}

/// What executes the machine's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    /// The processor, by the kernel's KVM.
    Kvm,
    /// The processor, by Apple's Hypervisor framework.
    Hvf,
    /// QEMU itself, some ten times slower; everywhere.
    Tcg,
}

impl Accelerator {
    /// QEMU's name for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Hvf => "hvf",
            Self::Tcg => "tcg",
        }
    }

    /// What this host seems to have. Only a machine that starts shows whether it works.
    pub fn guess() -> Self {
        let kvm = || std::fs::File::options().read(true).write(true).open("/dev/kvm").is_ok();
        match (cfg!(target_os = "macos"), kvm()) {
            (true, _) => Self::Hvf,
            (false, true) => Self::Kvm,
            (false, false) => Self::Tcg,
        }
    }
}

/// A machine to start.
#[derive(Debug, Clone)]
pub struct Request {
    /// The kernel, bzImage or vmlinux.
    pub kernel: PathBuf,
    /// The first file system, by [`write_initramfs`].
    pub initramfs: PathBuf,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Processors.
    pub processors: u32,
    /// This program, which QEMU starts for each connection of the guest (`vm relay SOCKET`).
    pub program: PathBuf,
    /// A folder of the machine's own, for its sockets.
    pub folder: PathBuf,
}

/// A running machine.
#[derive(Debug)]
struct Running {
    qemu: Child,
    /// What its console says, in pieces; few wait, so that a guest that prints without end waits too.
    console: mpsc::Receiver<Vec<u8>>,
    /// What its first process has told the host.
    control: Arc<Mutex<String>>,
}

impl Request {
    /// The socket behind the bridge's port.
    pub fn bridge_socket(&self) -> PathBuf {
        self.folder.join("bridge.sock")
    }

    /// The socket behind the model runner's port.
    pub fn models_socket(&self) -> PathBuf {
        self.folder.join("models.sock")
    }

    fn arguments(&self, accelerator: Accelerator) -> Result<Vec<String>, Error> {
        let program = plain(&self.program)?;
        let forward = |port: u32, socket: &Path| {
            Ok::<_, Error>(format!("guestfwd=tcp:{HOST}:{port}-cmd:{program} vm relay {}", plain(socket)?))
        };
        let network = format!(
            "user,id=net,restrict=on,{},{}",
            forward(7300, &self.bridge_socket())?,
            forward(12434, &self.models_socket())?
        );
        let control = format!("socket,id=control,path={}", plain(&self.control_socket())?);
        let words = [
            "-machine",
            "q35",
            "-accel",
            accelerator.name(),
            "-cpu",
            "max",
            "-nodefaults",
            "-display",
            "none",
            "-no-reboot",
            "-chardev",
            "stdio,id=console,signal=off",
            "-serial",
            "chardev:console",
            "-chardev",
            &control,
            "-serial",
            "chardev:control",
            "-netdev",
            &network,
            "-device",
            "virtio-net-pci,netdev=net,romfile=",
            "-append",
            "console=ttyS0 quiet loglevel=0 panic=-1 nokaslr",
        ];
        let mut arguments: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        arguments.extend([
            "-m".into(),
            self.memory_mib.to_string(),
            "-smp".into(),
            self.processors.to_string(),
        ]);
        for (option, path) in [("-kernel", &self.kernel), ("-initrd", &self.initramfs)] {
            arguments.extend([option.to_owned(), path.display().to_string()]);
        }
        Ok(arguments)
    }

    fn control_socket(&self) -> PathBuf {
        self.folder.join("control.sock")
    }

    fn start(&self, accelerator: Accelerator) -> Result<Running, Error> {
        let there = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
            .any(|folder| folder.join("qemu-system-x86_64").is_file());
        if !there {
            return Err(Error::Missing("qemu-system-x86_64", "qemu-system-x86"));
        }
        let path = self.control_socket();
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).map_err(|error| Error::file(&path, error))?;
        // QEMU ends with this program, however that ends.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "qemu-system-x86_64"]);
        command
            .args(self.arguments(accelerator)?)
            .stdin(Stdio::null())
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
        Ok(Running { qemu, console, control })
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
        match self.attempt(first, if alone { BOOT } else { ACCELERATED_BOOT }, started, output) {
            Err(Error::Boot { .. }) if !alone => self.attempt(Accelerator::Tcg, BOOT, started, output),
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
                (Ok(bytes), None) => output(&without_returns(&bytes)),
                (Ok(bytes), Some(boot)) => {
                    boot.extend_from_slice(&bytes);
                    if let Some(at) = find(boot, READY) {
                        let rest = without_returns(&boot[at + READY.len()..]);
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
            return Err(no_boot(begun.elapsed(), &boot));
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

/// A console ends its lines as terminals did.
fn without_returns(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().copied().filter(|byte| *byte != b'\r').collect()
}

fn no_boot(waited: Duration, boot: &[u8]) -> Error {
    let text =
        String::from_utf8_lossy(&boot[boot.len().saturating_sub(500)..]).replace(char::is_control, " ");
    Error::Boot { seconds: waited.as_secs(), words: text.trim().to_owned() }
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

/// QEMU gives commas and blanks in these places meanings of their own.
fn plain(path: &Path) -> Result<&str, Error> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    path.to_str().filter(|text| text.chars().all(fits)).ok_or_else(|| Error::Path(path.to_owned()))
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

/// The script that runs a command in the machine, with the variables by which programs find the host.
pub fn command_script(command: &[String], variables: &[(String, String)], workdir: Option<&str>) -> String {
    let quote = |text: &str| format!("'{}'", text.replace('\'', "'\\''"));
    let mut script =
        String::from("#!/bin/sh\nexport PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n");
    let host = [
        ("PONTOON_HOST", format!("tcp:{HOST}:7300")),
        ("OPENAI_BASE_URL", format!("http://{HOST}:12434/v1")),
        ("OPENAI_API_KEY", "pontoon".to_owned()),
        ("ANTHROPIC_BASE_URL", format!("http://{HOST}:12434")),
        ("ANTHROPIC_API_KEY", "pontoon".to_owned()),
        ("OLLAMA_HOST", format!("http://{HOST}:12434")),
    ];
    for (name, value) in host.iter().map(|(name, value)| (*name, value)) {
        script.push_str(&format!("export {name}={}\n", quote(value)));
    }
    for (name, value) in variables {
        script.push_str(&format!("export {name}={}\n", quote(value)));
    }
    if let Some(workdir) = workdir {
        script.push_str(&format!("cd {} || exit 127\n", quote(workdir)));
    }
    let words: Vec<String> = command.iter().map(|word| quote(word)).collect();
    script.push_str(&format!("exec {}\n", words.join(" ")));
    script
}

/// Listens on the machine's two sockets.
///
/// # Errors
/// [`Error::File`].
pub fn listen(request: &Request) -> Result<[UnixListener; 2], Error> {
    let bind = |path: PathBuf| UnixListener::bind(&path).map_err(|error| Error::file(&path, error));
    Ok([bind(request.bridge_socket())?, bind(request.models_socket())?])
}

/// Carries one connection of the guest: standard input and output on one side, a socket on the other.
///
/// # Errors
/// What the system said.
pub fn relay(socket: &Path) -> std::io::Result<()> {
    let stream = UnixStream::connect(socket)?;
    let mut outward = stream.try_clone()?;
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut outward);
        let _ = outward.shutdown(std::net::Shutdown::Write);
    });
    let mut chunk = vec![0; 64 << 10];
    let (mut from, mut to) = (stream, std::io::stdout().lock());
    loop {
        match from.read(&mut chunk)? {
            0 => return Ok(()),
            len => {
                to.write_all(&chunk[..len])?;
                to.flush()?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_quoted_for_the_machines_shell() {
        let script =
            command_script(&["/bin/echo".into(), "it's".into()], &[("A".into(), "b c".into())], Some("/x y"));
        assert!(
            script.ends_with("export A='b c'\ncd '/x y' || exit 127\nexec '/bin/echo' 'it'\\''s'\n"),
            "{script}"
        );
        assert!(script.contains("PONTOON_HOST='tcp:10.0.2.100:7300'"));
    }
}
