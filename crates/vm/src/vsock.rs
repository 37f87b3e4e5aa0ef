//! The machine's vsock, by `vhost-device-vsock`, which needs nothing of the host's kernel
//! (<https://github.com/rust-vmm/vhost-device/tree/main/vhost-device-vsock>).

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::request::plain;
use crate::{Error, Request};

/// How long the device may take to listen.
const PATIENCE: Duration = Duration::from_secs(10);

/// The program's name.
const PROGRAM: &str = "vhost-device-vsock";

/// The device's process.
#[derive(Debug)]
pub(crate) struct Vsock(Child);

impl Vsock {
    /// Starts the device for a machine, and waits until QEMU can meet it.
    pub(crate) fn start(program: &Path, request: &Request) -> Result<Self, Error> {
        let (meeting, guest) = (request.vhost_socket(), request.folder.join("vsock"));
        let _ = std::fs::remove_file(&meeting);
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(program);
        command.args(["--guest-cid", &request.cid.to_string(), "--socket", plain(&meeting)?]);
        command.args(["--uds-path", plain(&guest)?]).stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(Stdio::null());
        let mut device = Self(command.spawn().map_err(|_| Error::Missing("setpriv", "util-linux"))?);
        await_socket(&mut device.0, &meeting)
            .map_err(|how| Error::Ended(format!("{}: {how}", program.display())))?;
        Ok(device)
    }
}

/// Waits until a device's process has made its socket.
///
/// # Errors
/// What it did instead.
pub(crate) fn await_socket(process: &mut Child, socket: &Path) -> Result<(), String> {
    let begun = Instant::now();
    while !socket.exists() {
        if let Ok(Some(status)) = process.try_wait() {
            return Err(status.to_string());
        }
        if begun.elapsed() > PATIENCE {
            return Err("it does not listen".into());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

impl Drop for Vsock {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The program, where it is installed.
pub fn find() -> Option<PathBuf> {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&folders).map(|folder| folder.join(PROGRAM)).find(|path| path.is_file())
}
