//! Owns looking and managing: everything but turns.

use std::path::Path;
use std::sync::Arc;

use tokio::sync::{broadcast, oneshot};

use super::actor::Message;
use super::plan::{Plan, Raise, lock};
use super::types::{AcquireError, Change, Counters, Df, Notice, Request, Running, Shown, Waiting, Which};
use super::{Runner, blocking};
use crate::instance::{Log, LogLine};
use crate::{Error, Memory, Settings};

impl Runner {
    /// Loads the model and gives the turn back at once.
    ///
    /// # Errors
    /// As [`Runner::acquire`].
    pub async fn touch(&self, request: Request) -> Result<std::time::Duration, AcquireError> {
        self.acquire(request).await.map(|lease| lease.load)
    }

    /// Every process there is.
    pub async fn ps(&self) -> Vec<Running> {
        self.ask(Message::Ps).await.unwrap_or_default()
    }

    /// Everybody who waits. It names callers: show each caller only its own.
    pub async fn queue(&self) -> Vec<Waiting> {
        self.ask(Message::Queue).await.unwrap_or_default()
    }

    /// Lets models go when they have answered what they serve; their names.
    ///
    /// # Errors
    /// [`AcquireError`] if there is no such model.
    pub async fn unload(&self, which: Which) -> Result<Vec<String>, AcquireError> {
        let digest = match which {
            Which::All => None,
            Which::Model(name) => Some(self.digest_of(&name).await?),
        };
        Ok(self.ask(|names| Message::Unload { digest, names }).await.unwrap_or_default())
    }

    /// Changes the host's settings of a model, durably. A loaded one begins anew when it has answered
    /// what it serves. The settings must make sense together and with the engine, else nothing changes.
    ///
    /// # Errors
    /// [`AcquireError`].
    pub async fn configure(
        &self,
        name: &str,
        settings: Settings,
        change: Change,
    ) -> Result<Shown, AcquireError> {
        let invalid = |e: Error| AcquireError::new(super::Refusal::Invalid, e.to_string());
        let digest = self.digest_of(name).await?;
        let _one_at_a_time = self.inner.planning.lock().await;
        let (planner, wanted) = (self.inner.planner.clone(), name.to_owned());
        let planned = blocking(move || {
            let model = planner.resolve(&wanted)?;
            // Under the name that was used; a model that has none goes by its digest.
            let parsed = pontoon_models::Reference::parse(&wanted).ok();
            let named = parsed.and_then(|parsed| model.names.iter().find(|name| **name == parsed).cloned());
            let key = named.or_else(|| model.names.first().cloned());
            let key = key.map_or_else(|| model.digest.to_string(), |name| name.to_string());
            let before = lock(&planner.saved).get(&key);
            let after = match change {
                Change::Merge => before.overlaid(&settings),
                Change::Unset(names) => before.unset(&names).map_err(invalid)?.overlaid(&settings),
                Change::Replace => settings,
            };
            lock(&planner.saved).set(&key, after).map_err(invalid)?;
            let planned = planner.plan(&model, Raise::default()).and_then(|plan| {
                plan.arguments(Path::new("/run/engine.sock"), None).map_err(invalid)?;
                Ok(plan)
            });
            if planned.is_err() {
                lock(&planner.saved).set(&key, before).map_err(invalid)?;
            }
            planned
        });
        let plan = Arc::new(planned.await??);
        let old = lock(&self.inner.plans).insert(digest, plan.clone());
        let reload = old.is_none_or(|old| differs(&old, &plan));
        let (known, learned) = oneshot::channel();
        self.inner.monitor.tell(Message::Plan { plan: plan.clone(), reload, known });
        let _ = learned.await;
        Ok(self.describe(&plan).await)
    }

    /// The host's layer of a model as it was saved.
    ///
    /// # Errors
    /// [`AcquireError`] if there is no such model.
    pub async fn configuration(&self, name: &str) -> Result<Settings, AcquireError> {
        let (planner, wanted) = (self.inner.planner.clone(), name.to_owned());
        let found = blocking(move || {
            let model = planner.resolve(&wanted)?;
            let saved = lock(&planner.saved);
            let first = saved.get(&model.digest.to_string());
            Ok(model.names.iter().fold(first, |sum, name| sum.overlaid(&saved.get(&name.to_string()))))
        });
        found.await?
    }

    /// All saved layers, by reference.
    pub fn configurations(&self) -> std::collections::BTreeMap<String, Settings> {
        lock(&self.inner.planner.saved).all().clone()
    }

    /// Keeps a model from being evicted, or no longer.
    ///
    /// # Errors
    /// As [`Runner::configure`].
    pub async fn pin(&self, name: &str, pinned: bool) -> Result<Shown, AcquireError> {
        let settings = Settings { pinned: Some(pinned), ..Settings::default() };
        self.configure(name, settings, Change::Merge).await
    }

