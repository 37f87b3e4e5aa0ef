//! Owns the steps of packaging: check the files, fill the config, copy, commit.

use std::{
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

use super::{Builder, Source, folder, layers::Piece, layers::manifest};
use crate::{
    Error, Event, Flavour, Format, Model, ModelConfig, Policy, Progress, Reference, Result, Role, Store,
    Transfer,
    config::ConfigFile,
    dduf,
    gguf::{self, Checked, Header},
    manifest::Descriptor,
    media,
    progress::Meter,
    safetensors,
    store::Staging,
};

/// The longest text of the metadata that goes into a config, in bytes.
const MAX_CONFIG_TEXT: usize = 64 << 10;

/// A file on its way into the artifact.
struct Input {
    path: PathBuf,
    name: String,
    role: Role,
    format: Format,
}

impl Input {
    fn new(path: &Path, role: Role, format: Format) -> Self {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        Self { path: path.to_owned(), name, role, format }
    }
}

pub(super) fn build(
    builder: Builder,
    store: &Store,
    name: &Reference,
    policy: &Policy,
    progress: &Progress,
) -> Result<Model> {
    policy.check_reference(name)?;
    if builder.flavour == Some(Flavour::Ollama) {
        return Err(Error::malformed("the artifact format", "Ollama's is read, not written"));
    }
    let (mut file, mut inputs, kept) = weights(&builder, progress)?;
    inputs.extend(extras(&builder, store)?);
    finish_config(&mut file, &builder);
    let flavour = builder.flavour.unwrap_or(match &builder.source {
        Source::Safetensors(_) => Flavour::DockerV02,
        Source::Model(model) if model.flavour != Flavour::Ollama => model.flavour,
        _ => Flavour::DockerV01,
    });
    let staging = store.stage()?;
    let mut pieces = keep(&staging, kept, &inputs)?;
    pieces.extend(copy(&staging, &inputs, progress)?);
    pieces.sort_by_key(|piece| piece.role);
    let bytes = manifest(&staging, flavour, &file, &pieces)?.to_bytes();
    let model = staging.preview(&bytes)?;
    policy.check_model(&model, name)?;
    let digest = staging.commit(&bytes, std::slice::from_ref(name))?;
    progress.tell(Event::Success(format!("packaged {} ({})", name.familiar(), digest.short())));
    store.model(&digest)
}

/// The checked weights, the config they tell, and the pieces that are in the store already.
fn weights(builder: &Builder, progress: &Progress) -> Result<(ConfigFile, Vec<Input>, Vec<Piece>)> {
    match &builder.source {
        Source::Gguf(path) => {
            let shards = gguf::complete_shards(path);
            if let Some(missing) = shards.iter().find(|shard| !shard.is_file()) {
                return Err(Error::malformed(
                    path.display().to_string(),
                    format!("its part {} is missing", missing.display()),
                ));
            }
            progress.status("checking the weights");
            let checked = gguf::check_shards(&shards)?;
            for shard in &shards {
                gguf::check_values(shard, &gguf::read(shard)?)?;
            }
            let inputs = shards.iter().map(|path| Input::new(path, Role::Weights, Format::Gguf)).collect();
            Ok((plain(gguf_config(&checked)), inputs, Vec::new()))
        }
        Source::Dduf(path) => {
            dduf::check(path)?;
            let size = fs::metadata(path).map_err(Error::io("cannot read", path))?.len();
            let config =
                ModelConfig { format: Format::Dduf, size: people_bytes(size), ..ModelConfig::default() };
            Ok((plain(config), vec![Input::new(path, Role::Weights, Format::Dduf)], Vec::new()))
        }
        Source::Safetensors(path) => safetensors_folder(path, progress),
        Source::Model(model) => {
            let file =
                ConfigFile { config: model.config.clone(), created: None, licenses: model.licenses.clone() };
            Ok((file, Vec::new(), model.files.iter().map(Piece::of).collect()))
        }
    }
}

fn plain(config: ModelConfig) -> ConfigFile {
    ConfigFile { config, ..ConfigFile::default() }
}

fn safetensors_folder(path: &Path, progress: &Progress) -> Result<(ConfigFile, Vec<Input>, Vec<Piece>)> {
    let (found, others) = folder::find(path)?;
    if !others.is_empty() {
        let shown = others.iter().take(10).cloned().collect::<Vec<_>>().join(", ");
        progress.tell(Event::Warning(format!("left out, as no part of a model: {shown}")));
    }
    let mut headers = Vec::new();
    for file in found.iter().filter(|file| file.role == Role::Weights) {
        headers.push(safetensors::check(&file.path)?);
    }
    if headers.is_empty() {
        return Err(Error::malformed(path.display().to_string(), "it holds no safetensors files"));
    }
    let config_json = fs::read(path.join("config.json")).unwrap_or_default();
    let config = safetensors_config(&headers, &config_json);
    let inputs =
        found.into_iter().map(|it| Input { path: it.path, name: it.name, role: it.role, format: it.format });
    Ok((plain(config), inputs.collect(), Vec::new()))
}

/// The files that are given beside the weights, each checked.
fn extras(builder: &Builder, store: &Store) -> Result<Vec<Input>> {
    let mut inputs = Vec::new();
    if let Some(path) = &builder.mmproj {
        gguf::check_values(path, &gguf::check_projector(path)?)?;
        inputs.push(Input::new(path, Role::Mmproj, Format::Gguf));
    }
    let base = if builder.adapters.is_empty() { None } else { base(builder, store)? };
    for path in &builder.adapters {
        gguf::check_values(path, &gguf::check_adapter(path, base.as_ref())?)?;
        inputs.push(Input::new(path, Role::Adapter, Format::Gguf));
    }
    if let Some(path) = &builder.draft {
        gguf::check_values(path, &gguf::check(path)?.header)?;
        inputs.push(Input::new(path, Role::Draft, Format::Gguf));
    }
    if let Some(path) = &builder.chat_template {
        let text = fs::read_to_string(path).map_err(Error::io("cannot read", path))?;
        if let Some(reason) = gguf::template::fault(&text) {
            return Err(Error::malformed(path.display().to_string(), reason));
        }
        inputs.push(Input::new(path, Role::Template, Format::Unknown));
    }
    inputs.extend(builder.licenses.iter().map(|path| Input::new(path, Role::License, Format::Unknown)));
    Ok(inputs)
}

/// What stands before the weights that adapters change, where these are a GGUF.
fn base(builder: &Builder, store: &Store) -> Result<Option<Header>> {
    let shards = match &builder.source {
        Source::Gguf(path) => gguf::complete_shards(path),
        Source::Model(model) if model.config.format == Format::Gguf => store.bundle(model)?.weights,
        _ => return Ok(None),
    };
    Ok(Some(gguf::check_shards(&shards)?.header))
}

fn finish_config(file: &mut ConfigFile, builder: &Builder) {
    // Whole seconds: that is what is written.
    let now = humantime::format_rfc3339_seconds(builder.created.unwrap_or_else(SystemTime::now)).to_string();
    file.created = humantime::parse_rfc3339(&now).ok();
    file.config.context_size = builder.context_size.or(file.config.context_size);
    file.licenses.extend(builder.spdx.iter().cloned());
}

/// The pieces of the model that is built upon, less those that are replaced.
fn keep(staging: &Staging, kept: Vec<Piece>, inputs: &[Input]) -> Result<Vec<Piece>> {
    let one_of_a_kind = [Role::Mmproj, Role::Template, Role::Draft];
    let replaced =
        |role: Role| one_of_a_kind.contains(&role) && inputs.iter().any(|input| input.role == role);
    let mut pieces = Vec::with_capacity(kept.len());
    for piece in kept.into_iter().filter(|piece| !replaced(piece.role)) {
        if !staging.keep(&piece.blob)? {
            return Err(Error::malformed("the model", format!("its blob {} is missing", piece.blob.digest)));
        }
        pieces.push(piece);
    }
    Ok(pieces)
}

fn copy(staging: &Staging, inputs: &[Input], progress: &Progress) -> Result<Vec<Piece>> {
    let size = |input: &Input| fs::metadata(&input.path).map(|meta| meta.len()).unwrap_or(0);
    let total = inputs.iter().map(size).sum();
    let mut pieces = Vec::with_capacity(inputs.len());
    for input in inputs {
        let mut meter = Meter::new(progress, input.name.clone(), size(input), total, Transfer::Pull);
        let blob: Descriptor =
            staging.put_file(media::MODEL_FILE, &input.path, &mut |done| meter.set(done))?;
        pieces.push(Piece { role: input.role, format: input.format, blob, path: input.name.clone() });
    }
    Ok(pieces)
}

/// The config of a checked GGUF model.
pub fn gguf_config(checked: &Checked) -> ModelConfig {
    let mut texts = checked.header.metadata.to_texts();
    texts.retain(|_, text| text.len() <= MAX_CONFIG_TEXT);
    ModelConfig {
        format: Format::Gguf,
        quantization: checked.facts.quantization.clone(),
        parameters: people_count(checked.facts.parameters),
        architecture: checked.facts.architecture.clone(),
        size: people_bytes(checked.facts.weights_bytes),
        gguf: texts,
        ..ModelConfig::default()
    }
}

/// The config of a checked safetensors model; `config_json` is the file of that name, if any.
pub fn safetensors_config(headers: &[safetensors::Header], config_json: &[u8]) -> ModelConfig {
    let config: serde_json::Value = serde_json::from_slice(config_json).unwrap_or_default();
    let text = |pointer: &str| config.pointer(pointer).and_then(|value| value.as_str()).map(str::to_owned);
    let dtype = headers.first().and_then(|header| header.main_dtype()).unwrap_or_default();
    ModelConfig {
        format: Format::Safetensors,
        quantization: text("/quantization_config/quant_method").unwrap_or_else(|| dtype.to_owned()),
        parameters: people_count(headers.iter().map(safetensors::Header::parameters).sum()),
        architecture: text("/model_type").or_else(|| text("/architectures/0")).unwrap_or_default(),
        size: people_bytes(headers.iter().map(|header| header.data_bytes).sum()),
        safetensors: headers.first().map(|header| header.metadata.clone()).unwrap_or_default(),
        ..ModelConfig::default()
    }
}

/// `361.82M`
fn people_count(count: u64) -> String {
    people(count as f64, 1000.0, &["", "K", "M", "B", "T"])
}

/// `256.35MiB`
fn people_bytes(bytes: u64) -> String {
    people(bytes as f64, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB"])
}

fn people(mut value: f64, base: f64, units: &[&str]) -> String {
    let mut unit = 0;
    while value >= base && unit + 1 < units.len() {
        value /= base;
        unit += 1;
    }
    match unit {
        0 => format!("{value:.0}{}", units[0]),
        _ => format!("{value:.2}{}", units[unit]),
    }
}
