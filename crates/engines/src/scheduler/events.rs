//! Owns what each event changes, before anything is decided.

use super::fair::Waiting;
use super::model::{DEATHS, Model, Ready, State};
use super::{
    Arrival, Effect, Event, Failure, ModelId, Process, Profile, Rejection, Scheduler, Ticket, Time, Why,
};
use crate::memory::Memory;

impl Scheduler {
    pub(super) fn take(&mut self, now: Time, event: Event, effects: &mut Vec<Effect>) {
        match event {
            Event::Model { model, profile, reload } => self.introduce(model, profile, reload),
            Event::Arrived(arrival) => self.arrive(now, arrival, effects),
            Event::Cancelled(ticket) => self.leave(now, ticket, None),
            Event::Finished { ticket, tokens } => self.leave(now, ticket, tokens),
            Event::Loaded { process, footprint } => self.loaded(now, process, footprint),
            Event::LoadFailed { process, failure } => self.load_failed(now, process, failure, effects),
            Event::Died { process } => self.died(now, process, effects),
            Event::Evicted { process } => self.evicted(process),
            Event::Measured { process, footprint } => self.measured(process, footprint),
            Event::Unload { model } => {
                if let Some(model) = self.models.get_mut(&model) {
                    model.close(Why::Asked);
                }
            }
            Event::Budget(budget) => self.budget = budget,
            Event::Drain => self.drain(effects),
            Event::Tick => {}
        }
    }

    fn introduce(&mut self, id: ModelId, profile: Profile, reload: bool) {
        let Some(model) = self.models.get_mut(&id) else {
            self.models.insert(id, Model::new(profile));
            return;
        };
        if model.keep_alive == model.profile.keep_alive {
            model.keep_alive = profile.keep_alive;
        }
        model.profile = profile;
        if profile.pinned
            && let Some(ready) = model.ready_mut()
            && ready.closing == Some(Why::Room)
        {
            ready.closing = None;
        }
        if reload {
            // Other settings may cure what made it fail, and may need other room.
            (model.failures, model.not_before, model.refused) = (0, Time::ZERO, None);
            model.more_room = None;
            model.close(Why::Settings);
        }
    }

    fn arrive(&mut self, now: Time, arrival: Arrival, effects: &mut Vec<Effect>) {
        let ticket = arrival.ticket;
        if let Some(why) = self.refusal(now, &arrival) {
            effects.push(Effect::Reject { ticket, why });
            return;
        }
        let Some(model) = self.models.get_mut(&arrival.model) else { return };
        model.refused = None;
        self.callers.joined(&arrival.caller);
        self.tickets.insert(ticket, arrival.model);
        self.arrivals += 1;
        model.queue.push(Waiting::new(arrival, self.arrivals, now));
    }

    fn refusal(&self, now: Time, arrival: &Arrival) -> Option<Rejection> {
        let Some(model) = self.models.get(&arrival.model) else { return Some(Rejection::Unknown) };
        if self.draining {
            return Some(Rejection::Draining);
        }
        if let Some(reason) = &model.refused
            && model.not_before > now
        {
            let retry_after = model.not_before - now;
            return Some(Rejection::LoadFailed { reason: reason.clone(), retry_after });
        }
        let queued: usize = self.models.values().map(|model| model.queue.len()).sum();
        // Whoever can be served at once never counts as waiting.
        let at_once = model.free_slot().is_some() && model.queue.is_empty();
        let own = self.callers.waiting(&arrival.caller);
        let full = queued >= self.limits.queued || own >= self.limits.queued_per_caller;
        (full && !at_once)
            .then(|| Rejection::QueueFull { retry_after: self.expected_wait(now, arrival.model) })
    }

    /// Out of the queue, or out of its turn.
    fn leave(&mut self, now: Time, ticket: Ticket, tokens: Option<u32>) {
        let Some(id) = self.tickets.remove(&ticket) else { return };
        let Some(model) = self.models.get_mut(&id) else { return };
        if let Some(at) = model.queue.iter().position(|waiting| waiting.ticket == ticket) {
            let waiting = model.queue.remove(at);
            self.callers.left(&waiting.caller);
        } else if let Some(turn) = model.release(now, ticket) {
            self.callers.finished(&turn.caller, turn.weight, turn.cost, tokens);
        }
    }

