//! `pontoon vm run --gpu`: devices of this host that a machine has as long as it runs.

use std::path::Path;

use pontoon_passthrough::helper::Order;
use pontoon_passthrough::{Address, Helper, Plan, Uuid, against_slices};

use crate::vfio;

/// Which devices a machine gets.
#[derive(clap::Args)]
pub struct Options {
    /// Give the machine a GPU of this host, whole: by PCI address, or the best free one; may be repeated
    #[arg(long = "gpu", value_name = "BDF", num_args = 0..=1, require_equals = true, default_missing_value = "best")]
    gpus: Vec<String>,
    /// Give the machine any other PCI device, or a mediated one that `pontoon mdev create` made; may be repeated
    #[arg(long = "vfio", value_name = "BDF|UUID")]
    others: Vec<Wanted>,
    /// Take the boot display too: this host's console goes dark with it
    #[arg(long)]
    force: bool,
}

/// A device by its name: one of PCI's, or a slice of one.
#[derive(Clone)]
enum Wanted {
    Device(Address),
    Slice(Uuid),
}

impl std::str::FromStr for Wanted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.contains(':') {
            true => text.parse().map(Self::Device).map_err(|error| format!("{error}")),
            false => text.parse().map(Self::Slice),
        }
    }
}

/// Devices that a machine has. Whatever becomes of this process, they are put back.
pub struct Passed {
    helper: Option<Helper>,
    /// What the machine gets: with the devices asked for all that shares their groups.
    pub devices: Vec<String>,
    /// The mediated ones.
    pub slices: Vec<String>,
}

impl Options {
    /// Whether any is asked for.
    pub fn any(&self) -> bool {
        !self.gpus.is_empty() || !self.others.is_empty()
    }

    /// Takes them for this process.
    pub fn take(&self, memory_mib: u32) -> Result<Option<Passed>, String> {
        if !self.any() {
            return Ok(None);
        }
        let (mut wanted, mut slices) = (Vec::new(), Vec::new());
        for other in &self.others {
            match other {
                Wanted::Device(address) => wanted.push(*address),
                Wanted::Slice(uuid) => slices.push(uuid.clone()),
            }
        }
        for gpu in self.gpus.iter().filter(|gpu| *gpu != "best") {
            wanted.push(gpu.parse().map_err(|error| format!("--gpu: {error}"))?);
        }
        for _ in self.gpus.iter().filter(|gpu| *gpu == "best") {
            let best = vfio::best(&wanted)?;
            wanted.push(best);
        }
        // Everything that stands against it is said before anybody asks for rights.
        let (inventory, conditions) = vfio::look()?;
        let mut plan = Plan::bind(&inventory, &conditions, &wanted, self.force);
        plan.problems.extend(against_slices(Path::new("/"), &inventory, &slices));
        if !plan.problems.is_empty() {
            return Err(pontoon_passthrough::Error::Problems(plan.problems).to_string());
        }
        let slices: Vec<String> = slices.iter().map(ToString::to_string).collect();
        if wanted.is_empty() && may_lock(memory_mib) {
            return Ok(Some(Passed { helper: None, devices: Vec::new(), slices }));
        }
        let order = Order::Hold { devices: wanted, force: self.force, pid: std::process::id(), memory_mib };
        let (helper, answer) = Helper::start(&order)?;
        vfio::warn(&answer);
        if let Some(error) = answer.error {
            return Err(error);
        }
        answer.done.iter().for_each(|line| eprintln!("{line}"));
        let devices = plan.devices.iter().map(ToString::to_string).collect();
        Ok(Some(Passed { helper: Some(helper), devices, slices }))
    }
}

/// Whether this user's machine may lock its memory, without anybody's help.
fn may_lock(memory_mib: u32) -> bool {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Memlock).current;
    rustix::process::geteuid().is_root()
        || limit.is_none_or(|limit| limit >= pontoon_passthrough::helper::locked_bytes(memory_mib))
}

impl Passed {
    /// Waits until all is put back, now that the machine has ended.
    pub fn put_back(mut self) -> Result<(), String> {
        self.end()
    }

    fn end(&mut self) -> Result<(), String> {
        let Some(mut helper) = self.helper.take() else { return Ok(()) };
        let answer = helper.end()?;
        vfio::warn(&answer);
        answer.done.iter().for_each(|line| eprintln!("{line}"));
        answer.error.map_or(Ok(()), Err)
    }
}

impl Drop for Passed {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("pontoon: {error}");
        }
    }
}
