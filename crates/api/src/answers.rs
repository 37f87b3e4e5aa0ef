//! Answers of the Responses API, kept in memory for their own caller, bounded.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::config::Responses;
use crate::dialect::Stored;

/// The kept answers.
#[derive(Debug)]
pub struct Answers {
    config: Responses,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    by_id: HashMap<String, Entry>,
    /// Oldest first; ids that were deleted meanwhile are skipped.
    order: VecDeque<(Arc<str>, String)>,
    bytes: usize,
    bytes_of: HashMap<Arc<str>, usize>,
}

#[derive(Debug)]
struct Entry {
    caller: Arc<str>,
    stored: Arc<Stored>,
    at: Instant,
}

impl Answers {
    /// None yet.
    pub fn new(config: Responses) -> Self {
        Self { config, kept: Mutex::default() }
    }

    /// Keeps an answer, and forgets the oldest where there are too many.
    pub fn keep(&self, caller: &Arc<str>, stored: Stored, now: Instant) {
        let bytes = stored.bytes();
        if bytes > self.config.bytes_per_caller.min(self.config.bytes) {
            return;
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.expire(Duration::from_secs(self.config.keep_seconds), now);
        while kept.bytes_of.get(caller).copied().unwrap_or(0) + bytes > self.config.bytes_per_caller {
            if !kept.drop_oldest(Some(caller)) {
                break;
            }
        }
        while kept.bytes + bytes > self.config.bytes {
            if !kept.drop_oldest(None) {
                break;
            }
        }
        let id = stored.id().to_owned();
        kept.bytes += bytes;
        *kept.bytes_of.entry(caller.clone()).or_default() += bytes;
        kept.order.push_back((caller.clone(), id.clone()));
        kept.by_id.insert(id, Entry { caller: caller.clone(), stored: Arc::new(stored), at: now });
    }

    /// An answer of this caller.
    pub fn find(&self, caller: &str, id: &str, now: Instant) -> Option<Arc<Stored>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.expire(Duration::from_secs(self.config.keep_seconds), now);
        let entry = kept.by_id.get(id).filter(|entry| *entry.caller == *caller)?;
        Some(entry.stored.clone())
    }

    /// Forgets an answer of this caller; whether there was one.
    pub fn delete(&self, caller: &str, id: &str) -> bool {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.by_id.get(id).is_none_or(|entry| *entry.caller != *caller) {
            return false;
        }
        kept.order.retain(|(_, other)| other != id);
        kept.remove(id)
    }
}

impl Kept {
    fn expire(&mut self, age: Duration, now: Instant) {
        while let Some((_, id)) = self.order.front() {
            let old = |entry: &Entry| now.saturating_duration_since(entry.at) > age;
            if self.by_id.get(id).is_some_and(|entry| !old(entry)) {
                break;
            }
            self.drop_oldest(None);
        }
    }

    fn drop_oldest(&mut self, caller: Option<&Arc<str>>) -> bool {
        let at = self.order.iter().position(|(whose, _)| caller.is_none_or(|caller| caller == whose));
        let Some((_, id)) = at.and_then(|at| self.order.remove(at)) else { return false };
        self.remove(&id);
        true
    }

    fn remove(&mut self, id: &str) -> bool {
        let Some(entry) = self.by_id.remove(id) else { return false };
        let bytes = entry.stored.bytes();
        self.bytes -= bytes;
        if let Some(of_caller) = self.bytes_of.get_mut(&entry.caller) {
            *of_caller -= bytes;
            if *of_caller == 0 {
                self.bytes_of.remove(&entry.caller);
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::dialect::{Endpoint, Meta, no_history, prepare};

    /// An answer as an engine's makes it, with so many letters in it.
    fn stored(id: &str, letters: usize) -> Stored {
        let call = prepare(Endpoint::Responses, br#"{"model": "m", "input": "hi"}"#, &no_history).unwrap();
        let meta = Meta { request_id: id.into(), started: SystemTime::now(), load: Duration::ZERO };
        let text = "a".repeat(letters);
        let engine = serde_json::json!({
            "choices": [{ "index": 0, "finish_reason": "stop", "message": { "role": "assistant", "content": text } }],
            "usage": { "prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2 },
        });
        let reply = call.reply(&meta, Duration::ZERO, 200, engine.to_string().as_bytes()).unwrap();
        reply.stored.expect("responses are stored unless unwished")
    }

    #[test]
    fn answers_are_their_callers_and_bounded() {
        let config = Responses { bytes: 100_000, bytes_per_caller: 50_000, keep_seconds: 60 };
        let (answers, now) = (Answers::new(config), Instant::now());
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let keep = |caller: &Arc<str>, id: &str, letters| {
            let stored = stored(id, letters);
            let id = stored.id().to_owned();
            answers.keep(caller, stored, now);
            id
        };
        let first = keep(&a, "1", 5_000);
        assert!(answers.find("a", &first, now).is_some() && answers.find("b", &first, now).is_none());
        assert!(!answers.delete("b", &first));
        // The caller's own limit drops its oldest, not another's.
        let other = keep(&b, "2", 5_000);
        let later: Vec<String> = (3..10).map(|id| keep(&a, &id.to_string(), 5_000)).collect();
        assert!(answers.find("a", &first, now).is_none(), "the oldest is gone");
        assert!(answers.find("a", later.last().unwrap(), now).is_some());
        assert!(answers.find("b", &other, now).is_some());
        let huge = keep(&a, "99", 60_000);
        assert!(answers.find("a", &huge, now).is_none(), "larger than all that a caller may have");
        assert!(answers.delete("b", &other) && answers.find("b", &other, now).is_none());
        let past = now + Duration::from_secs(61);
        assert!(answers.find("a", later.last().unwrap(), past).is_none(), "expired");
        assert_eq!(answers.kept.lock().unwrap().bytes, 0);
    }
}
