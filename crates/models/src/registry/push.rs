//! Owns pushing an artifact to a registry: the blobs that it lacks, then the manifest.

use std::{path::PathBuf, sync::Arc};

use futures_util::stream;
use reqwest::{
    Body, Method, Response, StatusCode, Url,
    header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, LOCATION, RANGE},
};
use tokio::{
    fs::File,
    io::{AsyncReadExt as _, AsyncSeekExt as _, SeekFrom},
    sync::{Mutex, Semaphore},
    task::JoinSet,
};

use super::{
    blocking,
    endpoint::{self, Endpoint, network},
    http::{Http, expect_success, explain},
};
use crate::{
    Artifact, Digest, Error, Event, Progress, Reference, Result, Store, Transfer, manifest::Descriptor,
    progress::Meter, store::Staging,
};

const PUSH: &str = "pull,push";
const PIECE: usize = 256 << 10;

/// One blob on its way.
#[derive(Clone)]
struct Upload {
    http: Arc<Http>,
    place: Endpoint,
    blob: Descriptor,
    file: PathBuf,
    /// Other repositories of the same registry that may have it.
    siblings: Vec<String>,
    meter: Arc<Mutex<Meter>>,
}

pub(super) async fn push(
    http: &Arc<Http>,
    store: &Store,
    name: &str,
    to: &Reference,
    progress: &Progress,
) -> Result<Digest> {
    let tag = to.tag().ok_or_else(|| Error::Reference {
        value: to.to_string(),
        reason: "pushing needs a tag, not a digest".to_owned(),
    })?;
    if to.is_hub() {
        return Err(Error::Reference {
            value: to.to_string(),
            reason: "the hub takes files, not artifacts; push to a registry".to_owned(),
        });
    }
    let (opened, name) = (store.clone(), name.to_owned());
    // The lease keeps the blobs though somebody removes the model meanwhile.
    let (artifact, _staging) = blocking(move || hold(&opened, &name)).await?;
    let place = endpoint::origin(&http.options, to)?;
    progress.status(format!("pushing {}", to.familiar()));
    push_blobs(http, store, &artifact, &place, to, progress).await?;
    put_manifest(http, store, &artifact, &place, tag).await?;
    progress.tell(Event::Success(format!("pushed {} ({})", to.familiar(), artifact.digest.short())));
    Ok(artifact.digest)
}

fn hold(store: &Store, name: &str) -> Result<(Artifact, Staging)> {
    let staging = store.stage()?;
    let artifact = store.artifact(name)?;
    for blob in artifact.manifest.blobs() {
        if !staging.keep(blob)? {
            return Err(Error::malformed(name, format!("its blob {} is missing", blob.digest)));
        }
    }
    Ok((artifact, staging))
}

