//! The guest library: programs written for `wgpu` use a host's GPU where they run without one.
//!
//! ```no_run
//! let instance = pontoon_client::instance()?; // endpoint from PONTOON_HOST, token from PONTOON_TOKEN
//! # let _: wgpu::Instance = instance;
//! # Ok::<(), pontoon_client::Error>(())
//! ```
//!
//! From there on everything is `wgpu`. Commands are recorded and batched here and executed on the host;
//! a call waits for the host only where the program asked for a value that only the host has. Errors
//! come back once each, to the error scope that was open when the command was issued, no later than
//! the program's next synchronisation point (`poll`, a popped scope, a mapping).

mod adapter;
mod bind;
mod buffer;
mod bundle;
mod compute;
mod connect;
mod device;
mod encoder;
mod error;
mod ids;
mod incoming;
mod instance;
mod ivshmem;
mod mapped;
mod objects;
mod pipeline;
pub mod places;
mod queue;
mod render;
mod scopes;
mod session;
mod state;
mod unsupported;

use std::path::Path;

pub use error::Error;
pub use pontoon_transport::Endpoint;
pub use state::RemoteError;

/// How to reach a host.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where the host listens.
    pub endpoint: Endpoint,
    /// Bearer token, for hosts that ask for one.
    pub token: String,
    /// Whether a shared arena and ring are used where the transport has them; without, everything
    /// travels over the socket.
    pub shared_memory: bool,
    /// Whether data is compressed (LZ4) that travels over a socket and becomes smaller by it. It pays where the line is
    /// slower than some 3 Gbit/s.
    pub compress: bool,
    /// The program's name in `pontoon ps`.
    pub program: String,
}

impl Options {
    /// Options for `endpoint`, without a token.
    pub fn new(endpoint: Endpoint) -> Self {
        let program = std::env::args_os().next().unwrap_or_default();
        let program = Path::new(&program).file_name().unwrap_or_default();
        Self {
            endpoint,
            token: String::new(),
            shared_memory: true,
            compress: false,
            program: program.to_string_lossy().into_owned(),
        }
    }

    /// Options from `PONTOON_HOST` (where it is not set, [`places`] are tried), `PONTOON_TOKEN` (not sent over
    /// TCP to a host that was only found), `PONTOON_SHARED_MEMORY` (`0` turns it off) and `PONTOON_COMPRESSION`
    /// (`lz4` turns it on).
    ///
    /// # Errors
    /// [`Error::Compression`] for a way of compressing that is not known, [`Error::Address`] where `PONTOON_HOST` is no address, [`Error::Nowhere`] where it is not set and no host
    /// answers anywhere.
    pub fn from_environment() -> Result<Self, Error> {
        let named = std::env::var("PONTOON_HOST").ok().filter(|host| !host.is_empty());
        let endpoint = match &named {
            Some(host) => host.parse()?,
            None => places::find()?,
        };
        let mut options = Self::new(endpoint);
        // Who answers to a name that was only tried may be anybody: a secret goes to the host that was named.
        let sent = named.is_some() || !matches!(options.endpoint, Endpoint::Tcp(_));
        options.token = std::env::var("PONTOON_TOKEN").ok().filter(|_| sent).unwrap_or_default();
        options.shared_memory = std::env::var("PONTOON_SHARED_MEMORY").as_deref() != Ok("0");
        options.compress = match std::env::var("PONTOON_COMPRESSION").as_deref() {
            Err(_) | Ok("" | "none") => false,
            Ok("lz4") => true,
            Ok(other) => return Err(Error::Compression(other.to_owned())),
        };
        Ok(options)
    }
}

/// Connects to the host that the environment names.
///
/// # Errors
/// [`Error`]: one sentence that says what was tried and what was wrong.
pub fn instance() -> Result<wgpu::Instance, Error> {
    connect(Options::from_environment()?)
}

/// Connects to a host.
///
/// # Errors
/// [`Error`]: one sentence that says what was tried and what was wrong.
pub fn connect(options: Options) -> Result<wgpu::Instance, Error> {
    instance::ClientInstance::connect(options).map(wgpu::Instance::from_custom)
}

/// How often `instance`'s session has waited for the host so far. Programs that care about speed can
/// assert that their steady state adds nothing but what they asked for.
pub fn round_trips(instance: &wgpu::Instance) -> Option<u64> {
    instance.as_custom::<instance::ClientInstance>().map(|instance| instance.session().round_trips())
}
