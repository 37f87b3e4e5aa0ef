//! The daemon of the demo: started, waited for, and ended whatever happens.

use std::{
    fs::{self, File},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};

use crate::{demo::build::Programs, driver::Driver, engine::LLAMA_SERVER, signals};

const START_LIMIT: Duration = Duration::from_secs(30);
const END_LIMIT: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(20);

/// A running `pontoon serve`.
pub struct Host {
    daemon: Child,
    pontoon: PathBuf,
    socket: PathBuf,
    /// What it keeps: models, the state of engines.
    data: PathBuf,
}

impl Host {
    /// `pontoon ARGS`, told where the daemon is.
    pub fn pontoon(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.pontoon);
        command.args(args).env("PONTOON_HOST", self.address()).env("PONTOON_DATA", &self.data);
        command
    }

    pub fn address(&self) -> String {
        format!("unix:{}", self.socket.display())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        signals::ask_to_end(&self.daemon);
        let asked = Instant::now();
        while asked.elapsed() < END_LIMIT {
            if !matches!(self.daemon.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(POLL);
        }
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

/// Starts the daemon with a socket in a folder of its own, since guests get to see that folder. Started again, it
/// keeps the folder and goes on with the log.
pub fn start(
    programs: &Programs,
    driver: &Driver,
    scratch: &Path,
    out: &Path,
    llama_server: Option<&Path>,
) -> anyhow::Result<Host> {
    let folder = scratch.join("guest");
    fs::create_dir_all(&folder).context("cannot make a folder for the socket")?;
    let socket = folder.join("pontoon.sock");
    let log = out.join("serve.log");
    let output = File::options()
        .create(true)
        .append(true)
        .open(&log)
        .with_context(|| format!("cannot write {}", log.display()))?;
    let data = scratch.join("data");
    let mut command = Command::new(programs.pontoon());
    // The port may be another runner's: the demo's clients use the socket.
    let config = scratch.join("pontoon.toml");
    fs::write(&config, "[http]\nlisten = []\n").context("cannot write the demo's pontoon.toml")?;
    command.env("PONTOON_DATA", &data).envs(llama_server.map(|path| (LLAMA_SERVER, path)));
    command
        .arg("serve")
        .arg("--config")
        .arg(&config)
        .arg("--socket")
        .arg(&socket)
        .envs(driver.env())
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output);
    signals::end_with_parent(&mut command);
    let mut host = Host {
        daemon: command.spawn().context("cannot start pontoon serve")?,
        pontoon: programs.pontoon(),
        socket,
        data,
    };
    wait_for_socket(&mut host)
        .with_context(|| format!("pontoon serve did not come up (its log: {})", log.display()))?;
    println!("   listening on {}", host.socket.display());
    show_adapters(&host)?;
    Ok(host)
}

fn wait_for_socket(host: &mut Host) -> anyhow::Result<()> {
    let started = Instant::now();
    while UnixStream::connect(&host.socket).is_err() {
        if let Some(status) = host.daemon.try_wait()? {
            bail!("it ended with {status}");
        }
        ensure!(started.elapsed() < START_LIMIT, "no answer after {} s", START_LIMIT.as_secs());
        thread::sleep(POLL);
    }
    Ok(())
}

/// Which adapter serves must always be visible.
fn show_adapters(host: &Host) -> anyhow::Result<()> {
    let output = host
        .pontoon(&["gpu", "list"])
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start pontoon gpu list")?;
    ensure!(output.status.success(), "pontoon gpu list ended with {}", output.status);
    print_indented(&String::from_utf8_lossy(&output.stdout));
    Ok(())
}

pub fn print_indented(text: &str) {
    for line in text.lines() {
        println!("   {line}");
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use pontoon_testbed::Scratch;

    use super::*;

    /// A folder with a shell script that poses as `pontoon`.
    fn impostor(scratch: &Scratch, script: &str) -> Programs {
        let pontoon = scratch.path().join("pontoon");
        fs::write(&pontoon, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&pontoon, fs::Permissions::from_mode(0o755)).unwrap();
        Programs { host: scratch.path().to_owned(), guest: scratch.path().to_owned() }
    }

    #[test]
    fn an_early_end_is_a_sentence() {
        let scratch = Scratch::new("serve").unwrap();
        let programs = impostor(&scratch, "exit 3");
        let result = start(&programs, &Driver::Missing, scratch.path(), scratch.path(), None);
        let error = result.err().unwrap();
        let expected = format!(
            "pontoon serve did not come up (its log: {}): it ended with exit status: 3",
            scratch.path().join("serve.log").display()
        );
        assert_eq!(format!("{error:#}"), expected);
    }

    #[test]
    fn the_daemon_is_ended_with_its_owner() {
        let scratch = Scratch::new("serve").unwrap();
        let programs = impostor(&scratch, "exec sleep 60");
        let mut command = Command::new(programs.pontoon());
        signals::end_with_parent(&mut command);
        let host = Host {
            daemon: command.spawn().unwrap(),
            pontoon: programs.pontoon(),
            socket: scratch.path().join("none.sock"),
            data: scratch.path().join("data"),
        };
        let process = PathBuf::from(format!("/proc/{}", host.daemon.id()));
        assert!(process.exists());
        drop(host);
        assert!(!process.exists());
    }
}
