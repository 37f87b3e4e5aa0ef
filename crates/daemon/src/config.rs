//! The configuration file, `pontoon.toml`. Every key is optional; `docs/configuration.md` explains each.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::Error;

/// The whole file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where guests connect.
    pub listen: Listen,
    /// Which GPUs are offered.
    pub gpu: Gpu,
    /// What one session may use.
    pub limits: Limits,
    /// Where the model runner listens, and for whom.
    pub http: pontoon_api::Config,
    /// The store of models, registries, and what holds for every model.
    pub models: pontoon_api::ModelsConfig,
    /// Where engines are found.
    pub engines: pontoon_engines::engine::EngineConfig,
    /// How callers are found out.
    pub callers: pontoon_callers::CallersConfig,
    /// What which callers get.
    pub policies: Vec<pontoon_callers::Policy>,
}

/// Where guests connect.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Listen {
    /// The guests' unix socket; default `$XDG_RUNTIME_DIR/pontoon/guest/pontoon.sock`, for root
    /// `/run/pontoon/guest/pontoon.sock`.
    pub socket: Option<PathBuf>,
    /// TCP address, `host:port`, in clear text; off unless set. Needs tokens.
    pub tcp: Option<String>,
    /// TCP address, `host:port`, with TLS 1.3; off unless set. `pontoon token create` makes what guests need.
    pub tls: Option<String>,
    /// Certificate and key of the TLS listener; made, once, where they are not set.
    pub certificate: Option<pontoon_api::Tls>,
    /// Who may connect over TCP, beside the tokens that `pontoon token create` has made.
    pub tokens: Vec<Token>,
    /// Port on the host's vsock for virtual machines; off unless set.
    pub vsock: Option<u32>,
    /// Virtual machines whose monitor offers their vsock as unix sockets.
    pub vms: Vec<Vm>,
}

/// A virtual machine whose monitor (Firecracker, cloud-hypervisor, vhost-device-vsock) offers its vsock as a
/// unix socket `uds`: what the guest dials on port P of context id 2 arrives on the socket `uds_P`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vm {
    /// The context id of the machine, by which policies and `pontoon ps` know it.
    pub cid: u32,
    /// The monitor's unix socket, without the port.
    pub uds: PathBuf,
    /// Port that the guest dials.
    #[serde(default = "default_port")]
    pub port: u32,
    /// The file behind the machine's `ivshmem-plain` device, if it has one: sessions have their memory there.
    #[serde(default)]
    pub memory: Option<PathBuf>,
}

impl Vm {
    /// The socket on which the guest's connections arrive.
    pub fn socket(&self) -> PathBuf {
        let mut name = self.uds.clone().into_os_string();
        name.push(format!("_{}", self.port));
        name.into()
    }
}

fn default_port() -> u32 {
    pontoon_transport::DEFAULT_PORT.into()
}

/// A bearer token and whom it stands for.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// Name of the tenant in `pontoon ps` and for limits.
    pub tenant: String,
    /// The secret; at least 16 characters.
    pub token: String,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "token of {}", self.tenant)
    }
}

/// What executes commands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// The host's GPU drivers.
    #[default]
    Gpu,
    /// Validates and executes nothing: for tests of the protocol.
    Noop,
}

/// Which GPUs are offered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Gpu {
    /// What executes commands: `gpu` or `noop`.
    pub backend: Backend,
    /// Only adapters whose name contains this text (any case) are offered.
    pub adapter: Option<String>,
    /// Whether a host with nothing but software adapters serves nobody instead.
    pub require_gpu: bool,
    /// Workers kept ready, so that sessions begin fast.
    pub pool: usize,
    /// User id that workers run as where the daemon is root; 0 keeps root (confined all the same).
    pub worker_uid: u32,
    /// Group id of the same.
    pub worker_gid: u32,
}

