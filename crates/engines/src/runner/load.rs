//! Owns the two long steps: loading a model and evicting it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::plan::{Plan, Planner, lock};
use crate::instance::{Instance, LOADING, Log, NotReady, SlotCache, Spawner, Start, growth, memory_of};
use crate::scheduler::Process;
use crate::{Memory, files};

/// A process that is ready.
#[derive(Debug)]
pub struct Loaded {
    pub instance: Arc<Instance>,
    pub memory: Memory,
    pub plan: Arc<Plan>,
    pub restored_slots: usize,
}

/// Starts and ends engines. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Loader {
    pub planner: Arc<Planner>,
    pub spawner: Spawner,
    pub slots: SlotCache,
}

impl Loader {
    /// Starts an engine by `plan`, gives it its saved prompts, and measures it.
    pub async fn load(&self, plan: Arc<Plan>, process: Process, log: Log) -> Result<Loaded, NotReady> {
        let plain = |reason: String| NotReady { reason, out_of_memory: false };
        let (loader, prepared) = (self.clone(), plan.clone());
        let prepared = tokio::task::spawn_blocking(move || loader.prepare(&prepared, process)).await;
        let (start, place) = prepared.map_err(|e| plain(e.to_string()))?.map_err(|e| plain(e.to_string()))?;
        log.push(&format!("{LOADING}{} with {}", plan.name, plan.engine.label()));
        let started = Instance::start(&self.spawner, &start, log).await;
        let instance = Arc::new(started.inspect_err(|_| {
            let _ = std::fs::remove_dir_all(start.socket.parent().unwrap_or(&start.socket));
        })?);
        let restored_slots = match &place {
            Some(place) => self.slots.restore(&instance.socket, place, plan.profile.slots).await,
            None => 0,
        };
        let pid = instance.pid();
        let measured = tokio::task::spawn_blocking(move || memory_of(pid)).await.ok().flatten();
        // A process that ended in this moment is noticed by its end.
        let memory = measured.unwrap_or(plan.profile.need);
        self.bound(&plan, &instance, memory);
        Ok(Loaded { instance, memory, plan, restored_slots })
    }

    /// Bounds what a process takes from here on.
    fn bound(&self, plan: &Plan, instance: &Instance, ready: Memory) {
        let growth = match self.planner.options.growth {
            Some(0) => return,
            Some(bytes) => bytes,
            None => growth::usual(ready, *lock(&self.planner.budget)),
        };
        match instance.bound(growth.saturating_add(plan.prompt_cache())) {
            Ok(most) => log::debug!("the engine of {} may have {} MiB of its own", plan.name, most >> 20),
            Err(error) if error.kind() == std::io::ErrorKind::Unsupported => {}
            Err(error) => log::warn!("nothing bounds the memory of the engine of {}: {error}", plan.name),
        }
    }

    /// The private folder of its socket, the folder of its slots, and its job.
    fn prepare(&self, plan: &Plan, process: Process) -> Result<(Start, Option<PathBuf>), crate::Error> {
        let options = &self.planner.options;
        let draft = plan.draft.as_ref().map(|draft| draft.digest.as_str());
        for digest in std::iter::once(plan.digest.as_str()).chain(draft) {
            let model = options.store.resolve(digest)?;
            options.store.check_unchanged(&model)?;
            // What was pulled again since is another file.
            options.store.bundle(&model)?;
        }
        let folder = options.run.join(format!("{}-{}", std::process::id(), process.0));
        let socket = folder.join("engine.sock");
        let place = match &plan.slot_key {
            Some(key) => self.slots.place(key, options.user.map(|user| user.uid))?,
            None => None,
        };
        let job = plan.job(options, &socket, place.as_deref())?;
        files::private_folder(&folder)?;
        let (health, patience) = (plan.engine.health.clone(), options.load_patience);
        if let Some(user) = options.user {
            for owned in std::iter::once(&folder).chain(&place) {
                std::os::unix::fs::chown(owned, Some(user.uid), Some(user.gid))
                    .map_err(crate::Error::file(owned, "given to the engine's user"))?;
            }
        }
        Ok((Start { job, socket, health, patience }, place))
    }

    /// Saves what the slots hold, then ends the process. Returns how many were saved.
    pub async fn evict(&self, plan: &Plan, instance: &Instance) -> usize {
        let user = self.planner.options.user.map(|user| user.uid);
        let place = plan.slot_key.as_ref().and_then(|key| self.slots.place(key, user).ok().flatten());
        let saved = match place {
            Some(place) => self.slots.save(&instance.socket, &place).await,
            None => 0,
        };
        instance.kill().await;
        if let Some(folder) = instance.folder() {
            let _ = tokio::fs::remove_dir_all(folder).await;
        }
        saved
    }

    /// Keeps a measurement for the next time.
    pub fn remember(&self, plan: &Plan, memory: Memory, took: Duration) {
        if let Err(error) = lock(&self.planner.footprints).set(&plan.key, memory, took) {
            log::warn!("a measured footprint is not remembered: {error}");
        }
    }
}

/// Removes socket folders of supervisors that ended without tidying up. A folder's name begins with the
/// process id of its owner.
pub fn sweep(run: &Path) {
    for entry in std::fs::read_dir(run).into_iter().flatten().flatten() {
        let name = entry.file_name().into_string().unwrap_or_default();
        let owner =
            name.split('-').next().and_then(|pid| pid.parse().ok()).and_then(rustix::process::Pid::from_raw);
        let Some(owner) = owner else { continue };
        // Ours are not there yet: one with our number is of a process before us.
        let ended = owner == rustix::process::getpid()
            || rustix::process::test_kill_process(owner) == Err(rustix::io::Errno::SRCH);
        if ended {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}
