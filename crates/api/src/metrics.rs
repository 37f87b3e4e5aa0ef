//! Counters and histograms in Prometheus' text format (OpenMetrics).

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pontoon_engines::Runner;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::dialect::{Endpoint, Usage};

/// Callers with rows of their own; later ones are counted together, as `other`.
const MAX_CALLERS: usize = 256;

/// Requests whose rows are remembered: callers times models times paths, all that are in use.
const MAX_KNOWN: usize = 4096;

/// `Content-Type` of [`Metrics::text`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A label's value as OpenMetrics writes it; the encoder does not escape.
pub fn label(text: &str) -> String {
    text.replace('\\', r"\\").replace('"', r#"\""#).replace('\n', r"\n")
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RequestLabels {
    endpoint: String,
    caller: String,
    policy: String,
    model: String,
    outcome: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct TokenLabels {
    caller: String,
    policy: String,
    model: String,
    kind: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ModelLabels {
    model: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct MemoryLabels {
    model: String,
    place: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct EventLabels {
    event: String,
}

type Histograms = Family<ModelLabels, Histogram, fn() -> Histogram>;

/// All of them.
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    tokens: Family<TokenLabels, Counter>,
    seconds: Histograms,
    queue: Histograms,
    first: Histograms,
    between: Histograms,
    running: Gauge,
    connections: Gauge,
    memory: Family<MemoryLabels, Gauge>,
    engines: Family<EventLabels, Counter>,
    waiting: Gauge,
    callers: Mutex<HashSet<String>>,
    known: Mutex<HashMap<Key, Arc<Rows>>>,
}

/// The rows that a request counts in, looked up once.
#[derive(Debug)]
pub struct Rows {
    /// Time between tokens.
    pub between: Histogram,
    first: Histogram,
    queue: Histogram,
    seconds: Histogram,
    ok: Counter,
    prompt: Counter,
    cached: Counter,
    completion: Counter,
}

/// What says which rows those are.
#[derive(Debug, Clone, Hash, PartialEq, Eq)]
pub struct Key {
    /// Where the request came in.
    pub endpoint: Endpoint,
    /// Whom it counts for.
    pub caller: Arc<str>,
    /// The policy that is about it.
    pub policy: Arc<str>,
    /// The model's name in the store, never a caller's word.
    pub model: Arc<str>,
}

impl Rows {
    /// The wait for a turn, loading included.
    pub fn queued(&self, wait: Duration) {
        self.queue.observe(wait.as_secs_f64());
    }

    /// The first token came, this long after the request.
    pub fn first(&self, after: Duration) {
        self.first.observe(after.as_secs_f64());
    }

    /// The request has had its answer.
    pub fn answered(&self) {
        self.ok.inc();
    }

    /// The request is over, and took so long and so many tokens.
    pub fn took(&self, time: Duration, usage: Usage) {
        self.seconds.observe(time.as_secs_f64());
        self.prompt.inc_by(usage.prompt_tokens.saturating_sub(usage.cached_tokens));
        self.cached.inc_by(usage.cached_tokens);
        self.completion.inc_by(usage.completion_tokens);
    }
}

fn long() -> Histogram {
    Histogram::new([0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0])
}

fn short() -> Histogram {
    Histogram::new([0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0])
}

impl Default for Metrics {
    fn default() -> Self {
        let histograms = |of: fn() -> Histogram| Histograms::new_with_constructor(of);
        let mut new = Self {
            registry: Registry::with_prefix("pontoon"),
            requests: Family::default(),
            tokens: Family::default(),
            seconds: histograms(long),
            queue: histograms(long),
            first: histograms(long),
            between: histograms(short),
            running: Gauge::default(),
            connections: Gauge::default(),
            memory: Family::default(),
            engines: Family::default(),
            waiting: Gauge::default(),
            callers: Mutex::default(),
            known: Mutex::default(),
        };
        new.register();
        new
    }
}

impl Metrics {
    fn register(&mut self) {
        let all = &mut self.registry;
        all.register("requests", "Requests, by how they ended", self.requests.clone());
        all.register(
            "tokens",
            "Tokens of prompts (those from the cache are 'cached') and answers",
            self.tokens.clone(),
        );
        let seconds = |all: &mut Registry, name, help, metric: &Histograms| {
            all.register_with_unit(name, help, Unit::Seconds, metric.clone());
        };
        seconds(all, "request", "Whole requests", &self.seconds);
        seconds(all, "queue_wait", "Wait for a turn, loading the model included", &self.queue);
        seconds(all, "time_to_first_token", "From a request to its first token", &self.first);
        seconds(all, "inter_token", "Time between tokens", &self.between);
        all.register(
            "requests_running",
            "Requests under way, those that wait included",
            self.running.clone(),
        );
        all.register("requests_waiting", "Requests that wait for a turn", self.waiting.clone());
        all.register("connections", "Open connections", self.connections.clone());
        all.register("engine_events", "Loads, evictions and failures of engines", self.engines.clone());
        all.register_with_unit("engine_memory", "Memory of loaded models", Unit::Bytes, self.memory.clone());
    }

    /// The rows of requests like this one.
    pub fn rows(&self, key: Key) -> Arc<Rows> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(rows) = known.get(&key) {
            return rows.clone();
        }
        let (caller, policy, model) = self.labels(&key);
        let of_model = ModelLabels { model: model.clone() };
        let tokens = |kind: &str| {
            let (caller, policy, model) = (caller.clone(), policy.clone(), model.clone());
            self.tokens.get_or_create(&TokenLabels { caller, policy, model, kind: kind.into() }).clone()
        };
        let rows = Arc::new(Rows {
            between: self.between.get_or_create(&of_model).clone(),
            first: self.first.get_or_create(&of_model).clone(),
            queue: self.queue.get_or_create(&of_model).clone(),
            seconds: self.seconds.get_or_create(&of_model).clone(),
            ok: self.requests(&key, "ok"),
            prompt: tokens("prompt"),
            cached: tokens("cached"),
            completion: tokens("completion"),
        });
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        known.insert(key, rows.clone());
        rows
    }

    /// A request ended without its answer: it failed, or its caller went.
    pub fn unanswered(&self, key: &Key, outcome: &str) {
        self.requests(key, outcome).inc();
    }

    /// A request ended without a turn.
    pub fn turned_away(&self, key: &Key, time: Duration) {
        let of_model = ModelLabels { model: key.model.to_string() };
        self.seconds.get_or_create(&of_model).observe(time.as_secs_f64());
    }

    fn requests(&self, key: &Key, outcome: &str) -> Counter {
        let (caller, policy, model) = self.labels(key);
        let (endpoint, outcome) = (format!("{:?}", key.endpoint), outcome.to_owned());
        let labels = RequestLabels { endpoint, caller, policy, model, outcome };
        self.requests.get_or_create(&labels).clone()
    }

    fn labels(&self, key: &Key) -> (String, String, String) {
        (self.bounded(&label(&key.caller)), label(&key.policy), key.model.to_string())
    }

    fn bounded(&self, caller: &str) -> String {
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        if callers.contains(caller) {
            return caller.to_owned();
        }
        if callers.len() >= MAX_CALLERS {
            return "other".into();
        }
        callers.insert(caller.to_owned());
        caller.to_owned()
    }

    /// Requests under way.
    pub fn running(&self) -> &Gauge {
        &self.running
    }

    /// Open connections.
    pub fn connections(&self) -> &Gauge {
        &self.connections
    }

    /// All of it as text, with what the runner knows now, and `more` families before the end.
    pub async fn text(&self, runner: &Runner, more: &str) -> String {
        self.memory.clear();
        for running in runner.ps().await {
            for (place, bytes) in [("host", running.memory.host), ("gpu", running.memory.gpu)] {
                let labels = MemoryLabels { model: running.model.clone(), place: place.into() };
                self.memory.get_or_create(&labels).set(i64::try_from(bytes).unwrap_or(i64::MAX));
            }
        }
        self.waiting.set(runner.queue().await.len() as i64);
        let counters = runner.counters().await;
        for (event, value) in [
            ("loaded", counters.loads),
            ("load_failed", counters.load_failures),
            ("evicted", counters.evictions),
            ("died", counters.deaths),
            ("oom_retried", counters.oom_retries),
            ("rejected", counters.rejected),
            ("cancelled", counters.cancelled),
        ] {
            let counter = self.engines.get_or_create(&EventLabels { event: event.into() });
            let inner: &AtomicU64 = counter.inner();
            inner.store(value, Ordering::Relaxed);
        }
        let mut text = String::new();
        match encode(&mut text, &self.registry) {
            Ok(()) => format!("{}{more}# EOF\n", text.strip_suffix("# EOF\n").unwrap_or(&text)),
            Err(error) => format!("# {error}\n# EOF\n"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_are_bounded_and_cached_tokens_are_not_counted_twice() {
        let metrics = Metrics::default();
        let usage = Usage {
            prompt_tokens: 10,
            cached_tokens: 4,
            completion_tokens: 3,
            measured: true,
            ..Usage::default()
        };
        for caller in 0..=MAX_CALLERS {
            let key = Key {
                endpoint: Endpoint::ChatCompletions,
                caller: format!("container:{caller}").into(),
                policy: "batch".into(),
                model: "ai/m".into(),
            };
            for _ in 0..2 {
                let rows = metrics.rows(key.clone());
                rows.answered();
                rows.took(Duration::from_millis(5), usage);
            }
            metrics.unanswered(&key, "failed");
        }
        let mut text = String::new();
        encode(&mut text, &metrics.registry).unwrap();
        assert!(
            text.contains("pontoon_tokens_total{caller=\"container:7\",policy=\"batch\",model=\"ai/m\",kind=\"prompt\"} 12"),
            "{text}"
        );
        assert!(text.contains("caller=\"other\""));
        assert!(!text.contains(&format!("container:{MAX_CALLERS}\"")));
        assert!(text.contains("pontoon_request_seconds_count{model=\"ai/m\"} 514"), "{text}");
    }
}
