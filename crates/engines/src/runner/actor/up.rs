//! Owns what is seen of engines that are up: what they take, and that they have ended.

use tokio::runtime::Handle;

use super::{Actor, Message, WeakMonitor};
use crate::Memory;
use crate::instance::{GATHER, Instance, Log, lacked_memory};
use crate::scheduler::{Event, Process};

impl Actor {
    pub(super) fn measure(&self) {
        for live in self.models.values().filter_map(|known| known.process.as_ref()) {
            let (process, pid, own) = (live.number, live.instance.pid(), self.own.clone());
            self.runtime.spawn_blocking(move || {
                if let Some(memory) = crate::instance::memory_of(pid) {
                    own.tell(Message::Measured { process, memory });
                }
            });
        }
    }

    /// The highest ever seen counts: what was needed once will be needed again.
    pub(super) fn measured(&mut self, process: Process, memory: Memory) {
        let Some(model) = self.scheduler.model_of_process(process) else { return };
        let live = self.models.get_mut(&model).and_then(|known| known.process.as_mut());
        let Some(live) = live.filter(|live| live.number == process) else { return };
        let peak = live.peak.max(memory);
        if peak != live.peak {
            live.peak = peak;
            let (plan, took) = (live.plan.clone(), live.instance.took);
            let (loader, lasting) = (self.loader.clone(), lasting(peak, live.ready, plan.prompt_cache()));
            self.runtime.spawn_blocking(move || loader.remember(&plan, lasting, took));
            self.event(Event::Measured { process, footprint: peak });
        }
    }
}

/// What is remembered for the next load: not more than half as much again as it was ready with, and its prompt cache.
/// A caller that makes an engine grow must not make it look large for ever.
fn lasting(peak: Memory, ready: Memory, prompt_cache: u64) -> Memory {
    peak.min(ready.and_a_half() + Memory::host(prompt_cache))
}

/// Says in the daemon's log that an engine has ended, when its last lines have come.
pub(super) async fn obituary(name: String, log: Log) {
    tokio::time::sleep(2 * GATHER).await;
    let why = match lacked_memory(&log) {
        true => " for want of memory (models.growth_bytes bounds what it may take)",
        false => "",
    };
    log::warn!("the engine of {name} ended by itself{why}; `pontoon model logs` may say more");
}

/// Tells when an engine has ended.
pub(super) fn watch_for_end(own: WeakMonitor, runtime: &Handle, process: Process, instance: &Instance) {
    let mut exited = instance.exited();
    runtime.spawn(async move {
        crate::instance::ended(&mut exited).await;
        own.tell(Message::Ended { process });
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peak_is_remembered_within_reason() {
        let ready = Memory { host: 100, gpu: 1000 };
        let of = |host, gpu| lasting(Memory { host, gpu }, ready, 30);
        assert_eq!(of(120, 1100), Memory { host: 120, gpu: 1100 });
        assert_eq!(of(5000, 9000), Memory { host: 180, gpu: 1500 });
    }
}
