//! An image layout's index, manifest and configuration.

use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::ImageConfig;
use crate::Error;

/// Bytes of an index, manifest or configuration.
const MAX_JSON: u64 = 8 << 20;
/// Layers of an image.
const MAX_LAYERS: usize = 512;

/// A blob, by its digest.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What it is.
    #[serde(default)]
    pub media_type: String,
    /// `sha256:…`.
    pub digest: String,
    #[serde(default)]
    platform: Option<Platform>,
}

#[derive(Debug, Clone, Deserialize)]
struct Platform {
    os: String,
    architecture: String,
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Manifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Configuration {
    #[serde(default)]
    config: Option<ImageConfig>,
}

/// The image's configuration and layers, for this processor.
pub fn read(folder: &Path) -> Result<(ImageConfig, Vec<Descriptor>), String> {
    let mut index: Index = parse(&limited(&folder.join("index.json"))?, "index.json")?;
    // An index may name indexes, once.
    for _ in 0..2 {
        let chosen = choose(&index.manifests)?;
        let text = json(folder, &chosen.digest)?;
        if chosen.media_type.ends_with("index.v1+json") || chosen.media_type.ends_with("list.v2+json") {
            index = parse(&text, &chosen.digest)?;
            continue;
        }
        let manifest: Manifest = parse(&text, &chosen.digest)?;
        if manifest.layers.len() > MAX_LAYERS {
            return Err(format!("it has {} layers, the maximum is {MAX_LAYERS}", manifest.layers.len()));
        }
        let config: Configuration = parse(&json(folder, &manifest.config.digest)?, "its configuration")?;
        return Ok((config.config.unwrap_or_default(), manifest.layers));
    }
    Err("its indexes name indexes that name indexes".into())
}

/// The one for this processor, or the only one.
fn choose(all: &[Descriptor]) -> Result<&Descriptor, String> {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let fits = |one: &&Descriptor| {
        one.platform.as_ref().is_some_and(|is| is.os == "linux" && is.architecture == architecture)
    };
    let plain = || all.iter().filter(|one| one.platform.is_none());
    match (all.iter().find(fits), plain().count()) {
        (Some(found), _) => Ok(found),
        (None, 1) => plain().next().ok_or_else(String::new),
        (None, 0) => Err(format!("it has nothing for linux/{architecture}")),
        (None, images) => Err(format!("it holds {images} images; one is needed")),
    }
}

/// Where a blob is.
pub fn blob(folder: &Path, digest: &str) -> Result<PathBuf, String> {
    let hex = digest
        .strip_prefix("sha256:")
        .filter(|hex| hex.len() == 64 && hex.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')));
    let hex = hex.ok_or_else(|| format!("the digest '{digest}' is not one of SHA-256"))?;
    Ok(folder.join("blobs/sha256").join(hex))
}

fn json(folder: &Path, digest: &str) -> Result<Vec<u8>, String> {
    let text = limited(&blob(folder, digest)?)?;
    let found = format!("sha256:{:x}", Sha256::digest(&text));
    match found == digest {
        true => Ok(text),
        false => Err(format!("the blob {digest} is {found}: it is damaged")),
    }
}

fn limited(path: &Path) -> Result<Vec<u8>, String> {
    let named = |error: std::io::Error| format!("{}: {error}", path.display());
    let mut text = Vec::new();
    File::open(path).map_err(named)?.take(MAX_JSON + 1).read_to_end(&mut text).map_err(named)?;
    match text.len() as u64 > MAX_JSON {
        true => Err(format!("{} has more than {MAX_JSON} bytes", path.display())),
        false => Ok(text),
    }
}

fn parse<T: serde::de::DeserializeOwned>(text: &[u8], what: &str) -> Result<T, String> {
    serde_json::from_slice(text).map_err(|error| format!("{what}: {error}"))
}

/// Unpacks the archive of a layout into a folder: its index and blobs, nothing else.
pub fn unpack(archive: &Path, into: &Path) -> Result<PathBuf, Error> {
    let failed = |error: std::io::Error| Error::file(archive, error);
    let none = |why: &str| Error::Image { path: archive.to_owned(), why: why.to_owned() };
    let no_layout = || {
        none(
            "it is no archive of an OCI image layout, nor a root file system folder (podman save --format oci-archive makes one)",
        )
    };
    let mut file = File::open(archive).map_err(failed)?;
    let mut magic = Vec::new();
    (&mut file).take(4).read_to_end(&mut magic).map_err(failed)?;
    if magic.starts_with(&[0x1f, 0x8b]) || magic == [0x28, 0xb5, 0x2f, 0xfd] {
        return Err(none("it is compressed: uncompress it first"));
    }
    std::io::Seek::rewind(&mut file).map_err(failed)?;
    std::fs::create_dir_all(into.join("blobs/sha256")).map_err(|error| Error::file(into, error))?;
    let (mut found, mut entries) = (false, 0);
    for entry in tar::Archive::new(file).entries().map_err(failed)? {
        let mut entry = match entry {
            Err(_) if entries == 0 => return Err(no_layout()),
            entry => entry.map_err(|error| none(&format!("the archive is damaged: {error}")))?,
        };
        entries += 1;
        let path = entry.path().map_err(failed)?.into_owned();
        let path: PathBuf = path.components().filter(|part| *part != Component::CurDir).collect();
        let wanted = path == Path::new("index.json") || path.parent() == Some(Path::new("blobs/sha256"));
        if !wanted || !entry.header().entry_type().is_file() {
            continue;
        }
        found |= path == Path::new("index.json");
        let to = into.join(path);
        let mut out = File::create(&to).map_err(|error| Error::file(&to, error))?;
        std::io::copy(&mut entry, &mut out).map_err(failed)?;
    }
    if found { Ok(into.to_owned()) } else { Err(no_layout()) }
}
