//! Owns the runner: what the HTTP side and the command line talk to.
//!
//! [`Runner::acquire`] gives a turn at an engine that serves the model, loading it if need be. The rest is
//! looking and managing. The actor carries the scheduler's decisions out; callers only tell it
//! messages, so that a caller who vanishes (its future is dropped) disturbs nobody.

mod actor;
mod job;
mod lease;
mod load;
mod manage;
mod plan;
mod refusal;
mod types;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::{broadcast, oneshot};

use crate::footprint::Footprints;
use crate::instance::{SlotCache, Spawner, detect_budget};
use crate::scheduler::{Rejection, Scheduler, Ticket};
use crate::settings::Saved;
use crate::{Error, files};
use actor::{Granted, Message, Monitor, Wish};
use load::Loader;
use plan::{Plan, Planner, Raise, lock};

pub use lease::{Lease, Serving};
pub use types::{
    AcquireError, Caller, Change, Counters, Df, Mode, Notice, Options, Refusal, Request, Running, Shown,
    Usage, Waiting, Which,
};

/// Names are looked up again after this long, in case another process changed the store.
const NAMES_FOR: Duration = Duration::from_secs(1);

/// Everything together. Cheap to clone; engines end when the last clone and the last turn are gone.
#[derive(Clone, Debug)]
pub struct Runner {
    inner: Arc<Inner>,
}

/// The plan of each model that was asked for, by digest, until it is evicted: what requests asked beyond
/// the configuration ends then, and the next plan knows what was measured.
type Plans = Arc<Mutex<HashMap<Arc<str>, Arc<Plan>>>>;

#[derive(Debug)]
struct Inner {
    monitor: Monitor,
    planner: Arc<Planner>,
    slots: SlotCache,
    notices: broadcast::Sender<Notice>,
    tickets: AtomicU64,
    names: Mutex<HashMap<String, (Arc<str>, Instant)>>,
    plans: Plans,
    /// Plans are made one at a time, so that two requests do not undo each other's.
    planning: tokio::sync::Mutex<()>,
}

impl Runner {
    /// Reads what is remembered and starts the actor. Call it in a tokio runtime.
    ///
    /// # Errors
    /// [`Error::File`] or [`Error::Damaged`] if the state cannot be used.
    pub async fn start(mut options: Options) -> Result<Runner, Error> {
        let made = tokio::task::spawn_blocking(move || {
            // Engines have another working directory.
            for folder in [&mut options.state, &mut options.run] {
                *folder = std::path::absolute(&*folder).map_err(Error::file(folder, "found"))?;
            }
            // Engines of another user must be able to pass through to what they are given.
            let mode = if options.user.is_some() { 0o711 } else { 0o700 };
            files::own_folder(&options.state, mode, None)?;
            files::own_folder(&options.run, mode, None)?;
            load::sweep(&options.run);
            let slots = SlotCache::open(&options.state.join("slots"), options.slot_cache_bytes)?;
            if options.user.is_some() {
                files::own_folder(&options.state.join("slots"), mode, None)?;
            }
            let saved = Saved::open(&options.state.join("models.json"))?;
            let footprints = Footprints::open(&options.state.join("footprints.json"));
            let budget = options.budget.unwrap_or_else(detect_budget);
            let spawner = Spawner::start(options.launcher.clone());
            let spawner = spawner.map_err(Error::file(&options.launcher.program, "started"))?;
            options.defaults.check()?;
            let (saved, footprints) = (Mutex::new(saved), Mutex::new(footprints));
            let planner = Planner { options, budget: Mutex::new(budget), saved, footprints };
            Ok::<_, Error>((planner, spawner, slots))
        });
        let (planner, spawner, slots) = made.await.map_err(|_| Error::Stopped)??;
        let planner = Arc::new(planner);
        let (notices, _) = broadcast::channel(1024);
        let scheduler = Scheduler::new(*lock(&planner.budget), planner.options.queue);
        let loader = Loader { planner: planner.clone(), spawner, slots: slots.clone() };
        let lines = planner.options.log_lines;
        let plans = Plans::default();
        let monitor = Monitor::start(scheduler, loader, notices.clone(), plans.clone(), lines);
        let engines = planner.options.engines.clone();
        // What an engine can do is asked now, so that the first load need not wait for the answer.
        tokio::task::spawn_blocking(move || {
            drop(engines.locate(crate::engine::Kind::LlamaServer.name(), None))
        });
        let inner = Inner {
            monitor,
            planner,
            slots,
            notices,
            tickets: AtomicU64::new(1),
            names: Mutex::default(),
            plans,
            planning: tokio::sync::Mutex::default(),
        };
        Ok(Runner { inner: Arc::new(inner) })
    }

    /// Waits for a turn at an engine that serves the model. Dropping the future leaves the queue.
    ///
    /// # Errors
    /// [`AcquireError`], one sentence and what to do.
    pub async fn acquire(&self, request: Request) -> Result<Lease, AcquireError> {
        let asked = Instant::now();
        let digest = self.digest_of(&request.model).await?;
        let plan = self.plan_for(&digest, &request).await?;
        loop {
            let (ticket, granted, back) = self.wait_for_turn(&digest, &plan, &request).await?;
            if granted.exited.borrow().is_none() {
                return Ok(lease(ticket, granted, asked, back));
            }
            // The engine ended before the actor heard of it: tell it, and queue again.
            let process = granted.process;
            self.inner.monitor.tell(Message::Ended { process });
        }
    }

