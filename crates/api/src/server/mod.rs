//! The server: what all requests share, and its life from binding to the last answer.

pub mod connection;
pub mod gate;
pub mod handle;
pub mod lanes;
pub mod listen;
pub mod wire;

use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use hyper::HeaderMap;
use pontoon_callers::Directory;
use pontoon_engines::Runner;
use pontoon_models::{Store, registry};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::answers::Answers;
use crate::caller::Caller;
use crate::config::Config;
use crate::infer::engine::Engines;
use crate::keys::Keys;
use crate::logs::LogTail;
use crate::manage::cards::Cards;
use crate::metrics::Metrics;
use crate::rates::Rates;
use crate::recorder::Recorder;
use connection::Places;
use lanes::Lanes;
use listen::{Handles, Listener};

/// What the model runner's HTTP is made of.
pub struct Api {
    /// `[http]`.
    pub config: Config,
    /// Loads and runs models.
    pub runner: Runner,
    /// Where models are.
    pub store: Store,
    /// Where they come from, and which may be had: [`crate::ModelsConfig::registry`].
    pub registry: registry::Options,
    /// Pontoon's version.
    pub version: String,
    /// The daemon's own log.
    pub log: LogTail,
    /// Who callers are, and what they get.
    pub directory: Arc<Directory>,
    /// Sockets of their own for policies that have one.
    pub devices: Vec<(Arc<str>, PathBuf)>,
    /// Families of metrics beside ours, in OpenMetrics without an end.
    pub more_metrics: Option<MoreMetrics>,
}

/// What writes them, at each question.
pub type MoreMetrics = Arc<dyn Fn() -> String + Send + Sync>;

/// What all requests share.
pub struct Shared {
    /// `[http]`.
    pub config: Config,
    /// Loads and runs models.
    pub runner: Runner,
    /// Where models are.
    pub store: Store,
    /// Where they come from.
    pub registry: registry::Client,
    /// Turns of work that is too long for an event loop, one for each processor.
    pub aside: Semaphore,
    /// The same before it was made, for pulls with a token of the caller's own.
    pub registry_options: registry::Options,
    /// Pontoon's version.
    pub version: String,
    /// The daemon's own log.
    pub log: LogTail,
    /// Who callers are, and what they get.
    pub directory: Arc<Directory>,
    /// Connections to engines.
    pub engines: Engines,
    /// Whose keys.
    pub keys: Keys,
    /// Who has used how much.
    pub rates: Arc<Rates>,
    /// Counters.
    pub metrics: Metrics,
    /// Requests that have been answered and not yet counted.
    pub settling: AtomicUsize,
    /// Families beside ours.
    pub more_metrics: Option<MoreMetrics>,
    /// Recent requests.
    pub recorder: Recorder,
    /// Answers that later requests may continue.
    pub answers: Answers,
    /// What is known of each model, for lists.
    pub cards: Cards,
    ids: Ids,
}

/// One request's circumstances.
pub struct Ask {
    /// What all requests share.
    pub shared: Arc<Shared>,
    /// Name of this request, `[0-9a-f]`, unique.
    pub id: String,
    /// Whom it counts for.
    pub caller: Caller,
    /// Whether it may manage models; with the sentence why not.
    pub manages: Result<(), String>,
    /// Path as sent.
    pub path: String,
    /// Query as sent.
    pub query: String,
    /// Headers.
    pub headers: HeaderMap,
    /// When its head was read.
    pub started: Instant,
    /// The same on the wall.
    pub at: SystemTime,
}

/// Unique names of requests.
#[derive(Debug)]
struct Ids {
    seed: u64,
    next: AtomicU64,
}

impl Shared {
    fn new(api: Api) -> Result<Arc<Self>, Error> {
        let config = api.config;
        let registry =
            registry::Client::new(api.registry.clone()).map_err(|error| Error::Config(error.to_string()))?;
        Ok(Arc::new(Self {
            runner: api.runner,
            store: api.store,
            registry,
            aside: Semaphore::new(std::thread::available_parallelism().map_or(2, usize::from)),
            registry_options: api.registry,
            version: api.version,
            log: api.log,
            directory: api.directory,
            engines: Engines::default(),
            keys: Keys::new(&config.keys),
            rates: Rates::new(&config),
            metrics: Metrics::default(),
            settling: AtomicUsize::new(0),
            more_metrics: api.more_metrics,
            recorder: Recorder::new(config.requests),
            answers: Answers::new(config.responses),
            cards: Cards::default(),
            ids: Ids { seed: RandomState::new().hash_one(SystemTime::now()), next: AtomicU64::new(0) },
            config,
        }))
    }

