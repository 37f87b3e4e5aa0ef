//! Owns what can be seen of the state: the queue, the models, and when to look again.

use std::sync::Arc;
use std::time::Duration;

use super::model::{Model, State};
use super::{ModelId, Process, Scheduler, Ticket, Time};
use crate::memory::Memory;

/// A request's place in the queue of its model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub ticket: Ticket,
    pub model: ModelId,
    pub caller: Arc<str>,
    /// Who is served before it; zero for the next.
    pub position: usize,
    pub waited: Duration,
    /// When its turn is expected.
    pub expected: Duration,
}

/// What `ps` shows of one model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub model: ModelId,
    pub process: Process,
    /// `loading`, `ready`, `busy`, `draining` or `evicting`.
    pub state: &'static str,
    pub memory: Memory,
    pub slots: u32,
    pub serving: usize,
    pub waiting: usize,
    /// Since it was last used; zero while it serves.
    pub idle: Duration,
    /// Until it leaves by itself; `None` if it will not.
    pub expires_in: Option<Duration>,
    pub pinned: bool,
    /// Since it became ready.
    pub up: Option<Duration>,
}

impl Scheduler {
    /// Everybody who waits, by model, in the order in which they would be served.
    pub fn queue(&self, now: Time) -> Vec<Place> {
        let mut places = Vec::new();
        for (id, model) in &self.models {
            for (position, ticket) in self.callers.order(&model.queue).into_iter().enumerate() {
                let Some(waiting) = model.queue.iter().find(|waiting| waiting.ticket == ticket) else {
                    continue;
                };
                places.push(Place {
                    ticket,
                    model: *id,
                    caller: waiting.caller.clone(),
                    position,
                    waited: now.saturating_sub(waiting.since),
                    expected: self.wait_at(now, model, position),
                });
            }
        }
        places
    }

    /// Requests that wait for this model.
    pub fn waiting(&self, model: ModelId) -> usize {
        self.models.get(&model).map_or(0, |model| model.queue.len())
    }

    /// Every process there is.
    pub fn seen(&self, now: Time) -> Vec<Seen> {
        self.models.iter().filter_map(|(id, model)| see(now, *id, model)).collect()
    }

    /// How long a newcomer to this model would wait.
    pub(super) fn expected_wait(&self, now: Time, id: ModelId) -> Duration {
        let Some(model) = self.models.get(&id) else { return Duration::from_secs(1) };
        self.wait_at(now, model, model.queue.len()).max(Duration::from_secs(1))
    }

    fn wait_at(&self, now: Time, model: &Model, position: usize) -> Duration {
        let slots = model.profile.slots.max(1);
        let rounds = u32::try_from(position).unwrap_or(u32::MAX) / slots + 1;
        let load = match &model.state {
            State::Absent | State::Leaving { .. } => model.profile.reload,
            State::Loading { since, .. } => model.profile.reload.saturating_sub(now.saturating_sub(*since)),
            State::Ready(_) => Duration::ZERO,
        };
        model.turn_time.saturating_mul(rounds).saturating_add(load).min(Duration::from_secs(3600))
    }

    /// When [`super::Event::Tick`] is due: some time limit will have passed then.
    pub fn next_wake(&self, now: Time) -> Option<Time> {
        let expiring = self.models.values().filter_map(Model::expires);
        let waiting: Vec<&Model> = self
            .models
            .values()
            .filter(|model| matches!(model.state, State::Absent) && !model.queue.is_empty())
            .collect();
        let paused = waiting.iter().map(|model| model.not_before);
        let turns = waiting.iter().flat_map(|wanting| {
            self.models.values().map(|other| self.yields_at(wanting, other)).filter(|time| *time != Time::MAX)
        });
        expiring.chain(paused).chain(turns).filter(|time| *time > now).min()
    }

    /// The model that a process runs.
    pub fn model_of_process(&self, process: Process) -> Option<ModelId> {
        self.processes.get(&process).copied()
    }
}

fn see(now: Time, id: ModelId, model: &Model) -> Option<Seen> {
    let (process, state, serving, up) = match &model.state {
        State::Absent => return None,
        State::Loading { process, .. } => (*process, "loading", 0, None),
        State::Leaving { process, .. } => (*process, "evicting", 0, None),
        State::Ready(ready) => {
            let state = match (ready.closing, ready.serving.is_empty()) {
                (Some(_), _) => "draining",
                (None, true) => "ready",
                (None, false) => "busy",
            };
            (ready.process, state, ready.serving.len(), Some(now.saturating_sub(ready.since)))
        }
    };
    let idle = if serving > 0 { Duration::ZERO } else { now.saturating_sub(model.last_used) };
    Some(Seen {
        model: id,
        process,
        state,
        memory: model.held(),
        slots: model.profile.slots,
        serving,
        waiting: model.queue.len(),
        idle,
        expires_in: model.expires().map(|time| time.saturating_sub(now)),
        pinned: model.profile.pinned,
        up,
    })
}
