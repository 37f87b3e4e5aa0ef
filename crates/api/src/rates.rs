//! What each caller has used of its allowance: requests and tokens a minute, requests at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::config::{Allowance, Config};

/// Callers whose use is remembered; beyond, those that have used nothing lately are forgotten.
const MAX_CALLERS: usize = 4096;

/// The allowances and their use.
#[derive(Debug)]
pub struct Rates {
    default: Allowance,
    named: HashMap<String, Allowance>,
    used: Mutex<HashMap<Arc<str>, Used>>,
}

#[derive(Debug)]
struct Used {
    requests: Bucket,
    tokens: Bucket,
    parallel: u32,
}

/// A bucket that holds a minute's worth and refills evenly. Tokens may overdraw it, since an answer's
/// length is known only afterwards; then nothing is granted until it is paid back.
#[derive(Debug)]
struct Bucket {
    level: f64,
    at: Instant,
}

impl Bucket {
    fn full(per_minute: Option<u32>, now: Instant) -> Self {
        Self { level: f64::from(per_minute.unwrap_or(0)), at: now }
    }

    /// Refills, then says how long until `needed` is there.
    fn wait(&mut self, per_minute: Option<u32>, needed: f64, now: Instant) -> Option<Duration> {
        let size = f64::from(per_minute?);
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
        self.level = (self.level + elapsed * size / 60.0).min(size);
        self.at = now;
        let missing = needed - self.level;
        (missing > 1e-9).then(|| Duration::from_secs_f64(missing * 60.0 / size))
    }
}

/// Why a request is not taken now.
#[derive(Debug, PartialEq, Eq)]
pub struct Exceeded {
    /// One sentence with the limit.
    pub message: String,
    /// When to try again.
    pub retry_after: Duration,
}

/// A request that counts as running until this is dropped.
#[derive(Debug)]
pub struct Turn {
    rates: Arc<Rates>,
    caller: Arc<str>,
    /// Share of a model's turns.
    pub weight: u32,
}

impl Rates {
    /// Takes the allowances of the configuration.
    pub fn new(config: &Config) -> Arc<Self> {
        let of = |allowance: &Option<Allowance>| allowance.unwrap_or(config.each_caller);
        let named = config.keys.iter().map(|key| (key.tenant.clone(), of(&key.allowance))).collect();
        Arc::new(Self { default: config.each_caller, named, used: Mutex::new(HashMap::new()) })
    }

    /// Counts a request of a caller, where its allowance permits it.
    ///
    /// # Errors
    /// [`Exceeded`].
    pub fn admit(self: &Arc<Self>, caller: &Arc<str>, now: Instant) -> Result<Turn, Exceeded> {
        let allowance = self.allowance(caller);
        let mut all = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MAX_CALLERS && !all.contains_key(caller) {
            all.retain(|_, used| {
                used.parallel > 0 || now.saturating_duration_since(used.requests.at).as_secs() < 60
            });
        }
        let used = all.entry(caller.clone()).or_insert_with(|| Used {
            requests: Bucket::full(allowance.requests_per_minute, now),
            tokens: Bucket::full(allowance.tokens_per_minute, now),
            parallel: 0,
        });
        used.admit(&allowance, now)?;
        Ok(Turn { rates: self.clone(), caller: caller.clone(), weight: allowance.weight })
    }

    fn allowance(&self, caller: &str) -> Allowance {
        self.named.get(caller).copied().unwrap_or(self.default)
    }
}

impl Used {
    fn admit(&mut self, allowance: &Allowance, now: Instant) -> Result<(), Exceeded> {
        if let Some(limit) = allowance.parallel
            && self.parallel >= limit
        {
            let message =
                format!("{limit} requests of yours are under way, which is the limit; wait for one to end");
            return Err(Exceeded { message, retry_after: Duration::from_secs(1) });
        }
        let exceeded = |what: &str, limit: Option<u32>, retry_after| {
            let limit = limit.unwrap_or_default();
            Exceeded { message: format!("your limit of {limit} {what} a minute is used up"), retry_after }
        };
        if let Some(wait) = self.tokens.wait(allowance.tokens_per_minute, 1.0, now) {
            return Err(exceeded("tokens", allowance.tokens_per_minute, wait));
        }
        if let Some(wait) = self.requests.wait(allowance.requests_per_minute, 1.0, now) {
            return Err(exceeded("requests", allowance.requests_per_minute, wait));
        }
        self.requests.level -= 1.0;
        self.requests.at = now;
        self.parallel += 1;
        Ok(())
    }
}

impl Turn {
    /// Counts tokens, the prompt's and the answer's.
    pub fn spend(&self, tokens: u64) {
        let mut all = self.rates.used.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(used) = all.get_mut(&self.caller) {
            used.tokens.level -= tokens as f64;
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut all = self.rates.used.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(used) = all.get_mut(&self.caller) {
            used.parallel = used.parallel.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(allowance: Allowance) -> Arc<Rates> {
        Rates::new(&Config { each_caller: allowance, ..Config::default() })
    }

    #[test]
    fn requests_a_minute_refill_evenly_and_callers_do_not_share() {
        let rates = rates(Allowance { requests_per_minute: Some(2), ..Allowance::default() });
        let (a, b, start): (Arc<str>, Arc<str>, _) = ("a".into(), "b".into(), Instant::now());
        assert!(rates.admit(&a, start).is_ok() && rates.admit(&a, start).is_ok());
        let refused = rates.admit(&a, start).unwrap_err();
        assert!(refused.message.contains("2 requests a minute"), "{}", refused.message);
        assert_eq!(refused.retry_after.as_secs(), 30);
        assert!(rates.admit(&b, start).is_ok());
        assert!(rates.admit(&a, start + Duration::from_secs(29)).is_err());
        assert!(rates.admit(&a, start + Duration::from_secs(31)).is_ok());
    }

    #[test]
    fn tokens_are_paid_back_and_turns_given_back() {
        let allowance = Allowance { tokens_per_minute: Some(60), parallel: Some(1), ..Allowance::default() };
        let (rates, a, start): (_, Arc<str>, _) = (rates(allowance), "a".into(), Instant::now());
        let turn = rates.admit(&a, start).unwrap();
        assert!(rates.admit(&a, start).unwrap_err().message.contains("under way"));
        turn.spend(90);
        drop(turn);
        let refused = rates.admit(&a, start).unwrap_err();
        assert_eq!(refused.retry_after.as_secs(), 31);
        assert!(rates.admit(&a, start + Duration::from_secs(32)).is_ok());
    }
}
