//! Owns pulling an artifact from a registry: manifest, config, layers, commit.

use std::sync::Arc;

use reqwest::{Method, header::ACCEPT};
use tokio::{sync::Semaphore, task::JoinSet};

use super::{
    blob::{self, Source},
    blocking,
    endpoint::{self, Endpoint},
    http::{Http, expect_success},
};
use crate::{
    Digest, Error, Event, Model, Progress, Reference, Result, Store, Transfer, check,
    manifest::{Descriptor, Index, MAX_MANIFEST, Manifest},
    media,
    progress::Meter,
    store::Staging,
};

const PULL: &str = "pull";

/// What a registry has under a name.
struct Remote {
    bytes: Vec<u8>,
    manifest: Manifest,
    /// The place that answered, then the others that may have the blobs.
    places: Vec<Endpoint>,
}

pub(super) async fn pull(
    http: &Arc<Http>,
    store: &Store,
    name: &Reference,
    progress: &Progress,
    model_wanted: bool,
) -> Result<Digest> {
    progress.status(format!("resolving {}", name.familiar()));
    let (remote, staging) = begin(http, store, name, model_wanted).await?;
    if model_wanted {
        http.options.policy.check_model(&preview(&staging, &remote).await?, name)?;
    }
    room_for(&staging, &remote.manifest).await?;
    fetch_layers(http, &staging, &remote, progress).await?;
    finish(store, staging, remote, name, progress, model_wanted).await
}

/// A model as its registry has it now. Of its files only the configuration is fetched.
pub(super) async fn remote_model(http: &Arc<Http>, store: &Store, name: &Reference) -> Result<Model> {
    let (remote, staging) = begin(http, store, name, true).await?;
    Ok(Model { names: vec![name.clone()], ..preview(&staging, &remote).await? })
}

/// Manifest and configuration: enough to refuse before anything large is fetched.
async fn begin(
    http: &Arc<Http>,
    store: &Store,
    name: &Reference,
    model_wanted: bool,
) -> Result<(Remote, Arc<Staging>)> {
    http.options.policy.check_reference(name)?;
    let remote = resolve(http, name).await?;
    if model_wanted && !remote.manifest.is_model() {
        let found = remote.manifest.kind().to_owned();
        return Err(Error::WrongKind { name: name.familiar(), wanted: "model", found });
    }
    let opened = store.clone();
    let staging = Arc::new(blocking(move || opened.stage()).await?);
    let config = remote.manifest.config.clone();
    let quiet = Meter::new(&Progress::none(), String::new(), config.size, config.size, Transfer::Pull);
    fetch_from(http, &staging, &config, &remote.places, quiet).await?;
    Ok((remote, staging))
}

/// Asks the mirrors and the registry in turn. What the last one says is the answer if none has it.
async fn resolve(http: &Arc<Http>, name: &Reference) -> Result<Remote> {
    let mut places = endpoint::all(&http.options, name)?;
    let mut failure = None;
    for at in 0..places.len() {
        match resolve_at(http, &places[at], name).await {
            Ok((bytes, manifest)) => {
                places.drain(..at);
                return Ok(Remote { bytes, manifest, places });
            }
            Err(error) => {
                if at + 1 < places.len() {
                    log::warn!("mirror: {error}");
                }
                failure = Some(error);
            }
        }
    }
    Err(failure.unwrap_or_else(|| Error::NotFound(name.familiar())))
}

async fn resolve_at(http: &Arc<Http>, place: &Endpoint, name: &Reference) -> Result<(Vec<u8>, Manifest)> {
    let wanted = match (name.digest(), name.tag()) {
        (Some(digest), _) => digest.to_string(),
        (None, tag) => tag.unwrap_or_default().to_owned(),
    };
    let (bytes, media_type) = get_manifest(http, place, &wanted).await?;
    if !matches!(
        media_type.as_str(),
        media::INDEX | "application/vnd.docker.distribution.manifest.list.v2+json"
    ) {
        let manifest = parsed(place, &bytes)?;
        return Ok((bytes, manifest));
    }
    // An index: some tools wrap a single artifact so.
    let index: Index =
        serde_json::from_slice(&bytes).map_err(|error| Error::malformed("the index", error.to_string()))?;
    let first = index.manifests.first().ok_or_else(|| Error::malformed("the index", "it is empty"))?;
    let (bytes, _) = get_manifest(http, place, &first.digest.to_string()).await?;
    let manifest = parsed(place, &bytes)?;
    Ok((bytes, manifest))
}

/// A manifest that a registry gave; one that is none is the registry's fault, and often a page of something before it.
fn parsed(place: &Endpoint, bytes: &[u8]) -> Result<Manifest> {
    Manifest::parse(bytes).map_err(|error| Error::Remote {
        registry: place.registry.clone(),
        status: 200,
        detail: format!("{error}; is there a proxy or a login page in between?"),
    })
}