    async fn wait_for_turn(
        &self,
        digest: &Arc<str>,
        plan: &Plan,
        request: &Request,
    ) -> Result<(Ticket, Granted, Option<Monitor>), AcquireError> {
        let ticket = Ticket(self.inner.tickets.fetch_add(1, Ordering::Relaxed));
        let (answer, granted) = oneshot::channel();
        let arrival = Wish {
            ticket,
            caller: request.caller.id.clone(),
            weight: request.caller.weight,
            cost: request.cost,
            keep_alive: request.keep_alive,
        };
        let mut place = Place { ticket, monitor: Some(self.inner.monitor.clone()) };
        self.inner.monitor.tell(Message::Arrived { digest: digest.clone(), arrival, answer });
        let outcome = granted.await;
        let back = place.monitor.take();
        match outcome {
            Ok(Ok(granted)) => Ok((ticket, granted, back)),
            Ok(Err(rejection)) => Err(refusal::describe(&plan.name, rejection)),
            Err(_) => Err(refusal::describe(&plan.name, Rejection::Draining)),
        }
    }

    /// The digest that a name stands for, as of at most a second ago.
    async fn digest_of(&self, name: &str) -> Result<Arc<str>, AcquireError> {
        let fresh = |at: &Instant| at.elapsed() < NAMES_FOR;
        let known = lock(&self.inner.names).get(name).filter(|(_, at)| fresh(at)).cloned();
        if let Some((digest, _)) = known {
            return Ok(digest);
        }
        let (planner, wanted) = (self.inner.planner.clone(), name.to_owned());
        let model = blocking(move || planner.resolve(&wanted)).await??;
        let digest: Arc<str> = model.digest.to_string().into();
        let mut names = lock(&self.inner.names);
        names.retain(|_, (_, at)| fresh(at));
        names.insert(name.to_owned(), (digest.clone(), Instant::now()));
        Ok(digest)
    }

    /// A plan that serves this request: the one there is, or a new one that can do more.
    async fn plan_for(&self, digest: &Arc<str>, request: &Request) -> Result<Arc<Plan>, AcquireError> {
        let present = || lock(&self.inner.plans).get(digest).cloned();
        if let Some(plan) = present()
            && self.raised(&plan, request)?.is_none()
        {
            return Ok(plan);
        }
        let _one_at_a_time = self.inner.planning.lock().await;
        let plan = match present() {
            Some(plan) => plan,
            None => self.make_plan(digest, Raise::default(), false).await?,
        };
        match self.raised(&plan, request)? {
            None => Ok(plan),
            Some(raise) => self.make_plan(digest, raise, true).await,
        }
    }

    /// What this request needs beyond `plan`, if anything.
    fn raised(&self, plan: &Plan, request: &Request) -> Result<Option<Raise>, AcquireError> {
        if !plan.could_serve(request.mode) {
            let able: Vec<String> = plan.modes.iter().map(ToString::to_string).collect();
            let message =
                format!("{} is a model for {}, not for {}", plan.name, able.join(" and "), request.mode);
            return Err(AcquireError::new(Refusal::WrongMode, message));
        }
        let mut raise = plan.raise;
        raise.embeddings |= !plan.serves(request.mode);
        let trained = if plan.facts.context_length == 0 { u32::MAX } else { plan.facts.context_length };
        let most = self.inner.planner.options.max_context.min(trained);
        let wish = request.context_size.map(|wish| wish.min(most));
        if let Some(wish) = wish
            && wish > plan.context_size()
        {
            raise.context = Some(wish);
        }
        Ok((raise != plan.raise).then_some(raise))
    }

    async fn make_plan(
        &self,
        digest: &Arc<str>,
        raise: Raise,
        reload: bool,
    ) -> Result<Arc<Plan>, AcquireError> {
        let (planner, wanted) = (self.inner.planner.clone(), digest.clone());
        let plan = blocking(move || planner.plan(&planner.resolve(&wanted)?, raise)).await??;
        let plan = Arc::new(plan);
        lock(&self.inner.plans).insert(digest.clone(), plan.clone());
        let (known, learned) = oneshot::channel();
        self.inner.monitor.tell(Message::Plan { plan: plan.clone(), reload, known });
        let _ = learned.await;
        Ok(plan)
    }
}

/// A place in the queue; dropping it gives it up.
struct Place {
    ticket: Ticket,
    monitor: Option<Monitor>,
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(monitor) = self.monitor.take() {
            monitor.tell(Message::Cancelled(self.ticket));
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, AcquireError> {
    let failed = |e: tokio::task::JoinError| AcquireError::new(Refusal::Draining, e.to_string());
    tokio::task::spawn_blocking(work).await.map_err(failed)
}

fn lease(ticket: Ticket, granted: Granted, asked: Instant, back: Option<Monitor>) -> Lease {
    let Granted { at, exited, ready_at, load, position, .. } = granted;
    // Only who was there before it was ready waited for the load.
    let load = ready_at.saturating_duration_since(asked).min(load);
    Lease { at, load, wait: asked.elapsed(), position, ticket, exited, back }
}
