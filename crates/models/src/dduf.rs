//! Owns a light check of DDUF files: a zip without compression that holds a diffusion pipeline.

use std::{fs::File, path::Path};

use rawzip::{CompressionMethod, RECOMMENDED_BUFFER_SIZE, ZipArchive};

use crate::gguf::CheckError;

const MAX_ENTRIES: usize = 10_000;
/// Files that a pipeline consists of; anything else could be code.
const ALLOWED: &[&str] = &["json", "safetensors", "model", "txt", "gguf"];

/// What is in a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Paths and sizes in bytes.
    pub entries: Vec<(String, u64)>,
}

/// Reads the directory of a file and holds it to the format's rules.
pub fn check(path: &Path) -> Result<Contents, CheckError> {
    read(path).map_err(|reason| CheckError::new(path, reason))
}

fn read(path: &Path) -> Result<Contents, String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let length = file.metadata().map_err(|error| error.to_string())?.len();
    let no_zip = |error: rawzip::Error| format!("it is no whole zip archive: {error}");
    let mut buffer = vec![0; RECOMMENDED_BUFFER_SIZE];
    let archive = ZipArchive::from_file(file, &mut buffer).map_err(no_zip)?;
    let mut contents = Contents::default();
    let mut entries = archive.entries(&mut buffer);
    while let Some(entry) = entries.next_entry().map_err(no_zip)? {
        if contents.entries.len() >= MAX_ENTRIES {
            return Err(format!("it has more than {MAX_ENTRIES} entries"));
        }
        let raw = entry.file_path();
        let name =
            std::str::from_utf8(raw.as_ref()).map_err(|_| "a path is not UTF-8".to_owned())?.to_owned();
        let size = entry.uncompressed_size_hint();
        check_entry(&name, entry.is_dir(), entry.compression_method(), size, length)?;
        contents.entries.push((name, size));
    }
    match contents.entries.iter().any(|(name, _)| name == "model_index.json") {
        true => Ok(contents),
        false => Err("it lacks `model_index.json`".to_owned()),
    }
}

fn check_entry(
    name: &str,
    folder: bool,
    method: CompressionMethod,
    size: u64,
    length: u64,
) -> Result<(), String> {
    if folder {
        return Ok(());
    }
    if method != CompressionMethod::STORE {
        return Err(format!("`{name}` is compressed, which the format does not allow"));
    }
    if size > length {
        return Err(format!("`{name}` should have {size} bytes in a file of {length}"));
    }
    let parts: Vec<&str> = name.split('/').collect();
    if parts.len() > 2 || parts.iter().any(|part| part.is_empty() || part.starts_with('.')) {
        return Err(format!("`{}` is not a path that the format allows", name.escape_debug()));
    }
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
    match ALLOWED.contains(&extension) {
        true => Ok(()),
        false => Err(format!("`{name}` is not of a kind that the format allows")),
    }
}
