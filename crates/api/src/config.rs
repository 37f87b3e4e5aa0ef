//! The sections `[http]` and `[models]` of the configuration file.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use pontoon_engines::{Memory, Settings};
use pontoon_models::{Policy, registry};
use serde::{Deserialize, Serialize};

/// `[http]`: where the model runner listens, for whom, and with what limits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether the daemon runs models at all.
    pub enabled: bool,
    /// Loopback addresses, without TLS. Empty = no TCP on loopback.
    pub listen: Vec<SocketAddr>,
    /// The guests' unix socket; the daemon chooses it beside its other socket unless it is set.
    pub socket: Option<PathBuf>,
    /// The operator's unix socket, in a folder of its own that only this user may enter.
    pub admin: Option<PathBuf>,
    /// An address that other machines reach; needs `tls` and at least one key.
    pub remote: Option<SocketAddr>,
    /// Certificate and key of the remote listener.
    pub tls: Option<Tls>,
    /// Who may call the remote listener; a key also names its caller on the local ones.
    pub keys: Vec<Key>,
    /// Whether local callers need a key as well.
    pub require_keys: bool,
    /// Further names that a local `Host` header may carry (a defence against DNS rebinding).
    pub hosts: Vec<String>,
    /// Web pages (`https://host[:port]`) that may call from a browser; none unless listed.
    pub origins: Vec<String>,
    /// What each caller without a key of its own may use.
    pub each_caller: Allowance,
    /// Limits on connections and bodies.
    pub limits: Limits,
    /// The record of recent requests.
    pub requests: Requests,
    /// Answers kept for the Responses API.
    pub responses: Responses,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: true,
            listen: vec![([127, 0, 0, 1], 12434).into(), (std::net::Ipv6Addr::LOCALHOST, 12434).into()],
            socket: None,
            admin: None,
            remote: None,
            tls: None,
            keys: Vec::new(),
            require_keys: false,
            hosts: Vec::new(),
            origins: Vec::new(),
            each_caller: Allowance::default(),
            limits: Limits::default(),
            requests: Requests::default(),
            responses: Responses::default(),
        }
    }
}

/// PEM files of the remote listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The certificate and those that lead to its authority.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// A bearer key and whom it stands for.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// Name of the caller in records, metrics and the queue.
    pub tenant: String,
    /// The secret; 16 to 512 characters.
    pub key: String,
    /// What the caller may use; that of `each_caller` unless set.
    #[serde(default)]
    pub allowance: Option<Allowance>,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "key of {}", self.tenant)
    }
}

/// What one caller may use. Absent = no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Allowance {
    /// Requests a minute.
    pub requests_per_minute: Option<u32>,
    /// Tokens a minute, prompts and answers together.
    pub tokens_per_minute: Option<u32>,
    /// Requests at once, those that wait in the queue included.
    pub parallel: Option<u32>,
    /// Share of a model's turns beside other callers, 1 to 1000.
    pub weight: u32,
}

impl Default for Allowance {
    fn default() -> Self {
        Self { requests_per_minute: None, tokens_per_minute: None, parallel: None, weight: 1 }
    }
}

/// Limits on connections and bodies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Connections at once.
    pub connections: usize,
    /// Connections of one caller at once.
    pub connections_per_caller: usize,
    /// Bytes of one request's head; at least 8192.
    pub header_bytes: usize,
    /// Bytes of one request's body (a tar of a model is streamed and has no limit).
    pub body_bytes: usize,
    /// Seconds that a request's head may take from its first byte, and a TLS handshake.
    pub header_seconds: u64,
    /// Seconds that a request's body may take.
    pub body_seconds: u64,
    /// Seconds that a connection may stay open without a request.
    pub idle_seconds: u64,
    /// Seconds that a caller may refuse to take bytes of its answer.
    pub write_seconds: u64,
    /// Seconds that an engine may be silent while it works on a request.
    pub engine_seconds: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4096,
            connections_per_caller: 1024,
            header_bytes: 32 << 10,
            body_bytes: 64 << 20,
            header_seconds: 10,
            body_seconds: 60,
            idle_seconds: 300,
            write_seconds: 60,
            engine_seconds: 900,
        }
    }
}

/// The record of recent requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Requests {
    /// Requests kept of each model.
    pub keep: usize,
    /// Whether prompts and answers are kept as well, in memory; visible to their own caller and the operator.
    pub bodies: bool,
    /// Bytes kept of each body.
    pub body_bytes: usize,
}

impl Default for Requests {
    fn default() -> Self {
        Self { keep: 50, bodies: false, body_bytes: 64 << 10 }
    }
}

/// Answers kept in memory for the Responses API (`previous_response_id`, `GET /v1/responses/{id}`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Responses {
    /// Bytes of all callers together.
    pub bytes: usize,
    /// Bytes of one caller.
    pub bytes_per_caller: usize,
    /// Seconds that an answer is kept.
    pub keep_seconds: u64,
}

