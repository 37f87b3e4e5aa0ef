//! The one writer: carries plans out, and puts back what a journal tells of. What it writes it writes by [`Operation`]s alone.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::journal::VERSION;
use crate::operation::VFIO;
use crate::restore::{self, Left};
use crate::{Inventory, Journal, JournalError, Journals, Operation, Owner, Phase, Plan, Problem, Taken};

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
    #[error("{step}: no answer within {seconds} s; the driver hangs, and may until a reboot")]
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
    #[error("{device} is on {found} instead of {wanted} after {seconds} s{rest}; {after}")]
    Driver {
        /// The device.
        device: crate::Address,
        /// What it is on.
        found: String,
        /// What it should be on.
        wanted: String,
        /// How long was waited.
        seconds: u64,
        /// What else is known, or nothing.
        rest: String,
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
    /// Something is not as it was.
    #[error("{0}")]
    NotRestored(String),
    /// The list of devices.
    #[error("PCI devices: {0}")]
    Inventory(io::Error),
}

/// Rounds in which a device is given back at least: each has another way.
const MIN_TRIES: u32 = 6;

/// What carries out a step: in a process of its own where the kernel might not come back.
pub type Perform<'a> = &'a mut dyn FnMut(&Operation) -> Result<(), StepError>;

/// A host whose devices are taken and put back.
pub struct Host<'a> {
    /// Where its files are.
    pub root: &'a Path,
    /// How steps are carried out.
    pub perform: Perform<'a>,
    /// How long drivers may take to have a device.
    pub patience: Duration,
    /// Whether a group is viable; real hosts ask VFIO ([`crate::viability::check`]).
    pub viable: &'a dyn Fn(u32) -> Result<(), String>,
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
        let status = Command::new("modprobe").arg(VFIO).status()?;
        return match status.success() {
            true => Ok(()),
            false => Err(io::Error::other(format!("modprobe {VFIO}: {status}"))),
        };
    };
    let mut file = fs::File::options().write(true).open(root.join(file))?;
    file.write_all(operation.value().as_bytes())
}

