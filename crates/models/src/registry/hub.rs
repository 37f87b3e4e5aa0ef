//! Owns pulling from the hub: which files of a repository make the model, and the artifact that
//! they become here.
//!
//! The hub knows the sha256 of every large file before it is sent, so these are fetched exactly as
//! blobs of a registry are: continued, in parallel, verified.

use std::sync::Arc;

use reqwest::{Method, RequestBuilder, Response, StatusCode, header::LINK};
use serde::Deserialize;
use tokio::{sync::Semaphore, task::JoinSet};

use super::{
    blob::{self, Source, with_range},
    blocking,
    endpoint::network,
    http::Http,
    pull::warn_of_damage,
};
use crate::{
    Digest, Error, Event, Flavour, Format, Progress, Reference, Result, Role, Store, Transfer,
    config::ConfigFile,
    gguf,
    manifest::Descriptor,
    media,
    package::{self, Piece, role_of_name},
    progress::Meter,
    safetensors,
    store::Staging,
};

/// What `latest` means.
const DEFAULT_QUANTIZATIONS: &[&str] = &["Q4_K_M", "Q4_K_S", "Q4_0", "Q8_0"];
const MAX_ANSWER: usize = 32 << 20;
const MAX_PAGES: usize = 50;
/// The largest file that the hub keeps without a sha256, in bytes.
const MAX_SMALL: u64 = 64 << 20;

#[derive(Clone, Debug, Deserialize)]
struct Entry {
    #[serde(rename = "type")]
    kind: String,
    path: String,
    #[serde(default)]
    size: u64,
    lfs: Option<Lfs>,
}