impl Default for Responses {
    fn default() -> Self {
        Self { bytes: 256 << 20, bytes_per_caller: 32 << 20, keep_seconds: 24 * 3600 }
    }
}

impl Config {
    /// What is wrong with values that are well-formed.
    ///
    /// # Errors
    /// One sentence with the key, its value and the limit.
    pub fn check(&self) -> Result<(), String> {
        self.check_listeners()?;
        self.check_keys()?;
        self.each_caller.check("http.each_caller")?;
        self.limits.check()?;
        let requests = &self.requests;
        for (key, value, maximum) in [
            ("http.requests.keep", requests.keep, 10_000),
            ("http.requests.body_bytes", requests.body_bytes, 16 << 20),
            ("http.responses.bytes", self.responses.bytes, 1 << 36),
            ("http.responses.bytes_per_caller", self.responses.bytes_per_caller, 1 << 36),
        ] {
            if value > maximum {
                return Err(format!("{key} is {value}, the maximum is {maximum}"));
            }
        }
        match self.origins.iter().find(|origin| !origin.contains("://") || origin.ends_with('/')) {
            Some(origin) => {
                Err(format!("http.origins has '{origin}'; it must look like https://example.org"))
            }
            None => Ok(()),
        }
    }

    fn check_listeners(&self) -> Result<(), String> {
        if let Some(address) = self.listen.iter().find(|address| !address.ip().is_loopback()) {
            return Err(format!(
                "http.listen has {address}, which other machines reach; use http.remote, with http.tls and http.keys"
            ));
        }
        let Some(remote) = self.remote else { return Ok(()) };
        let missing = match (&self.tls, self.keys.is_empty()) {
            (Some(_), false) => return Ok(()),
            (None, false) => "http.tls (certificate and key) is",
            (Some(_), true) => "http.keys (at least one) is",
            (None, true) => "http.tls (certificate and key) and http.keys (at least one) are",
        };
        Err(format!(
            "http.remote is {remote}, but {missing} missing; without them nothing listens off loopback"
        ))
    }

    fn check_keys(&self) -> Result<(), String> {
        for (at, key) in self.keys.iter().enumerate() {
            let Key { tenant, key: secret, allowance } = key;
            if !(16..=512).contains(&secret.len()) || secret.contains(char::is_whitespace) {
                let len = secret.len();
                return Err(format!(
                    "the key of tenant '{tenant}' has {len} characters; it needs 16 to 512 and no blanks"
                ));
            }
            if tenant.is_empty() || tenant.len() > 64 || tenant.contains(|c: char| !c.is_ascii_graphic()) {
                return Err(format!(
                    "the tenant '{tenant}' in http.keys needs 1 to 64 visible ASCII characters"
                ));
            }
            if tenant.contains(':') {
                return Err(format!(
                    "the tenant '{tenant}' in http.keys has a ':', which marks callers without a key"
                ));
            }
            if self.keys[..at].iter().any(|other| other.key == *secret) {
                return Err(format!("the key of tenant '{tenant}' is there twice"));
            }
            if let Some(allowance) = allowance {
                allowance.check(&format!("the allowance of tenant '{tenant}'"))?;
            }
        }
        Ok(())
    }
}

impl Allowance {
    fn check(&self, whose: &str) -> Result<(), String> {
        if !(1..=1000).contains(&self.weight) {
            return Err(format!("{whose}: weight is {}; it must be 1 to 1000", self.weight));
        }
        let rates = [
            ("requests_per_minute", self.requests_per_minute),
            ("tokens_per_minute", self.tokens_per_minute),
            ("parallel", self.parallel),
        ];
        match rates.iter().find(|(_, value)| *value == Some(0)) {
            Some((key, _)) => {
                Err(format!("{whose}: {key} is 0, the minimum is 1; leave it out for no limit"))
            }
            None => Ok(()),
        }
    }
}

impl Limits {
    fn check(&self) -> Result<(), String> {
        for (key, value, minimum, maximum) in [
            ("connections", self.connections as u64, 1, 1 << 20),
            ("connections_per_caller", self.connections_per_caller as u64, 1, 1 << 20),
            ("header_bytes", self.header_bytes as u64, 8192, 1 << 20),
            ("body_bytes", self.body_bytes as u64, 1024, 1 << 30),
            ("header_seconds", self.header_seconds, 1, 3600),
            ("body_seconds", self.body_seconds, 1, 3600),
            ("idle_seconds", self.idle_seconds, 1, 86_400),
            ("write_seconds", self.write_seconds, 1, 3600),
            ("engine_seconds", self.engine_seconds, 1, 86_400),
        ] {
            if !(minimum..=maximum).contains(&value) {
                return Err(format!("http.limits.{key} is {value}; it must be {minimum} to {maximum}"));
            }
        }
        Ok(())
    }
}

