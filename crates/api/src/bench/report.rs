//! What came out, for people and as JSON, beside what is wanted.

use std::fmt;

use serde::Serialize;

use super::{Mixed, Options};

/// One side's figures; times in seconds, speeds in tokens a second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Side {
    /// Speed of one stream.
    pub one: f64,
    /// Speed of eight streams together.
    pub eight: f64,
    /// Speed at which prompts are read.
    pub prompt: f64,
    /// A whole short request: a text's next token.
    pub request: f64,
    /// A whole short chat.
    pub chat: f64,
    /// To the first token.
    pub first: f64,
    /// Between tokens.
    pub gap: f64,
}

/// How ours compares; wanted values in brackets. Speeds and times are compared by the middles of all ratios or
/// differences, which are not those of the medians beside them.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Compared {
    /// Speed of one stream, as a share [at least 0.99].
    pub one: f64,
    /// Speed of eight streams, as a share [at least 0.99].
    pub eight: f64,
    /// Speed of prompts, as a share [at least 0.99].
    pub prompt: f64,
    /// Added to a request, in microseconds [at most 150].
    pub request_us: f64,
    /// The same of a chat, which keeps the engine so long that our own code is out of the processor's caches.
    pub chat_us: f64,
    /// Added to a token, in microseconds [at most 20].
    pub token_us: f64,
    /// Added to the first token, in microseconds [at most 1000].
    pub first_us: f64,
    /// 95th percentile of the modest callers in the mixed load, as a share [below 1].
    pub modest_p95: f64,
}

/// How far both are apart: factors of speed, then by what ours takes longer, in seconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Apart {
    pub one: f64,
    pub eight: f64,
    pub prompt: f64,
    pub request: f64,
    pub chat: f64,
    pub token: f64,
    pub first: f64,
}

/// Two callers with a shared prefix.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Prefix {
    /// Tokens of the first one's prompt.
    pub prompt_tokens: u64,
    /// Seconds to the first token of who came first.
    pub first_seconds: f64,
    /// The same of who came next.
    pub second_seconds: f64,
}

/// Memory of idle connections.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Idle {
    /// How many.
    pub connections: usize,
    /// Bytes for all of them.
    pub bytes: u64,
}

/// Everything.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Pontoon's address.
    pub ours_at: String,
    /// The other's.
    pub against_at: Option<String>,
    /// Model.
    pub model: String,
    /// Pontoon.
    pub ours: Side,
    /// The other.
    pub against: Option<Side>,
    /// Ours beside the other.
    pub compared: Option<Compared>,
    /// The mixed load, ours.
    pub mixed: Mixed,
    /// The mixed load, the other's.
    pub mixed_against: Option<Mixed>,
    /// The shared prefix.
    pub prefix: Option<Prefix>,
    /// Why it could not be measured.
    pub prefix_missing: Option<String>,
    /// Idle connections, where the server's process is known.
    pub idle: Option<Idle>,
}

impl Report {
    pub(super) fn new(
        options: &Options,
        sides: Vec<Side>,
        apart: Apart,
        mixed: Vec<Mixed>,
        prefix: Option<Result<Prefix, String>>,
        idle: Option<Idle>,
    ) -> Self {
        let (ours, against) = (sides[0], sides.get(1).copied());
        let (mixed_ours, mixed_against) = (mixed[0], mixed.get(1).copied());
        let compared = mixed_against.map(|mixed| Compared {
            one: apart.one,
            eight: apart.eight,
            prompt: apart.prompt,
            request_us: apart.request * 1e6,
            chat_us: apart.chat * 1e6,
            token_us: apart.token * 1e6,
            first_us: apart.first * 1e6,
            modest_p95: mixed_ours.modest.p95 / mixed.modest.p95,
        });
        let (prefix, prefix_missing) = match prefix {
            Some(Ok(prefix)) => (Some(prefix), None),
            Some(Err(why)) => (None, Some(why)),
            None => (None, None),
        };
        Self {
            ours_at: options.ours.to_string(),
            against_at: options.against.as_ref().map(ToString::to_string),
            model: options.model.clone(),
            ours,
            against,
            compared,
            mixed: mixed_ours,
            mixed_against,
            prefix,
            prefix_missing,
            idle,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "model {}; ours: {}", self.model, self.ours_at)?;
        if let Some(against) = &self.against_at {
            writeln!(f, "against: {against}")?;
        }
        let other = self.against.unwrap_or(Side { one: f64::NAN, ..Side::default() });
        let compared = self.compared;
        let mut row = |name: &str, ours: String, theirs: String, verdict: Option<String>| {
            let theirs = if self.against.is_some() { theirs } else { String::new() };
            writeln!(f, "{name:<28} {ours:>14} {theirs:>14}  {}", verdict.unwrap_or_default())
        };
        row("", "ours".into(), "other".into(), None)?;
        let speed = |value: f64| format!("{value:.1} tok/s");
        let share = |value: Option<f64>| value.map(|value| format!("x{value:.3}"));
        let millis = |value: f64| format!("{:.3} ms", value * 1e3);
        let added = |value: Option<f64>| value.map(|value| format!("{value:+.0} us"));
        row("1 stream", speed(self.ours.one), speed(other.one), share(compared.map(|all| all.one)))?;
        row("8 streams", speed(self.ours.eight), speed(other.eight), share(compared.map(|all| all.eight)))?;
        row("prompt", speed(self.ours.prompt), speed(other.prompt), share(compared.map(|all| all.prompt)))?;
        row(
            "a request",
            millis(self.ours.request),
            millis(other.request),
            added(compared.map(|all| all.request_us)),
        )?;
        row("a chat", millis(self.ours.chat), millis(other.chat), added(compared.map(|all| all.chat_us)))?;
        row(
            "first token",
            millis(self.ours.first),
            millis(other.first),
            added(compared.map(|all| all.first_us)),
        )?;
        row(
            "between tokens",
            millis(self.ours.gap),
            millis(other.gap),
            added(compared.map(|all| all.token_us)),
        )?;
        let theirs = self.mixed_against.unwrap_or(self.mixed);
        let modest = share(compared.map(|all| all.modest_p95));
        row("mixed load, modest p95", millis(self.mixed.modest.p95), millis(theirs.modest.p95), modest)?;
        row("mixed load, greedy p95", millis(self.mixed.greedy.p95), millis(theirs.greedy.p95), None)?;
        row("mixed load, all", millis(self.mixed.seconds), millis(theirs.seconds), None)?;
        if let Some(prefix) = &self.prefix {
            let ratio = prefix.first_seconds / prefix.second_seconds;
            let (first, second) = (millis(prefix.first_seconds), millis(prefix.second_seconds));
            writeln!(
                f,
                "shared prefix ({} tokens): {first}, then {second} for the next caller (x{ratio:.1})",
                prefix.prompt_tokens
            )?;
        }
        if let Some(why) = &self.prefix_missing {
            writeln!(f, "shared prefix: not measured: {why}")?;
        }
        match &self.idle {
            Some(idle) => writeln!(
                f,
                "{} idle connections: {:.1} MiB",
                idle.connections,
                idle.bytes as f64 / f64::from(1 << 20)
            ),
            None => writeln!(f, "idle connections: not measured (needs Pontoon's unix socket)"),
        }
    }
}