    fn model_of(&mut self, process: Process) -> Option<(ModelId, &mut Model)> {
        let id = *self.processes.get(&process)?;
        Some((id, self.models.get_mut(&id)?))
    }

    fn loaded(&mut self, now: Time, process: Process, footprint: Memory) {
        let Some((_, model)) = self.model_of(process) else { return };
        let State::Loading { since, .. } = model.state else { return };
        model.profile.reload = now.saturating_sub(since);
        model.profile.need = footprint;
        (model.more_room, model.refused) = (None, None);
        model.last_used = now;
        let closing = model.close_when_ready.take();
        let serving = std::collections::BTreeMap::new();
        model.state = State::Ready(Ready { process, footprint, since: now, serving, closing });
    }

    fn measured(&mut self, process: Process, footprint: Memory) {
        let Some((_, model)) = self.model_of(process) else { return };
        if let Some(ready) = model.ready_mut() {
            ready.footprint = footprint;
            model.profile.need = footprint;
        }
    }

    /// One more try with more room after the first time without memory; else all are told.
    fn load_failed(&mut self, now: Time, process: Process, failure: Failure, effects: &mut Vec<Effect>) {
        let budget = self.budget;
        let Some((id, model)) = self.model_of(process) else { return };
        let State::Loading { need, .. } = model.state else { return };
        model.state = State::Absent;
        model.close_when_ready = None;
        let first = model.more_room.is_none();
        let reason = match failure {
            Failure::OutOfMemory(_) if first => {
                model.more_room = Some(need.and_a_half().min(budget).max(need));
                self.processes.remove(&process);
                return;
            }
            Failure::OutOfMemory(reason) | Failure::Other(reason) => reason,
        };
        model.more_room = None;
        model.failed(now, None);
        model.refused = Some(reason.clone());
        let retry_after = model.not_before.saturating_sub(now);
        self.processes.remove(&process);
        self.reject_all(id, &Rejection::LoadFailed { reason, retry_after }, effects);
    }

    /// Those it served are out of its hands; those who wait get a new process, unless it keeps dying.
    fn died(&mut self, now: Time, process: Process, effects: &mut Vec<Effect>) {
        let Some((id, model)) = self.model_of(process) else { return };
        let up_since = match &model.state {
            State::Ready(ready) => ready.since,
            // Its end was wanted, and is here.
            State::Leaving { .. } => return self.evicted(process),
            _ => return,
        };
        model.failed(now, Some(up_since));
        let state = std::mem::replace(&mut model.state, State::Absent);
        let give_up = model.failures >= DEATHS;
        let reason = format!("its engine ended by itself {} times in a row", model.failures);
        if give_up {
            model.refused = Some(reason.clone());
        }
        let retry_after = model.not_before.saturating_sub(now);
        self.processes.remove(&process);
        if let State::Ready(ready) = state {
            for (ticket, turn) in ready.serving {
                self.tickets.remove(&ticket);
                self.callers.finished(&turn.caller, turn.weight, turn.cost, None);
            }
        }
        if give_up {
            self.reject_all(id, &Rejection::LoadFailed { reason, retry_after }, effects);
        }
    }

    fn evicted(&mut self, process: Process) {
        if let Some((_, model)) = self.model_of(process)
            && matches!(model.state, State::Leaving { process: leaving, .. } if leaving == process)
        {
            model.state = State::Absent;
            self.processes.remove(&process);
        }
    }

    fn drain(&mut self, effects: &mut Vec<Effect>) {
        self.draining = true;
        let waiting: Vec<ModelId> = self.models.keys().copied().collect();
        for id in waiting {
            self.reject_all(id, &Rejection::Draining, effects);
            if let Some(model) = self.models.get_mut(&id) {
                model.close(Why::Asked);
            }
        }
    }

    /// Makes a model known only for its profile, without a look at the rest.
    pub fn profile(&self, id: ModelId) -> Option<&Profile> {
        self.models.get(&id).map(|model| &model.profile)
    }
}
