//! Models as OCI artifacts: names, the store, registries, packaging, and what the files say.
//!
//! * [`Reference`] and [`Digest`] name models. [`policy::Policy`] says which may be had.
//! * [`Store`] keeps them: an OCI layout, content-addressed, shared by processes, safe against crashes.
//! * [`registry::Client`] pulls and pushes; [`package::Builder`] makes artifacts of files.
//! * [`gguf`], [`safetensors`] and [`dduf`] read the files' own headers; [`check`] decides whether an
//!   engine may see them.
//!
//! This crate knows no engine. The only processes it ever starts are Docker's credential helpers,
//! because the user's registry logins live there (`registry::credentials`).

#![forbid(unsafe_code)]

pub mod check;
pub mod config;
pub mod dduf;
mod digest;
mod error;
pub mod gguf;
pub mod manifest;
pub mod media;
mod model;
pub mod package;
pub mod policy;
pub mod progress;
mod reference;
pub mod registry;
pub mod safetensors;
pub mod store;

pub use check::Facts;
pub use config::{Flavour, ModelConfig};
pub use digest::{Digest, Hasher};
pub use error::{Error, Result};
pub use media::{Format, Role};
pub use model::{Artifact, Bundle, Defaults, Model, ModelFile};
pub use policy::Policy;
pub use progress::{Event, Layer, Progress, Transfer};
pub use reference::Reference;
pub use store::Store;