    /// How a model is run, or would be.
    ///
    /// # Errors
    /// [`AcquireError`].
    pub async fn show(&self, name: &str) -> Result<Shown, AcquireError> {
        let digest = self.digest_of(name).await?;
        let present = lock(&self.inner.plans).get(&digest).cloned();
        let plan = match present {
            Some(plan) => plan,
            None => {
                let _one_at_a_time = self.inner.planning.lock().await;
                self.make_plan(&digest, Raise::default(), false).await?
            }
        };
        Ok(self.describe(&plan).await)
    }

    async fn describe(&self, plan: &Plan) -> Shown {
        let running = self.ps().await.into_iter().find(|row| row.digest == plan.digest);
        let measured = lock(&self.inner.planner.footprints).get(&plan.key);
        let place = plan.slot_key.as_ref().map(|_| Path::new("/run/slots"));
        let argv = plan.arguments(Path::new("/run/engine.sock"), place).unwrap_or_default();
        Shown {
            model: plan.name.clone(),
            digest: plan.digest.clone(),
            engine: plan.engine.label(),
            engine_found: plan.engine.found.clone(),
            modes: plan.modes.clone(),
            settings: plan.effective.values.clone(),
            argv: argv.iter().map(|word| word.to_string_lossy().into_owned()).collect(),
            footprint: measured.map_or(plan.profile.need, |measured| measured.memory),
            measured: measured.is_some(),
            loaded: running.is_some(),
        }
    }

    /// What of the disk is ours. The store counts its own.
    pub async fn df(&self) -> Df {
        let (slots, engines) = (self.inner.slots.clone(), self.inner.planner.options.engines.clone());
        let counted = blocking(move || {
            let (slots_bytes, slots) = slots.usage();
            let installed = engines.list();
            let engines_bytes = installed.iter().map(|engine| engine.bytes).sum();
            let engines = installed.iter().filter(|engine| engine.bytes > 0).count();
            Df { slots_bytes, slots, engines_bytes, engines }
        });
        counted.await.unwrap_or_default()
    }

    /// Forgets saved slots.
    pub async fn clear_slots(&self) {
        let slots = self.inner.slots.clone();
        let _ = blocking(move || slots.clear()).await;
    }

    /// The last lines that a model's engine wrote; `None` if it was never asked for.
    pub async fn logs(&self, name: &str) -> Result<Option<Vec<LogLine>>, AcquireError> {
        let log = self.log(name).await?;
        Ok(log.map(|log| log.tail(usize::MAX)))
    }

    /// A model's log, to follow it.
    pub async fn log(&self, name: &str) -> Result<Option<Log>, AcquireError> {
        let digest = self.digest_of(name).await?;
        Ok(self.ask(|log| Message::LogOf { digest, log }).await.flatten())
    }

    /// Whether a process of this model exists.
    pub async fn in_use(&self, digest: &str) -> bool {
        self.ps().await.iter().any(|row| row.digest == digest)
    }

    /// What engines may take.
    pub fn budget(&self) -> Memory {
        *lock(&self.inner.planner.budget)
    }

    /// Changes what engines may take; idle models leave if it is too little now.
    pub fn set_budget(&self, budget: Memory) {
        *lock(&self.inner.planner.budget) = budget;
        self.inner.monitor.tell(Message::Budget(budget));
    }

    /// Forgets which names stand for which models, after models came, went or were renamed.
    pub fn refresh(&self) {
        lock(&self.inner.names).clear();
    }

    /// Loads, evictions, failures as they happen.
    pub fn notices(&self) -> broadcast::Receiver<Notice> {
        self.inner.notices.subscribe()
    }

    /// Sums since the start.
    pub async fn counters(&self) -> Counters {
        self.ask(Message::Counters).await.unwrap_or_default()
    }

    /// Where engines are looked for.
    pub fn engines(&self) -> &crate::engine::Catalog {
        &self.inner.planner.options.engines
    }

    /// Gives no more turns, answers all who wait, and returns when the last engine is gone: after the
    /// last turn is over.
    pub async fn drain(&self) {
        let _ = self.ask(Message::Drain).await;
    }

    async fn ask<T>(&self, question: impl FnOnce(oneshot::Sender<T>) -> Message) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        self.inner.monitor.tell(question(answer));
        answered.await.ok()
    }
}

/// True if a running process must begin anew to be as `new` says.
fn differs(old: &Plan, new: &Plan) -> bool {
    let of = |plan: &Plan| plan.arguments(Path::new("/run/engine.sock"), Some(Path::new("/run/slots"))).ok();
    of(old) != of(new) || old.engine.program != new.engine.program
}