impl Default for Gpu {
    fn default() -> Self {
        Self {
            backend: Backend::Gpu,
            adapter: None,
            require_gpu: false,
            pool: 2,
            worker_uid: 65534,
            worker_gid: 65534,
        }
    }
}

/// What one session may use, and how many there may be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Bytes of GPU memory in buffers and textures of one session.
    pub memory_bytes: u64,
    /// Objects of one session.
    pub objects: u64,
    /// Upload bytes of one session that wait for a submission.
    pub bytes_in_flight: u64,
    /// Seconds that one submission may run.
    pub submission_seconds: u64,
    /// Seconds that one command may take on the host, the compilation of a pipeline included.
    pub command_seconds: u64,
    /// Bytes of shared memory for a session's uploads; a multiple of 4096.
    pub upload_bytes: u64,
    /// Bytes of shared memory for a session's mapped ranges; a multiple of 4096.
    pub download_bytes: u64,
    /// Sessions at once.
    pub sessions: usize,
    /// Sessions of one tenant at once.
    pub sessions_per_tenant: usize,
    /// Seconds that a caller may take to say who it is.
    pub handshake_seconds: u64,
    /// Bytes kept of what one tenant uploads without shared memory; 0 keeps nothing.
    pub kept_upload_bytes: u64,
    /// The same of all tenants, and of all live sessions, together.
    pub kept_upload_bytes_total: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes: 4 << 30,
            objects: 200_000,
            bytes_in_flight: 256 << 20,
            submission_seconds: 30,
            command_seconds: 60,
            upload_bytes: 64 << 20,
            download_bytes: 192 << 20,
            sessions: 64,
            sessions_per_tenant: 16,
            handshake_seconds: 5,
            kept_upload_bytes: 256 << 20,
            kept_upload_bytes_total: 1 << 30,
        }
    }
}

impl Limits {
    /// The executor's part.
    pub fn executor(&self) -> pontoon_executor::Limits {
        pontoon_executor::Limits {
            memory_bytes: self.memory_bytes,
            objects: self.objects,
            bytes_in_flight: self.bytes_in_flight,
            submission_seconds: self.submission_seconds,
        }
    }
}

