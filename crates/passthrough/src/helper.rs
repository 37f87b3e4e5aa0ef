//! The process that may do what needs root: it takes one order of a fixed set, looks at the host itself, believes nothing
//! of who asked, and answers in one line. Everything else of Pontoon runs without such rights.

use std::collections::BTreeSet;
use std::io::{self, BufRead, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::apply::Perform;
use crate::{
    Address, Conditions, Error, Fate, Host, Inventory, Journal, JournalError, Journals, Operation, Owner,
    Plan, StepError, Taken, Uuid, recover, step, viability,
};

/// How long the kernel may take for one step, and a driver to have a device.
const DEADLINE: Duration = Duration::from_secs(20);
/// How long a machine may take to let go of its devices once its owner has gone.
const LETTING_GO: Duration = Duration::from_secs(30);

/// What it can be asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Order {
    /// Take devices until they are put back.
    Bind {
        /// The devices.
        devices: Vec<Address>,
        /// Whether the boot display too.
        force: bool,
    },
    /// Take devices for a process, until standard input ends; then put them back.
    Hold {
        /// The devices.
        devices: Vec<Address>,
        /// Whether the boot display too.
        force: bool,
        /// The process.
        pid: u32,
        /// What it is, in words.
        what: String,
    },
    /// Put devices back; all that nobody has any more, where none is named.
    Restore {
        /// The devices.
        devices: Vec<Address>,
    },
    /// Set how many virtual functions there are.
    VirtualFunctions {
        /// The physical function.
        device: Address,
        /// How many.
        count: u32,
    },
    /// Make a mediated device.
    CreateMediated {
        /// The device that it is a slice of.
        device: Address,
        /// Its type.
        kind: String,
        /// Its name.
        uuid: Uuid,
    },
    /// Remove a mediated device.
    RemoveMediated {
        /// Its name.
        uuid: Uuid,
    },
}

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// What was done, a sentence each.
    pub done: Vec<String>,
    /// What was left alone, or done only in part.
    pub warnings: Vec<String>,
    /// Why it was not done.
    pub error: Option<String>,
}

impl Answer {
    fn error(error: &impl ToString) -> Self {
        Self { error: Some(error.to_string()), ..Self::default() }
    }
}

/// Reads an order, carries it out, and writes the answer. A `hold` answers twice: when all is taken, and when all is
/// back.
///
/// # Errors
/// What the system said of input or output.
pub fn run(mut input: impl BufRead, mut output: impl Write) -> io::Result<()> {
    let mut line = String::new();
    io::Read::take(&mut input, 64 << 10).read_line(&mut line)?;
    let mut say = |answer: &Answer| -> io::Result<()> {
        serde_json::to_writer(&mut output, answer)?;
        output.write_all(b"\n")?;
        output.flush()
    };
    let order: Order = match serde_json::from_str(&line) {
        Ok(order) => order,
        Err(error) => return say(&Answer::error(&format!("this is no order: {error}"))),
    };
    if !rustix::process::geteuid().is_root() {
        return say(&Answer::error(&"devices are taken and put back by root"));
    }
    let program = step::program()?;
    let mut perform =
        |operation: &Operation| -> Result<(), StepError> { step::in_process(&program, operation, DEADLINE) };
    let root = Path::new("/");
    let hold = matches!(order, Order::Hold { .. });
    let answer = obey(root, &mut perform, &order);
    let taken = answer.error.is_none();
    // Whoever has gone meanwhile hears nothing; what they had is put back all the same.
    let heard = say(&answer);
    if !hold || !taken {
        return heard;
    }
    io::copy(&mut input, &mut io::sink())?;
    let Order::Hold { devices, .. } = order else { return Ok(()) };
    let answer = let_go(root, &mut perform, &devices);
    let _ = say(&answer);
    Ok(())
}

/// A host as it is, with VFIO asked about groups.
fn host<'a>(root: &'a Path, perform: Perform<'a>, viable: &'a dyn Fn(u32) -> Result<(), String>) -> Host<'a> {
    Host { root, perform, patience: DEADLINE, viable }
}

