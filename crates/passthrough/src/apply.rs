//! The one writer: carries plans out, and puts back what a journal tells of. What it writes it writes by [`Operation`]s alone.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::journal::Lock;
use crate::journal::VERSION;
use crate::operation::VFIO;
use crate::restore::{self, Busy, Left};
use crate::{
    Inventory, Journal, JournalError, Journals, Operation, Owner, Phase, Plan, Problem, Saved, Taken,
};

/// Why a step was not done.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The kernel refused.
    #[error("{step}: {source}")]
    Refused {
        /// The step.
        step: String,
        /// What it said.
        source: io::Error,
    },
    /// The kernel did not come back: drivers that hang do that.
    #[error(
        "{step}: no answer within {seconds} s; the driver waits for programs that have the device open, or hangs"
    )]
    Late {
        /// The step.
        step: String,
        /// How long was waited.
        seconds: u64,
    },
}

/// Why devices were not taken, or not put back.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Something stands against it.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Problems(Vec<Problem>),
    /// A journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A step failed; `after` says what came of what was done before it.
    #[error("{source}; {after}")]
    Step {
        /// Why.
        source: StepError,
        /// What became of the rest.
        after: String,
    },
    /// A driver did not take a device.
    #[error(
        "{device} is on {found} instead of {wanted} after {seconds} s (the kernel's log may say why: dmesg); {after}"
    )]
    Driver {
        /// The device.
        device: crate::Address,
        /// What it is on.
        found: String,
        /// What it should be on.
        wanted: String,
        /// How long was waited.
        seconds: u64,
        /// What became of the rest.
        after: String,
    },
    /// VFIO does not let go of a group that is not all its.
    #[error("IOMMU group {group} ({members}) is not viable: {why}; {after}")]
    NotViable {
        /// The group.
        group: u32,
        /// What is in it.
        members: String,
        /// Why.
        why: String,
        /// What became of the rest.
        after: String,
    },
    /// It is used.
    #[error(transparent)]
    Busy(#[from] Busy),
    /// Something is not as it was.
    #[error("{0}")]
    NotRestored(String),
    /// The list of devices.
    #[error("PCI devices: {0}")]
    Inventory(io::Error),
}

/// Rounds in which a device is given back at least: each has another way.
const MIN_TRIES: u32 = 6;

/// How long steps of a helper that was killed are waited for.
const ORPHANS: Duration = Duration::from_secs(5);

/// What carries out a step: in a process of its own where the kernel might not come back.
pub type Perform<'a> = &'a mut dyn FnMut(&Operation) -> Result<(), StepError>;

/// What reads the host: in a process of its own where the kernel might not come back.
pub type Look<'a> = &'a dyn Fn() -> io::Result<Inventory>;

/// A host whose devices are taken and put back, by who has the right to: what is read, decided and done happens under one
/// lock.
pub struct Host<'a> {
    /// Where its files are.
    pub root: &'a Path,
    /// How it is read.
    pub look: Look<'a>,
    /// How steps are carried out.
    pub perform: Perform<'a>,
    /// How long drivers may take to have a device.
    pub patience: Duration,
    /// Whether a group is viable; real hosts ask VFIO ([`crate::viability::check`]).
    pub viable: &'a dyn Fn(u32) -> Result<(), String>,
    _lock: Lock,
}

/// Carries out one step on this machine. A process that does only this may be given up when the kernel does not come back.
///
/// # Errors
/// What the system said.
pub fn perform(root: &Path, operation: &Operation) -> io::Result<()> {
    if !operation.is_sound() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "this is no step that can be done"));
    }
    let Some(file) = operation.file() else {
        // Nothing of who asked decides what is loaded.
        let places = ["/sbin/modprobe", "/usr/sbin/modprobe", "/usr/bin/modprobe"];
        let program = places.into_iter().find(|path| Path::new(path).exists()).unwrap_or("modprobe");
        let status = Command::new(program).arg(VFIO).env_clear().status()?;
        return match status.success() {
            true => Ok(()),
            false => Err(io::Error::other(format!("modprobe {VFIO}: {status}"))),
        };
    };
    let mut file = fs::File::options().write(true).open(root.join(file))?;
    file.write_all(operation.value().as_bytes())
}