/// What is wrong and where. The line itself is not repeated: it may hold a secret.
fn said(text: &str, error: &toml::de::Error) -> String {
    let at = error.span().map_or(0, |span| span.start).min(text.len());
    let line = text.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() + 1;
    format!("line {line}: {}", error.message().lines().next().unwrap_or_default())
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// [`Error::Config`] with the line and what is wrong with it.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let wrong = |message: String| Error::Config { path: path.display().to_string(), message };
        let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        let config: Self = toml::from_str(&text).map_err(|error| wrong(said(&text, &error)))?;
        config.check().map_err(wrong)?;
        Ok(config)
    }

    /// What is wrong with values that are well-formed.
    ///
    /// # Errors
    /// One sentence with the key, its value and the limit.
    pub fn check(&self) -> Result<(), String> {
        let limits = &self.limits;
        let at_least_one = [
            ("limits.objects", limits.objects),
            ("limits.submission_seconds", limits.submission_seconds),
            ("limits.command_seconds", limits.command_seconds),
            ("limits.handshake_seconds", limits.handshake_seconds),
            ("limits.sessions", limits.sessions as u64),
            ("limits.sessions_per_tenant", limits.sessions_per_tenant as u64),
        ];
        for (key, value) in at_least_one {
            if value == 0 {
                return Err(format!("{key} is 0, the minimum is 1"));
            }
        }
        for (key, value) in &at_least_one[1..4] {
            if *value > 86_400 {
                return Err(format!("{key} is {value}, the maximum is 86400 (a day)"));
            }
        }
        for (key, value) in
            [("limits.upload_bytes", limits.upload_bytes), ("limits.download_bytes", limits.download_bytes)]
        {
            if !value.is_multiple_of(4096) || !((1 << 20)..=(1 << 36)).contains(&value) {
                return Err(format!("{key} is {value}; it must be a multiple of 4096 from 1 MiB to 64 GiB"));
            }
        }
        for (key, value) in [
            ("limits.kept_upload_bytes", limits.kept_upload_bytes),
            ("limits.kept_upload_bytes_total", limits.kept_upload_bytes_total),
        ] {
            if value > 1 << 40 {
                return Err(format!("{key} is {value}, the maximum is {} (1 TiB)", 1u64 << 40));
            }
        }
        self.http.check()?;
        self.models.check()?;
        pontoon_callers::check_policies(&self.policies)?;
        if self.gpu.pool > 64 {
            return Err(format!("gpu.pool is {}, the maximum is 64", self.gpu.pool));
        }
        for (key, address) in [("listen.tcp", &self.listen.tcp), ("listen.tls", &self.listen.tls)] {
            let whole = |address: &str| {
                let parts = address.rsplit_once(':');
                parts.is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
            };
            if let Some(address) = address.as_deref().filter(|address| !whole(address)) {
                return Err(format!("{key} is '{address}'; it must be HOST:PORT"));
            }
        }
        if self.listen.vsock == Some(0) {
            return Err("listen.vsock is 0, the minimum is 1".into());
        }
        for (at, vm) in self.listen.vms.iter().enumerate() {
            if vm.cid < 3 || vm.cid == u32::MAX {
                return Err(format!("listen.vms.cid is {}; virtual machines have 3 to 4294967294", vm.cid));
            }
            if self.listen.vms[..at].iter().any(|other| other.cid == vm.cid) {
                return Err(format!("listen.vms.cid {} is there twice", vm.cid));
            }
            if !vm.uds.is_absolute() || vm.port == 0 {
                let (uds, port) = (vm.uds.display(), vm.port);
                return Err(format!(
                    "listen.vms.uds is '{uds}' and port {port}; an absolute path and a port of at least 1 are needed"
                ));
            }
            if self.listen.vms[..at].iter().any(|other| other.socket() == vm.socket()) {
                return Err(format!(
                    "listen.vms.uds {} with port {} is there twice",
                    vm.uds.display(),
                    vm.port
                ));
            }
            if let Some(memory) = vm.memory.as_ref().filter(|memory| !memory.is_absolute()) {
                return Err(format!(
                    "listen.vms.memory is '{}'; it must be an absolute path",
                    memory.display()
                ));
            }
            if let Some(memory) = &vm.memory
                && self.listen.vms[..at].iter().any(|other| other.memory.as_ref() == Some(memory))
            {
                return Err(format!("listen.vms.memory {} is there twice", memory.display()));
            }
        }
        for token in &self.listen.tokens {
            let len = token.token.len();
            if !(16..=pontoon_wire::limits::MAX_TOKEN_BYTES).contains(&len) {
                return Err(format!(
                    "the token of tenant '{}' has {len} characters; it needs 16 to 512",
                    token.tenant
                ));
            }
        }
        Ok(())
    }

    /// The guests' socket.
    pub fn socket(&self) -> PathBuf {
        self.listen.socket.clone().unwrap_or_else(crate::paths::default_socket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_keys_and_impossible_values_are_named() {
        let unknown = toml::from_str::<Config>("[limits]\nmemmory_bytes = 1").unwrap_err().to_string();
        assert!(unknown.contains("memmory_bytes") && unknown.contains("memory_bytes"), "{unknown}");
        let config: Config = toml::from_str("[limits]\nupload_bytes = 5000").unwrap();
        assert!(config.check().unwrap_err().contains("limits.upload_bytes is 5000"));
        let config: Config = toml::from_str("[[listen.tokens]]\ntenant = 'a'\ntoken = 'short'").unwrap();
        assert!(config.check().unwrap_err().contains("tenant 'a' has 5 characters"));
        assert_eq!(toml::from_str::<Config>("").unwrap(), Config::default());
    }
}