/// The bytes of a manifest and their media type. A digest that was asked for is checked.
async fn get_manifest(http: &Arc<Http>, place: &Endpoint, wanted: &str) -> Result<(Vec<u8>, String)> {
    let accept = [media::MANIFEST, media::DOCKER_MANIFEST, media::INDEX].join(", ");
    let url = place.url(&format!("manifests/{wanted}"))?;
    let response =
        http.send(place, PULL, Method::GET, url, |request| request.header(ACCEPT, &accept)).await?;
    let response = expect_success(place, response, wanted).await?;
    let content_type =
        response.headers().get("content-type").and_then(|it| it.to_str().ok()).unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim().to_owned();
    let bytes = http.small_body(&place.registry, response, MAX_MANIFEST as usize).await?;
    match wanted.parse::<Digest>() {
        Ok(wanted) if wanted != Digest::of(&bytes) => {
            Err(Error::Digest { what: "the manifest".to_owned(), wanted, found: Digest::of(&bytes) })
        }
        _ => Ok((bytes, media_type)),
    }
}

async fn preview(staging: &Arc<Staging>, remote: &Remote) -> Result<Model> {
    let (staging, bytes) = (staging.clone(), remote.bytes.clone());
    blocking(move || staging.preview(&bytes)).await
}

/// Whether the disk can hold what is still missing.
async fn room_for(staging: &Arc<Staging>, manifest: &Manifest) -> Result<()> {
    let (staging, layers) = (staging.clone(), manifest.layers.clone());
    blocking(move || staging.room_for(&layers)).await
}

async fn fetch_layers(
    http: &Arc<Http>,
    staging: &Arc<Staging>,
    remote: &Remote,
    progress: &Progress,
) -> Result<()> {
    let total = remote.manifest.size() - remote.manifest.config.size;
    let at_once = Arc::new(Semaphore::new(http.options.parallel.max(1)));
    let mut layers = remote.manifest.layers.clone();
    layers.sort_by_key(|layer| layer.digest);
    layers.dedup_by_key(|layer| layer.digest);
    let places = Arc::new(remote.places.clone());
    // Dropping the set stops all of them.
    let mut tasks = JoinSet::new();
    for layer in layers {
        let meter = Meter::new(progress, layer.digest.to_string(), layer.size, total, Transfer::Pull);
        let (http, staging, places, at_once) =
            (http.clone(), staging.clone(), places.clone(), at_once.clone());
        tasks.spawn(async move {
            let _turn = at_once.acquire().await;
            fetch_from(&http, &staging, &layer, &places, meter).await
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?;
    }
    Ok(())
}

struct RegistrySource<'a> {
    http: &'a Http,
    place: &'a Endpoint,
    blob: &'a Descriptor,
}

impl Source for RegistrySource<'_> {
    async fn ask(&self, range: Option<String>) -> Result<reqwest::Response> {
        let url = self.place.url(&format!("blobs/{}", self.blob.digest))?;
        let response = self
            .http
            .send(self.place, PULL, Method::GET, url, |it| blob::with_range(it, range.as_ref()))
            .await?;
        match response.status().as_u16() {
            416 => Ok(response),
            _ => expect_success(self.place, response, &self.blob.digest.to_string()).await,
        }
    }

    fn name(&self) -> &str {
        &self.place.registry
    }
}

/// Fetches a blob from the place that had the manifest, or from one of the others.
async fn fetch_from(
    http: &Arc<Http>,
    staging: &Arc<Staging>,
    blob: &Descriptor,
    places: &[Endpoint],
    meter: Meter,
) -> Result<()> {
    let mut failure = None;
    for place in places {
        let source = RegistrySource { http, place, blob };
        match blob::fetch(http, staging, blob, &source, meter.clone()).await {
            // Another place does not make room on our disk.
            Err(error @ (Error::DiskFull { .. } | Error::Io { .. })) => return Err(error),
            Err(error) => failure = Some(error),
            Ok(()) => return Ok(()),
        }
    }
    Err(failure.unwrap_or_else(|| Error::NotFound(blob.digest.to_string())))
}

async fn finish(
    store: &Store,
    staging: Arc<Staging>,
    remote: Remote,
    name: &Reference,
    progress: &Progress,
    model_wanted: bool,
) -> Result<Digest> {
    let (store, name, progress) = (store.clone(), name.clone(), progress.clone());
    blocking(move || {
        let digest = staging.commit(&remote.bytes, std::slice::from_ref(&name))?;
        if model_wanted {
            warn_of_damage(&store, &digest, &progress);
        }
        progress.tell(Event::Success(format!("pulled {} ({})", name.familiar(), digest.short())));
        Ok(digest)
    })
    .await
}

/// A model that no engine may see is kept, since it was asked for, but not in silence.
pub(super) fn warn_of_damage(store: &Store, digest: &Digest, progress: &Progress) {
    let looked =
        store.model(digest).and_then(|model| store.bundle(&model)).and_then(|bundle| check::facts(&bundle));
    if let Err(error) = looked {
        progress.tell(Event::Warning(format!("it will not run here: {error}")));
    }
}
