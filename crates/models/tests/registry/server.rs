//! A real registry on a free port of loopback, gone with its owner.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use pontoon_testbed::{Scratch, find_tool};

pub(crate) const USER: &str = "me";
pub(crate) const PASSWORD: &str = "secret";

pub(crate) struct Registry {
    process: Child,
    pub(crate) port: u16,
    folder: Scratch,
}

impl Registry {
    /// Starts one, open to all.
    pub(crate) fn open() -> anyhow::Result<Self> {
        Self::start("", false)
    }

    /// Starts one that speaks TLS, with a certificate of its own for [`Registry::tls_name`].
    pub(crate) fn tls() -> anyhow::Result<Self> {
        Self::start("", true)
    }

    /// Starts one that wants a password.
    pub(crate) fn closed() -> anyhow::Result<Self> {
        let htpasswd = find_tool("htpasswd").context("no htpasswd: apt-get install apache2-utils")?;
        let output = Command::new(htpasswd).args(["-Bbn", USER, PASSWORD]).output()?;
        Self::start(std::str::from_utf8(&output.stdout)?.trim(), false)
    }

    fn start(users: &str, tls: bool) -> anyhow::Result<Self> {
        let program =
            find_tool("docker-registry").context("no docker-registry: apt-get install docker-registry")?;
        let folder = Scratch::new("regd")?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let path = folder.path().display();
        let mut config = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {path}/data\nhttp:\n  addr: 127.0.0.1:{port}\n"
        );
        if tls {
            let made = rcgen::generate_simple_self_signed(vec!["0.0.0.0".into()])?;
            fs::write(folder.path().join("cert.pem"), made.cert.pem())?;
            fs::write(folder.path().join("key.pem"), made.signing_key.serialize_pem())?;
            config += &format!("  tls:\n    certificate: {path}/cert.pem\n    key: {path}/key.pem\n");
        }
        if !users.is_empty() {
            fs::write(folder.path().join("users"), users)?;
            config += &format!("auth:\n  htpasswd:\n    realm: test\n    path: {path}/users\n");
        }
        fs::write(folder.path().join("config.yml"), config)?;
        let process = Command::new(program)
            .arg("serve")
            .arg(folder.path().join("config.yml"))
            .stdout(Stdio::null())
            .stderr(fs::File::create(folder.path().join("log"))?)
            .spawn()?;
        let registry = Self { process, port, folder };
        registry.wait()?;
        Ok(registry)
    }

    fn wait(&self) -> anyhow::Result<()> {
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(20) {
            if TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("docker-registry does not answer on port {}", self.port)
    }

    /// A name in this registry by an address that is not loopback to our client, and so needs TLS; Linux
    /// leads it to this machine all the same.
    pub(crate) fn tls_name(&self, rest: &str) -> String {
        format!("0.0.0.0:{}/{rest}", self.port)
    }

    /// The certificate of one with TLS.
    pub(crate) fn certificate(&self) -> PathBuf {
        self.folder.path().join("cert.pem")
    }

    /// A name in this registry.
    pub(crate) fn name(&self, rest: &str) -> String {
        format!("127.0.0.1:{}/{rest}", self.port)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The registry, or a visible skip.
pub(crate) fn ready(registry: anyhow::Result<Registry>) -> Option<Registry> {
    match registry {
        Ok(registry) => Some(registry),
        Err(error) => {
            pontoon_testbed::ready(Err(error));
            None
        }
    }
}
