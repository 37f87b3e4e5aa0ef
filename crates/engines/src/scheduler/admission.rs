//! Owns the use of memory: what is loaded next, and what must leave for it.

use super::model::{Model, State};
use super::{Effect, ModelId, Process, Rejection, Scheduler, Time, Why};
use crate::{KeepAlive, memory::Memory};

/// Memory that a pass over the waiting models may still give away.
struct Room {
    /// Free now.
    free: Memory,
    /// Will be free when what is leaving has left.
    coming: Memory,
}

impl Room {
    /// Sets `need` aside for a model that has to wait for it.
    fn reserve(&mut self, need: Memory) {
        let rest = need.without(self.free);
        self.free = self.free.without(need);
        self.coming = self.coming.without(rest);
    }
}

impl Scheduler {
    /// Loads what is waited for, oldest wish first, and evicts what is needed for it.
    pub(super) fn make_room(&mut self, now: Time, effects: &mut Vec<Effect>) {
        if self.overcommitted() {
            self.shrink(now, effects);
        }
        let mut room = self.room();
        for id in self.wanted(now) {
            if let Some(why) = self.never_fits(id) {
                self.reject_all(id, &why, effects);
                continue;
            }
            let Some(need) = self.models.get(&id).map(Model::need) else { continue };
            if need.fits(room.free) {
                room.free = room.free.without(need);
                self.load(now, id, need, effects);
                continue;
            }
            let short = need.without(room.free + room.coming);
            if short == Memory::NONE || self.clear(now, id, short, &mut room, effects) {
                room.reserve(need);
                continue;
            }
            // It must wait for somebody's turn to end; nobody behind it may take what it needs.
            break;
        }
    }

    fn room(&self) -> Room {
        let held: Memory = self.models.values().map(Model::held).sum();
        let leaving = |model: &&Model| match &model.state {
            State::Leaving { .. } => true,
            State::Ready(ready) => ready.closing.is_some(),
            _ => false,
        };
        let coming = self.models.values().filter(leaving).map(Model::held).sum();
        Room { free: self.budget.without(held), coming }
    }

    /// Models to load, the longest waited for first.
    fn wanted(&self, now: Time) -> Vec<ModelId> {
        let absent = self.models.iter().filter(|(_, model)| {
            matches!(model.state, State::Absent) && !model.queue.is_empty() && model.not_before <= now
        });
        let mut order: Vec<(Option<u64>, ModelId)> =
            absent.map(|(id, model)| (model.oldest(), *id)).collect();
        order.sort_unstable();
        order.into_iter().map(|(_, id)| id).collect()
    }

    fn never_fits(&self, id: ModelId) -> Option<Rejection> {
        let need = self.models.get(&id)?.need();
        if !need.fits(self.budget) {
            return Some(Rejection::TooBig { need, budget: self.budget });
        }
        let pinned = self.models.iter().filter(|(other, model)| **other != id && model.profile.pinned);
        let left = self.budget.without(pinned.map(|(_, model)| model.held()).sum());
        (!need.fits(left)).then_some(Rejection::Pinned { need, left })
    }

    fn load(&mut self, now: Time, id: ModelId, need: Memory, effects: &mut Vec<Effect>) {
        let process = Process(self.next_process);
        self.next_process += 1;
        self.processes.insert(process, id);
        if let Some(model) = self.models.get_mut(&id) {
            model.state = State::Loading { process, need, since: now };
            effects.push(Effect::Load { model: id, process, retry: model.more_room.is_some() });
        }
    }

    /// Finds who must leave so that `short` more comes free; false if that is not possible yet.
    fn clear(
        &mut self,
        now: Time,
        id: ModelId,
        short: Memory,
        room: &mut Room,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let Some(victims) = self.victims(now, id, short) else { return false };
        for victim in victims {
            let Some(model) = self.models.get_mut(&victim) else { continue };
            room.coming += model.held();
            if model.ready().is_some_and(|ready| ready.serving.is_empty()) {
                effects.extend(model.evict(victim, Why::Room));
            } else {
                model.close(Why::Room);
            }
        }
        true
    }