/// `[models]`: the store, registries, policy and what the host sets for every model.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelsConfig {
    /// Folder of the store; the daemon chooses one unless it is set.
    pub folder: Option<PathBuf>,
    /// Registries to ask first, by registry: `"docker.io" = ["mirror.example:5000"]`.
    pub mirrors: BTreeMap<String, Vec<String>>,
    /// Registries (`host:port`) that are spoken to without TLS; loopback ones always are.
    pub insecure: Vec<String>,
    /// PEM files of authorities that registries' certificates may come from, beside the system's.
    pub certificates: Vec<PathBuf>,
    /// Blobs fetched at once.
    pub parallel: Option<usize>,
    /// Which models may be pulled and packaged.
    pub policy: Policy,
    /// Settings of every model unless its own configuration says otherwise.
    pub defaults: Settings,
    /// Memory for engines.
    pub memory: MemoryLimit,
    /// Bytes that an engine may take beyond what it had when it was ready, its prompt cache apart; 0 for no bound.
    pub growth_bytes: Option<u64>,
    /// The largest context that a request may ask for.
    pub max_context: Option<u32>,
    /// Bytes on disk for prompt caches of models that were unloaded.
    pub slot_cache_bytes: Option<u64>,
    /// Requests that may wait for models.
    pub queue: Option<usize>,
    /// Requests of one caller that may wait.
    pub queue_per_caller: Option<usize>,
}

/// Bytes of memory that engines may take; measured where it is not set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MemoryLimit {
    /// Main memory.
    pub host: Option<u64>,
    /// Memory of all GPUs together.
    pub gpu: Option<u64>,
}

impl ModelsConfig {
    /// What is wrong with values that are well-formed.
    ///
    /// # Errors
    /// One sentence with the key, its value and the limit.
    pub fn check(&self) -> Result<(), String> {
        if let Some(parallel) = self.parallel
            && !(1..=32).contains(&parallel)
        {
            return Err(format!("models.parallel is {parallel}; it must be 1 to 32"));
        }
        self.defaults.check().map_err(|error| format!("models.defaults: {error}"))
    }

    /// Puts these values into a runner's options, over the usual ones.
    pub fn apply(&self, options: &mut pontoon_engines::Options) {
        options.defaults = self.defaults.clone();
        if self.memory != MemoryLimit::default() {
            let usual = options.budget.unwrap_or_else(pontoon_engines::instance::detect_budget);
            options.budget = Some(Memory {
                host: self.memory.host.unwrap_or(usual.host),
                gpu: self.memory.gpu.unwrap_or(usual.gpu),
            });
        }
        options.growth = self.growth_bytes.or(options.growth);
        let queue = &mut options.queue;
        queue.queued = self.queue.unwrap_or(queue.queued);
        queue.queued_per_caller = self.queue_per_caller.unwrap_or(queue.queued_per_caller);
        options.max_context = self.max_context.unwrap_or(options.max_context);
        options.slot_cache_bytes = self.slot_cache_bytes.unwrap_or(options.slot_cache_bytes);
    }

    /// How registries are spoken to.
    pub fn registry(&self) -> registry::Options {
        let usual = registry::Options::default();
        registry::Options {
            mirrors: self.mirrors.clone(),
            insecure: self.insecure.clone(),
            certificates: self.certificates.clone(),
            policy: self.policy.clone(),
            parallel: self.parallel.unwrap_or(usual.parallel),
            ..usual
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn off_loopback_needs_tls_and_keys() {
        let parse = |text: &str| toml::from_str::<Config>(text).unwrap().check();
        assert!(parse("").is_ok());
        let open = parse("listen = ['0.0.0.0:12434']").unwrap_err();
        assert!(open.contains("0.0.0.0:12434") && open.contains("http.remote"), "{open}");
        let bare = parse("remote = '0.0.0.0:443'").unwrap_err();
        assert!(bare.contains("http.tls") && bare.contains("http.keys"), "{bare}");
        let keyless = parse("remote = '0.0.0.0:443'\n[tls]\ncertificate = 'c'\nkey = 'k'").unwrap_err();
        assert!(!keyless.contains("http.tls (") && keyless.contains("http.keys"), "{keyless}");
    }

    #[test]
    fn secrets_are_long_unique_and_never_printed() {
        let parse = |text: &str| toml::from_str::<Config>(text).unwrap();
        let short = parse("[[keys]]\ntenant = 'a'\nkey = 'short'");
        assert!(short.check().unwrap_err().contains("tenant 'a' has 5 characters"));
        let key = "[[keys]]\ntenant = 'a'\nkey = 'sk-0123456789abcdef'\n";
        let twice = parse(&format!("{key}{key}"));
        assert!(twice.check().unwrap_err().contains("twice"));
        assert!(!format!("{twice:?}").contains("0123456789"));
        let none = parse(&format!("{key}allowance = {{ parallel = 0 }}"));
        assert!(none.check().unwrap_err().contains("parallel is 0"));
    }
}
