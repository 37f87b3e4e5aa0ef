//! What lists show of each model. Facts come from the weights' headers and are remembered by digest.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use pontoon_callers::Policy;
use pontoon_models::check::Mode;
use pontoon_models::{Digest, Error, Facts, Format, Model, Role, Store};

use super::blocking;
use crate::dialect::{Capability, Dialect, DialectError, ErrorKind, ModelCard, anthropic, openai};
use crate::reply::{self, Answer};
use crate::server::{Ask, Shared};

/// Models whose facts are remembered.
const MAX_FACTS: usize = 4096;

/// What is remembered.
#[derive(Debug, Clone, Default)]
pub struct Cards(Arc<Mutex<HashMap<Digest, Option<Facts>>>>);

impl Cards {
    /// The card of a model.
    pub fn of(&self, store: &Store, model: &Model) -> ModelCard {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&model.digest).cloned();
        let facts = known.unwrap_or_else(|| {
            let facts = store.facts(model).ok();
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if all.len() >= MAX_FACTS {
                all.clear();
            }
            all.insert(model.digest, facts.clone());
            facts
        });
        card(model, facts.unwrap_or_default())
    }

    /// The cards of the models that a policy gives, one for each name: clients look for the name that they ask by.
    fn all(&self, store: &Store, policy: Option<&Policy>) -> Result<Vec<ModelCard>, Error> {
        let models = store.list()?;
        let given = models.iter().filter(|model| policy.is_none_or(|policy| allowed(policy, model)));
        let cards = given.flat_map(|model| {
            let card = self.of(store, model);
            let others: Vec<ModelCard> = model
                .names
                .iter()
                .skip(1)
                .map(|name| ModelCard { name: name.familiar(), ..card.clone() })
                .collect();
            std::iter::once(card).chain(others)
        });
        Ok(cards.collect())
    }
}

/// Whether a policy gives a model, by any of its names: whole, without the usual registry, without the tag.
pub fn allowed(policy: &Policy, model: &Model) -> bool {
    let names: Vec<String> =
        model.names.iter().flat_map(|name| [name.to_string(), name.familiar()]).collect();
    policy.allows_model(names.iter().flat_map(|name| [name.as_str(), without_tag(name)]))
}

impl Ask {
    /// Whether the caller's policy gives it a model.
    pub fn sees(&self, model: &Model) -> bool {
        self.caller.policy.as_ref().is_none_or(|policy| allowed(policy, model))
    }

    /// The same of a model that runs under this name.
    pub fn sees_running(&self, name: &str) -> bool {
        self.caller.policy.as_ref().is_none_or(|policy| policy.allows_model([name, without_tag(name)]))
    }

    /// The model, where the caller's policy gives it; else as if it were not there.
    ///
    /// # Errors
    /// [`ErrorKind::ModelNotFound`].
    pub fn seen(&self, model: Model) -> Result<Model, DialectError> {
        match self.sees(&model) {
            true => Ok(model),
            false => {
                let message = format!("the model {} is not there, or not for you", model.display_name());
                Err(DialectError::new(ErrorKind::ModelNotFound, message))
            }
        }
    }
}

fn without_tag(name: &str) -> &str {
    match name.rsplit_once(':') {
        Some((rest, tag)) if !tag.contains('/') => rest,
        _ => name,
    }
}

fn card(model: &Model, facts: Facts) -> ModelCard {
    let config = &model.config;
    let first = |text: &str, other: &str| if text.is_empty() { other.to_owned() } else { text.to_owned() };
    let created = model.created.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
    let context = config.context_size.or(Some(facts.context_length)).filter(|tokens| *tokens > 0);
    let embedding = Some(facts.embedding_length).filter(|length| *length > 0);
    ModelCard {
        name: model.display_name(),
        digest: model.digest.to_string(),
        created: created.unwrap_or_default().as_secs(),
        size: model.size(),
        format: format(config.format).into(),
        family: first(&config.architecture, &facts.architecture),
        parameters: config.parameters.clone(),
        quantization: first(&config.quantization, &facts.quantization),
        context_length: context.map(u64::from),
        embedding_length: embedding.map(u64::from),
        capabilities: capabilities(model, &facts),
    }
}

fn format(format: Format) -> &'static str {
    match format {
        Format::Gguf => "gguf",
        Format::Safetensors => "safetensors",
        Format::Dduf => "dduf",
        Format::Unknown => "unknown",
    }
}

fn capabilities(model: &Model, facts: &Facts) -> Vec<Capability> {
    let mut all = match facts.mode {
        Mode::Chat => vec![Capability::Completion],
        Mode::Embedding => return vec![Capability::Embedding],
        Mode::Rerank => return vec![Capability::Rerank],
        Mode::Other => return Vec::new(),
    };
    let template = model.config.gguf.get("tokenizer.chat_template").map_or("", String::as_str);
    if template.contains("tools") {
        all.push(Capability::Tools);
    }
    if template.contains("<think>") || template.contains("enable_thinking") {
        all.push(Capability::Thinking);
    }
    if model.files_of(Role::Mmproj).next().is_some() {
        all.push(Capability::Vision);
    }
    all
}

/// The cards of all models that the caller may use.
///
/// # Errors
/// The store's.
pub async fn all(ask: &Ask) -> Result<Vec<ModelCard>, DialectError> {
    let (cards, policy) = (ask.shared.cards.clone(), ask.caller.policy.clone());
    blocking(&ask.shared.store, move |store| cards.all(store, policy.as_deref())).await
}

/// The card of a model by any of its names, and the model.
///
/// # Errors
/// [`ErrorKind::ModelNotFound`], mostly.
pub async fn one(shared: &Shared, name: &str) -> Result<(ModelCard, Model), DialectError> {
    let (cards, name) = (shared.cards.clone(), name.to_owned());
    blocking(&shared.store, move |store| {
        let model = store.resolve(&name)?;
        Ok((cards.of(store, &model), model))
    })
    .await
}

/// `…/v1/models[/{name}]`.
pub async fn answer(ask: &Ask, dialect: Dialect, name: Option<String>) -> Answer {
    // Both dialects have the same path; Anthropic's clients send a header.
    let anthropics = dialect == Dialect::Anthropic || ask.headers.contains_key("anthropic-version");
    let Some(name) = name else {
        let cards = all(ask).await?;
        return reply::written(if anthropics { anthropic::models(&cards) } else { openai::models(&cards) });
    };
    let (card, model) = one(&ask.shared, &name).await?;
    ask.seen(model)?;
    reply::written(if anthropics { anthropic::model(&card) } else { openai::model(&card) })
}

/// A model as somebody means it who leaves out the organisation.
pub fn by_last_part(store: &Store, name: &str) -> Result<Model, Error> {
    let missing = match store.resolve(name) {
        Err(error @ Error::NotFound(_)) => error,
        other => return other,
    };
    let last = |model: &Model| {
        model.names.iter().any(|reference| reference.repository().rsplit('/').next() == Some(name))
    };
    store.list()?.into_iter().find(last).ok_or(missing)
}
