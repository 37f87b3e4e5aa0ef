//! Owns fairness: whose turn is next among those who wait for a slot.
//!
//! Start-time fair queuing. Each caller has a virtual time, which a grant moves on by the request's
//! tokens divided by the caller's weight; the caller furthest behind is next. A caller who was away
//! comes back at the present virtual time: absence earns nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Arrival, Ticket, Time};
use crate::KeepAlive;

/// A request in the queue of a model.
#[derive(Clone, Debug)]
pub struct Waiting {
    pub ticket: Ticket,
    pub caller: Arc<str>,
    pub weight: u32,
    pub cost: u32,
    pub keep_alive: Option<KeepAlive>,
    /// Breaks ties, and orders a caller's own requests.
    pub arrival: u64,
    pub since: Time,
}

/// Resolution of virtual time: parts of a token.
const PARTS: u64 = 1024;

#[derive(Clone, Debug, Default)]
struct Account {
    virtual_time: u64,
    waiting: usize,
    serving: usize,
}

/// All callers who wait or are served.
#[derive(Clone, Debug, Default)]
pub struct Callers {
    accounts: BTreeMap<Arc<str>, Account>,
    /// Virtual time at which the last turn began.
    now: u64,
}

impl Waiting {
    pub fn new(arrival: Arrival, number: u64, now: Time) -> Waiting {
        let Arrival { ticket, caller, weight, cost, keep_alive, .. } = arrival;
        let (weight, cost) = (weight.max(1), cost.max(1));
        Waiting { ticket, caller, weight, cost, keep_alive, arrival: number, since: now }
    }
}

fn charge(tokens: u32, weight: u32) -> u64 {
    u64::from(tokens) * PARTS / u64::from(weight.max(1))
}

impl Callers {
    /// Requests of this caller in all queues.
    pub fn waiting(&self, caller: &str) -> usize {
        self.accounts.get(caller).map_or(0, |account| account.waiting)
    }

    /// A request joins a queue.
    pub fn joined(&mut self, caller: &Arc<str>) {
        let now = self.now;
        let account = self.accounts.entry(caller.clone()).or_default();
        if account.waiting == 0 && account.serving == 0 {
            account.virtual_time = account.virtual_time.max(now);
        }
        account.waiting += 1;
    }

    /// A request left its queue without a turn.
    pub fn left(&mut self, caller: &str) {
        if let Some(account) = self.accounts.get_mut(caller) {
            account.waiting = account.waiting.saturating_sub(1);
        }
    }

    /// Takes the next request out of `queue` and charges its caller.
    pub fn next(&mut self, queue: &mut Vec<Waiting>) -> Option<Waiting> {
        let at = self.index_of_next(queue)?;
        let waiting = queue.remove(at);
        self.granted(&waiting);
        Some(waiting)
    }

    fn index_of_next(&self, queue: &[Waiting]) -> Option<usize> {
        let time = |caller: &str| self.accounts.get(caller).map_or(0, |account| account.virtual_time);
        let order = |waiting: &Waiting| (time(&waiting.caller), waiting.arrival);
        (0..queue.len()).min_by_key(|at| order(&queue[*at]))
    }

    fn granted(&mut self, waiting: &Waiting) {
        let account = self.accounts.entry(waiting.caller.clone()).or_default();
        self.now = self.now.max(account.virtual_time);
        account.virtual_time = account.virtual_time.saturating_add(charge(waiting.cost, waiting.weight));
        account.waiting = account.waiting.saturating_sub(1);
        account.serving += 1;
    }

    /// A turn is over; the estimate is replaced by what it took, if that was counted.
    pub fn finished(&mut self, caller: &str, weight: u32, cost: u32, tokens: Option<u32>) {
        let Some(account) = self.accounts.get_mut(caller) else { return };
        account.serving = account.serving.saturating_sub(1);
        if let Some(tokens) = tokens {
            let (paid, due) = (charge(cost, weight), charge(tokens.max(1), weight));
            account.virtual_time = account.virtual_time.saturating_sub(paid).saturating_add(due);
        }
    }

    /// Drops accounts that say nothing: nobody waits, nobody is served, and no debt is left.
    pub fn forget_idle(&mut self) {
        let now = self.now;
        let idle = |account: &Account| account.waiting == 0 && account.serving == 0;
        if !self.accounts.values().any(|account| !idle(account)) {
            // Debts are to those who waited; with nobody there, all begin anew.
            self.accounts.clear();
            return;
        }
        self.accounts.retain(|_, account| !idle(account) || account.virtual_time > now);
    }

    /// The order in which `queue` would be served if nobody else came.
    pub fn order(&self, queue: &[Waiting]) -> Vec<Ticket> {
        let mut imagined = self.clone();
        let mut rest = queue.to_vec();
        std::iter::from_fn(|| imagined.next(&mut rest)).map(|waiting| waiting.ticket).collect()
    }
}