/// Carries out an order.
pub fn obey(root: &Path, perform: Perform<'_>, order: &Order) -> Answer {
    let viable = |group| viability::check(root, group);
    let mut host = host(root, perform, &viable);
    // What dead owners had is free.
    let mut answer = report(&recover(&mut host), false);
    let result = match order {
        Order::Bind { devices, force } => take(&mut host, devices, *force, &Owner::Administrator),
        Order::Hold { devices, force, pid, what } => match Owner::process(root, *pid, what) {
            Some(owner) => take(&mut host, devices, *force, &owner),
            None => Err(format!("process {pid} has gone")),
        },
        Order::Restore { devices } => return restore(&mut host, devices, answer),
        Order::VirtualFunctions { device, count } => functions(&mut host, *device, *count),
        Order::CreateMediated { device, kind, uuid } => inventory(root).and_then(|inventory| {
            let plan = Plan::mediated(&inventory, &Conditions::read(root), *device, kind, uuid.clone());
            host.take(&plan, &Owner::Administrator).map_err(|error| error.to_string())?;
            Ok(vec![format!("{uuid} is a '{kind}' of {device}")])
        }),
        Order::RemoveMediated { uuid } => remove(&mut host, uuid),
    };
    match result {
        Ok(done) => answer.done.extend(done),
        Err(error) => answer.error = Some(error),
    }
    answer
}

fn inventory(root: &Path) -> Result<Inventory, String> {
    Inventory::read(root).map_err(|error| Error::Inventory(error).to_string())
}

fn take(host: &mut Host<'_>, devices: &[Address], force: bool, owner: &Owner) -> Result<Vec<String>, String> {
    let inventory = inventory(host.root)?;
    let plan = Plan::bind(&inventory, &Conditions::read(host.root), devices, force);
    let taken = host.take(&plan, owner).map_err(|error| error.to_string())?;
    let groups: BTreeSet<u32> =
        plan.devices.iter().filter_map(|device| inventory.at(*device)?.group).collect();
    grant(host.root, &groups)?;
    if taken.is_empty() {
        return Ok(vec!["all is on VFIO already: nothing was taken, and nothing will be put back".into()]);
    }
    Ok(taken.iter().map(|journal| words(journal, "on vfio-pci")).collect())
}

/// Who asked through `sudo` may open the groups; the nodes are made anew with every binding, so this ends with it.
fn grant(root: &Path, groups: &BTreeSet<u32>) -> Result<(), String> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
    let Some(uid) = number("SUDO_UID").or_else(|| number("PKEXEC_UID")) else { return Ok(()) };
    for group in groups {
        let path = root.join(format!("dev/vfio/{group}"));
        std::os::unix::fs::chown(&path, Some(uid), None)
            .map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(())
}

/// A journal as a sentence.
fn words(journal: &Journal, how: &str) -> String {
    match &journal.taken {
        Taken::Group { group, devices } => {
            let list = |saved: &crate::Saved| {
                let driver = saved.driver.as_deref().unwrap_or("no driver");
                format!("{} ({driver})", saved.address)
            };
            let devices: Vec<String> = devices.iter().map(list).collect();
            format!("{} of IOMMU group {group}: {how}", devices.join(", "))
        }
        Taken::VirtualFunctions { device, count, .. } => {
            format!("{count} virtual functions of {device}: {how}")
        }
        Taken::Mediated { device, mediated, uuid } => format!("{uuid}, a '{mediated}' of {device}: {how}"),
    }
}

fn functions(host: &mut Host<'_>, device: Address, count: u32) -> Result<Vec<String>, String> {
    let conditions = Conditions::read(host.root);
    let plan = Plan::virtual_functions(&inventory(host.root)?, &conditions, device, count);
    let back = plan.parts.iter().find_map(|part| match &part.taken {
        Taken::VirtualFunctions { before, count, .. } if before == count => Some(part.taken.key()),
        _ => None,
    });
    match back.filter(|_| plan.problems.is_empty()) {
        // As it was before we came: nothing is left to put back.
        Some(key) if host_has(host, &key) => {
            let left = host.restore(&key).map_err(|error| error.to_string())?;
            match left.first() {
                Some(left) => Err(left.to_string()),
                None => Ok(vec![format!("{device} has {count} virtual functions, as before")]),
            }
        }
        Some(_) => Ok(vec![format!("{device} has {count} virtual functions: nothing to do")]),
        None => {
            host.take(&plan, &Owner::Administrator).map_err(|error| error.to_string())?;
            Ok(vec![format!("{device} has {count} virtual functions")])
        }
    }
}

fn host_has(host: &Host<'_>, key: &str) -> bool {
    Journals::below(host.root).get(key).is_ok_and(|journal| journal.is_some())
}