    /// A new name for a request.
    pub fn id(&self) -> String {
        let number = self.ids.next.fetch_add(1, Ordering::Relaxed);
        let digit = |number: u64, at: u32| char::from_digit((number >> (4 * at)) as u32 & 15, 16);
        let seed = (0..16).rev().filter_map(|at| digit(self.ids.seed, at));
        let mut id = String::with_capacity(24);
        id.extend(seed.chain((0..8).rev().filter_map(|at| digit(number, at))));
        id
    }
}

/// Why the server does not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration is wrong.
    #[error("{0}")]
    Config(String),
    /// An address or path cannot be listened on.
    #[error("cannot listen on {what}: {source}")]
    Listen {
        /// Address or path.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The certificate or its key cannot be used.
    #[error("cannot use the certificate in {}: {message}", .path.display())]
    Tls {
        /// File.
        path: PathBuf,
        /// Why.
        message: String,
    },
}

/// A running server.
pub struct Server {
    addresses: Vec<String>,
    stop: watch::Sender<bool>,
    accepting: JoinSet<()>,
    places: Arc<Places>,
    files: Vec<PathBuf>,
    handles: Handles,
}

/// Binds all listeners, then serves them.
///
/// # Errors
/// [`Error`], and then nothing listens.
pub async fn start(api: Api) -> Result<Server, Error> {
    api.config.check().map_err(Error::Config)?;
    let listeners = listen::bind(&api.config, &api.devices).await?;
    let shared = Shared::new(api)?;
    tokio::spawn(shared.engines.clone().follow(shared.runner.notices()));
    let (stop, stopped) = watch::channel(false);
    let places = Arc::new(Places::new(&shared.config.limits));
    let addresses = listeners.iter().map(Listener::address).collect();
    let files = listeners.iter().filter_map(Listener::file).collect();
    let mut accepting = JoinSet::new();
    let lanes =
        Lanes::start().map_err(|error| Error::Config(format!("no threads for connections: {error}")))?;
    let lanes = Arc::new(lanes);
    let handles = Handles { shared, places: places.clone(), lanes: lanes.clone(), stopped };
    for listener in listeners {
        accepting.spawn(listener.accept(handles.clone()));
    }
    Ok(Server { addresses, stop, accepting, places, files, handles })
}

/// Serves until `until` is ready, then for as long as answers take, at most ten seconds.
///
/// # Errors
/// As [`start`].
pub async fn serve(api: Api, until: impl Future<Output = ()>) -> Result<(), Error> {
    let server = start(api).await?;
    until.await;
    server.shutdown(Duration::from_secs(10)).await;
    Ok(())
}

impl Server {
    /// Where it listens: `http://127.0.0.1:12434`, `unix:/run/…`, `https://…`.
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// What serves listeners in containers' networks: it can be sent to another thread.
    pub fn forwarder(&self) -> Forwarder {
        Forwarder(self.handles.clone())
    }

    /// Stops listening, lets answers come to their end for `grace`, then cuts what is left.
    pub async fn shutdown(mut self, grace: Duration) {
        self.accepting.abort_all();
        while self.accepting.join_next().await.is_some() {}
        for file in &self.files {
            let _ = std::fs::remove_file(file);
        }
        self.stop.send_replace(true);
        if tokio::time::timeout(grace, self.places.empty()).await.is_err() {
            log::warn!("cut {} connections whose answers took longer than {grace:?}", self.places.taken());
            self.places.cut();
        }
    }
}

/// Serves listeners that are in networks of containers.
#[derive(Clone)]
pub struct Forwarder(Handles);

impl Forwarder {
    /// Serves a bound TCP listener until the future ends, `container` (64 hexadecimal digits) being who calls on it
    /// and `device` the policy whose device it was given.
    ///
    /// # Errors
    /// The system's, where the listener cannot be used.
    pub async fn serve(
        self,
        listener: std::net::TcpListener,
        container: Arc<str>,
        device: Option<Arc<str>>,
    ) -> std::io::Result<()> {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        Listener::Forwarded(listener, container, device).accept(self.0).await;
        Ok(())
    }

    /// The same of a unix listener that the virtual machine `cid` reaches.
    ///
    /// # Errors
    /// As [`Forwarder::serve`].
    pub async fn serve_machine(
        self,
        listener: std::os::unix::net::UnixListener,
        cid: u32,
    ) -> std::io::Result<()> {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::UnixListener::from_std(listener)?;
        Listener::Machine(listener, cid).accept(self.0).await;
        Ok(())
    }
}

/// As many permits as a semaphore may have.
pub(crate) const fn permits(wanted: usize) -> usize {
    if wanted < Semaphore::MAX_PERMITS { wanted } else { Semaphore::MAX_PERMITS }
}
