//! Owns the life of one model: absent, loading, ready, leaving.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::fair::Waiting;
use super::{Effect, ModelId, Process, Profile, Ticket, Time, Why};
use crate::{KeepAlive, memory::Memory};

/// A process that stayed up this long did not fail because of how it was started.
const STABLE: Duration = Duration::from_secs(60);
/// Longest pause between attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Deaths in a row after which those who wait are told instead of kept waiting.
pub const DEATHS: u32 = 4;

/// Where the model is.
#[derive(Debug)]
pub enum State {
    Absent,
    Loading { process: Process, need: Memory, since: Time },
    Ready(Ready),
    Leaving { process: Process, footprint: Memory },
}

/// A process that can serve.
#[derive(Debug)]
pub struct Ready {
    pub process: Process,
    pub footprint: Memory,
    pub since: Time,
    pub serving: BTreeMap<Ticket, Turn>,
    /// Gets no new turns, for this reason, and leaves when it serves nobody.
    pub closing: Option<Why>,
}

/// A turn in progress.
#[derive(Debug)]
pub struct Turn {
    pub caller: Arc<str>,
    pub weight: u32,
    pub cost: u32,
    pub since: Time,
}

/// One model.
#[derive(Debug)]
pub struct Model {
    pub profile: Profile,
    pub state: State,
    pub queue: Vec<Waiting>,
    /// The profile's, or that of the last request that named one.
    pub keep_alive: KeepAlive,
    pub last_used: Time,
    /// What an attempt that ran out of memory taught: the next one gets this much.
    pub more_room: Option<Memory>,
    /// Asked to leave or to begin anew while it was loading.
    pub close_when_ready: Option<Why>,
    pub failures: u32,
    /// No attempt before this time.
    pub not_before: Time,
    /// Why the last attempt failed, while new requests are refused.
    pub refused: Option<String>,
    /// Running average of how long a turn takes.
    pub turn_time: Duration,
}

impl Model {
    pub fn new(profile: Profile) -> Model {
        Model {
            profile,
            state: State::Absent,
            queue: Vec::new(),
            keep_alive: profile.keep_alive,
            last_used: Time::ZERO,
            more_room: None,
            close_when_ready: None,
            failures: 0,
            not_before: Time::ZERO,
            refused: None,
            turn_time: Duration::from_secs(1),
        }
    }

    /// What a load of it must be admitted with.
    pub fn need(&self) -> Memory {
        self.more_room.map_or(self.profile.need, |more| more.max(self.profile.need))
    }

    /// What it takes up now.
    pub fn held(&self) -> Memory {
        match &self.state {
            State::Absent => Memory::NONE,
            State::Loading { need, .. } => *need,
            State::Ready(ready) => ready.footprint,
            State::Leaving { footprint, .. } => *footprint,
        }
    }

    pub fn ready(&self) -> Option<&Ready> {
        match &self.state {
            State::Ready(ready) => Some(ready),
            _ => None,
        }
    }

    pub fn ready_mut(&mut self) -> Option<&mut Ready> {
        match &mut self.state {
            State::Ready(ready) => Some(ready),
            _ => None,
        }
    }

    /// The process, if it may take one more request.
    pub fn free_slot(&self) -> Option<Process> {
        let slots = self.profile.slots.max(1) as usize;
        let ready = self.ready()?;
        (ready.closing.is_none() && ready.serving.len() < slots).then_some(ready.process)
    }

    pub fn serve(&mut self, now: Time, waiting: Waiting) {
        self.last_used = now;
        self.keep_alive = waiting.keep_alive.unwrap_or(self.profile.keep_alive);
        let Waiting { ticket, caller, weight, cost, .. } = waiting;
        if let Some(ready) = self.ready_mut() {
            ready.serving.insert(ticket, Turn { caller, weight, cost, since: now });
        }
    }

    /// Ends a turn.
    pub fn release(&mut self, now: Time, ticket: Ticket) -> Option<Turn> {
        let turn = self.ready_mut()?.serving.remove(&ticket)?;
        self.last_used = now;
        let took = now.saturating_sub(turn.since);
        self.turn_time = (self.turn_time * 7 + took) / 8;
        Some(turn)
    }

    /// Serves nobody and nobody waits.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.ready().is_some_and(|ready| ready.serving.is_empty())
    }

    /// When it leaves by itself if nobody asks.
    pub fn expires(&self) -> Option<Time> {
        match (self.is_idle() && !self.profile.pinned, self.keep_alive) {
            (true, KeepAlive::For(time)) => Some(self.last_used.saturating_add(time)),
            _ => None,
        }
    }

    /// Why it should go now, if it should. It never should while it serves.
    pub fn should_leave(&self, now: Time) -> Option<Why> {
        let ready = self.ready()?;
        if !ready.serving.is_empty() {
            return None;
        }
        let expired = self.expires().is_some_and(|time| time <= now);
        ready.closing.or_else(|| expired.then_some(Why::Idle))
    }

    /// Begins its end.
    pub fn evict(&mut self, id: ModelId, why: Why) -> Option<Effect> {
        let (process, footprint) = self.ready().map(|ready| (ready.process, ready.footprint))?;
        self.state = State::Leaving { process, footprint };
        Some(Effect::Evict { model: id, process, why })
    }

    /// Asks it to leave as soon as it may. A reason that is there already stays.
    pub fn close(&mut self, why: Why) {
        match &mut self.state {
            State::Ready(ready) => {
                ready.closing.get_or_insert(why);
            }
            State::Loading { .. } => {
                self.close_when_ready.get_or_insert(why);
            }
            State::Absent | State::Leaving { .. } => {}
        }
    }

    /// Notes a failure and how long to pause: not at all after the first death, then longer each time.
    pub fn failed(&mut self, now: Time, up_since: Option<Time>) {
        if up_since.is_some_and(|since| now.saturating_sub(since) >= STABLE) {
            self.failures = 0;
        }
        self.failures += 1;
        let doublings = match up_since {
            Some(_) if self.failures == 1 => return,
            _ => self.failures.min(10) - 1,
        };
        let pause = Duration::from_secs(1 << doublings).min(LONGEST_PAUSE);
        self.not_before = now.saturating_add(pause);
    }

    /// When the first in its queue came.
    pub fn oldest(&self) -> Option<u64> {
        self.queue.iter().map(|waiting| waiting.arrival).min()
    }
}
