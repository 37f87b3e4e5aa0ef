//! Owns a world for the scheduler: it carries effects out as a perfect driver would, and watches that
//! every promise is kept.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::super::*;

/// How a ticket ended.
#[derive(Clone, Debug, PartialEq)]
pub enum End {
    Granted(Process),
    Rejected(Rejection),
    Cancelled,
    Done,
}

pub struct World {
    pub scheduler: Scheduler,
    pub now: Time,
    pub budget: Memory,
    pub profiles: BTreeMap<ModelId, Profile>,
    /// Processes that were asked to load, to leave, or are up.
    pub loading: BTreeMap<Process, (ModelId, Memory, bool)>,
    pub leaving: BTreeMap<Process, (ModelId, Memory)>,
    pub up: BTreeMap<Process, (ModelId, Memory)>,
    pub serving: BTreeMap<Ticket, Process>,
    pub waiting: BTreeMap<Ticket, ModelId>,
    pub ends: BTreeMap<Ticket, End>,
    pub loads: Vec<(ModelId, bool)>,
    pub evictions: Vec<(ModelId, Why)>,
    pub grants: Vec<Ticket>,
    next_ticket: u64,
    seen_processes: BTreeSet<Process>,
}

pub fn mib(n: u64) -> Memory {
    Memory::host(n << 20)
}

pub fn profile(need: u64, slots: u32) -> Profile {
    Profile {
        need: mib(need),
        slots,
        keep_alive: KeepAlive::For(Duration::from_secs(300)),
        pinned: false,
        reload: Duration::from_millis(100),
    }
}

impl World {
    pub fn new(budget: u64, limits: Limits) -> World {
        World {
            scheduler: Scheduler::new(mib(budget), limits),
            now: Duration::from_secs(1),
            budget: mib(budget),
            profiles: BTreeMap::new(),
            loading: BTreeMap::new(),
            leaving: BTreeMap::new(),
            up: BTreeMap::new(),
            serving: BTreeMap::new(),
            waiting: BTreeMap::new(),
            ends: BTreeMap::new(),
            loads: Vec::new(),
            evictions: Vec::new(),
            grants: Vec::new(),
            next_ticket: 1,
            seen_processes: BTreeSet::new(),
        }
    }

    pub fn model(&mut self, id: u64, profile: Profile) -> ModelId {
        let model = ModelId(id);
        self.profiles.insert(model, profile);
        self.event(Event::Model { model, profile, reload: false });
        model
    }

    pub fn arrive(&mut self, model: ModelId, caller: &str, cost: u32) -> Ticket {
        self.arrive_with(model, caller, cost, None)
    }

