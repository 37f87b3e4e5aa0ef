//! Owns how a model in the store becomes an engine's job: modes, settings, engine, command line, need.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pontoon_models::{Bundle, Facts, Format, Model, check};
use serde_json::Value as Json;

use super::types::{AcquireError, Mode, Options, Refusal};
use crate::engine::{Engine, Kind};
use crate::footprint::{Footprints, estimate};
use crate::instance::SlotKey;
use crate::scheduler::Profile;
use crate::settings::{self, Effective, Origin, Pooling, Saved, Settings};
use crate::{Error, KeepAlive, Memory};

/// Tokens of context unless somebody says otherwise.
const CONTEXT: u32 = 4096;
/// Tokens of context of models that embed or rank; all of a text must fit into one batch there.
const EMBEDDING_CONTEXT: u32 = 8192;
const PARALLEL: u32 = 4;
const PROMPT_CACHE_MIB: u32 = 256;
const KEEP_ALIVE: Duration = Duration::from_secs(300);

/// What requests ask beyond the configuration, until the model is unloaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Raise {
    pub context: Option<u32>,
    pub embeddings: bool,
}

/// A model that drafts for another.
#[derive(Clone, Debug)]
pub struct Draft {
    pub digest: String,
    pub bundle: Bundle,
}

/// How a model is run.
#[derive(Clone, Debug)]
pub struct Plan {
    pub digest: String,
    /// To show.
    pub name: String,
    pub names: Vec<String>,
    pub size: u64,
    pub engine: Engine,
    pub effective: Effective,
    pub facts: Facts,
    pub bundle: Bundle,
    /// Another model that drafts for this one.
    pub draft: Option<Draft>,
    pub modes: Vec<Mode>,
    pub raise: Raise,
    /// Under which its footprint is remembered.
    pub key: String,
    pub measured: bool,
    pub profile: Profile,
    pub slot_key: Option<SlotKey>,
}

