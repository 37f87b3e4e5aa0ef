//! Owns what carries the scheduler's decisions out: one at a time, in order, by whichever thread has news.
//! No task stands between a request and its turn, so that a model that is free is had without waiting for
//! another thread to wake.

mod up;
mod view;

use std::collections::{BTreeMap, HashMap};
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::{Notify, broadcast, oneshot, watch};

use super::Plans;
use super::lease::Serving;
use super::load::{Loaded, Loader};
use super::plan::{Plan, lock};
use super::types::{Counters, Notice, Running, Waiting};
use crate::Memory;
use crate::instance::{Instance, Log, NotReady};
use crate::scheduler::{
    Arrival, Effect, Event, Failure, ModelId, Process, Rejection, Scheduler, Ticket, Time, Why,
};

/// What the actor is told. Answers go back through the senders inside.
#[derive(Debug)]
pub enum Message {
    Plan {
        plan: Arc<Plan>,
        reload: bool,
        known: oneshot::Sender<()>,
    },
    Arrived {
        digest: Arc<str>,
        arrival: Wish,
        answer: oneshot::Sender<Result<Granted, Rejection>>,
    },
    Cancelled(Ticket),
    Finished {
        ticket: Ticket,
        tokens: Option<u32>,
    },
    Loaded {
        process: Process,
        outcome: Result<Loaded, NotReady>,
    },
    Ended {
        process: Process,
    },
    Evicted {
        process: Process,
        saved_slots: usize,
        why: Why,
    },
    Measured {
        process: Process,
        memory: Memory,
    },
    Unload {
        digest: Option<Arc<str>>,
        names: oneshot::Sender<Vec<String>>,
    },
    Budget(Memory),
    Drain(oneshot::Sender<()>),
    /// Time has passed.
    Tick,
    /// It is time to measure what is up.
    Measure,
    Ps(oneshot::Sender<Vec<Running>>),
    Queue(oneshot::Sender<Vec<Waiting>>),
    LogOf {
        digest: Arc<str>,
        log: oneshot::Sender<Option<Log>>,
    },
    Counters(oneshot::Sender<Counters>),
}

/// A request without its model's number, which only the actor knows.
#[derive(Debug)]
pub struct Wish {
    pub ticket: Ticket,
    pub caller: Arc<str>,
    pub weight: u32,
    pub cost: u32,
    pub keep_alive: Option<crate::KeepAlive>,
}

/// What a turn is made of.
#[derive(Debug)]
pub struct Granted {
    pub process: Process,
    pub at: Arc<Serving>,
    pub exited: watch::Receiver<Option<ExitStatus>>,
    /// When the process became ready, and what that took.
    pub ready_at: Instant,
    pub load: Duration,
    pub position: usize,
}

struct Known {
    digest: String,
    plan: Arc<Plan>,
    log: Log,
    process: Option<Live>,
}

/// A process that is up, with the plan that it was started by.
struct Live {
    number: Process,
    instance: Arc<Instance>,
    plan: Arc<Plan>,
    at: Arc<Serving>,
    ready_at: Instant,
    /// What it took when it was ready, and the most since.
    ready: Memory,
    peak: Memory,
}

type Answer = (oneshot::Sender<Result<Granted, Rejection>>, usize);

/// The actor, shared: everyone tells it its news directly. Engines end when the last one is dropped.
#[derive(Clone)]
pub struct Monitor(Arc<Mutex<Actor>>);

/// One that keeps no engine alive.
#[derive(Clone)]
struct WeakMonitor(Weak<Mutex<Actor>>);

struct Actor {
    scheduler: Scheduler,
    began: Instant,
    loader: Loader,
    own: WeakMonitor,
    /// Where loads and evictions run, whoever caused them.
    runtime: Handle,
    /// When the scheduler looked last: what fell due since is due still.
    handled: Time,
    /// When the clock's next event is due, as its task knows, and what tells it of an earlier one.
    wake: Option<Time>,
    earlier: Arc<Notify>,
    models: BTreeMap<ModelId, Known>,
    numbers: HashMap<String, ModelId>,
    waiting: HashMap<Ticket, Answer>,
    notices: broadcast::Sender<Notice>,
    counters: Counters,
    drained: Vec<oneshot::Sender<()>>,
    plans: Plans,
    log_lines: usize,
}