#[derive(Clone, Debug, Deserialize)]
struct Lfs {
    oid: String,
    size: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Info {
    sha: String,
    last_modified: Option<String>,
    card_data: Option<Card>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Card {
    license: Option<serde_json::Value>,
}

/// A repository at one commit.
struct Repository {
    http: Arc<Http>,
    name: String,
    info: Info,
}

/// A file that belongs to the model.
struct Chosen {
    entry: Entry,
    role: Role,
    format: Format,
}

pub(super) async fn pull(
    http: &Arc<Http>,
    store: &Store,
    name: &Reference,
    progress: &Progress,
) -> Result<Digest> {
    http.options.policy.check_reference(name)?;
    progress.status(format!("resolving {}", name.familiar()));
    let repository = Repository::open(http, name).await?;
    let chosen = choose(&repository.list().await?, name)?;
    let opened = store.clone();
    let staging = Arc::new(blocking(move || opened.stage()).await?);
    let pieces = repository.fetch(&staging, &chosen, progress).await?;
    let license = repository.license();
    let created =
        repository.info.last_modified.as_deref().and_then(|time| humantime::parse_rfc3339(time).ok());
    let (store, name, progress, policy) =
        (store.clone(), name.clone(), progress.clone(), http.options.policy.clone());
    blocking(move || {
        let config = config_of(&store, &pieces)?;
        let file = ConfigFile { config, created, licenses: license.into_iter().collect() };
        let gguf = pieces.iter().any(|piece| piece.format == Format::Gguf);
        let flavour = if gguf { Flavour::DockerV01 } else { Flavour::DockerV02 };
        let bytes = package::manifest(&staging, flavour, &file, &pieces)?.to_bytes();
        policy.check_model(&staging.preview(&bytes)?, &name)?;
        let digest = staging.commit(&bytes, std::slice::from_ref(&name))?;
        warn_of_damage(&store, &digest, &progress);
        progress.tell(Event::Success(format!("pulled {} ({})", name.familiar(), digest.short())));
        Ok(digest)
    })
    .await
}

impl Repository {
    /// Finds the newest commit, so that all files come from the same.
    async fn open(http: &Arc<Http>, name: &Reference) -> Result<Self> {
        let mut this = Self { http: http.clone(), name: name.repository().to_owned(), info: Info::default() };
        let url = format!("{}/api/models/{}/revision/main", http.options.hub.endpoint, this.name);
        let response = this.get(&url).await?;
        this.info = this.json(response).await?;
        if this.info.sha.is_empty() || !this.info.sha.bytes().all(|c| c.is_ascii_hexdigit()) {
            return Err(network(&this.host(), "its description of the repository has no commit"));
        }
        Ok(this)
    }

    fn host(&self) -> String {
        let endpoint = &self.http.options.hub.endpoint;
        endpoint.split("://").last().unwrap_or(endpoint).to_owned()
    }

    fn license(&self) -> Option<String> {
        let license = self.info.card_data.as_ref()?.license.as_ref()?.as_str()?;
        Some(license.chars().take(100).collect())
    }

    fn request(&self, url: &str) -> RequestBuilder {
        let request = self.http.client.request(Method::GET, url);
        // The token is for the hub alone; the client drops it when a redirect leaves it.
        let ours = url.starts_with(&format!("{}/", self.http.options.hub.endpoint));
        match self.http.options.hub.token.as_deref().filter(|_| ours) {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    async fn get(&self, url: &str) -> Result<Response> {
        let response = self.http.retry(&self.host(), |_| Some(self.request(url))).await?;
        self.expect(response)
    }

    fn expect(&self, response: Response) -> Result<Response> {
        let status = response.status();
        if status.is_success() || status == StatusCode::RANGE_NOT_SATISFIABLE {
            return Ok(response);
        }
        let said =
            response.headers().get("x-error-message").and_then(|it| it.to_str().ok()).unwrap_or_default();
        Err(match status {
            // The hub says this of repositories that do not exist, too, to those it does not know.
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Error::Unauthorized {
                registry: self.host(),
                repository: self.name.clone(),
                detail: format!("it does not exist, is private or gated; HF_TOKEN may help. {said}")
                    .trim()
                    .to_owned(),
            },
            StatusCode::NOT_FOUND => Error::RemoteNotFound { registry: self.host(), what: self.name.clone() },
            _ => Error::Remote { registry: self.host(), status: status.as_u16(), detail: said.to_owned() },
        })
    }

    async fn json<T: for<'de> Deserialize<'de>>(&self, response: Response) -> Result<T> {
        let bytes = self.http.small_body(&self.host(), response, MAX_ANSWER).await?;
        serde_json::from_slice(&bytes)
            .map_err(|error| network(&self.host(), format!("an answer is not readable: {error}")))
    }

    /// All files; the list comes in pages.
    async fn list(&self) -> Result<Vec<Entry>> {
        let endpoint = &self.http.options.hub.endpoint;
        let mut next =
            Some(format!("{endpoint}/api/models/{}/tree/{}?recursive=true", self.name, self.info.sha));
        let mut entries = Vec::new();
        for _ in 0..MAX_PAGES {
            let Some(url) = next.take() else { break };
            let response = self.get(&url).await?;
            next = next_page(&response).filter(|next| next.starts_with(&format!("{endpoint}/")));
            entries.extend(self.json::<Vec<Entry>>(response).await?);
        }
        entries.retain(|entry| entry.kind == "file");
        Ok(entries)
    }

    fn file_url(&self, path: &str) -> String {
        let path: String = path
            .bytes()
            .map(|byte| match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' | b'~' => {
                    char::from(byte).to_string()
                }
                _ => format!("%{byte:02X}"),
            })
            .collect();
        format!("{}/{}/resolve/{}/{path}", self.http.options.hub.endpoint, self.name, self.info.sha)
    }

    async fn fetch(
        &self,
        staging: &Arc<Staging>,
        chosen: &[Chosen],
        progress: &Progress,
    ) -> Result<Vec<Piece>> {
        let total = chosen.iter().map(|file| size(&file.entry)).sum();
        let blobs: Vec<Option<Descriptor>> =
            chosen.iter().map(|file| large(&file.entry)).collect::<Result<_>>()?;
        let (staged, wanted) = (staging.clone(), blobs.iter().flatten().cloned().collect::<Vec<_>>());
        blocking(move || staged.room_for(&wanted)).await?;
        let at_once = Arc::new(Semaphore::new(self.http.options.parallel.max(1)));
        let mut tasks = JoinSet::new();
        for (number, (file, blob)) in chosen.iter().zip(blobs).enumerate() {
            let id = blob.as_ref().map_or_else(|| file.entry.path.clone(), |blob| blob.digest.to_string());
            let meter = Meter::new(progress, id, size(&file.entry), total, Transfer::Pull);
            let source = FileSource { repository: self.share(), url: self.file_url(&file.entry.path) };
            let (staging, at_once) = (staging.clone(), at_once.clone());
            tasks.spawn(async move {
                let _turn = at_once.acquire().await;
                let blob = match blob {
                    Some(blob) => source.fetch_large(&staging, blob, meter).await,
                    None => source.fetch_small(&staging, meter).await,
                };
                blob.map(|blob| (number, blob))
            });
        }
        let mut pieces = Vec::with_capacity(chosen.len());
        while let Some(done) = tasks.join_next().await {
            let (number, blob) =
                done.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?;
            let file = &chosen[number];
            pieces.push((
                number,
                Piece { role: file.role, format: file.format, blob, path: file.entry.path.clone() },
            ));
        }
        pieces.sort_by_key(|(number, _)| *number);
        Ok(pieces.into_iter().map(|(_, piece)| piece).collect())
    }

    fn share(&self) -> Self {
        let info = Info { sha: self.info.sha.clone(), ..Info::default() };
        Self { http: self.http.clone(), name: self.name.clone(), info }
    }
}

fn next_page(response: &Response) -> Option<String> {
    let links = response.headers().get(LINK)?.to_str().ok()?;
    let next = links.split(',').find(|link| link.contains("rel=\"next\""))?;
    Some(next.split_once('<')?.1.split_once('>')?.0.to_owned())
}

fn size(entry: &Entry) -> u64 {
    entry.lfs.as_ref().map_or(entry.size, |lfs| lfs.size)
}

/// The blob of a file whose sha256 the hub knows.
fn large(entry: &Entry) -> Result<Option<Descriptor>> {
    let Some(lfs) = &entry.lfs else { return Ok(None) };
    let hex = lfs.oid.trim_start_matches("sha256:");
    let digest = Digest::from_hex(hex).ok_or_else(|| {
        Error::malformed(format!("the hub's entry of {}", entry.path), "its sha256 is not one")
    })?;
    Ok(Some(Descriptor::new(media::MODEL_FILE, digest, lfs.size)))
}

struct FileSource {
    repository: Repository,
    url: String,
}

impl Source for FileSource {
    async fn ask(&self, range: Option<String>) -> Result<Response> {
        let build = |_| Some(with_range(self.repository.request(&self.url), range.as_ref()));
        let response = self.repository.http.retry(self.name(), build).await?;
        self.repository.expect(response)
    }

    fn name(&self) -> &str {
        "the hub"
    }
}

impl FileSource {
    async fn fetch_large(
        &self,
        staging: &Arc<Staging>,
        blob: Descriptor,
        meter: Meter,
    ) -> Result<Descriptor> {
        blob::fetch(&self.repository.http, staging, &blob, self, meter).await?;
        Ok(blob)
    }

    async fn fetch_small(&self, staging: &Arc<Staging>, mut meter: Meter) -> Result<Descriptor> {
        let response = self.ask(None).await?;
        let bytes = self.repository.http.small_body(self.name(), response, MAX_SMALL as usize).await?;
        meter.set(bytes.len() as u64);
        let staging = staging.clone();
        blocking(move || staging.put_bytes(media::MODEL_FILE, &bytes)).await
    }
}

/// The files that make the model: the GGUF of the wanted quantisation with its projector, else the
/// safetensors with everything that belongs to them.
fn choose(entries: &[Entry], name: &Reference) -> Result<Vec<Chosen>> {
    let gguf: Vec<&Entry> =
        entries.iter().filter(|entry| entry.path.to_ascii_lowercase().ends_with(".gguf")).collect();
    let mut chosen = match gguf.is_empty() {
        true => choose_folder(entries),
        false => choose_gguf(&gguf, name)?,
    };
    if chosen.is_empty() {
        return Err(Error::RemoteNotFound {
            registry: "the hub".to_owned(),
            what: format!("GGUF or safetensors files in {}", name.repository()),
        });
    }
    if !gguf.is_empty() {
        let license =
            entries.iter().find(|entry| matches!(role_of_name(&entry.path), Some((Role::License, _))));
        chosen.extend(license.map(|entry| Chosen {
            entry: entry.clone(),
            role: Role::License,
            format: Format::Unknown,
        }));
    }
    Ok(chosen)
}

fn choose_folder(entries: &[Entry]) -> Vec<Chosen> {
    // Files below folders are other variants (onnx, original) of the same weights.
    let top = entries.iter().filter(|entry| !entry.path.contains('/'));
    let mut chosen: Vec<Chosen> = top
        .filter_map(|entry| {
            let (role, format) = role_of_name(&entry.path)?;
            Some(Chosen { entry: entry.clone(), role, format })
        })
        .filter(|file| file.role != Role::Doc)
        .collect();
    if !chosen.iter().any(|file| file.role == Role::Weights) {
        chosen.clear();
    }
    chosen.sort_by(|a, b| (a.role, &a.entry.path).cmp(&(b.role, &b.entry.path)));
    chosen
}

fn choose_gguf(all: &[&Entry], name: &Reference) -> Result<Vec<Chosen>> {
    let is_projector = |entry: &&&Entry| entry.path.to_ascii_lowercase().contains("mmproj");
    let (mut projectors, mut models): (Vec<&Entry>, Vec<&Entry>) = (Vec::new(), Vec::new());
    for entry in all {
        if is_projector(&entry) { projectors.push(entry) } else { models.push(entry) }
    }
    models.sort_by(|a, b| a.path.cmp(&b.path));
    let weights = choose_weights(&models, name)?;
    projectors.sort_by_key(|entry| (!has_quantization(&entry.path, "F16"), entry.path.clone()));
    let piece = |entry: &Entry, role| Chosen { entry: entry.clone(), role, format: Format::Gguf };
    let mut chosen: Vec<Chosen> = weights.into_iter().map(|entry| piece(entry, Role::Weights)).collect();
    chosen.extend(projectors.first().map(|entry| piece(entry, Role::Mmproj)));
    Ok(chosen)
}

fn choose_weights<'a>(models: &[&'a Entry], name: &Reference) -> Result<Vec<&'a Entry>> {
    let tag = name.tag().unwrap_or_default();
    let default = ["latest", "main", ""].iter().any(|it| tag.eq_ignore_ascii_case(it));
    let of =
        |quantization: &str| models.iter().copied().find(|entry| has_quantization(&entry.path, quantization));
    let first = match default {
        true => DEFAULT_QUANTIZATIONS.iter().find_map(|it| of(it)).or(models.first().copied()),
        false => {
            models.iter().copied().find(|entry| entry.path.eq_ignore_ascii_case(tag)).or_else(|| of(tag))
        }
    };
    let Some(first) = first else {
        let there = models.iter().map(|entry| entry.path.as_str()).take(30).collect::<Vec<_>>().join(", ");
        let what = format!("quantisation `{tag}` of {}; there are {there}", name.repository());
        return Err(Error::RemoteNotFound { registry: "the hub".to_owned(), what });
    };
    let shards = gguf::complete_shards(first.path.as_ref());
    let find =
        |path: &std::path::PathBuf| models.iter().copied().find(|entry| path.to_str() == Some(&entry.path));
    shards
        .iter()
        .map(|shard| {
            find(shard).ok_or_else(|| {
                Error::malformed(name.familiar(), format!("its part {} is missing", shard.display()))
            })
        })
        .collect()
}

