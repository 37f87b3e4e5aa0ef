//! Owns talking to registries and to the hub: pulling and pushing artifacts.
//!
//! Downloads are continued where they stopped, also after a kill, run in parallel, and are verified
//! while they stream. What can be waited for (a busy registry, a broken connection) is waited for;
//! everything else is one clear error.

mod auth;
mod blob;
mod credentials;
mod endpoint;
mod http;
mod hub;
mod pull;
mod push;

use std::{collections::BTreeMap, env, path::PathBuf, sync::Arc, time::Duration};

use crate::{Artifact, Digest, Model, Policy, Progress, Reference, Result, Store};

pub use credentials::{Credentials, Login};

/// How registries are reached.
#[derive(Clone, Debug)]
pub struct Options {
    /// For a registry, where to ask before it: `host[:port][/path]`, or a URL.
    pub mirrors: BTreeMap<String, Vec<String>>,
    /// Registries that are spoken to without TLS. Those on loopback always are.
    pub insecure: Vec<String>,
    /// PEM files of authorities that are trusted beside the system's.
    pub certificates: Vec<PathBuf>,
    pub credentials: Credentials,
    pub hub: Hub,
    /// Blobs that are transferred at once.
    pub parallel: usize,
    /// How often a request is repeated without getting any further.
    pub retries: u32,
    /// The pause before the first repetition; it doubles each time.
    pub backoff: Duration,
    /// The longest that a registry may ask us to wait; beyond, it is an error.
    pub patience: Duration,
    /// The longest silence of a connection.
    pub silence: Duration,
    pub policy: Policy,
}

/// Where models named `hf.co/…` come from.
#[derive(Clone, Debug)]
pub struct Hub {
    /// A URL without a slash at the end.
    pub endpoint: String,
    pub token: Option<String>,
}

impl Default for Hub {
    /// The endpoint and token that the hub's own tools use: `HF_ENDPOINT`, `HF_TOKEN`, or the token
    /// file below `HF_HOME`.
    fn default() -> Self {
        let endpoint = env::var("HF_ENDPOINT").ok().filter(|it| !it.is_empty());
        let token_file = || {
            let home = env::var_os("HF_HOME").map(PathBuf::from);
            let home = home.or_else(|| env::home_dir().map(|home| home.join(".cache/huggingface")))?;
            std::fs::read_to_string(home.join("token")).ok()
        };
        let token = env::var("HF_TOKEN").ok().or_else(token_file).map(|token| token.trim().to_owned());
        Self {
            endpoint: endpoint
                .unwrap_or_else(|| "https://huggingface.co".to_owned())
                .trim_end_matches('/')
                .to_owned(),
            token: token.filter(|token| !token.is_empty()),
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            mirrors: BTreeMap::new(),
            insecure: Vec::new(),
            certificates: Vec::new(),
            credentials: Credentials::default(),
            hub: Hub::default(),
            parallel: 4,
            retries: 5,
            backoff: Duration::from_millis(300),
            patience: Duration::from_secs(60),
            silence: Duration::from_secs(60),
            policy: Policy::default(),
        }
    }
}

/// Talks to registries. Clones share connections and tokens.
#[derive(Clone)]
pub struct Client {
    http: Arc<http::Http>,
}

impl Client {
    pub fn new(options: Options) -> Result<Self> {
        Ok(Self { http: Arc::new(http::Http::new(options)?) })
    }

    /// Brings a model into the store under its name. Dropping the future stops it; what has come
    /// stays and the next pull continues it.
    pub async fn pull(&self, store: &Store, name: &Reference, progress: Progress) -> Result<Model> {
        let digest = match name.is_hub() {
            true => hub::pull(&self.http, store, name, &progress).await?,
            false => pull::pull(&self.http, store, name, &progress, true).await?,
        };
        let store = store.clone();
        blocking(move || store.model(&digest)).await
    }

    /// The same for an artifact of any kind.
    pub async fn pull_artifact(
        &self,
        store: &Store,
        name: &Reference,
        progress: Progress,
    ) -> Result<Artifact> {
        let digest = pull::pull(&self.http, store, name, &progress, false).await?;
        let store = store.clone();
        blocking(move || store.artifact(&digest.to_string())).await
    }

    /// Sends an artifact of the store to a registry under a name.
    pub async fn push(
        &self,
        store: &Store,
        name: &str,
        to: &Reference,
        progress: Progress,
    ) -> Result<Digest> {
        push::push(&self.http, store, name, to, &progress).await
    }

    /// A model as its registry has it now, which need not be here: only its configuration is fetched. Its
    /// digest tells whether there is something newer than what `store` has.
    pub async fn remote_model(&self, store: &Store, name: &Reference) -> Result<Model> {
        pull::remote_model(&self.http, store, name).await
    }
}

/// Runs what blocks on a thread of its own.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