/// Between two measurements of what is up.
const MEASURE_EVERY: Duration = Duration::from_secs(10);

impl Monitor {
    /// Starts its clock in the runtime that this is called in.
    pub fn start(
        scheduler: Scheduler,
        loader: Loader,
        notices: broadcast::Sender<Notice>,
        plans: Plans,
        log_lines: usize,
    ) -> Monitor {
        let earlier = Arc::new(Notify::new());
        let monitor = Monitor(Arc::new_cyclic(|own| {
            Mutex::new(Actor {
                scheduler,
                began: Instant::now(),
                loader,
                own: WeakMonitor(own.clone()),
                runtime: Handle::current(),
                handled: Time::ZERO,
                wake: None,
                earlier: earlier.clone(),
                models: BTreeMap::new(),
                numbers: HashMap::new(),
                waiting: HashMap::new(),
                notices,
                counters: Counters::default(),
                drained: Vec::new(),
                plans,
                log_lines,
            })
        }));
        tokio::spawn(clock(WeakMonitor(Arc::downgrade(&monitor.0)), earlier));
        monitor
    }

    /// Tells news, and has done what follows from them when it returns; long steps go on by themselves.
    pub fn tell(&self, message: Message) {
        let mut actor = lock(&self.0);
        actor.hear(message);
        actor.wind();
    }
}

impl std::fmt::Debug for Monitor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Monitor")
    }
}

impl WeakMonitor {
    /// Tells it something, if it is still there.
    fn tell(&self, message: Message) {
        if let Some(actor) = self.0.upgrade() {
            Monitor(actor).tell(message);
        }
    }
}