/// True if a path names this quantisation, as a word of its own: `Q4_K` is not in `Q4_K_M`.
fn has_quantization(path: &str, quantization: &str) -> bool {
    let (path, wanted) = (path.to_ascii_uppercase(), quantization.to_ascii_uppercase());
    let part_of_word = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
    path.match_indices(&wanted).any(|(at, _)| {
        !part_of_word(path[..at].chars().next_back())
            && !part_of_word(path[at + wanted.len()..].chars().next())
    })
}

/// The config of the files that have come. A file that cannot be read leaves it short: the check
/// that follows says why.
fn config_of(store: &Store, pieces: &[Piece]) -> Result<crate::ModelConfig> {
    let path = |piece: &Piece| store.blob(&piece.blob.digest).unwrap_or_default();
    let weights: Vec<&Piece> = pieces.iter().filter(|piece| piece.role == Role::Weights).collect();
    let format = weights.first().map_or(Format::Unknown, |piece| piece.format);
    if format == Format::Gguf {
        let paths: Vec<_> = weights.iter().map(|piece| path(piece)).collect();
        let plain = crate::ModelConfig { format, ..Default::default() };
        return Ok(gguf::check_shards(&paths).map_or(plain, |checked| package::gguf_config(&checked)));
    }
    let headers: Vec<_> = weights.iter().filter_map(|piece| safetensors::check(&path(piece)).ok()).collect();
    let json = pieces.iter().find(|piece| piece.path == "config.json").map(path);
    let json = json.and_then(|path| std::fs::read(path).ok()).unwrap_or_default();
    Ok(package::safetensors_config(&headers, &json))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(paths: &[&str]) -> Vec<Entry> {
        paths
            .iter()
            .map(|path| Entry { kind: "file".into(), path: (*path).into(), size: 1, lfs: None })
            .collect()
    }

    fn chosen(paths: &[&str], name: &str) -> Result<Vec<String>> {
        let chosen = choose(&entries(paths), &Reference::parse(name).unwrap())?;
        Ok(chosen.into_iter().map(|file| file.entry.path).collect())
    }

    #[test]
    fn the_wanted_quantisation_or_the_default() {
        let files =
            ["m-Q8_0.gguf", "m-Q4_K_M.gguf", "m-Q4_K_S.gguf", "m-IQ4_XS.gguf", "README.md", "LICENSE"];
        assert_eq!(chosen(&files, "hf.co/a/b").unwrap(), ["m-Q4_K_M.gguf", "LICENSE"]);
        assert_eq!(chosen(&files, "hf.co/a/b:q8_0").unwrap()[0], "m-Q8_0.gguf");
        assert_eq!(chosen(&files, "hf.co/a/b:IQ4_XS").unwrap()[0], "m-IQ4_XS.gguf");
        for absent in ["Q4_K", "Q4_XS", "Q5_K_M"] {
            let error = chosen(&files, &format!("hf.co/a/b:{absent}")).unwrap_err().to_string();
            assert!(error.contains("m-Q4_K_M.gguf"), "{error}");
        }
    }

    #[test]
    fn shards_come_together_and_a_projector_too() {
        let files = [
            "Q4_K_M/m-Q4_K_M-00001-of-00002.gguf",
            "Q4_K_M/m-Q4_K_M-00002-of-00002.gguf",
            "mmproj-F32.gguf",
            "mmproj-F16.gguf",
        ];
        let expected =
            ["Q4_K_M/m-Q4_K_M-00001-of-00002.gguf", "Q4_K_M/m-Q4_K_M-00002-of-00002.gguf", "mmproj-F16.gguf"];
        assert_eq!(chosen(&files, "hf.co/a/b").unwrap(), expected);
        assert!(chosen(&files[..1], "hf.co/a/b").unwrap_err().to_string().contains("00002-of-00002"));
    }

    #[test]
    fn safetensors_without_variants_and_code() {
        let files = [
            "model.safetensors",
            "config.json",
            "tokenizer.json",
            "modeling.py",
            "onnx/model.onnx",
            "original/x.safetensors",
            "README.md",
        ];
        assert_eq!(
            chosen(&files, "hf.co/a/b").unwrap(),
            ["model.safetensors", "config.json", "tokenizer.json"]
        );
        assert!(chosen(&["pytorch_model.bin"], "hf.co/a/b").is_err());
    }
}
