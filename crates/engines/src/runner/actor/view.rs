//! Owns what people are shown of the actor: the models that are loaded and the callers that wait.

use super::Actor;
use crate::runner::types::{Running, Waiting};

impl Actor {
    /// What is loaded, or on its way.
    pub(super) fn ps(&self) -> Vec<Running> {
        let seen = self.scheduler.seen(self.now());
        let rows = seen.into_iter().filter_map(|seen| {
            let known = self.models.get(&seen.model)?;
            let live = known.process.as_ref();
            let plan = live.map_or(&known.plan, |live| &live.plan);
            Some(Running {
                digest: known.digest.clone(),
                model: plan.name.clone(),
                names: plan.names.clone(),
                state: seen.state.to_owned(),
                engine: plan.engine.label(),
                modes: plan.modes.clone(),
                pid: live.map(|live| live.instance.pid()),
                memory: seen.memory,
                estimated: live.is_none() && !plan.measured,
                context_size: plan.context_size(),
                slots: seen.slots,
                serving: seen.serving,
                waiting: seen.waiting,
                idle: seen.idle,
                expires_in: seen.expires_in,
                pinned: seen.pinned,
                up: seen.up,
                load: live.map(|live| live.instance.took),
                size: plan.size,
            })
        });
        rows.collect()
    }

    /// Who waits, in the order of their turns.
    pub(super) fn queue(&self) -> Vec<Waiting> {
        let places = self.scheduler.queue(self.now());
        let rows = places.into_iter().filter_map(|place| {
            let known = self.models.get(&place.model)?;
            Some(Waiting {
                caller: place.caller.to_string(),
                model: known.plan.name.clone(),
                digest: known.digest.clone(),
                position: place.position,
                waited: place.waited,
                expected: place.expected,
            })
        });
        rows.collect()
    }
}
