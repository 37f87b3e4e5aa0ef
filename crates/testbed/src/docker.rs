//! A Docker engine of a test's own, from programs that are unpacked in a folder: in a network and mount namespace of its
//! own, with all its files in the test's folder.

use std::{
    fs,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};

/// The engine, ended when dropped.
#[derive(Debug)]
pub struct Docker {
    engine: Child,
    /// The folder with Docker's programs, laid out as a Debian is.
    programs: PathBuf,
    dir: PathBuf,
}

impl Docker {
    /// Starts the engine with its files in `dir/docker`, and CDI specifications in `cdi`. Needs root.
    pub fn start(dir: &Path, programs: &Path, cdi: &Path) -> anyhow::Result<Self> {
        let dir = dir.join("docker");
        fs::create_dir_all(&dir)?;
        let config = format!(
            r#"{{ "hosts": ["unix://{0}/docker.sock"], "data-root": "{0}/data", "exec-root": "{0}/exec",
               "pidfile": "{0}/pid", "features": {{ "cdi": true }}, "cdi-spec-dirs": ["{1}"],
               "exec-opts": ["native.cgroupdriver=cgroupfs"], "userland-proxy": false }}"#,
            dir.display(),
            cdi.display()
        );
        fs::write(dir.join("daemon.json"), config)?;
        let path = std::env::var("PATH").unwrap_or_default();
        let path = format!("{0}/usr/bin:{0}/usr/sbin:{path}:/usr/sbin:/sbin", programs.display());
        let log = fs::File::create(dir.join("log"))?;
        let mut command = Command::new("unshare");
        command.args(["--mount", "--net", "sh", "-c", "ip link set lo up; exec \"$@\"", "sh"]);
        command.args(["dockerd", "--config-file"]).arg(dir.join("daemon.json")).env("PATH", path);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let engine = command.spawn().context("cannot start unshare")?;
        let mut docker = Self { engine, programs: programs.to_owned(), dir };
        let started = Instant::now();
        while UnixStream::connect(docker.socket()).is_err() {
            let ended = docker.engine.try_wait()?.is_some();
            if ended || started.elapsed() > Duration::from_secs(30) {
                let log = fs::read_to_string(docker.dir.join("log")).unwrap_or_default();
                let last = log.lines().last().unwrap_or_default();
                anyhow::bail!("Docker's engine does not start here: {last}");
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(docker)
    }

    /// The engine's API.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("docker.sock")
    }

    /// Makes the image `name` of a root file system, without a registry.
    pub fn import(&self, rootfs: &Path, name: &str) -> anyhow::Result<()> {
        let archive = self.dir.join("import.tar");
        let packed = Command::new("tar").arg("-C").arg(rootfs).arg("-cf").arg(&archive).arg(".").status()?;
        ensure!(packed.success(), "tar cannot pack the root file system");
        let mut post = Command::new("curl");
        post.args(["--silent", "--show-error", "--fail", "--unix-socket"]).arg(self.socket());
        post.args(["-X", "POST", "-H", "Content-Type: application/x-tar", "--data-binary"]);
        post.arg(format!("@{}", archive.display()));
        post.arg(format!("http://docker/images/create?fromSrc=-&repo={name}&changes=ENV%20PATH%3D/bin"));
        let output = post.output().context("cannot start curl")?;
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success() && !said.contains("error"), "the image is not imported: {said}");
        Ok(())
    }

    /// Docker's Compose, to be given its arguments; with a configuration of its own in [`Docker::config`].
    pub fn compose(&self) -> Command {
        let mut command = Command::new(self.programs.join("usr/libexec/docker/cli-plugins/docker-compose"));
        command.args(["--ansi", "never", "--progress", "plain"]).stdin(Stdio::null());
        command.env("DOCKER_HOST", format!("unix://{}", self.socket().display()));
        command.env("DOCKER_CONFIG", self.config());
        command
    }

    /// The folder of Docker's client's configuration.
    pub fn config(&self) -> PathBuf {
        self.dir.join("config")
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        // Asked to end, it ends its containers and containerd; killed, it would leave them.
        let _ = Command::new("kill").arg(self.engine.id().to_string()).status();
        let begun = Instant::now();
        while matches!(self.engine.try_wait(), Ok(None)) && begun.elapsed() < Duration::from_secs(30) {
            thread::sleep(Duration::from_millis(20));
        }
        let _ = self.engine.kill();
        let _ = self.engine.wait();
        // Docker leaves a group in each hierarchy; those in use stay.
        for hierarchy in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            let _ = fs::remove_dir(hierarchy.path().join("docker"));
        }
    }
}
