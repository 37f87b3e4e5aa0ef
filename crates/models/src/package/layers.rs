//! Owns how the files of a model become layers in each artifact format.

use std::time::SystemTime;

use serde_json::json;

use crate::{
    Flavour, Format, ModelFile, Result, Role,
    config::ConfigFile,
    manifest::{Descriptor, Manifest},
    media,
    store::Staging,
};

/// A file that is in the store and shall become a layer.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    pub(crate) role: Role,
    pub(crate) format: Format,
    /// Digest and size; the media type is the original one, for roles that we do not know.
    pub(crate) blob: Descriptor,
    /// Inside the model.
    pub(crate) path: String,
}

impl Piece {
    pub(crate) fn of(file: &ModelFile) -> Self {
        let path = file.descriptor.file_path().unwrap_or_default().to_owned();
        Self { role: file.role, format: file.format, blob: file.descriptor.clone(), path }
    }

    fn media_type(&self, flavour: Flavour) -> &str {
        match flavour {
            Flavour::Modelpack => match self.role {
                Role::Weights | Role::Mmproj | Role::Adapter | Role::Draft => media::MODELPACK_WEIGHT,
                Role::License | Role::Doc => media::MODELPACK_DOC,
                Role::Template
                | Role::File
                | Role::OllamaTemplate
                | Role::System
                | Role::Params
                | Role::Messages => media::MODELPACK_WEIGHT_CONFIG,
                Role::Archive | Role::Unknown => &self.blob.media_type,
            },
            _ => match (self.role, self.format) {
                (Role::Weights, Format::Gguf) => media::GGUF,
                (Role::Weights, Format::Safetensors) => media::SAFETENSORS,
                (Role::Weights, Format::Dduf) => media::DDUF,
                (Role::Mmproj, _) => media::MMPROJ,
                (Role::Adapter, _) => media::ADAPTER,
                (Role::Draft, _) => media::DRAFT,
                (Role::Template, _) => media::CHAT_TEMPLATE,
                (Role::License, _) => media::LICENSE,
                (Role::File | Role::Doc, _) => media::MODEL_FILE,
                _ => &self.blob.media_type,
            },
        }
    }

    fn layer(&self, flavour: Flavour, created: SystemTime) -> Descriptor {
        let mut layer = Descriptor::new(self.media_type(flavour), self.blob.digest, self.blob.size);
        if !self.path.is_empty() {
            let name = self.path.rsplit('/').next().unwrap_or_default();
            let metadata = json!({
                "name": name, "mode": 0o644, "uid": 0, "gid": 0, "size": self.blob.size,
                "mtime": humantime::format_rfc3339_seconds(created).to_string(), "typeflag": 48,
            });
            layer = layer.with(media::FILE_PATH, &self.path).with(media::FILE_METADATA, metadata.to_string());
        }
        let role = serde_json::to_value(self.role).ok().and_then(|role| role.as_str().map(str::to_owned));
        match (media::role_of(&layer.media_type).0 == self.role, role) {
            (false, Some(role)) => layer.with(media::FILE_ROLE, role),
            _ => layer,
        }
    }
}

/// Writes the config and makes the manifest of these pieces.
pub(crate) fn manifest(
    staging: &Staging,
    flavour: Flavour,
    config: &ConfigFile,
    pieces: &[Piece],
) -> Result<Manifest> {
    let created = config.created.unwrap_or(SystemTime::UNIX_EPOCH);
    let layers: Vec<Descriptor> = pieces.iter().map(|piece| piece.layer(flavour, created)).collect();
    let digests: Vec<_> = layers.iter().map(|layer| layer.digest).collect();
    let config_blob = staging.put_bytes(flavour.config_type(), &config.to_bytes(flavour, &digests))?;
    let mut manifest = Manifest::new(config_blob, layers);
    if flavour == Flavour::Modelpack {
        manifest.artifact_type = Some(media::MODELPACK_ARTIFACT.to_owned());
    }
    if !config.licenses.is_empty() {
        manifest.annotations.insert(media::LICENSES.to_owned(), config.licenses.join(" AND "));
    }
    Ok(manifest)
}