impl Host<'_> {
    /// Takes everything that a plan names, all or nothing.
    ///
    /// # Errors
    /// [`Error`]: all that was done before is undone then, or the error says what is not.
    pub fn take(&mut self, plan: &Plan, owner: &Owner) -> Result<Vec<Journal>, Error> {
        if !plan.problems.is_empty() {
            return Err(Error::Problems(plan.problems.clone()));
        }
        let journals = Journals::below(self.root);
        let mut taken: Vec<Journal> = Vec::new();
        for part in &plan.parts {
            let lock = journals.lock(&part.taken.key())?;
            let mut journal = Journal {
                version: VERSION,
                boot: journals.boot(),
                owner: owner.clone(),
                phase: Phase::Taking,
                taken: part.taken.clone(),
            };
            let done = self.take_part(&journals, &mut journal, &part.operations);
            drop(lock);
            taken.push(journal);
            if let Err(mut error) = done {
                let after = self.undo(&journals, &taken);
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
        Ok(journals.write(journal)?)
    }

    /// Waits until all is where it should be.
    fn verify_taken(&self, taken: &Taken) -> Result<(), Error> {
        let Taken::Group { group, devices } = taken else { return Ok(()) };
        let begun = Instant::now();
        loop {
            let inventory = Inventory::read(self.root).map_err(Error::Inventory)?;
            let missing = devices.iter().find(|saved| {
                inventory.at(saved.address).is_none_or(|device| device.driver.as_deref() != Some(VFIO))
            });
            let Some(missing) = missing else { break };
            if begun.elapsed() >= self.patience {
                let found = inventory
                    .at(missing.address)
                    .map_or("gone, it vanished,", |device| device.driver.as_deref().unwrap_or("no driver"));
                return Err(Error::Driver {
                    device: missing.address,
                    found: found.to_owned(),
                    wanted: VFIO.into(),
                    seconds: self.patience.as_secs(),
                    rest: String::new(),
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
    fn undo(&mut self, journals: &Journals, taken: &[Journal]) -> String {
        let mut words = Vec::new();
        for journal in taken.iter().rev() {
            match self.put_back(journals, journal) {
                Ok(left) => words.extend(left.iter().map(ToString::to_string)),
                Err(error) => words.push(format!("not put back: {error}")),
            }
        }
        match words.is_empty() {
            true => "everything was put back".into(),
            false => words.join("; "),
        }
    }

    /// Puts back what a journal tells of, and removes it. What somebody else has changed since is left alone, and returned.
    ///
    /// # Errors
    /// [`Error`]; the journal stays then, and this can be tried again.
    pub fn restore(&mut self, key: &str) -> Result<Vec<Left>, Error> {
        let journals = Journals::below(self.root);
        let _lock = journals.lock(key)?;
        match journals.get(key)? {
            Some(journal) => self.put_back(&journals, &journal),
            None => Ok(Vec::new()),
        }
    }

    fn put_back(&mut self, journals: &Journals, journal: &Journal) -> Result<Vec<Left>, Error> {
        let key = journal.taken.key();
        if journal.boot != journals.boot() {
            // What it tells of ended with that boot.
            journals.remove(&key)?;
            return Ok(Vec::new());
        }
        let was_taken = journal.phase == Phase::Taken;
        journals.write(&Journal { phase: Phase::Restoring, ..journal.clone() })?;
        let mut left = Vec::new();
        match &journal.taken {
            Taken::Group { devices, .. } => {
                let inventory = Inventory::read(self.root).map_err(Error::Inventory)?;
                let stuck = |saved: &&crate::Saved| inventory.at(saved.address).is_some_and(|now| now.stuck);
                if let Some(saved) = devices.iter().find(stuck) {
                    return Err(Error::NotRestored(format!(
                        "{0} is not put back: a driver waits until programs let go of it; end those (`fuser -v /dev/dri/* /dev/snd/* /dev/vfio/*`), then `pontoon vfio restore {0}`",
                        saved.address
                    )));
                }
                // All may have their drivers back before the first of them looks for it: functions of one card depend on
                // each other.
                let mut ours = Vec::new();
                for saved in devices {
                    match restore::release(saved, inventory.at(saved.address), was_taken) {
                        Ok(steps) => {
                            self.steps(&steps)?;
                            ours.push(saved);
                        }
                        Err(reason) => left.push(reason),
                    }
                }
                for saved in ours {
                    self.give_back(saved)?;
                }
            }
            other => {
                let inventory = Inventory::read(self.root).map_err(Error::Inventory)?;
                match restore::slices(other, &inventory, self.root) {
                    Ok(steps) => self.steps(&steps)?,
                    Err(reason) => left.push(reason),
                }
            }
        }
        journals.remove(&key)?;
        Ok(left)
    }

    fn steps(&mut self, steps: &[Operation]) -> Result<(), Error> {
        for step in steps {
            match (self.perform)(step) {
                // Not every device can be reset by itself; its driver does what is needed.
                Err(StepError::Refused { .. }) if matches!(step, Operation::Reset { .. }) => {}
                Err(source) => {
                    return Err(Error::Step { source, after: "the journal stays: try again".into() });
                }
                Ok(()) => {}
            }
        }
        Ok(())
    }

    /// Gives a released device back to its driver, and sees that it is as it was.
    fn give_back(&mut self, saved: &crate::Saved) -> Result<(), Error> {
        let begun = Instant::now();
        let mut tries = 0;
        loop {
            let inventory = Inventory::read(self.root).map_err(Error::Inventory)?;
            let Some(device) = inventory.at(saved.address) else { return Ok(()) };
            let steps = restore::give_back(saved, device, tries);
            if steps.is_empty() {
                return Ok(());
            }
            if begun.elapsed() >= self.patience && tries > MIN_TRIES {
                let found = device.driver.clone().unwrap_or_else(|| "no driver".into());
                let wanted = saved.driver.clone().unwrap_or_else(|| "no driver".into());
                return Err(Error::NotRestored(format!(
                    "{} is on {found}, not on {wanted} as before: the journal stays; try `pontoon vfio restore {}` again, or bind it by hand",
                    saved.address, saved.address
                )));
            }
            tries += 1;
            for step in &steps {
                match (self.perform)(step) {
                    // Seen in the next round.
                    Ok(()) | Err(StepError::Refused { .. }) => {}
                    Err(source) => {
                        return Err(Error::Step { source, after: "the journal stays: try again".into() });
                    }
                }
            }
            if tries > 1 {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

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
