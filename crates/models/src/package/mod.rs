//! Owns packaging: files on disk become an artifact in the store.

mod build;
mod folder;
mod layers;
#[cfg(test)]
mod tests;

use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

use crate::{Flavour, Model, Policy, Progress, Reference, Result, Store};

pub use build::{gguf_config, safetensors_config};
pub(crate) use folder::role_of_name;
pub(crate) use layers::{Piece, manifest};

/// Where the weights come from.
#[derive(Clone, Debug)]
enum Source {
    /// The file, or the first of its shards.
    Gguf(PathBuf),
    Safetensors(PathBuf),
    Dduf(PathBuf),
    Model(Box<Model>),
}

/// Collects what goes into an artifact; [`Builder::build`] makes it.
#[derive(Clone, Debug)]
pub struct Builder {
    source: Source,
    licenses: Vec<PathBuf>,
    spdx: Vec<String>,
    mmproj: Option<PathBuf>,
    chat_template: Option<PathBuf>,
    adapters: Vec<PathBuf>,
    draft: Option<PathBuf>,
    context_size: Option<u32>,
    flavour: Option<Flavour>,
    created: Option<SystemTime>,
}

impl Builder {
    fn new(source: Source) -> Self {
        Self {
            source,
            licenses: Vec::new(),
            spdx: Vec::new(),
            mmproj: None,
            chat_template: None,
            adapters: Vec::new(),
            draft: None,
            context_size: None,
            flavour: None,
            created: None,
        }
    }

    /// A GGUF file. Of a sharded one name the first shard; the others are found beside it.
    pub fn gguf(file: impl Into<PathBuf>) -> Self {
        Self::new(Source::Gguf(file.into()))
    }

    /// A folder with safetensors files, config and tokenizer.
    pub fn safetensors(folder: impl Into<PathBuf>) -> Self {
        Self::new(Source::Safetensors(folder.into()))
    }

    /// A DDUF file.
    pub fn dduf(file: impl Into<PathBuf>) -> Self {
        Self::new(Source::Dduf(file.into()))
    }

    /// A model that is in the store already: what is given here is added to it or replaces it.
    pub fn from(store: &Store, name: &str) -> Result<Self> {
        Ok(Self::new(Source::Model(Box::new(store.resolve(name)?))))
    }

    /// A licence text; may be given several times.
    #[must_use]
    pub fn license(mut self, file: impl AsRef<Path>) -> Self {
        self.licenses.push(file.as_ref().to_owned());
        self
    }

    /// A licence by its SPDX expression.
    #[must_use]
    pub fn spdx(mut self, expression: impl Into<String>) -> Self {
        self.spdx.push(expression.into());
        self
    }

    /// The projector of a vision or audio model.
    #[must_use]
    pub fn mmproj(mut self, file: impl AsRef<Path>) -> Self {
        self.mmproj = Some(file.as_ref().to_owned());
        self
    }

    /// A Jinja template instead of the one in the weights.
    #[must_use]
    pub fn chat_template(mut self, file: impl AsRef<Path>) -> Self {
        self.chat_template = Some(file.as_ref().to_owned());
        self
    }

    /// A LoRA adapter in GGUF; may be given several times.
    #[must_use]
    pub fn adapter(mut self, file: impl AsRef<Path>) -> Self {
        self.adapters.push(file.as_ref().to_owned());
        self
    }

    /// A small model of the same vocabulary that drafts tokens for the large one.
    #[must_use]
    pub fn draft(mut self, file: impl AsRef<Path>) -> Self {
        self.draft = Some(file.as_ref().to_owned());
        self
    }

    /// The context to load the model with, in tokens.
    #[must_use]
    pub fn context_size(mut self, tokens: u32) -> Self {
        self.context_size = Some(tokens);
        self
    }

    /// The artifact format. Default: v0.1 for single files, v0.2 for folders, what it was for a
    /// model of the store.
    #[must_use]
    pub fn flavour(mut self, flavour: Flavour) -> Self {
        self.flavour = Some(flavour);
        self
    }

    /// When it was made; now, if not given. The same time and files make the same artifact.
    #[must_use]
    pub fn created(mut self, time: SystemTime) -> Self {
        self.created = Some(time);
        self
    }

    /// Checks the files, copies them into the store and names the artifact.
    pub fn build(
        self,
        store: &Store,
        name: &Reference,
        policy: &Policy,
        progress: &Progress,
    ) -> Result<Model> {
        build::build(self, store, name, policy, progress)
    }
}