/// Tells what time it is when the scheduler wants to know, until the monitor is gone.
async fn clock(monitor: WeakMonitor, earlier: Arc<Notify>) {
    let mut measure = tokio::time::interval(MEASURE_EVERY);
    measure.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let wake = match monitor.0.upgrade() {
            Some(actor) => lock(&actor).next_wake(),
            None => return,
        };
        let sleep = async {
            match wake {
                Some(time) => tokio::time::sleep_until(time.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = earlier.notified() => {}
            () = sleep => {}
            _ = measure.tick() => monitor.tell(Message::Measure),
        }
        monitor.tell(Message::Tick);
    }
}

impl Actor {
    /// When the clock must tell the time next. It is taken to know from now on.
    fn next_wake(&mut self) -> Option<Instant> {
        self.wake = self.scheduler.next_wake(self.handled);
        self.wake.and_then(|time| self.began.checked_add(time))
    }

    /// Wakes the clock if it would sleep too long. One that wakes too early does no harm.
    fn wind(&mut self) {
        let next = self.scheduler.next_wake(self.handled);
        if next.is_some_and(|next| self.wake.is_none_or(|wake| next < wake)) {
            self.wake = next;
            self.earlier.notify_one();
        }
    }

    fn now(&self) -> Time {
        self.began.elapsed()
    }

    fn hear(&mut self, message: Message) {
        match message {
            Message::Plan { plan, reload, known } => {
                self.learn(plan, reload);
                let _ = known.send(());
            }
            Message::Arrived { digest, arrival, answer } => self.arrive(&digest, arrival, answer),
            Message::Cancelled(ticket) => {
                self.waiting.remove(&ticket);
                self.counters.cancelled += 1;
                self.event(Event::Cancelled(ticket));
            }
            Message::Finished { ticket, tokens } => self.event(Event::Finished { ticket, tokens }),
            Message::Loaded { process, outcome } => self.loaded(process, outcome),
            Message::Ended { process } => self.ended(process),
            Message::Evicted { process, saved_slots, why } => self.evicted(process, saved_slots, why),
            Message::Measured { process, memory } => self.measured(process, memory),
            Message::Unload { digest, names } => self.unload(digest, names),
            Message::Budget(budget) => self.event(Event::Budget(budget)),
            Message::Drain(done) => {
                self.drained.push(done);
                self.event(Event::Drain);
                self.tell_if_drained();
            }
            Message::Tick => self.event(Event::Tick),
            Message::Measure => self.measure(),
            Message::Ps(answer) => drop(answer.send(self.ps())),
            Message::Queue(answer) => drop(answer.send(self.queue())),
            Message::LogOf { digest, log } => {
                drop(log.send(self.known(&digest).map(|known| known.log.clone())))
            }
            Message::Counters(answer) => drop(answer.send(self.counters)),
        }
    }

    fn known(&self, digest: &str) -> Option<&Known> {
        self.models.get(self.numbers.get(digest)?)
    }

    fn learn(&mut self, plan: Arc<Plan>, reload: bool) {
        let next = ModelId(self.numbers.len() as u64 + 1);
        let id = *self.numbers.entry(plan.digest.clone()).or_insert(next);
        let profile = plan.profile;
        let lines = self.log_lines;
        let known = self.models.entry(id).or_insert_with(|| Known {
            digest: plan.digest.clone(),
            plan: plan.clone(),
            log: Log::new(lines),
            process: None,
        });
        known.plan = plan;
        self.event(Event::Model { model: id, profile, reload });
    }

    fn arrive(&mut self, digest: &str, wish: Wish, answer: oneshot::Sender<Result<Granted, Rejection>>) {
        let Some(model) = self.numbers.get(digest).copied() else {
            let _ = answer.send(Err(Rejection::Unknown));
            return;
        };
        let Wish { ticket, caller, weight, cost, keep_alive } = wish;
        self.waiting.insert(ticket, (answer, self.scheduler.waiting(model)));
        self.event(Event::Arrived(Arrival { ticket, model, caller, weight, cost, keep_alive }));
    }

    /// Takes an event to the scheduler and carries out what it says, and what follows from that.
    fn event(&mut self, event: Event) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            self.handled = self.now();
            for effect in self.scheduler.handle(self.handled, event) {
                events.extend(self.carry_out(effect));
            }
        }
    }

    fn carry_out(&mut self, effect: Effect) -> Option<Event> {
        match effect {
            Effect::Load { model, process, retry } => self.load(model, process, retry),
            Effect::Evict { model, process, why } => self.evict(model, process, why),
            Effect::Grant { ticket, process } => return self.grant(ticket, process),
            Effect::Reject { ticket, why } => {
                self.counters.rejected += 1;
                if let Some((answer, _)) = self.waiting.remove(&ticket) {
                    let _ = answer.send(Err(why));
                }
            }
        }
        None
    }

    fn grant(&mut self, ticket: Ticket, process: Process) -> Option<Event> {
        let model = self.scheduler.model_of_process(process)?;
        let live = self.models.get(&model)?.process.as_ref()?;
        let (answer, position) = self.waiting.remove(&ticket)?;
        let granted = Granted {
            process,
            at: live.at.clone(),
            exited: live.instance.exited(),
            ready_at: live.ready_at,
            load: live.instance.took,
            position,
        };
        self.counters.granted += 1;
        // Who left in this moment gives the turn back at once.
        answer.send(Ok(granted)).is_err().then_some(Event::Cancelled(ticket))
    }

    fn load(&mut self, model: ModelId, process: Process, retry: bool) {
        let Some(known) = self.models.get(&model) else { return };
        self.counters.loads += 1;
        self.counters.oom_retries += u64::from(retry);
        let (loader, plan, log) = (self.loader.clone(), known.plan.clone(), known.log.clone());
        let own = self.own.clone();
        self.runtime.spawn(async move {
            let outcome = loader.load(plan, process, log).await;
            if let Ok(loaded) = &outcome {
                // Written before anybody can know of it, and not under the lock.
                let (plan, memory, took) = (loaded.plan.clone(), loaded.memory, loaded.instance.took);
                let _ = tokio::task::spawn_blocking(move || loader.remember(&plan, memory, took)).await;
            }
            own.tell(Message::Loaded { process, outcome });
        });
    }

    fn loaded(&mut self, process: Process, outcome: Result<Loaded, NotReady>) {
        let Some(model) = self.scheduler.model_of_process(process) else { return };
        let Some(known) = self.models.get_mut(&model) else { return };
        let (name, digest) = (known.plan.name.clone(), known.digest.clone());
        match outcome {
            Ok(Loaded { instance, memory, plan, restored_slots }) => {
                let took = instance.took;
                let _ = self.notices.send(Notice::Loaded {
                    model: name,
                    digest,
                    took,
                    footprint: memory,
                    restored_slots,
                });
                up::watch_for_end(self.own.clone(), &self.runtime, process, &instance);
                let ready_at = Instant::now();
                let at = Arc::new(Serving::new(&plan, instance.socket.clone()));
                known.process =
                    Some(Live { number: process, instance, plan, at, ready_at, ready: memory, peak: memory });
                self.event(Event::Loaded { process, footprint: memory });
            }
            Err(NotReady { reason, out_of_memory }) => {
                self.counters.load_failures += 1;
                known.log.push(&format!("pontoon: not loaded: {reason}"));
                let reason = self.loader.planner.without_paths(&reason);
                let notice =
                    Notice::LoadFailed { model: name, digest, reason: reason.clone(), out_of_memory };
                let _ = self.notices.send(notice);
                let failure =
                    if out_of_memory { Failure::OutOfMemory(reason) } else { Failure::Other(reason) };
                self.event(Event::LoadFailed { process, failure });
            }
        }
        self.tell_if_drained();
    }

    fn evict(&mut self, model: ModelId, process: Process, why: Why) {
        let Some(live) = self.models.get_mut(&model).and_then(|known| known.process.take()) else { return };
        self.counters.evictions += 1;
        let (loader, own) = (self.loader.clone(), self.own.clone());
        self.runtime.spawn(async move {
            let saved_slots = loader.evict(&live.plan, &live.instance).await;
            own.tell(Message::Evicted { process, saved_slots, why });
        });
    }

    fn evicted(&mut self, process: Process, saved_slots: usize, why: Why) {
        let model = self.scheduler.model_of_process(process);
        if let Some(known) = model.and_then(|model| self.models.get(&model)) {
            if model.is_some_and(|model| self.scheduler.waiting(model) == 0) {
                lock(&self.plans).remove(known.digest.as_str());
            }
            let (model, digest) = (known.plan.name.clone(), known.digest.clone());
            let _ = self.notices.send(Notice::Evicted { model, digest, why, saved_slots });
        }
        self.event(Event::Evicted { process });
        self.tell_if_drained();
    }

    /// A process ended. One that is being evicted is heard of from its eviction.
    fn ended(&mut self, process: Process) {
        let Some(model) = self.scheduler.model_of_process(process) else { return };
        let Some(known) = self.models.get_mut(&model) else { return };
        if known.process.as_ref().is_none_or(|live| live.number != process) {
            return;
        }
        // Its folder is removed elsewhere than under the lock.
        let gone = known.process.take();
        self.runtime.spawn_blocking(move || drop(gone));
        known.log.push("pontoon: the engine ended by itself");
        self.runtime.spawn(up::obituary(known.plan.name.clone(), known.log.clone()));
        self.counters.deaths += 1;
        let _ =
            self.notices.send(Notice::Died { model: known.plan.name.clone(), digest: known.digest.clone() });
        self.event(Event::Died { process });
        self.tell_if_drained();
    }

    fn unload(&mut self, digest: Option<Arc<str>>, names: oneshot::Sender<Vec<String>>) {
        let mut unloaded = Vec::new();
        for (id, known) in &self.models {
            let meant = digest.as_deref().is_none_or(|digest| digest == known.digest);
            if meant && self.scheduler.seen(self.now()).iter().any(|seen| seen.model == *id) {
                unloaded.push((*id, known.plan.name.clone()));
            }
        }
        for (model, _) in &unloaded {
            self.event(Event::Unload { model: *model });
        }
        let _ = names.send(unloaded.into_iter().map(|(_, name)| name).collect());
    }

    fn tell_if_drained(&mut self) {
        if !self.drained.is_empty() && self.scheduler.seen(self.now()).is_empty() {
            for done in self.drained.drain(..) {
                let _ = done.send(());
            }
        }
    }
}