/// Makes plans. Blocks.
#[derive(Debug)]
pub struct Planner {
    pub options: Options,
    pub budget: Mutex<Memory>,
    pub saved: Mutex<Saved>,
    pub footprints: Mutex<Footprints>,
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Planner {
    /// The model behind a name.
    pub fn resolve(&self, name: &str) -> Result<Model, AcquireError> {
        self.options.store.resolve(name).map_err(|error| {
            let kind = match error.http_status() {
                404 => Refusal::NotFound,
                400..500 => Refusal::Invalid,
                _ => Refusal::LoadFailed { retry_after: None },
            };
            AcquireError::new(kind, error.to_string())
        })
    }

    /// A sentence without the host's folders: it may go to a guest.
    pub fn without_paths(&self, text: &str) -> String {
        let Options { store, state, run, .. } = &self.options;
        let mut text = text.to_owned();
        for folder in [store.root(), state, run] {
            while let Some(at) = text.find(&folder.display().to_string()) {
                let end = text[at..].find(|c: char| c.is_whitespace() || "\"'`,;".contains(c));
                let end = end.map_or(text.len(), |length| at + length);
                let name = text[at..end].rsplit('/').next().unwrap_or_default().to_owned();
                text.replace_range(at..end, &name);
            }
        }
        text
    }

    /// How `model` is to be run when requests ask for `raise`.
    pub fn plan(&self, model: &Model, raise: Raise) -> Result<Plan, AcquireError> {
        let broken = |e: pontoon_models::Error| {
            let reason = self.without_paths(&format!("{} was refused: {e}", model.display_name()));
            AcquireError::new(Refusal::LoadFailed { retry_after: None }, reason)
        };
        let bundle = self.options.store.bundle(model).map_err(broken)?;
        let facts = check::facts(&bundle).map_err(broken)?;
        if facts.mode == check::Mode::Other {
            let message =
                format!("{} is not a model for text, and no engine here runs it", model.display_name());
            return Err(AcquireError::new(Refusal::WrongMode, message));
        }
        let layers = self.layers(model, &bundle, &facts, raise);
        let effective = settings::effective(&layers).map_err(invalid)?;
        let engine = self.engine(&effective.settings, bundle.format)?;
        let effective = self.settle(effective, &engine, &facts, &bundle, raise);
        let draft = self.draft(&effective.settings)?;
        let modes = modes(&engine, &effective.settings, &facts);
        Ok(self.assemble(model, bundle, facts, engine, effective, draft, modes, raise))
    }

    #[allow(clippy::too_many_arguments, reason = "the one place where all parts meet")]
    fn assemble(
        &self,
        model: &Model,
        bundle: Bundle,
        facts: Facts,
        engine: Engine,
        effective: Effective,
        draft: Option<Draft>,
        modes: Vec<Mode>,
        raise: Raise,
    ) -> Plan {
        let digest = model.digest.to_string();
        let chosen = &effective.settings;
        let gpu = lock(&self.budget).gpu > 0;
        let key = footprint_key(&digest, &engine, chosen, gpu);
        let known = lock(&self.footprints).get(&key);
        let slots = chosen.parallel.unwrap_or(PARALLEL);
        let profile = Profile {
            need: known.map_or_else(|| estimate(&facts, chosen, gpu), |known| known.memory),
            slots,
            keep_alive: chosen.keep_alive.unwrap_or(KeepAlive::For(KEEP_ALIVE)),
            pinned: chosen.pinned == Some(true),
            reload: known.map_or_else(
                // A gigabyte a second, until it was seen.
                || Duration::from_millis(50 + (facts.weights_bytes >> 20)),
                |known| Duration::from_millis(known.load_millis),
            ),
        };
        let saves = engine.kind == Kind::LlamaServer
            && chosen.save_slots != Some(false)
            && modes.contains(&Mode::Chat)
            && bundle.mmproj.is_none();
        let slot_key = saves.then(|| SlotKey::new(&digest, &engine.label(), chosen));
        let names = model.names.iter().map(|name| name.familiar()).collect();
        Plan {
            name: model.display_name(),
            names,
            size: model.size(),
            measured: known.is_some(),
            digest,
            engine,
            effective,
            facts,
            bundle,
            draft,
            modes,
            raise,
            key,
            profile,
            slot_key,
        }
    }

    /// Host layers: `pontoon.toml`, then what `configure` saved under any of the model's names.
    fn layers(&self, model: &Model, bundle: &Bundle, facts: &Facts, raise: Raise) -> Vec<(Origin, Settings)> {
        let saved = lock(&self.saved);
        let mut host = self.options.defaults.clone();
        host = host.overlaid(&saved.get(&model.digest.to_string()));
        for name in &model.names {
            host = host.overlaid(&saved.get(&name.to_string()));
        }
        let artifact = artifact_layer(model, bundle);
        let request = Settings {
            context_size: raise.context,
            embeddings: raise.embeddings.then_some(true),
            ..Settings::default()
        };
        let default = default_layer(facts);
        vec![
            (Origin::Default, default),
            (Origin::Artifact, artifact),
            (Origin::Host, host),
            (Origin::Request, request),
        ]
    }

    fn engine(&self, chosen: &Settings, format: Format) -> Result<Engine, AcquireError> {
        let none = |e: Error| AcquireError::new(Refusal::NoEngine, e.to_string());
        let catalog = &self.options.engines;
        if let Some(wish) = &chosen.engine {
            let (name, version) = match wish.split_once('@') {
                Some((name, version)) => (name, Some(version)),
                None => (wish.as_str(), None),
            };
            return catalog.locate(name, version).map_err(none);
        }
        let mut last = None;
        for kind in Kind::for_format(format) {
            match catalog.locate(kind.name(), None) {
                Ok(engine) => return Ok(engine),
                Err(error) => last = Some(error),
            }
        }
        Err(last.map_or_else(
            || AcquireError::new(Refusal::NoEngine, "no engine here runs models of this format"),
            none,
        ))
    }

    /// Values that follow from others: batch sizes of models that embed, the bound on context.
    fn settle(
        &self,
        effective: Effective,
        engine: &Engine,
        facts: &Facts,
        bundle: &Bundle,
        raise: Raise,
    ) -> Effective {
        let chosen = &effective.settings;
        let mut derived = Settings::default();
        let trained = if facts.context_length == 0 { u32::MAX } else { facts.context_length };
        let stretched = chosen.rope_scaling.is_some() || chosen.rope_scale.is_some();
        if !stretched && chosen.context_size.is_some_and(|wish| wish > trained) {
            derived.context_size = Some(trained);
        }
        let encodes = facts.mode != check::Mode::Chat;
        if encodes && engine.kind == Kind::LlamaServer {
            // An encoder sees a text at once or not at all.
            let context = derived.context_size.or(chosen.context_size).unwrap_or(512);
            derived.ubatch = chosen.ubatch.or(Some(context.max(512)));
            derived.batch = chosen.batch.or(derived.ubatch);
        }
        if !bundle.adapters.is_empty() && engine.kind == Kind::LlamaServer {
            // Neither the engine's cache nor a saved slot knows with which adapters it was computed.
            derived.prompt_cache_mib = Some(0);
            derived.save_slots = Some(false);
        }
        if raise.embeddings && chosen.pooling.is_none() {
            // The last token of a causal model has seen all others; long texts may come in pieces.
            derived.pooling = Some(Pooling::Last);
        }
        effective.adjusted(&derived)
    }

    fn draft(&self, chosen: &Settings) -> Result<Option<Draft>, AcquireError> {
        let Some(name) = chosen.draft_model.as_deref().filter(|_| chosen.draft != Some(false)) else {
            return Ok(None);
        };
        let model = self.resolve(name)?;
        let bundle = self.options.store.bundle(&model);
        bundle
            .map(|bundle| Some(Draft { digest: model.digest.to_string(), bundle }))
            .map_err(|e| AcquireError::new(Refusal::LoadFailed { retry_after: None }, e.to_string()))
    }
}

fn invalid(error: Error) -> AcquireError {
    AcquireError::new(Refusal::Invalid, error.to_string())
}

fn default_layer(facts: &Facts) -> Settings {
    let trained = if facts.context_length == 0 { u32::MAX } else { facts.context_length };
    let encodes = facts.mode != check::Mode::Chat;
    Settings {
        context_size: Some(if encodes { EMBEDDING_CONTEXT } else { CONTEXT }.min(trained)),
        parallel: Some(PARALLEL),
        prompt_cache_mib: Some(if encodes { 0 } else { PROMPT_CACHE_MIB }),
        keep_alive: Some(KeepAlive::For(KEEP_ALIVE)),
        save_slots: Some(!encodes),
        embeddings: (facts.mode == check::Mode::Embedding).then_some(true),
        reranking: (facts.mode == check::Mode::Rerank).then_some(true),
        ..Settings::default()
    }
}

/// What the artifact says: its context size, and an Ollama artifact's parameters.
fn artifact_layer(model: &Model, bundle: &Bundle) -> Settings {
    let parameters = &bundle.defaults.parameters;
    let float = |name: &str| parameters.get(name).and_then(Json::as_f64);
    let whole =
        |name: &str| parameters.get(name).and_then(Json::as_u64).and_then(|value| value.try_into().ok());
    let layer = Settings {
        context_size: model.config.context_size.or_else(|| whole("num_ctx")).filter(|size| *size > 0),
        temperature: float("temperature"),
        top_k: whole("top_k"),
        top_p: float("top_p"),
        min_p: float("min_p"),
        repeat_penalty: float("repeat_penalty"),
        presence_penalty: float("presence_penalty"),
        frequency_penalty: float("frequency_penalty"),
        seed: whole("seed"),
        max_tokens: whole("num_predict").filter(|most| *most > 0),
        ..Settings::default()
    };
    // A stranger's artifact must not make a model unusable.
    if layer.check().is_ok() { layer } else { Settings::default() }
}

fn modes(engine: &Engine, chosen: &Settings, facts: &Facts) -> Vec<Mode> {
    match engine.kind {
        Kind::Custom => vec![Mode::Chat, Mode::Embedding, Mode::Rerank],
        Kind::MlxLm => vec![Mode::Chat],
        Kind::Vllm if facts.mode == check::Mode::Chat => vec![Mode::Chat],
        Kind::Vllm => vec![Mode::Embedding, Mode::Rerank],
        Kind::LlamaServer if chosen.reranking == Some(true) => vec![Mode::Rerank],
        Kind::LlamaServer if facts.mode == check::Mode::Embedding => vec![Mode::Embedding],
        Kind::LlamaServer if chosen.embeddings == Some(true) => vec![Mode::Chat, Mode::Embedding],
        Kind::LlamaServer => vec![Mode::Chat],
    }
}

/// Everything that memory depends on.
fn footprint_key(digest: &str, engine: &Engine, chosen: &Settings, gpu: bool) -> String {
    let shape = Settings {
        engine: None,
        preset: None,
        keep_alive: None,
        pinned: None,
        save_slots: None,
        temperature: None,
        top_k: None,
        top_p: None,
        min_p: None,
        repeat_penalty: None,
        presence_penalty: None,
        frequency_penalty: None,
        seed: None,
        max_tokens: None,
        ..chosen.clone()
    };
    let device = if gpu { "gpu" } else { "cpu" };
    let flags = serde_json::to_string(&shape).unwrap_or_default();
    format!("{digest} {} {device} {flags}", engine.label())
}

impl Plan {
    /// True if it can serve `mode` as it is.
    pub fn serves(&self, mode: Mode) -> bool {
        self.modes.contains(&mode)
    }

