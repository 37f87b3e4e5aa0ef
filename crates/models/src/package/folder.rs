//! Owns which files of a safetensors folder belong to the model.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{Error, Format, Result, Role};

const MAX_FILES: usize = 4000;
const MAX_DEPTH: usize = 8;

/// A file of a folder, and what it is for.
pub(super) struct Found {
    pub(super) path: PathBuf,
    /// Relative, with `/`.
    pub(super) name: String,
    pub(super) role: Role,
    pub(super) format: Format,
}

/// What a file is for, by its name; `None` for what does not belong to a model, such as code,
/// pickles and pictures.
pub(crate) fn role_of_name(name: &str) -> Option<(Role, Format)> {
    let base = name.rsplit('/').next().unwrap_or(name).to_ascii_lowercase();
    let extension = base.rsplit_once('.').map_or("", |(_, extension)| extension);
    let licence = ["license", "licence", "copying", "notice"].iter().any(|word| base.starts_with(word));
    Some(match extension {
        "safetensors" => (Role::Weights, Format::Safetensors),
        "jinja" => (Role::Template, Format::Unknown),
        _ if licence => (Role::License, Format::Unknown),
        "md" => (Role::Doc, Format::Unknown),
        "json" | "txt" | "model" | "vocab" | "tiktoken" | "spm" | "yaml" => (Role::File, Format::Unknown),
        _ => return None,
    })
}

/// All files of the folder that belong to the model, sorted by name, and the names of the others.
pub(super) fn find(folder: &Path) -> Result<(Vec<Found>, Vec<String>)> {
    let (mut found, mut others) = (Vec::new(), Vec::new());
    let mut todo = vec![(folder.to_owned(), String::new(), 0)];
    while let Some((dir, prefix, depth)) = todo.pop() {
        for entry in fs::read_dir(&dir).map_err(Error::io("cannot read", &dir))? {
            let entry = entry.map_err(Error::io("cannot read", &dir))?;
            let base = entry.file_name().to_string_lossy().into_owned();
            if base.starts_with('.') {
                continue;
            }
            let name = format!("{prefix}{base}");
            // Links are followed: caches of downloaded models consist of them.
            let meta = fs::metadata(entry.path()).map_err(Error::io("cannot read", entry.path()))?;
            match role_of_name(&name) {
                _ if meta.is_dir() && depth < MAX_DEPTH => {
                    todo.push((entry.path(), format!("{name}/"), depth + 1))
                }
                Some((role, format)) if meta.is_file() => {
                    found.push(Found { path: entry.path(), name, role, format })
                }
                _ => others.push(name),
            }
            if found.len() > MAX_FILES {
                return Err(Error::malformed(
                    folder.display().to_string(),
                    format!("it has more than {MAX_FILES} files"),
                ));
            }
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    others.sort();
    Ok((found, others))
}