    /// The least valuable models that together hold `short`, and none that is not needed.
    fn victims(&self, now: Time, id: ModelId, short: Memory) -> Option<Vec<ModelId>> {
        let wanting = self.models.get(&id)?;
        let candidates = self.models.iter().filter(|(_, model)| self.may_go(now, wanting, model));
        let mut candidates: Vec<(ModelId, &Model)> = candidates.map(|(id, model)| (*id, model)).collect();
        candidates.sort_by_key(|(id, model)| (worth(now, model), *id));
        let mut chosen: Vec<(ModelId, Memory)> = Vec::new();
        let mut missing = short;
        for (id, model) in candidates {
            if missing == Memory::NONE {
                break;
            }
            if model.held().helps(missing) {
                missing = missing.without(model.held());
                chosen.push((id, model.held()));
            }
        }
        if missing != Memory::NONE {
            return None;
        }
        spare(&mut chosen, short);
        Some(chosen.into_iter().map(|(id, _)| id).collect())
    }

    /// An idle model may go at once, but for the pause between two requests of a conversation; a busy
    /// one when it had its turn.
    fn may_go(&self, now: Time, wanting: &Model, model: &Model) -> bool {
        let Some(ready) = model.ready() else { return false };
        if model.profile.pinned || ready.closing.is_some() {
            return false;
        }
        now >= self.yields_at(wanting, model)
    }

    /// When `model` has to make room for `wanting`.
    pub(super) fn yields_at(&self, wanting: &Model, model: &Model) -> Time {
        let Some(ready) = model.ready() else { return Time::MAX };
        let change = wanting.profile.reload + model.profile.reload;
        let turn = (change * self.limits.turn_factor).clamp(self.limits.turn_least, self.limits.turn_most);
        let end = ready.since.saturating_add(turn);
        if model.is_idle() {
            let linger = (model.profile.reload / 2).min(turn / 4);
            return end.min(model.last_used.saturating_add(linger));
        }
        end
    }

    fn overcommitted(&self) -> bool {
        let held: Memory = self.models.values().map(Model::held).sum();
        !held.fits(self.budget)
    }

    /// A measurement or a smaller budget showed that too much is loaded: idle models leave.
    fn shrink(&mut self, now: Time, effects: &mut Vec<Effect>) {
        let staying = |model: &&Model| match &model.state {
            State::Leaving { .. } | State::Absent => false,
            State::Ready(ready) => ready.closing.is_none(),
            State::Loading { .. } => true,
        };
        let held: Memory = self.models.values().filter(staying).map(Model::held).sum();
        let mut excess = held.without(self.budget);
        let mut idle: Vec<(u128, ModelId)> = self
            .models
            .iter()
            .filter(|(_, model)| {
                model.is_idle()
                    && !model.profile.pinned
                    && model.ready().is_some_and(|ready| ready.closing.is_none())
            })
            .map(|(id, model)| (worth(now, model), *id))
            .collect();
        idle.sort_unstable();
        for (_, id) in idle {
            let Some(model) = self.models.get_mut(&id) else { continue };
            if excess != Memory::NONE && model.held().helps(excess) {
                excess = excess.without(model.held());
                effects.extend(model.evict(id, Why::Room));
            }
        }
    }
}

/// Gives back, most valuable first, who turned out not to be needed.
fn spare(chosen: &mut Vec<(ModelId, Memory)>, short: Memory) {
    for at in (0..chosen.len()).rev() {
        let others = chosen.iter().enumerate().filter(|(other, _)| *other != at);
        let rest: Memory = others.map(|(_, (_, held))| *held).sum();
        if short.fits(rest) {
            chosen.remove(at);
        }
    }
}

/// What is lost by evicting a model, for comparison only: nothing that is used or kept for ever goes
/// before something idle; among the idle, what costs little to load and was not used for long goes
/// first.
fn worth(now: Time, model: &Model) -> u128 {
    const BUSY: u128 = 1 << 120;
    const KEPT: u128 = 1 << 110;
    let idle = now.saturating_sub(model.last_used).as_millis() + 1;
    let cost = (model.profile.reload.as_micros() + 1) << 32;
    let base = cost / idle;
    let busy = if model.is_idle() { 0 } else { BUSY };
    let kept = if model.keep_alive == KeepAlive::Forever { KEPT } else { 0 };
    busy + kept + base
}