fn remove(host: &mut Host<'_>, uuid: &Uuid) -> Result<Vec<String>, String> {
    let key = format!("mdev-{uuid}");
    if !host_has(host, &key) {
        return Err(format!(
            "{uuid} was not made by `pontoon mdev create`: left alone; what made it can remove it, or `echo 1 > /sys/bus/mdev/devices/{uuid}/remove`"
        ));
    }
    host.restore(&key).map_err(|error| error.to_string())?;
    Ok(vec![format!("{uuid} is removed")])
}

/// Puts back what is named, or all that nobody has.
fn restore(host: &mut Host<'_>, devices: &[Address], mut answer: Answer) -> Answer {
    let (journals, errors) = Journals::below(host.root).list();
    answer.warnings.extend(errors.iter().map(ToString::to_string));
    let wanted = |journal: &&Journal| {
        let own = journal.taken.devices();
        devices.is_empty() || devices.iter().any(|device| own.contains(device))
    };
    let unknown = devices
        .iter()
        .filter(|device| !journals.iter().any(|journal| journal.taken.devices().contains(device)));
    let mut wrong: Vec<String> = unknown
        .map(|device| {
            format!("{device} was not taken by Pontoon (`pontoon vfio status` shows what was): left alone")
        })
        .filter(|_| answer.done.is_empty())
        .collect();
    for journal in journals.iter().filter(wanted) {
        if matches!(journal.owner, Owner::Process { .. }) && journal.owner.lives(host.root) {
            let words = words(journal, &format!("owned by {}, which lives: end that first", journal.owner));
            match devices.is_empty() {
                true => answer.warnings.push(words),
                false => wrong.push(words),
            }
            continue;
        }
        match host.restore(&journal.taken.key()) {
            Ok(left) => {
                answer.done.push(words(journal, "put back"));
                answer.warnings.extend(left.iter().map(ToString::to_string));
            }
            Err(error) => wrong.push(error.to_string()),
        }
    }
    if !wrong.is_empty() {
        answer.error = Some(wrong.join("\n"));
    }
    answer
}

/// Puts back what was held, once nothing uses it any more.
fn let_go(root: &Path, perform: Perform<'_>, devices: &[Address]) -> Answer {
    let begun = Instant::now();
    while let Ok(inventory) = inventory(root) {
        let used = |device: &&Address| inventory.at(**device).is_some_and(|device| !device.uses.is_empty());
        let Some(device) = devices.iter().find(used) else { break };
        if begun.elapsed() > LETTING_GO {
            return Answer::error(&format!(
                "{device} is still open {} s after its owner has gone: not put back; end what has it open, then `pontoon vfio restore`",
                LETTING_GO.as_secs()
            ));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let viable = |group| viability::check(root, group);
    let mut host = host(root, perform, &viable);
    let (journals, _) = Journals::below(root).list();
    let mut answer = Answer::default();
    let ours = |journal: &&Journal| {
        journal.taken.devices().iter().any(|device| devices.contains(device))
            && matches!(journal.owner, Owner::Process { .. })
    };
    for journal in journals.iter().filter(ours) {
        match host.restore(&journal.taken.key()) {
            Ok(left) => {
                answer.done.push(words(journal, "put back"));
                answer.warnings.extend(left.iter().map(ToString::to_string));
            }
            Err(error) => answer.error = Some(error.to_string()),
        }
    }
    answer
}

/// What became of takings, in words; `adopted` ones too where that is of interest.
pub fn report(fates: &(Vec<Fate>, Vec<JournalError>), adopted: bool) -> Answer {
    let mut answer = Answer::default();
    answer.warnings.extend(fates.1.iter().map(ToString::to_string));
    for fate in &fates.0 {
        match fate {
            Fate::Adopted(journal) if adopted => {
                answer.done.push(words(journal, &format!("stays with {}", journal.owner)));
            }
            Fate::Adopted(_) => {}
            Fate::Restored(journal, left) => {
                let how = match &journal.owner {
                    Owner::Administrator => "put back, its taking or putting back was cut off".to_owned(),
                    owner @ Owner::Process { .. } => format!("put back, {owner} has gone"),
                };
                answer.done.push(words(journal, &how));
                answer.warnings.extend(left.iter().map(ToString::to_string));
            }
            Fate::Busy(journal) => {
                answer.warnings.push(words(journal, "another process is at it"));
            }
            Fate::Failed(_, error) => answer.warnings.push(error.to_string()),
        }
    }
    answer
}
