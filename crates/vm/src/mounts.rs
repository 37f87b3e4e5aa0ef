//! Folders of the host in the machine, by virtiofs (<https://virtio-fs.gitlab.io>): one `virtiofsd` for each.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::request::plain;
use crate::vsock::await_socket;
use crate::{Error, Request};

/// Where distributions put the program, beside `PATH`.
const PLACES: [&str; 3] = ["/usr/libexec/virtiofsd", "/usr/lib/qemu/virtiofsd", "/usr/lib/virtiofsd"];

/// A folder to mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// On the host.
    pub source: PathBuf,
    /// In the machine; absolute.
    pub target: PathBuf,
    /// Whether the machine may only read it.
    pub read_only: bool,
}

/// The process behind a mount.
#[derive(Debug)]
pub(crate) struct Served(Child);

/// The tag of the mount with this number.
pub(crate) fn tag(number: usize) -> String {
    format!("mount{number}")
}

impl Served {
    /// Starts serving the mount with this number, and waits until QEMU can meet it.
    pub(crate) fn start(number: usize, mount: &Mount, request: &Request) -> Result<Self, Error> {
        let failed = |why: String| Error::Mount { path: mount.source.clone(), why };
        let source = std::fs::canonicalize(&mount.source).map_err(|error| failed(error.to_string()))?;
        if !source.is_dir() {
            return Err(failed("it is no folder".into()));
        }
        let program = find().ok_or_else(|| {
            failed(
                "virtiofsd is missing: install the package virtiofsd, or on Debian 12 qemu-system-common"
                    .into(),
            )
        })?;
        let socket = request.mount_socket(number);
        let _ = std::fs::remove_file(&socket);
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]);
        let rust = is_rust(&program);
        if mount.read_only && !rust {
            // The older program serves whatever it sees: it sees the folder through a mount that cannot be written.
            if !rustix::process::geteuid().is_root() {
                return Err(failed("read-only mounts need virtiofsd 1.11 or later, or root".into()));
            }
            let script =
                "mount --bind \"$1\" \"$1\" && mount -o remount,bind,ro \"$1\" && shift && exec \"$@\"";
            command.args(["unshare", "--mount", "sh", "-c", script, "sh"]).arg(&source);
        }
        command.arg(&program).arg(format!("--socket-path={}", plain(&socket)?));
        match rust {
            true => {
                command.arg("--shared-dir").arg(&source);
                command.args([
                    "--sandbox",
                    if rustix::process::geteuid().is_root() { "chroot" } else { "none" },
                ]);
                if mount.read_only {
                    command.arg("--readonly");
                }
            }
            false => {
                let path = source.to_str().filter(|path| !path.contains(','));
                let path = path.ok_or_else(|| failed("virtiofsd's options cannot carry its path".into()))?;
                command.args(["-f", "-o", &format!("source={path},sandbox=chroot,cache=auto")]);
            }
        }
        let spawned = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let mut served = Self(spawned.map_err(|_| Error::Missing("setpriv", "util-linux"))?);
        await_socket(&mut served.0, &socket)
            .map_err(|how| failed(format!("{} serves nothing: {how}", program.display())))?;
        Ok(served)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn find() -> Option<PathBuf> {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&folders).map(|folder| folder.join("virtiofsd")).collect::<Vec<_>>();
    in_path.into_iter().chain(PLACES.map(PathBuf::from)).find(|path| path.is_file())
}

/// Whether it is the program written in Rust, whose options are others: it calls itself `virtiofsd 1.13.2`.
fn is_rust(program: &Path) -> bool {
    let output = Command::new(program).arg("--version").output();
    let version =
        output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    version
        .strip_prefix("virtiofsd ")
        .is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
}