    pub fn arrive_with(
        &mut self,
        model: ModelId,
        caller: &str,
        cost: u32,
        keep_alive: Option<KeepAlive>,
    ) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.waiting.insert(ticket, model);
        let caller = caller.into();
        self.event(Event::Arrived(Arrival { ticket, model, caller, weight: 1, cost, keep_alive }));
        ticket
    }

    pub fn cancel(&mut self, ticket: Ticket) {
        let was_waiting = self.waiting.remove(&ticket).is_some();
        if was_waiting || self.serving.remove(&ticket).is_some() {
            self.ends.insert(ticket, End::Cancelled);
        }
        self.event(Event::Cancelled(ticket));
    }

    pub fn finish(&mut self, ticket: Ticket) {
        if self.serving.remove(&ticket).is_some() {
            self.ends.insert(ticket, End::Done);
            self.event(Event::Finished { ticket, tokens: None });
        }
    }

    pub fn load_done(&mut self, process: Process, footprint: Option<Memory>) {
        let (model, need, _) = self.loading.remove(&process).expect("a load");
        let footprint = footprint.unwrap_or(need);
        self.up.insert(process, (model, footprint));
        self.event(Event::Loaded { process, footprint });
    }

    pub fn load_fails(&mut self, process: Process, failure: Failure) {
        self.loading.remove(&process).expect("a load");
        self.event(Event::LoadFailed { process, failure });
    }

    pub fn evict_done(&mut self, process: Process) {
        self.leaving.remove(&process).expect("an eviction");
        self.event(Event::Evicted { process });
    }

    pub fn dies(&mut self, process: Process) {
        self.up.remove(&process).expect("a process");
        let lost: Vec<Ticket> =
            self.serving.iter().filter(|(_, p)| **p == process).map(|(t, _)| *t).collect();
        for ticket in lost {
            self.serving.remove(&ticket);
            self.ends.insert(ticket, End::Done);
        }
        self.event(Event::Died { process });
    }

    pub fn after(&mut self, time: Duration) {
        self.now += time;
        self.event(Event::Tick);
    }

    pub fn event(&mut self, event: Event) {
        if let Event::Budget(budget) = event {
            self.budget = budget;
        }
        for effect in self.scheduler.handle(self.now, event) {
            self.carry_out(effect);
        }
    }

    pub fn held(&self) -> Memory {
        let loading = self.loading.values().map(|(_, memory, _)| *memory);
        let others = self.up.values().chain(self.leaving.values()).map(|(_, memory)| *memory);
        loading.chain(others).sum()
    }

    /// Carries one effect out and checks that it was permitted.
    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Load { model, process, retry } => {
                assert!(self.seen_processes.insert(process), "process numbers are used once");
                let twice = self.up.values().chain(self.leaving.values()).any(|(other, _)| *other == model)
                    || self.loading.values().any(|(other, ..)| *other == model);
                assert!(!twice, "{model:?} has two processes");
                let seen = self.scheduler.seen(self.now);
                let need = seen.iter().find(|seen| seen.process == process).expect("it is seen").memory;
                self.loading.insert(process, (model, need, retry));
                assert!(self.held().fits(self.budget), "{} held of {}", self.held(), self.budget);
                self.loads.push((model, retry));
            }
            Effect::Evict { model, process, why } => {
                let (owner, memory) = self.up.remove(&process).expect("what is evicted is up");
                assert_eq!(owner, model);
                assert!(!self.serving.values().any(|p| *p == process), "{model:?} serves and is evicted");
                let pinned = self.profiles[&model].pinned && matches!(why, Why::Room | Why::Idle);
                assert!(!pinned, "{model:?} is pinned and evicted: {why:?}");
                self.leaving.insert(process, (model, memory));
                self.evictions.push((model, why));
            }
            Effect::Grant { ticket, process } => {
                let model = self.waiting.remove(&ticket).expect("only who waits gets a turn, and once");
                let (owner, _) = self.up.get(&process).expect("turns are at engines that are up");
                assert_eq!(*owner, model, "the turn is at another model's engine");
                self.serving.insert(ticket, process);
                let slots = self.profiles[&model].slots as usize;
                assert!(self.serving.values().filter(|p| **p == process).count() <= slots, "too many turns");
                self.grants.push(ticket);
                self.ends.insert(ticket, End::Granted(process));
            }
            Effect::Reject { ticket, why } => {
                self.waiting.remove(&ticket).expect("only who waits is rejected, and once");
                self.ends.insert(ticket, End::Rejected(why));
            }
        }
    }

    /// Lets everything that is under way succeed, and time pass, until nobody waits. Panics if that
    /// does not come about.
    pub fn settle(&mut self) {
        for _ in 0..100_000 {
            if let Some(process) = self.loading.keys().next().copied() {
                self.now += Duration::from_millis(10);
                self.load_done(process, None);
            } else if let Some(process) = self.leaving.keys().next().copied() {
                self.evict_done(process);
            } else if let Some(ticket) = self.serving.keys().next().copied() {
                self.now += Duration::from_millis(5);
                self.finish(ticket);
            } else if self.waiting.is_empty() {
                return;
            } else {
                let next = self.scheduler.next_wake(self.now).expect("who waits is waited for");
                self.now = next;
                self.event(Event::Tick);
            }
        }
        panic!("{} still wait: {:?}", self.waiting.len(), self.scheduler);
    }
}
