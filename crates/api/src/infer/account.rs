//! What one request used: its turn, its tokens and times, and how it ended. Whatever happens, a request
//! is accounted for once, at the latest when this is dropped.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use pontoon_engines::{Lease, Usage as EngineUsage};

use crate::dialect::{Endpoint, Usage};
use crate::metrics::{Key, Rows};
use crate::rates::Turn;
use crate::recorder::Record;
use crate::server::Shared;

/// The account of one request.
pub struct Account {
    shared: Arc<Shared>,
    endpoint: Endpoint,
    /// Until what it took is known.
    turn: Option<Turn>,
    started: Instant,
    record: Record,
    lease: Option<Lease>,
    /// Tokens that the request was expected to take, and those of its prompt, once an engine has it.
    cost: u64,
    prompt: u64,
    rows: Option<Arc<Rows>>,
    /// Tokens seen so far, and when the last came.
    seen: u64,
    last: Instant,
    answer: Vec<u8>,
    open: bool,
}

/// The account of a request that has its answer; closed when this is dropped, for which its caller need not wait.
pub struct Settled {
    account: Account,
    usage: Usage,
}

impl Drop for Settled {
    fn drop(&mut self) {
        self.account.close(Outcome::Ok, 200, self.usage, None);
        self.account.shared.settling.fetch_sub(1, Ordering::Release);
    }
}

impl Shared {
    /// Waits until what callers have been answered is counted; not for ever, where somebody is always being answered.
    pub async fn settled(&self) {
        for _ in 0..20 {
            if self.settling.load(Ordering::Acquire) == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// With its answer.
    Ok,
    /// With an error.
    Failed,
    /// The caller went.
    Cancelled,
}

impl Outcome {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

impl Account {
    /// Opens one. `record` holds what is known of the request.
    pub fn open(
        shared: Arc<Shared>,
        endpoint: Endpoint,
        turn: Turn,
        started: Instant,
        record: Record,
    ) -> Self {
        shared.metrics.running().inc();
        Self {
            shared,
            endpoint,
            turn: Some(turn),
            started,
            record,
            lease: None,
            cost: 0,
            prompt: 0,
            rows: None,
            seen: 0,
            last: started,
            answer: Vec::new(),
            open: true,
        }
    }

    /// The caller's share of turns.
    pub fn weight(&self) -> u32 {
        self.turn.as_ref().map_or(1, |turn| turn.weight)
    }

    /// A turn on an engine was given, for about so many tokens in all and in the prompt.
    pub fn granted(&mut self, lease: Lease, cost: u32, prompt: u32) -> &Lease {
        (self.cost, self.prompt) = (cost.into(), prompt.into());
        self.record.model = lease.at.model.clone();
        let rows = self.shared.metrics.rows(self.key());
        rows.queued(lease.wait);
        self.rows = Some(rows);
        self.record.queue_ms = millis(lease.wait);
        self.record.load_ms = millis(lease.load);
        self.lease.insert(lease)
    }

    /// The turn is given back: its engine is gone.
    pub fn returned(&mut self) {
        self.lease = None;
        self.rows = None;
        self.prompt = 0;
    }

    /// Name of the model's record; the store's name once there is a turn.
    pub fn known_model(&mut self, name: &str) {
        self.record.model = name.into();
    }

    fn key(&self) -> Key {
        let Record { caller, policy, model, .. } = &self.record;
        let (caller, policy, model) = (caller.clone(), policy.clone(), model.clone());
        Key { endpoint: self.endpoint, caller, policy, model }
    }

    /// Time since the request's head was read.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// So many tokens have come in all.
    pub fn tokens(&mut self, total: u64) {
        if total <= self.seen {
            return;
        }
        let now = Instant::now();
        if let Some(rows) = &self.rows {
            if self.seen == 0 {
                let first = now.saturating_duration_since(self.started);
                self.record.first_token_ms = Some(millis(first));
                rows.first(first);
            } else {
                let gap = now.saturating_duration_since(self.last).as_secs_f64();
                rows.between.observe(gap / (total - self.seen) as f64);
            }
        }
        (self.seen, self.last) = (total, now);
    }

    /// Keeps a piece of the answer, where bodies are kept.
    pub fn answered(&mut self, bytes: &[u8]) {
        let room = self.shared.recorder.keeps().saturating_sub(self.answer.len());
        self.answer.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    /// Keeps an answer for the Responses API.
    pub fn keep(&self, stored: crate::dialect::Stored) {
        self.shared.answers.keep(&self.record.caller, stored, Instant::now());
    }

    /// Tokens of the prompt and of the answer. Of a request that was cancelled or failed nobody counted them: the
    /// caller pays for what it saw.
    fn spent(&self, usage: Usage) -> (u64, u64) {
        match usage.measured {
            true => (usage.prompt_tokens, usage.completion_tokens),
            false => (self.prompt, self.seen),
        }
    }

    /// Takes tokens out of the caller's allowance, once.
    fn pay(&mut self, tokens: u64) {
        if let Some(turn) = self.turn.take() {
            turn.spend(tokens);
        }
    }

    /// The answer is there. What it took out of the caller's allowance counts before the caller hears of it, the rest
    /// later.
    pub fn settle(mut self, usage: Usage) -> Settled {
        let (prompt, answer) = self.spent(usage);
        self.pay(prompt.saturating_add(answer));
        self.shared.settling.fetch_add(1, Ordering::Relaxed);
        Settled { account: self, usage }
    }

    /// Closes the account.
    pub fn close(&mut self, outcome: Outcome, status: u16, usage: Usage, error: Option<&str>) {
        if !std::mem::take(&mut self.open) {
            return;
        }
        let took = self.elapsed();
        let (prompt, answer) = self.spent(usage);
        let spent = prompt.saturating_add(answer);
        // In the queue a request that was cancelled or failed costs at least what it was expected to, which dropping
        // the lease charges.
        let counted = usage.measured || outcome == Outcome::Ok || spent > self.cost;
        if let Some(lease) = self.lease.take().filter(|_| counted) {
            let count = |tokens: u64| u32::try_from(tokens).unwrap_or(u32::MAX);
            lease.finish(EngineUsage { prompt_tokens: count(prompt), completion_tokens: count(answer) });
        }
        self.pay(spent);
        let metrics = &self.shared.metrics;
        metrics.running().dec();
        match (&self.rows, outcome) {
            (Some(rows), Outcome::Ok) => rows.answered(),
            _ => metrics.unanswered(&self.key(), outcome.word()),
        }
        match &self.rows {
            Some(rows) => rows.took(took, usage),
            None => metrics.turned_away(&self.key(), took),
        }
        if self.record.model.is_empty() {
            return;
        }
        let mut record = std::mem::take(&mut self.record);
        record.response = self.shared.recorder.body(&self.answer);
        record.error = error.unwrap_or_default().to_owned();
        record.status_code = status;
        record.outcome = outcome.word();
        record.duration_ms = millis(took);
        record.prompt_tokens = usage.prompt_tokens;
        record.cached_tokens = usage.cached_tokens;
        record.completion_tokens = usage.completion_tokens;
        self.shared.recorder.add(record);
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.close(Outcome::Cancelled, 499, Usage::default(), None);
    }
}

fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}
