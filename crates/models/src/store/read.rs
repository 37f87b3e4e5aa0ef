//! Owns how a manifest in the store becomes a model: which layer is for what.

use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
};

use super::Store;
use crate::media::LICENSES;
use crate::{
    Artifact, Digest, Error, Format, Model, ModelFile, Reference, Result, Role,
    config::{ConfigFile, Flavour},
    gguf,
    manifest::{Descriptor, MAX_CONFIG, Manifest},
    media,
};

impl Store {
    pub(super) fn read_model(&self, digest: &Digest, names: Vec<Reference>) -> Result<Model> {
        self.assemble(digest, self.read_manifest(digest)?, names)
    }

    pub(super) fn assemble(
        &self,
        digest: &Digest,
        manifest: Manifest,
        names: Vec<Reference>,
    ) -> Result<Model> {
        let wrong_kind = || Error::WrongKind {
            name: names.first().map_or_else(|| digest.to_string(), Reference::familiar),
            wanted: "model",
            found: manifest.kind().to_owned(),
        };
        let flavour = Flavour::of(&manifest).ok_or_else(wrong_kind)?;
        let bytes = self.read_blob(&manifest.config.digest, MAX_CONFIG)?;
        let ConfigFile { mut config, created, mut licenses } = ConfigFile::parse(flavour, &bytes)?;
        licenses.extend(manifest.annotations.get(LICENSES).filter(|_| licenses.is_empty()).cloned());
        let files = self.files_of(&manifest, config.format);
        if config.format == Format::Unknown {
            let weights = files.iter().find(|file| file.role == Role::Weights);
            config.format = weights.map_or(Format::Unknown, |file| file.format);
        }
        Ok(Model { digest: *digest, names, created, flavour, config, licenses, files, manifest })
    }

    pub(super) fn read_artifact(&self, digest: &Digest, names: Vec<Reference>) -> Result<Artifact> {
        let manifest = self.read_manifest(digest)?;
        let config = self.read_blob(&manifest.config.digest, MAX_CONFIG)?;
        let files =
            manifest.layers.iter().map(|layer| (layer.clone(), self.blob_path(&layer.digest))).collect();
        Ok(Artifact { digest: *digest, names, kind: manifest.kind().to_owned(), config, files, manifest })
    }

    fn files_of(&self, manifest: &Manifest, format: Format) -> Vec<ModelFile> {
        // Only ModelPack has weights whose media type does not say of what kind they are.
        let weights =
            manifest.layers.iter().filter(|layer| media::role_of(&layer.media_type).0 == Role::Weights);
        let alone = weights.count() == 1;
        manifest
            .layers
            .iter()
            .map(|layer| {
                let path = self.blob_path(&layer.digest);
                let (role, format) = classify(layer, &path, format, alone);
                ModelFile { role, format, descriptor: layer.clone(), path }
            })
            .collect()
    }
}

/// What a layer is for: by its media type; where that is general, by our annotation; else by a look
/// into the file. Only ModelPack's texts (licences, templates) are told by name, as its
/// specification has nothing else.
fn classify(layer: &Descriptor, path: &Path, of_config: Format, alone: bool) -> (Role, Format) {
    let (role, format) = media::role_of(&layer.media_type);
    let general =
        layer.media_type.starts_with(media::MODELPACK_PREFIX) || layer.media_type == media::MODEL_FILE;
    if !general {
        return (role, format);
    }
    let said = layer.annotations.get(media::FILE_ROLE);
    let said = said.and_then(|text| serde_json::from_value(text.as_str().into()).ok());
    match (role, said) {
        (Role::Weights, said) => {
            let format = if format == Format::Unknown { sniff(path, of_config) } else { format };
            let part = || if alone || format != Format::Gguf { Role::Weights } else { gguf_role(path) };
            (said.unwrap_or_else(part), format)
        }
        (_, Some(said)) => (said, format),
        (role, None) => (role_by_name(role, layer), format),
    }
}

fn role_by_name(role: Role, layer: &Descriptor) -> Role {
    let name = layer.file_path().map(PathBuf::from).unwrap_or_default();
    let name = name.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_ascii_lowercase();
    let licence = ["license", "licence", "copying", "notice"].iter().any(|word| name.contains(word));
    match role {
        Role::Doc if licence => Role::License,
        Role::File if name.ends_with(".jinja") => Role::Template,
        role => role,
    }
}

/// The format by the first bytes.
fn sniff(path: &Path, otherwise: Format) -> Format {
    let mut magic = [0; 4];
    match File::open(path).and_then(|mut file| file.read_exact(&mut magic)) {
        Ok(()) if &magic == b"GGUF" => Format::Gguf,
        Ok(()) if &magic == b"PK\x03\x04" => Format::Dduf,
        Ok(()) if otherwise == Format::Unknown => Format::Safetensors,
        _ => otherwise,
    }
}

/// A projector and an adapter say so in their metadata.
fn gguf_role(path: &Path) -> Role {
    let Ok(header) = gguf::read(path) else { return Role::Weights };
    match (header.architecture(), header.metadata.str("general.type")) {
        (_, Some("adapter")) => Role::Adapter,
        ("clip", _) | (_, Some("mmproj")) => Role::Mmproj,
        _ => Role::Weights,
    }
}
