//! Owns what `inspect` shows of a model, and the facts that its weights tell.

use std::{fs::File, io::Read as _};

use serde::Serialize;

use super::{Store, archive::damaged, mark};
use crate::{
    Digest, Error, Facts, Flavour, Format, Hasher, Model, ModelConfig, Reference, Result, Role, check, gguf,
};

/// Everything there is to say about a model, for people and for `--json`.
#[derive(Clone, Debug, Serialize)]
pub struct Inspection {
    pub id: Digest,
    pub names: Vec<String>,
    /// RFC 3339.
    pub created: Option<String>,
    pub flavour: Flavour,
    /// Bytes of config and layers.
    pub size: u64,
    pub config: ModelConfig,
    pub licenses: Vec<String>,
    pub files: Vec<FileInfo>,
    /// `None` if the weights cannot be read; then `problem` says why.
    pub facts: Option<Facts>,
    pub problem: Option<String>,
}

/// One file of a model.
#[derive(Clone, Debug, Serialize)]
pub struct FileInfo {
    pub role: Role,
    pub format: Format,
    pub media_type: String,
    pub digest: Digest,
    pub size: u64,
    pub path: Option<String>,
}

impl Store {
    pub fn inspect(&self, name: &str) -> Result<Inspection> {
        let model = self.resolve(name)?;
        let (facts, problem) = match self.facts(&model) {
            Ok(facts) => (Some(facts), None),
            Err(error) => (None, Some(error.to_string())),
        };
        let files = model.files.iter().map(|file| FileInfo {
            role: file.role,
            format: file.format,
            media_type: file.descriptor.media_type.clone(),
            digest: file.descriptor.digest,
            size: file.descriptor.size,
            path: file.descriptor.file_path().map(str::to_owned),
        });
        Ok(Inspection {
            id: model.digest,
            names: model.names.iter().map(Reference::familiar).collect(),
            created: model.created.map(|time| humantime::format_rfc3339_seconds(time).to_string()),
            flavour: model.flavour,
            size: model.size(),
            files: files.collect(),
            config: model.config,
            licenses: model.licenses,
            facts,
            problem,
        })
    }

    /// Reads a whole model again: that each blob has its digest, that its headers are right and its
    /// weights are numbers. It takes as long as reading all bytes does.
    pub fn verify(&self, name: &str) -> Result<Facts> {
        let model = self.resolve(name)?;
        for blob in model.manifest.blobs() {
            self.verify_blob(&blob.digest)?;
        }
        let bundle = self.bundle(&model)?;
        let facts = check::facts(&bundle)?;
        for (_, path) in bundle.gguf_files() {
            gguf::check_values(path, &gguf::read(path)?)?;
        }
        Ok(facts)
    }

    /// Sees to it that the model's files are those that its digest names, before an engine gets them. Reads those
    /// again that were changed since their digest was computed, and those of which nobody knows.
    ///
    /// # Errors
    /// [`Error::Malformed`] that names the first one that is not.
    pub fn check_unchanged(&self, model: &Model) -> Result<()> {
        for blob in model.manifest.blobs() {
            let there = std::fs::metadata(self.blob_path(&blob.digest)).ok().map(|there| there.len());
            let wrong = || damaged(&model.display_name(), blob, there);
            if there != Some(blob.size) {
                return Err(wrong());
            }
            match self.check_blob(&blob.digest) {
                Err(Error::Digest { .. }) => return Err(wrong()),
                checked => checked?,
            }
        }
        Ok(())
    }

    /// Reads a blob again, unless it was not changed since that was done.
    pub(super) fn check_blob(&self, digest: &Digest) -> Result<()> {
        match mark::holds(&self.blob_path(digest), digest) {
            true => Ok(()),
            false => self.verify_blob(digest),
        }
    }

    /// Reads a blob again, and marks it accordingly.
    pub(super) fn verify_blob(&self, digest: &Digest) -> Result<()> {
        let path = self.blob_path(digest);
        let before = std::fs::metadata(&path).map_err(Error::io("cannot read", &path))?;
        log::debug!("reading {} to see that it is whole", path.display());
        let read = self.read_blob_again(digest);
        match &read {
            Ok(()) => mark::set(&path, digest, &before),
            Err(Error::Digest { .. }) => mark::clear(&path, &before),
            Err(_) => {}
        }
        read
    }

    fn read_blob_again(&self, digest: &Digest) -> Result<()> {
        let path = self.blob_path(digest);
        let mut file = File::open(&path).map_err(Error::io("cannot open", &path))?;
        let (mut hasher, mut piece) = (Hasher::default(), vec![0; 1 << 20]);
        loop {
            match file.read(&mut piece).map_err(Error::io("cannot read", &path))? {
                0 => break,
                count => hasher.update(&piece[..count]),
            }
        }
        match hasher.finish() {
            found if found == *digest => Ok(()),
            found => Err(Error::Digest { what: path.display().to_string(), wanted: *digest, found }),
        }
    }

    /// What the weights say of themselves: mode, layers, heads, memory. Reads headers only; files
    /// that an engine must not see are refused.
    pub fn facts(&self, model: &Model) -> Result<Facts> {
        check::facts(&self.bundle(model)?)
    }
}