    /// True if a process of this model could serve `mode` with other flags.
    pub fn could_serve(&self, mode: Mode) -> bool {
        self.serves(mode)
            || (mode == Mode::Embedding
                && self.engine.kind == Kind::LlamaServer
                && self.facts.mode == check::Mode::Chat
                && self.effective.settings.reranking != Some(true))
    }

    /// The scale of each adapter that the engine was given, for requests that name none.
    pub fn adapters(&self) -> Vec<f64> {
        if self.engine.kind != Kind::LlamaServer {
            return Vec::new();
        }
        let scales = self.effective.settings.lora_scale.as_deref().unwrap_or_default();
        (0..self.bundle.adapters.len()).map(|at| scales.get(at).copied().unwrap_or(0.0)).collect()
    }

    pub fn context_size(&self) -> u32 {
        self.effective.settings.context_size.unwrap_or(self.facts.context_length)
    }

    /// Bytes of main memory that prompts may be kept in, beside the slots.
    pub fn prompt_cache(&self) -> u64 {
        u64::from(self.effective.settings.prompt_cache_mib.unwrap_or_default()) << 20
    }

    /// What the engine calls its model.
    pub fn engine_model(&self) -> String {
        match self.engine.kind {
            Kind::MlxLm => "default_model".to_owned(),
            _ => self.alias(),
        }
    }

    /// The display name without anything that an engine's command line or a log would take amiss.
    pub(super) fn alias(&self) -> String {
        let plain = |c: char| c.is_ascii_alphanumeric() || "/:._-@".contains(c);
        let name: String = self.name.chars().map(|c| if plain(c) { c } else { '_' }).take(200).collect();
        name.trim_start_matches('-').to_owned()
    }
}
