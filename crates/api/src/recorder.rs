//! The record of recent requests: the last few of each model, each visible to its own caller and the
//! operator. Bodies are kept only where the configuration says so.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use tokio::sync::broadcast;

use crate::config::Requests;

/// Models with records; the one recorded longest ago is forgotten for a new one.
const MAX_MODELS: usize = 256;

/// One request. The first fields are those that Docker's runner shows.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Record {
    /// Name of the request, as in the header `x-request-id`.
    pub id: String,
    /// Model.
    pub model: Arc<str>,
    /// HTTP method.
    pub method: &'static str,
    /// Path.
    pub url: String,
    /// Body of the request; empty unless bodies are kept.
    pub request: String,
    /// Body of the answer; absent unless bodies are kept.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub response: String,
    /// What went wrong.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub error: String,
    /// Unix time, seconds.
    pub timestamp: u64,
    /// HTTP status.
    pub status_code: u16,
    /// What the client calls itself.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user_agent: String,
    /// Whom it counts for.
    pub caller: Arc<str>,
    /// The policy that is about it.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub policy: Arc<str>,
    /// `ok`, `failed` or `cancelled`.
    pub outcome: &'static str,
    /// Milliseconds in the queue, loading included.
    pub queue_ms: f64,
    /// Milliseconds that loading took of that.
    pub load_ms: f64,
    /// Milliseconds to the first token, where it was streamed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_token_ms: Option<f64>,
    /// Milliseconds in all.
    pub duration_ms: f64,
    /// Tokens of the prompt.
    pub prompt_tokens: u64,
    /// Of these, tokens that were in the cache.
    pub cached_tokens: u64,
    /// Tokens of the answer.
    pub completion_tokens: u64,
}

/// The records of one model, as Docker's CLI reads them.
#[derive(Debug, Serialize)]
pub struct OfModel {
    /// How many.
    pub count: usize,
    /// Model.
    pub model: Arc<str>,
    /// Nothing: settings are shown elsewhere.
    pub config: serde_json::Map<String, serde_json::Value>,
    /// Oldest first.
    #[serde(serialize_with = "each")]
    pub records: Vec<Arc<Record>>,
}

fn each<S: serde::Serializer>(records: &[Arc<Record>], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(records.iter().map(Arc::as_ref))
}

/// The records.
#[derive(Debug)]
pub struct Recorder {
    config: Requests,
    models: Mutex<HashMap<Arc<str>, VecDeque<Arc<Record>>>>,
    listeners: broadcast::Sender<Arc<Record>>,
}

/// Which records somebody may see and wants to.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only this caller's. `None` is for the operator.
    pub caller: Option<Arc<str>>,
    /// Only this model's.
    pub model: Option<String>,
}

impl Filter {
    /// Whether a record passes.
    pub fn passes(&self, record: &Record) -> bool {
        self.caller.as_ref().is_none_or(|caller| record.caller == *caller)
            && self.model.as_ref().is_none_or(|model| *record.model == **model)
    }
}

impl Recorder {
    /// An empty one.
    pub fn new(config: Requests) -> Self {
        Self { config, models: Mutex::default(), listeners: broadcast::channel(64).0 }
    }

    /// As much of a body as is kept.
    pub fn body(&self, bytes: &[u8]) -> String {
        if !self.config.bodies {
            return String::new();
        }
        let kept = &bytes[..bytes.len().min(self.config.body_bytes)];
        String::from_utf8_lossy(kept).into_owned()
    }

    /// Bytes of an answer that are kept.
    pub fn keeps(&self) -> usize {
        if self.config.bodies { self.config.body_bytes } else { 0 }
    }

    /// Adds one.
    pub fn add(&self, record: Record) {
        if self.config.keep == 0 {
            return;
        }
        let record = Arc::new(record);
        {
            let mut models = self.models.lock().unwrap_or_else(PoisonError::into_inner);
            if models.len() >= MAX_MODELS && !models.contains_key(&record.model) {
                let last = |records: &VecDeque<Arc<Record>>| records.back().map(|record| record.timestamp);
                if let Some(stale) =
                    models.iter().min_by_key(|(_, records)| last(records)).map(|(name, _)| name.clone())
                {
                    models.remove(&stale);
                }
            }
            let records = models.entry(record.model.clone()).or_default();
            records.push_back(record.clone());
            while records.len() > self.config.keep {
                records.pop_front();
            }
        }
        let _ = self.listeners.send(record);
    }

    /// Those that pass, by model.
    pub fn list(&self, filter: &Filter) -> Vec<OfModel> {
        let models = self.models.lock().unwrap_or_else(PoisonError::into_inner);
        let of_model = |(model, records): (&Arc<str>, &VecDeque<Arc<Record>>)| {
            let records: Vec<_> = records.iter().filter(|record| filter.passes(record)).cloned().collect();
            let (count, model) = (records.len(), model.clone());
            (count > 0).then(|| OfModel { count, model, config: serde_json::Map::new(), records })
        };
        let mut list: Vec<_> = models.iter().filter_map(of_model).collect();
        list.sort_by(|a, b| a.model.cmp(&b.model));
        list
    }

    /// Those to come.
    pub fn follow(&self) -> broadcast::Receiver<Arc<Record>> {
        self.listeners.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(model: &str, caller: &str, at: u64) -> Record {
        Record { model: model.into(), caller: caller.into(), timestamp: at, ..Record::default() }
    }

    #[test]
    fn a_caller_sees_its_own_and_the_last_few_are_kept() {
        let recorder = Recorder::new(Requests { keep: 3, ..Requests::default() });
        for at in 0..5 {
            recorder.add(record("m", if at % 2 == 0 { "a" } else { "b" }, at));
        }
        let of = |caller: Option<&str>| {
            let list = recorder.list(&Filter { caller: caller.map(Into::into), model: None });
            list.iter()
                .flat_map(|model| model.records.iter().map(|record| record.timestamp))
                .collect::<Vec<_>>()
        };
        assert_eq!(of(None), [2, 3, 4]);
        assert_eq!(of(Some("a")), [2, 4]);
        assert_eq!(of(Some("nobody")), [0; 0]);
        for model in 0..2 * MAX_MODELS as u64 {
            recorder.add(record(&format!("m{model}"), "a", 10 + model));
        }
        assert_eq!(recorder.models.lock().unwrap().len(), MAX_MODELS);
    }

    #[test]
    fn bodies_are_kept_only_where_wished() {
        assert_eq!(Recorder::new(Requests::default()).body(b"secret"), "");
        let kept = Recorder::new(Requests { bodies: true, body_bytes: 3, ..Requests::default() });
        assert_eq!(kept.body(b"secret"), "sec");
    }
}