impl<'a> Host<'a> {
    /// Waits for the right to take and to put back on this host.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn lock(
        root: &'a Path,
        look: Look<'a>,
        perform: Perform<'a>,
        patience: Duration,
        viable: &'a dyn Fn(u32) -> Result<(), String>,
    ) -> Result<Self, JournalError> {
        let lock = Journals::below(root).lock()?;
        crate::step::wait_for_orphans(root, ORPHANS);
        Ok(Self { root, look, perform, patience, viable, _lock: lock })
    }

    /// Reads the host.
    ///
    /// # Errors
    /// [`Error::Inventory`].
    pub fn inventory(&self) -> Result<Inventory, Error> {
        (self.look)().map_err(Error::Inventory)
    }

    /// Takes everything that a plan names, all or nothing.
    ///
    /// # Errors
    /// [`Error`]: all that was done before is undone then, or the error says what is not.
    pub fn take(&mut self, plan: &Plan, owner: &Owner) -> Result<Vec<Journal>, Error> {
        if !plan.problems.is_empty() {
            return Err(Error::Problems(plan.problems.clone()));
        }
        let journals = Journals::below(self.root);
        let boot = journals.boot()?;
        for part in &plan.parts {
            let key = part.taken.key();
            let again = matches!(part.taken, Taken::VirtualFunctions { .. });
            if journals.get(&key)?.is_some() && !again {
                return Err(JournalError::Taken(key).into());
            }
        }
        let mut taken: Vec<Journal> = Vec::new();
        for part in &plan.parts {
            let before = journals.get(&part.taken.key())?;
            let mut journal = Journal {
                version: VERSION,
                boot: boot.clone(),
                owner: owner.clone(),
                phase: Phase::Taking,
                used: false,
                taken: part.taken.clone(),
            };
            let done = self.take_part(&journals, &mut journal, &part.operations);
            taken.push(journal);
            if let Err(mut error) = done {
                let after = match before {
                    Some(before) => self.go_back_to(&journals, &before),
                    None => self.undo(&taken),
                };
                error.set_after(after);
                return Err(error);
            }
        }
        Ok(taken)
    }

    fn take_part(
        &mut self,
        journals: &Journals,
        journal: &mut Journal,
        operations: &[Operation],
    ) -> Result<(), Error> {
        journals.write(journal)?;
        for operation in operations {
            (self.perform)(operation).map_err(|source| Error::Step { source, after: String::new() })?;
        }
        self.verify_taken(&journal.taken)?;
        journal.phase = Phase::Taken;
        journal.used = true;
        Ok(journals.write(journal)?)
    }

    /// The driver that has a device. Unlike what [`Host::inventory`] reads, this never blocks.
    fn driver(&self, device: crate::Address) -> Option<String> {
        let link = fs::read_link(self.root.join(format!("sys/bus/pci/devices/{device}/driver"))).ok()?;
        Some(link.file_name()?.to_string_lossy().into_owned())
    }

    /// Waits until all is where it should be.
    fn verify_taken(&self, taken: &Taken) -> Result<(), Error> {
        let Taken::Group { group, devices } = taken else { return Ok(()) };
        let begun = Instant::now();
        loop {
            let missing = devices.iter().find(|saved| self.driver(saved.address).as_deref() != Some(VFIO));
            let Some(missing) = missing else { break };
            if begun.elapsed() >= self.patience {
                return Err(Error::Driver {
                    device: missing.address,
                    found: self.driver(missing.address).unwrap_or_else(|| "no driver".into()),
                    wanted: VFIO.into(),
                    seconds: self.patience.as_secs(),
                    after: String::new(),
                });
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let members: Vec<String> = devices.iter().map(|saved| saved.address.to_string()).collect();
        (self.viable)(*group).map_err(|why| Error::NotViable {
            group: *group,
            members: members.join(", "),
            why,
            after: String::new(),
        })
    }

    /// Puts back what an attempt has taken, and says what came of it.
    pub fn undo(&mut self, taken: &[Journal]) -> String {
        let mut words = Vec::new();
        for journal in taken.iter().rev() {
            // It never was a machine's.
            match self.put_back(&Journal { used: false, ..journal.clone() }) {
                Ok(left) => words.extend(left.iter().map(ToString::to_string)),
                Err(error) => words.push(format!("not put back: {error}")),
            }
        }
        match words.is_empty() {
            true => "everything was put back".into(),
            false => words.join("; "),
        }
    }

    /// Undoes a change of how many virtual functions there are: to the number before it, not to that before all.
    fn go_back_to(&mut self, journals: &Journals, before: &Journal) -> String {
        let Taken::VirtualFunctions { device, counts, .. } = &before.taken else { return String::new() };
        let count = counts.last().copied().unwrap_or_default();
        let device = *device;
        let steps = [0, count].map(|count| Operation::VirtualFunctions { device, count });
        let steps = if count == 0 { &steps[..1] } else { &steps[..] };
        let done: Result<Vec<()>, StepError> = steps.iter().map(|step| (self.perform)(step)).collect();
        match done
            .map_err(|error| error.to_string())
            .and_then(|_| journals.write(before).map_err(|error| error.to_string()))
        {
            Ok(()) => format!("it has {count} virtual functions again"),
            Err(error) => format!("not put back: {error}; `pontoon vfio restore {device}`"),
        }
    }

    /// Puts back what a journal of this name tells of, if `if_so` says so of it, and removes it. What somebody else has
    /// changed since is left alone, and returned.
    ///
    /// # Errors
    /// [`Error`]; the journal stays then, and this can be tried again.
    pub fn restore(
        &mut self,
        key: &str,
        if_so: impl Fn(&Journal) -> bool,
    ) -> Result<Option<Vec<Left>>, Error> {
        match Journals::below(self.root).get(key)?.filter(if_so) {
            Some(journal) => self.put_back(&journal).map(Some),
            None => Ok(None),
        }
    }

    fn put_back(&mut self, journal: &Journal) -> Result<Vec<Left>, Error> {
        let journals = Journals::below(self.root);
        let key = journal.taken.key();
        if journal.boot != journals.boot()? {
            // What it tells of ended with that boot.
            journals.remove(&key)?;
            return Ok(Vec::new());
        }
        let inventory = self.inventory()?;
        let others: Vec<Journal> =
            journals.list().0.into_iter().filter(|other| other.taken.key() != key).collect();
        if let Some(busy) = restore::busy(&journal.taken, &inventory, self.root, &others) {
            return Err(busy.into());
        }
        // What it says already is enough where this cannot be written.
        let _ = journals.write(&Journal { phase: Phase::Restoring, ..journal.clone() });
        let mut left = Vec::new();
        match &journal.taken {
            Taken::Group { devices, .. } => {
                self.put_devices_back(devices, &inventory, journal.used, &mut left)?;
            }
            other => match restore::slices(other, &inventory, self.root) {
                Ok(steps) => self.steps(&steps)?,
                Err(reason) => left.push(reason),
            },
        }
        journals.remove(&key)?;
        Ok(left)
    }

    /// All are free before the first of them gets its driver back: functions of one card depend on each other. One that
    /// makes trouble does not keep the others.
    fn put_devices_back(
        &mut self,
        devices: &[Saved],
        inventory: &Inventory,
        used: bool,
        left: &mut Vec<Left>,
    ) -> Result<(), Error> {
        let mut trouble = Vec::new();
        let mut ours = Vec::new();
        for saved in devices {
            match restore::release(saved, inventory.at(saved.address), used) {
                Ok(steps) => match self.steps(&steps) {
                    Ok(()) => ours.push(saved),
                    Err(error) => trouble.push(error.to_string()),
                },
                Err(reason) => left.push(reason),
            }
        }
        for saved in ours {
            match self.give_back(saved) {
                Ok(None) => {}
                Ok(Some(reason)) => left.push(reason),
                Err(error) => trouble.push(error.to_string()),
            }
        }
        match trouble.is_empty() {
            true => Ok(()),
            false => Err(Error::NotRestored(trouble.join("; "))),
        }
    }

    fn steps(&mut self, steps: &[Operation]) -> Result<(), Error> {
        for step in steps {
            match (self.perform)(step) {
                // Not every device can be reset by itself; its driver does what is needed.
                Err(StepError::Refused { .. }) if matches!(step, Operation::Reset { .. }) => {}
                Err(source) => return Err(Error::Step { source, after: STAYS.into() }),
                Ok(()) => {}
            }
        }
        Ok(())
    }

    /// Gives a released device back to its driver, and sees that it is as it was.
    fn give_back(&mut self, saved: &Saved) -> Result<Option<Left>, Error> {
        let begun = Instant::now();
        let mut tries = 0;
        loop {
            let inventory = self.inventory()?;
            let Some(device) = inventory.at(saved.address) else {
                return Ok(Some(Left::Gone(saved.address)));
            };
            if device.stuck {
                return Err(Busy::Device { device: saved.address, by: device.uses.join(", ") }.into());
            }
            let steps = match restore::give_back(saved, device, tries) {
                Ok(steps) => steps,
                Err(reason) => return Ok(Some(reason)),
            };
            if steps.is_empty() {
                return Ok(None);
            }
            if begun.elapsed() >= self.patience && tries > MIN_TRIES {
                let found = device.driver.clone().unwrap_or_else(|| "no driver".into());
                let wanted = saved.driver.clone().unwrap_or_else(|| "no driver".into());
                return Err(Error::NotRestored(format!(
                    "{0} is on {found}, not on {wanted} as before (the kernel's log may say why: dmesg); the journal stays: try `pontoon vfio restore {0}` again",
                    saved.address
                )));
            }
            tries += 1;
            for step in &steps {
                match (self.perform)(step) {
                    // Seen in the next round.
                    Ok(()) | Err(StepError::Refused { .. }) => {}
                    Err(source) => return Err(Error::Step { source, after: STAYS.into() }),
                }
            }
            if tries > 1 {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

/// What is said of a step that failed while something is put back.
const STAYS: &str = "the journal stays: `pontoon vfio restore` tries again";

impl Error {
    fn set_after(&mut self, words: String) {
        match self {
            Self::Step { after, .. } | Self::Driver { after, .. } | Self::NotViable { after, .. } => {
                *after = words;
            }
            _ => {}
        }
    }
}
