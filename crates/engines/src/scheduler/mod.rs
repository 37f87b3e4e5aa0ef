//! Owns the decisions: which model is loaded, which is evicted, and whose turn it is.
//!
//! Pure: an [`Event`] goes in with the time, [`Effect`]s come out; no process, clock or socket. Whoever
//! drives it carries the effects out and reports back. Rules:
//!
//! * A load is started because somebody waits for the model, and belongs to nobody: it goes on when the
//!   first caller leaves, and serves all who wait.
//! * What is loaded, loading and still leaving never exceeds the budget when a load is started.
//! * Nothing that serves is evicted. Idle models go first, the least valuable before the others; a busy
//!   one that had its turn is *drained*: it finishes what it serves and gets nothing new.
//! * Callers share slots by virtual time: each grant costs its caller tokens divided by weight, and the
//!   caller who has had least is next. A caller's own requests keep their order.
//! * The model whose first waiter has waited longest is the next to be loaded; nobody overtakes it in
//!   taking memory that it needs.

mod admission;
mod events;
mod fair;
mod model;
mod view;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

pub use view::Place;

use crate::{KeepAlive, memory::Memory};
use fair::Callers;
use model::Model;

/// Time since the scheduler began.
pub type Time = Duration;

/// A model with one set of files; the driver chooses the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModelId(pub u64);

/// One request; the driver never uses a number again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// One run of an engine; chosen here, never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Process(pub u64);

/// What the scheduler knows of a model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Profile {
    /// Measured, or estimated from metadata.
    pub need: Memory,
    /// Requests that its engine serves at once; at least one.
    pub slots: u32,
    pub keep_alive: KeepAlive,
    pub pinned: bool,
    /// What loading it takes.
    pub reload: Duration,
}

/// A request that wants a turn.
#[derive(Clone, Debug, PartialEq)]
pub struct Arrival {
    pub ticket: Ticket,
    pub model: ModelId,
    pub caller: Arc<str>,
    /// Share of this caller against others; at least one.
    pub weight: u32,
    /// Tokens expected.
    pub cost: u32,
    /// Overrides the model's, from this request on.
    pub keep_alive: Option<KeepAlive>,
}

/// Why a load came to nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    OutOfMemory(String),
    Other(String),
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A model is known, or known better. `reload` asks for a fresh process, since the running one has
    /// other settings.
    Model {
        model: ModelId,
        profile: Profile,
        reload: bool,
    },
    Arrived(Arrival),
    /// The caller is gone, from the queue or from its turn. Unknown tickets are ignored.
    Cancelled(Ticket),
    /// A turn is over, after this many tokens if they were counted.
    Finished {
        ticket: Ticket,
        tokens: Option<u32>,
    },
    Loaded {
        process: Process,
        footprint: Memory,
    },
    LoadFailed {
        process: Process,
        failure: Failure,
    },
    /// A loaded engine ended by itself.
    Died {
        process: Process,
    },
    /// An evicted engine is gone and its memory free.
    Evicted {
        process: Process,
    },
    /// A loaded engine was measured again.
    Measured {
        process: Process,
        footprint: Memory,
    },
    /// Somebody wants this model out.
    Unload {
        model: ModelId,
    },
    Budget(Memory),
    /// No more turns for anybody.
    Drain,
    /// Nothing happened but time.
    Tick,
}

/// Something to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Start an engine. `retry` says that the last one ran out of memory.
    Load { model: ModelId, process: Process, retry: bool },
    /// End an engine that serves nobody, then say [`Event::Evicted`].
    Evict { model: ModelId, process: Process, why: Why },
    /// The request may talk to this engine.
    Grant { ticket: Ticket, process: Process },
    /// The request gets no turn.
    Reject { ticket: Ticket, why: Rejection },
}

/// Why a model was evicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Nobody asked for it during its keep-alive time.
    Idle,
    /// Another model needs its memory.
    Room,
    /// Somebody asked.
    Asked,
    /// Its settings changed.
    Settings,
}

/// Why a request gets no turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// The queue, or the caller's share of it, is full.
    QueueFull {
        retry_after: Duration,
    },
    /// The model needs more than the whole budget.
    TooBig {
        need: Memory,
        budget: Memory,
    },
    /// The model needs more than pinned models leave.
    Pinned {
        need: Memory,
        left: Memory,
    },
    /// It could not be loaded. `retry_after` is when the next attempt is allowed.
    LoadFailed {
        reason: String,
        retry_after: Duration,
    },
    Draining,
    /// The driver never introduced the model.
    Unknown,
}

/// Bounds of the queue, and how patient the scheduler is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Requests that wait.
    pub queued: usize,
    /// Requests of one caller that wait.
    pub queued_per_caller: usize,
    /// A model that others wait for keeps its place for this many times the cost of changing over,
    /// while it has work.
    pub turn_factor: u32,
    pub turn_least: Duration,
    pub turn_most: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            queued: 512,
            queued_per_caller: 128,
            turn_factor: 4,
            turn_least: Duration::from_millis(200),
            turn_most: Duration::from_secs(30),
        }
    }
}

/// The state.
#[derive(Debug)]
pub struct Scheduler {
    limits: Limits,
    budget: Memory,
    models: BTreeMap<ModelId, Model>,
    callers: Callers,
    /// Which model a ticket waits for or is served by.
    tickets: BTreeMap<Ticket, ModelId>,
    processes: BTreeMap<Process, ModelId>,
    next_process: u64,
    arrivals: u64,
    draining: bool,
}

impl Scheduler {
    /// Nothing loaded, nobody waiting.
    pub fn new(budget: Memory, limits: Limits) -> Scheduler {
        Scheduler {
            limits,
            budget,
            models: BTreeMap::new(),
            callers: Callers::default(),
            tickets: BTreeMap::new(),
            processes: BTreeMap::new(),
            next_process: 1,
            arrivals: 0,
            draining: false,
        }
    }

    /// Takes one event in; returns what is to be done, in this order.
    pub fn handle(&mut self, now: Time, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.take(now, event, &mut effects);
        self.decide(now, &mut effects);
        effects
    }

    /// Everything that may happen now.
    fn decide(&mut self, now: Time, effects: &mut Vec<Effect>) {
        self.grant_turns(now, effects);
        self.let_go(now, effects);
        self.make_room(now, effects);
        self.callers.forget_idle();
    }

    /// Gives free slots of ready models to those who wait for them.
    fn grant_turns(&mut self, now: Time, effects: &mut Vec<Effect>) {
        for model in self.models.values_mut() {
            while let Some(process) = model.free_slot() {
                let Some(waiting) = self.callers.next(&mut model.queue) else { break };
                effects.push(Effect::Grant { ticket: waiting.ticket, process });
                model.serve(now, waiting);
            }
        }
    }

    /// Ends idle processes whose time is up or which are not wanted any more.
    fn let_go(&mut self, now: Time, effects: &mut Vec<Effect>) {
        for (id, model) in &mut self.models {
            if let Some(why) = model.should_leave(now) {
                effects.extend(model.evict(*id, why));
            }
        }
    }

    fn reject_all(&mut self, id: ModelId, why: &Rejection, effects: &mut Vec<Effect>) {
        let Some(model) = self.models.get_mut(&id) else { return };
        for waiting in model.queue.drain(..) {
            self.callers.left(&waiting.caller);
            self.tickets.remove(&waiting.ticket);
            effects.push(Effect::Reject { ticket: waiting.ticket, why: why.clone() });
        }
    }
}
