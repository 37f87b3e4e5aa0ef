//! Podman for a machine without systemd: configuration and storage in a folder of its own.
//!
//! Everything is said through two environment variables, so that a program under test that calls
//! plain `podman` (as `pontoon run` does) uses the same storage when it is given [`Podman::env`].

use std::{
    ffi::OsString,
    fs,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};

use crate::tools::find_tool;

/// A podman with storage of its own, emptied when dropped.
#[derive(Debug)]
pub struct Podman {
    dir: PathBuf,
    program: PathBuf,
    /// A folder of CDI specifications that takes the place of the system's.
    cdi: Option<PathBuf>,
}

impl Podman {
    /// Writes the configuration to `dir/podman`. Fails when podman is missing.
    pub fn new(dir: &Path) -> anyhow::Result<Self> {
        let program = find_tool("podman").context("podman is missing (Debian: podman)")?;
        let dir = dir.join("podman");
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        fs::write(dir.join("containers.conf"), containers_conf(&dir))?;
        fs::write(dir.join("storage.conf"), storage_conf(&dir))?;
        Ok(Self { dir, program, cdi: None })
    }

    /// What makes any `podman` started with it use this configuration and storage.
    pub fn env(&self) -> [(&'static str, OsString); 2] {
        [
            ("CONTAINERS_CONF", self.dir.join("containers.conf").into()),
            ("CONTAINERS_STORAGE_CONF", self.dir.join("storage.conf").into()),
        ]
    }

    /// `podman`, to be given its arguments.
    pub fn command(&self) -> Command {
        self.started(&self.program)
    }

    /// `podman-compose`, to be given its arguments.
    pub fn compose(&self) -> anyhow::Result<Command> {
        let program =
            find_tool("podman-compose").context("podman-compose is missing (Debian: podman-compose)")?;
        Ok(self.started(&program))
    }

    fn started(&self, program: &Path) -> Command {
        let mut command = match &self.cdi {
            None => Command::new(program),
            Some(folder) => {
                let mut command = Command::new("unshare");
                let script = "mount --bind \"$0\" /etc/cdi && exec \"$@\"";
                command.args(["--mount", "sh", "-c", script]).arg(folder).arg(program);
                command
            }
        };
        command.envs(self.env()).stdin(Stdio::null());
        command
    }

    /// The same podman with this folder in the place of `/etc/cdi`, which podman 4 alone looks in. Needs root.
    pub fn with_cdi(mut self, folder: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all("/etc/cdi").context("cannot make /etc/cdi to mount on")?;
        fs::create_dir_all(folder)?;
        self.cdi = Some(folder.to_owned());
        Ok(self)
    }

    /// Podman's API on a unix socket, until what is returned is dropped.
    pub fn service(&self, socket: &Path) -> anyhow::Result<Service> {
        let mut command = Command::new(&self.program);
        command.envs(self.env()).args(["system", "service", "--time", "0"]);
        command.arg(format!("unix://{}", socket.display()));
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let service = Service(child);
        let started = Instant::now();
        while UnixStream::connect(socket).is_err() {
            ensure!(started.elapsed() < Duration::from_secs(20), "podman's API does not answer");
            thread::sleep(Duration::from_millis(20));
        }
        Ok(service)
    }

    /// Whether a container really starts here, by starting one; the error is podman's last word.
    pub fn available(&self, rootfs: &Path) -> anyhow::Result<()> {
        let mut overlay = rootfs.as_os_str().to_owned();
        overlay.push(":O");
        let output = self
            .command()
            .args(["run", "--rm", "--network", "none", "--rootfs"])
            .arg(overlay)
            .arg("/bin/true")
            .output()
            .context("cannot start podman")?;
        check(&output, "podman starts no container here")
    }

    /// Makes the image `name` (such as `localhost/busybox`) of a root file system, without a
    /// registry.
    pub fn import(&self, rootfs: &Path, name: &str) -> anyhow::Result<()> {
        let archive = self.dir.join("import.tar");
        let output = Command::new("tar")
            .arg("-C")
            .arg(rootfs)
            .arg("-cf")
            .arg(&archive)
            .arg(".")
            .output()
            .context("cannot start tar")?;
        check(&output, "tar cannot pack the root file system")?;
        let output = self
            .command()
            .args(["import", "--quiet", "--change", "ENV=PATH=/bin"])
            .arg(&archive)
            .arg(name)
            .output()
            .context("cannot start podman")?;
        check(&output, "podman cannot import the root file system")?;
        Ok(fs::remove_file(archive)?)
    }
}

/// A running `podman system service`.
#[derive(Debug)]
pub struct Service(Child);

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Podman {
    /// Ends its containers and gives back its mounts, without which the folder cannot be removed.
    fn drop(&mut self) {
        let _ = self.command().args(["rm", "--all", "--force"]).output();
        let _ = self.command().args(["system", "reset", "--force"]).output();
    }
}

fn check(output: &Output, what: &str) -> anyhow::Result<()> {
    let text = String::from_utf8_lossy(&output.stderr);
    let last = text.trim().lines().last().unwrap_or("no reason given");
    ensure!(output.status.success(), "{what}: {last}");
    Ok(())
}

fn containers_conf(dir: &Path) -> String {
    let nofile = hard_limit("Max open files").min(20_000);
    let nproc = hard_limit("Max processes").min(32_768);
    let mut text = format!(
        "[containers]\ndefault_ulimits = [\"nofile={nofile}:{nofile}\", \"nproc={nproc}:{nproc}\"]\n\
         [engine]\nevents_logger = \"file\"\n{}{}",
        setting("tmp_dir", &dir.join("tmp")),
        setting("volume_path", &dir.join("volumes")),
    );
    if !Path::new("/run/systemd/system").is_dir() {
        text.push_str("cgroup_manager = \"cgroupfs\"\n");
    }
    // crun 1.8 refuses machines that have both kinds of cgroups.
    if find_tool("runc").is_some() {
        text.push_str("runtime = \"runc\"\n");
    }
    text.push_str("[network]\n");
    text.push_str(&setting("network_config_dir", &dir.join("networks")));
    if Path::new("/usr/lib/podman/netavark").exists() {
        text.push_str("network_backend = \"netavark\"\n");
    }
    text
}

fn storage_conf(dir: &Path) -> String {
    format!(
        "[storage]\ndriver = \"overlay\"\n{}{}",
        setting("graphroot", &dir.join("storage")),
        setting("runroot", &dir.join("run")),
    )
}

fn setting(name: &str, path: &Path) -> String {
    // Rust's escapes of what can stand in a path are TOML's.
    format!("{name} = {:?}\n", path.to_string_lossy())
}

/// A container may ask for no more than this process may have.
fn hard_limit(name: &str) -> u64 {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    parse_hard_limit(&limits, name)
}

fn parse_hard_limit(limits: &str, name: &str) -> u64 {
    limits
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|columns| columns.split_whitespace().nth(1))
        .and_then(|hard| hard.parse().ok())
        .unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units\n\
                      Max processes             unlimited            unlimited            processes\n\
                      Max open files            1024                 20000                files\n";
        assert_eq!(parse_hard_limit(limits, "Max open files"), 20_000);
        assert_eq!(parse_hard_limit(limits, "Max processes"), u64::MAX);
        assert_eq!(parse_hard_limit("", "Max processes"), u64::MAX);
    }
}
