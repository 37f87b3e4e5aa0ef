//! `pontoon vm run`: a virtual machine around a root file system folder. The machine has a network that leads nowhere
//! but to two ports, behind which the host's bridge and model runner are; it has no device of the host.

#![forbid(unsafe_code)]

mod initramfs;

use std::io::{BufRead, BufReader};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

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
pub struct Machine {
    qemu: Child,
    said: mpsc::Receiver<String>,
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

    fn arguments(&self, accelerator: Accelerator) -> Vec<String> {
        let forward = |port: u32, socket: &Path| {
            format!("guestfwd=tcp:{HOST}:{port}-cmd:{} vm relay {}", self.program.display(), socket.display())
        };
        let network = format!(
            "user,id=net,restrict=on,{},{}",
            forward(7300, &self.bridge_socket()),
            forward(12434, &self.models_socket())
        );
        let control = format!("file,id=control,path={}", self.folder.join("control").display());
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
        arguments
    }

    /// Starts the machine. `listening` is given QEMU's process id, once, before the guest runs.
    ///
    /// # Errors
    /// [`Error`].
    pub fn start(&self, accelerator: Accelerator) -> Result<Machine, Error> {
        let control = self.folder.join("control");
        std::fs::write(&control, "").map_err(|error| Error::file(&control, error))?;
        let mut command = Command::new("qemu-system-x86_64");
        command
            .args(self.arguments(accelerator))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit());
        let mut qemu =
            command.spawn().map_err(|_| Error::Missing("qemu-system-x86_64", "qemu-system-x86"))?;
        let (tell, said) = mpsc::channel();
        if let Some(console) = qemu.stdout.take() {
            std::thread::spawn(move || {
                for line in BufReader::new(console).split(b'\n').map_while(Result::ok) {
                    let line = String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned();
                    if tell.send(line).is_err() {
                        break;
                    }
                }
            });
        }
        Ok(Machine { qemu, said })
    }

    /// What the guest's first process has told the host.
    fn control(&self) -> String {
        std::fs::read_to_string(self.folder.join("control")).unwrap_or_default().replace('\r', "")
    }

    /// Starts the machine, with another accelerator where the wanted one starts nothing, and runs it to its end.
    /// `started` is told what executes it and QEMU's process id; `line` gets what the command prints.
    ///
    /// # Errors
    /// [`Error`].
    pub fn run(
        &self,
        wanted: Option<Accelerator>,
        started: &mut dyn FnMut(Accelerator, u32) -> Result<(), String>,
        line: &mut dyn FnMut(&str),
    ) -> Result<i32, Error> {
        let first = wanted.unwrap_or_else(Accelerator::guess);
        let alone = wanted.is_some() || first == Accelerator::Tcg;
        match self.attempt(first, if alone { BOOT } else { ACCELERATED_BOOT }, started, line) {
            Err(Error::Boot { .. }) if !alone => self.attempt(Accelerator::Tcg, BOOT, started, line),
            other => other,
        }
    }

    fn attempt(
        &self,
        accelerator: Accelerator,
        patience: Duration,
        started: &mut dyn FnMut(Accelerator, u32) -> Result<(), String>,
        line: &mut dyn FnMut(&str),
    ) -> Result<i32, Error> {
        let mut machine = self.start(accelerator)?;
        started(accelerator, machine.qemu.id()).map_err(Error::Ended)?;
        let begun = std::time::Instant::now();
        let (mut ready, mut last) = (false, String::new());
        loop {
            match machine.said.recv_timeout(Duration::from_millis(100)) {
                // Firmware and kernel may say things before the command does.
                Ok(text) if ready || self.control().contains("pontoon-vm-ready") => {
                    ready = true;
                    line(&text);
                }
                Ok(text) => last = text,
                Err(mpsc::RecvTimeoutError::Timeout) if ready => {}
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    ready = self.control().contains("pontoon-vm-ready");
                    if !ready && begun.elapsed() > patience {
                        return Err(Error::Boot { seconds: patience.as_secs(), words: last });
                    }
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
            }
        }
        let status = machine.qemu.wait().map_err(|error| Error::Ended(error.to_string()))?;
        let control = self.control();
        if !control.contains("pontoon-vm-ready") {
            return Err(Error::Boot { seconds: begun.elapsed().as_secs(), words: last });
        }
        let code =
            control.lines().find_map(|line| line.strip_prefix("pontoon-vm-exit ")?.trim().parse().ok());
        code.ok_or_else(|| Error::Ended(format!("QEMU: {status}")))
    }
}

impl Drop for Machine {
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
    use std::io::{Read as _, Write as _};
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