async fn push_blobs(
    http: &Arc<Http>,
    store: &Store,
    artifact: &Artifact,
    place: &Endpoint,
    to: &Reference,
    progress: &Progress,
) -> Result<()> {
    let same_registry =
        |name: &&Reference| name.registry() == to.registry() && name.repository() != to.repository();
    let siblings: Vec<String> =
        artifact.names.iter().filter(same_registry).map(|name| name.repository().to_owned()).collect();
    let at_once = Arc::new(Semaphore::new(http.options.parallel.max(1)));
    let mut blobs: Vec<Descriptor> = artifact.manifest.blobs().cloned().collect();
    blobs.sort_by_key(|blob| blob.digest);
    blobs.dedup_by_key(|blob| blob.digest);
    let total = artifact.manifest.size();
    let mut tasks = JoinSet::new();
    for blob in blobs {
        let meter = Meter::new(progress, blob.digest.to_string(), blob.size, total, Transfer::Push);
        let file = store
            .blob(&blob.digest)
            .ok_or_else(|| Error::malformed(blob.digest.to_string(), "it is missing"))?;
        let upload = Upload {
            http: http.clone(),
            place: place.clone(),
            blob,
            file,
            siblings: siblings.clone(),
            meter: Arc::new(Mutex::new(meter)),
        };
        let at_once = at_once.clone();
        tasks.spawn(async move {
            let _turn = at_once.acquire().await;
            upload.run().await
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?;
    }
    Ok(())
}

async fn put_manifest(
    http: &Arc<Http>,
    store: &Store,
    artifact: &Artifact,
    place: &Endpoint,
    tag: &str,
) -> Result<()> {
    let path = store
        .blob(&artifact.digest)
        .ok_or_else(|| Error::malformed(artifact.digest.to_string(), "it is missing"))?;
    let bytes = tokio::fs::read(&path).await.map_err(Error::io("cannot read", &path))?;
    let url = place.url(&format!("manifests/{tag}"))?;
    let media_type = artifact.manifest.media_type.clone();
    let put = http
        .send(place, PUSH, Method::PUT, url, |it| it.header(CONTENT_TYPE, &media_type).body(bytes.clone()));
    expect_success(place, put.await?, tag).await.map(|_| ())
}

impl Upload {
    async fn run(self) -> Result<()> {
        if !self.is_there().await? {
            self.send().await?;
        }
        self.meter.lock().await.set(self.blob.size);
        Ok(())
    }

    async fn is_there(&self) -> Result<bool> {
        let url = self.place.url(&format!("blobs/{}", self.blob.digest))?;
        let response = self.http.send(&self.place, PUSH, Method::HEAD, url, |it| it).await?;
        match response.status() {
            StatusCode::OK => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            _ => expect_success(&self.place, response, &self.blob.digest.to_string()).await.map(|_| true),
        }
    }

    /// Uploads, and goes on where the registry says it stands as often as the connection breaks.
    async fn send(&self) -> Result<()> {
        let Some(mut location) = self.begin().await? else { return Ok(()) };
        let (mut at, mut failures) = (0, 0);
        while at < self.blob.size {
            match self.patch(&location, at).await {
                Ok(response) => {
                    let response = expect_success(&self.place, response, "upload").await?;
                    location = self.location(&response)?;
                    at = self.blob.size;
                }
                Err(detail) => {
                    failures += 1;
                    if failures > self.http.options.retries {
                        return Err(network(&self.place.registry, detail));
                    }
                    log::debug!("{}: {detail}; the upload goes on", self.place.registry);
                    tokio::time::sleep(self.http.pause(failures, None).unwrap_or_default()).await;
                    (location, at) = self.where_it_stands(location).await?;
                }
            }
        }
        self.complete(location).await
    }

    /// The address to upload to; none if the registry found the blob in another repository.
    async fn begin(&self) -> Result<Option<Url>> {
        let digest = self.blob.digest.to_string();
        for sibling in self.siblings.iter().take(3) {
            let mut url = self.place.url("blobs/uploads/")?;
            url.query_pairs_mut().append_pair("mount", &digest).append_pair("from", sibling);
            let response = self.http.send(&self.place, PUSH, Method::POST, url, post).await?;
            match response.status() {
                StatusCode::CREATED => return Ok(None),
                StatusCode::ACCEPTED => return self.location(&response).map(Some),
                _ => {}
            }
        }
        let url = self.place.url("blobs/uploads/")?;
        let response = self.http.send(&self.place, PUSH, Method::POST, url, post).await?;
        let response = expect_success(&self.place, response, "upload").await?;
        self.location(&response).map(Some)
    }

    fn location(&self, response: &Response) -> Result<Url> {
        let text = response.headers().get(LOCATION).and_then(|it| it.to_str().ok()).unwrap_or_default();
        let url =
            response.url().join(text).map_err(|error| network(&self.place.registry, error.to_string()))?;
        // It may not lead a secure upload into the clear.
        match self.place.is_secure() && url.scheme() != "https" {
            true => Err(network(&self.place.registry, "it wants the upload without TLS")),
            false => Ok(url),
        }
    }

    /// Sends everything from a byte on, in one request. A broken connection is told as a text.
    async fn patch(&self, location: &Url, at: u64) -> std::result::Result<Response, String> {
        let mut file = File::open(&self.file).await.map_err(|error| error.to_string())?;
        file.seek(SeekFrom::Start(at)).await.map_err(|error| error.to_string())?;
        let meter = self.meter.clone();
        let pieces = stream::try_unfold((file, at, meter), |(mut file, mut at, meter)| async move {
            let mut piece = vec![0; PIECE];
            let count = file.read(&mut piece).await?;
            if count == 0 {
                return Ok::<_, std::io::Error>(None);
            }
            piece.truncate(count);
            at += count as u64;
            meter.lock().await.set(at);
            Ok(Some((piece, (file, at, meter))))
        });
        let request = self
            .http
            .client
            .request(Method::PATCH, location.clone())
            .header(CONTENT_TYPE, "application/octet-stream")
            .header(CONTENT_LENGTH, self.blob.size - at)
            .body(Body::wrap_stream(pieces));
        // Docker's registry takes the range of a first piece amiss.
        let request = match at {
            0 => request,
            _ => request.header(CONTENT_RANGE, format!("{at}-{}", self.blob.size - 1)),
        };
        let proof = self.http.proofs.get(&self.place, PUSH).await.filter(|_| self.place.is_ours(location));
        let request = proof.iter().fold(request, |request, proof| proof.add(request));
        let response = request.send().await.map_err(|error| explain(&error))?;
        // The next question to the registry renews an expired token; 5xx are worth another try.
        match response.status() {
            status if status == StatusCode::UNAUTHORIZED || status.is_server_error() => {
                Err(format!("it answered {status}"))
            }
            _ => Ok(response),
        }
    }

    /// Asks how many bytes have arrived; if the registry has forgotten, from the start.
    async fn where_it_stands(&self, location: Url) -> Result<(Url, u64)> {
        let response = self.http.send(&self.place, PUSH, Method::GET, location, |it| it).await?;
        let last = response.headers().get(RANGE).and_then(|it| it.to_str().ok());
        let last =
            last.and_then(|range| range.rsplit_once('-')).and_then(|(_, last)| last.parse::<u64>().ok());
        match (response.status(), last) {
            // `0-0` is said of nothing as of one byte: beginning anew is right for both.
            (StatusCode::NO_CONTENT, Some(last)) if last > 0 => {
                Ok((self.location(&response)?, (last + 1).min(self.blob.size)))
            }
            _ => {
                let url = self.place.url("blobs/uploads/")?;
                let response = self.http.send(&self.place, PUSH, Method::POST, url, post).await?;
                let response = expect_success(&self.place, response, "upload").await?;
                Ok((self.location(&response)?, 0))
            }
        }
    }

    async fn complete(&self, mut location: Url) -> Result<()> {
        location.query_pairs_mut().append_pair("digest", &self.blob.digest.to_string());
        let response = self.http.send(&self.place, PUSH, Method::PUT, location, post).await?;
        expect_success(&self.place, response, "upload").await.map(|_| ())
    }
}

/// Registries want to be told that there is no body.
fn post(request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
    request.header(CONTENT_LENGTH, 0)
}
