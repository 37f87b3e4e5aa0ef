//! The guest of the demo: a busybox root file system with the example programs, and the engine
//! that runs it here.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, ensure};
use pontoon_testbed::{Podman, add_program, busybox_rootfs, find_tool};

use crate::demo::{
    build::Programs,
    programs::PROGRAMS,
    serve::{Host, print_indented},
};

/// What makes a container of the root file system.
enum Engine {
    Podman(Podman),
    Bubblewrap,
}

/// Where commands can be run without a GPU.
pub struct Guest {
    engine: Engine,
    rootfs: PathBuf,
}

impl Guest {
    pub fn engine_name(&self) -> &'static str {
        match self.engine {
            Engine::Podman(_) => "podman",
            Engine::Bubblewrap => "bwrap",
        }
    }

    /// `pontoon run … COMMAND`, with `out` of the host mounted on `/mnt`.
    pub fn command(&self, host: &Host, out: Option<&Path>, command: &[&str]) -> Command {
        let mut run = host.pontoon(&["run", "--gpu", "--network", "none"]);
        run.args(["--engine", self.engine_name()]);
        if let Some(out) = out {
            let mut mount = out.as_os_str().to_owned();
            mount.push(":/mnt");
            run.arg("-v").arg(mount);
        }
        run.arg(&self.rootfs).args(command).stdin(Stdio::null());
        if let Engine::Podman(podman) = &self.engine {
            run.envs(podman.env());
        }
        run
    }
}

/// Makes the root file system and finds an engine that really starts it.
pub fn prepare(programs: &Programs, scratch: &Path) -> anyhow::Result<Guest> {
    let rootfs = busybox_rootfs(scratch)?;
    for program in &PROGRAMS {
        let from = programs.guest.join(program.name);
        fs::copy(&from, rootfs.join("bin").join(program.name))
            .with_context(|| format!("cannot copy {}", from.display()))?;
    }
    add_program(&rootfs, "curl")?;
    let engine = working_engine(&rootfs, scratch)?;
    let guest = Guest { engine, rootfs };
    println!("   busybox, curl and the three programs, run by {}", guest.engine_name());
    Ok(guest)
}

/// Podman if it starts a container here, else bubblewrap.
fn working_engine(rootfs: &Path, scratch: &Path) -> anyhow::Result<Engine> {
    let podman = Podman::new(scratch).and_then(|podman| {
        podman.available(rootfs)?;
        Ok(podman)
    });
    let reason = match podman {
        Ok(podman) => return Ok(Engine::Podman(podman)),
        Err(reason) => reason,
    };
    println!("   no podman here ({reason:#}); trying bubblewrap");
    bubblewrap_starts(rootfs).context("neither podman nor bubblewrap starts a container here")?;
    Ok(Engine::Bubblewrap)
}

fn bubblewrap_starts(rootfs: &Path) -> anyhow::Result<()> {
    let program = find_tool("bwrap").context("bubblewrap is missing (Debian: bubblewrap)")?;
    let output = Command::new(program)
        .args(["--unshare-all", "--ro-bind"])
        .arg(rootfs)
        .args(["/", "--", "/bin/true"])
        .output()
        .context("cannot start bwrap")?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}", text.trim());
    Ok(())
}

/// Lists what would be a GPU or a network, from within.
const LOOK_AROUND: &str = "\
for node in /dev/dri /dev/kfd /dev/nvidia* /dev/dxg; do [ -e $node ] && echo gpu: $node; done
ip -o link | while IFS=': ' read -r number name rest; do echo net: $name; done
exit 0";

/// Shows that the container has no GPU device and no network, or fails.
pub fn show_isolation(guest: &Guest, host: &Host) -> anyhow::Result<()> {
    let output = guest
        .command(host, None, &["/bin/sh", "-c", LOOK_AROUND])
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start pontoon run")?;
    ensure!(output.status.success(), "pontoon run ended with {}", output.status);
    let text = String::from_utf8_lossy(&output.stdout);
    print_indented(&text);
    ensure!(is_isolated(&text), "the container should see nothing but its loopback (net: lo)");
    println!("   no GPU device, no network but its own loopback");
    Ok(())
}

fn is_isolated(seen: &str) -> bool {
    seen.trim() == "net: lo"
}

#[cfg(test)]
mod tests {
    use pontoon_testbed::{Scratch, ready};

    use super::*;

    /// The script itself, in a real container and on the host.
    #[test]
    fn looking_around() {
        let scratch = Scratch::new("look").unwrap();
        let Ok(rootfs) = busybox_rootfs(scratch.path()) else {
            ready(busybox_rootfs(scratch.path()).map(drop));
            return;
        };
        if !ready(bubblewrap_starts(&rootfs)) {
            return;
        }
        let output = Command::new("bwrap")
            .args(["--unshare-all", "--ro-bind"])
            .arg(&rootfs)
            .args(["/", "--dev", "/dev", "--", "/bin/sh", "-c", LOOK_AROUND])
            .output()
            .unwrap();
        let seen = String::from_utf8(output.stdout).unwrap();
        assert!(is_isolated(&seen), "{seen}");
        assert!(!is_isolated("gpu: /dev/dri\nnet: lo\n"));
        assert!(!is_isolated("net: lo\nnet: eth0\n"));
        assert!(!is_isolated(""));
    }
}
