//! The process that may do what needs root: it takes one order of a fixed set, looks at the host itself, believes nothing
//! of who asked, and answers in one line. Everything else of Pontoon runs without such rights.

use std::io::{self, BufRead, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP};

use crate::apply::{Look, Perform};
use crate::{
    Address, Conditions, Error, Fate, Host, Inventory, Journal, JournalError, Journals, Operation, Owner,
    Plan, Problem, StepError, Taken, Uuid, look, recover, step, viability,
};

/// How long the kernel may take for one step, and a driver to have a device.
const DEADLINE: Duration = Duration::from_secs(20);
/// How long a machine may take to let go of its devices once its owner has gone.
const LETTING_GO: Duration = Duration::from_secs(30);
/// Memory beyond the machine's own that may be locked for it: regions of its devices.
const MORE_LOCKED: u64 = 1 << 30;

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
        /// Whether who asked, through `sudo`, may open them.
        grant: bool,
    },
    /// Take devices for a machine, until standard input ends; then put them back.
    Hold {
        /// The devices; none for a machine that has mediated ones only, whose memory is locked all the same.
        devices: Vec<Address>,
        /// Whether the boot display too.
        force: bool,
        /// The process that has the machine.
        pid: u32,
        /// The machine's memory in MiB, which will be locked.
        memory_mib: u32,
    },
    /// Put devices back; all that nobody has any more, where none is named.
    Restore {
        /// The devices.
        devices: Vec<Address>,
    },
    /// Put back what dead owners had, and say what living ones have.
    Recover,
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
        /// Whether who asked, through `sudo`, may open it.
        grant: bool,
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

    /// Takes in what became of one journal.
    fn add(&mut self, journal: &Journal, how: &str, left: &[crate::Left]) {
        self.done.push(words(journal, how));
        self.warnings.extend(left.iter().map(ToString::to_string));
    }
}

/// Reads an order, carries it out, and writes the answer. A `hold` answers twice: when all is taken, and when all is
/// back.
///
/// # Errors
/// What the system said of input or output.
pub fn run(mut input: impl BufRead, mut output: impl Write) -> io::Result<()> {
    // Who holds devices ends by itself, not by a key at somebody's terminal.
    let noticed = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGQUIT, SIGHUP, SIGTERM, SIGTSTP] {
        signal_hook::flag::register(signal, noticed.clone())?;
    }
    let mut line = String::new();
    io::Read::take(&mut input, 64 << 10).read_line(&mut line)?;
    let mut say = |answer: &Answer| -> io::Result<()> {
        let said = serde_json::to_writer(&mut output, answer).map_err(io::Error::from);
        let said = said.and_then(|()| output.write_all(b"\n")).and_then(|()| output.flush());
        if said.is_err() {
            // Who asked has gone; who reads the terminal or the log may still want to know.
            answer.warnings.iter().chain(&answer.error).for_each(|line| eprintln!("pontoon: {line}"));
        }
        said
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
    let (answer, taken) = obey(root, &look, &mut perform, &order);
    // Whoever has gone meanwhile hears nothing; what they had is put back all the same.
    let heard = say(&answer);
    if answer.error.is_some() || !matches!(order, Order::Hold { .. }) {
        return heard;
    }
    io::copy(&mut input, &mut io::sink())?;
    let _ = say(&let_go(root, &look, &mut perform, &taken));
    Ok(())
}

/// Carries out an order, and returns what it has taken.
pub fn obey(root: &Path, look: Look<'_>, perform: Perform<'_>, order: &Order) -> (Answer, Vec<Journal>) {
    let viable = |group| viability::check(root, group);
    let mut host = match Host::lock(root, look, perform, DEADLINE, &viable) {
        Ok(host) => host,
        Err(error) => return (Answer::error(&error), Vec::new()),
    };
    // What dead owners had is free.
    let mut answer = report(&recover(&mut host), matches!(order, Order::Recover));
    let mut taken = Vec::new();
    let result = match order {
        Order::Bind { devices, force, grant } => {
            let owner = Owner::Administrator;
            take(&mut host, devices, *force, &owner, grant.then(asked_by).flatten(), &mut taken)
        }
        Order::Hold { devices, force, pid, memory_mib } => {
            hold(&mut host, *pid, *memory_mib).and_then(|(owner, user)| match devices.is_empty() {
                true => Ok(Vec::new()),
                false => take(&mut host, devices, *force, &owner, user, &mut taken),
            })
        }
        Order::Restore { devices } => restore(&mut host, devices, &mut answer),
        Order::Recover => Ok(Vec::new()),
        Order::VirtualFunctions { device, count } => functions(&mut host, *device, *count),
        Order::CreateMediated { device, kind, uuid, grant } => {
            create(&mut host, *device, kind, uuid, grant.then(asked_by).flatten())
        }
        Order::RemoveMediated { uuid } => remove(&mut host, uuid),
    };
    match result {
        Ok(done) => answer.done.extend(done),
        Err(error) => answer.error = Some(error),
    }
    (answer, taken)
}

/// The user who asked through `sudo` or `pkexec`, by their word.
fn asked_by() -> Option<u32> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
    number("SUDO_UID").or_else(|| number("PKEXEC_UID"))
}

/// The owner of what is held, and the user who will open it, if that is not root. Only who started this process can own,
/// or through `sudo` a process of the user who asked.
fn hold(host: &mut Host<'_>, pid: u32, memory_mib: u32) -> Result<(Owner, Option<u32>), String> {
    let gone = || format!("process {pid} has gone");
    let user = std::fs::metadata(host.root.join(format!("proc/{pid}"))).map_err(|_| gone())?.uid();
    let parent = rustix::process::getppid().is_some_and(|parent| parent.as_raw_nonzero().get() as u32 == pid);
    if !parent && asked_by() != Some(user) {
        return Err(format!("process {pid} is another user's: it cannot have devices"));
    }
    let owner = Owner::process(host.root, pid, "pontoon vm run").ok_or_else(gone)?;
    if user == 0 {
        return Ok((owner, None));
    }
    let process = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw).ok_or_else(gone)?;
    if let Some(all) = memory_mib_of(host.root).filter(|all| u64::from(memory_mib) > *all) {
        return Err(format!(
            "a machine with {memory_mib} MiB of memory is larger than this host, which has {all} MiB: give it less"
        ));
    }
    // All of the machine's memory is locked, and its monitor inherits the limit.
    let bytes = locked_bytes(memory_mib);
    lock_at_least(process, bytes)
        .map_err(|errno| format!("the limit of locked memory of process {pid}: {errno}"))?;
    Ok((owner, Some(user)))
}

/// The host's memory, in MiB.
fn memory_mib_of(root: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    total.split_whitespace().next()?.parse::<u64>().ok().map(|kilobytes| kilobytes >> 10)
}

/// Bytes that a machine with so much memory has to lock.
pub fn locked_bytes(memory_mib: u32) -> u64 {
    (u64::from(memory_mib) << 20) + MORE_LOCKED
}

/// Lets a process lock so many bytes of memory, or as many as it could.
#[cfg(target_os = "linux")]
fn lock_at_least(process: rustix::process::Pid, bytes: u64) -> rustix::io::Result<()> {
    let limit = rustix::process::Rlimit { current: Some(bytes), maximum: Some(bytes) };
    let locked = rustix::process::Resource::Memlock;
    let before = rustix::process::prlimit(Some(process), locked, limit)?;
    // Never less than there was; nothing said is no limit.
    let larger = |one: Option<u64>| one.filter(|one| *one < bytes).map_or(one, |_| Some(bytes));
    let kept = rustix::process::Rlimit { current: larger(before.current), maximum: larger(before.maximum) };
    if kept != limit {
        rustix::process::prlimit(Some(process), locked, kept)?;
    }
    Ok(())
}

/// Only Linux gives PCI devices to machines.
#[cfg(not(target_os = "linux"))]
fn lock_at_least(_: rustix::process::Pid, _: u64) -> rustix::io::Result<()> {
    Err(rustix::io::Errno::NOTSUP)
}

fn take(
    host: &mut Host<'_>,
    devices: &[Address],
    force: bool,
    owner: &Owner,
    user: Option<u32>,
    journals: &mut Vec<Journal>,
) -> Result<Vec<String>, String> {
    let inventory = host.inventory().map_err(|error| error.to_string())?;
    let plan = Plan::bind(&inventory, &Conditions::read(host.root), devices, force);
    let taken = host.take(&plan, owner).map_err(|error| error.to_string())?;
    if let Some(user) = user
        && let Err(error) = grant(host.root, &inventory, &taken, user)
    {
        return Err(format!("{error}; {}", host.undo(&taken)));
    }
    let done = match taken.is_empty() {
        true => vec!["all is on VFIO already: nothing was taken, and nothing will be put back".into()],
        false => taken.iter().map(|journal| words(journal, "on vfio-pci")).collect(),
    };
    *journals = taken;
    Ok(done)
}

/// A user may open the groups that were taken whole: their nodes were made for that, and go when they are put back. Nodes
/// of groups that were on VFIO before stay whose they are.
fn grant(root: &Path, inventory: &Inventory, taken: &[Journal], user: u32) -> Result<(), String> {
    for journal in taken {
        let Taken::Group { group, devices } = &journal.taken else { continue };
        let members = inventory.devices.iter().filter(|one| one.group == Some(*group) && !one.is_bridge());
        if members.count() > devices.len() {
            continue;
        }
        give_node(root, Path::new(&format!("/dev/vfio/{group}")), user)?;
    }
    Ok(())
}

fn give_node(root: &Path, node: &Path, user: u32) -> Result<(), String> {
    let path = root.join(node.strip_prefix("/").unwrap_or(node));
    std::os::unix::fs::chown(&path, Some(user), None).map_err(|error| format!("{}: {error}", node.display()))
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
        Taken::VirtualFunctions { device, counts, .. } => {
            format!("{} virtual functions of {device}: {how}", counts.last().copied().unwrap_or_default())
        }
        Taken::Mediated { device, mediated, uuid } => format!("{uuid}, a '{mediated}' of {device}: {how}"),
    }
}

fn functions(host: &mut Host<'_>, device: Address, count: u32) -> Result<Vec<String>, String> {
    let text = |error: Error| error.to_string();
    let inventory = host.inventory().map_err(text)?;
    let plan = Plan::virtual_functions(&inventory, &Conditions::read(host.root), device, count);
    if !plan.problems.is_empty() {
        return Err(Error::Problems(plan.problems).to_string());
    }
    let Some(part) = plan.parts.first() else { return Ok(Vec::new()) };
    if !matches!(&part.taken, Taken::VirtualFunctions { before, .. } if *before == count) {
        host.take(&plan, &Owner::Administrator).map_err(text)?;
        return Ok(vec![format!("{device} has {count} virtual functions")]);
    }
    // As it was before we came: nothing is left to put back.
    match host.restore(&part.taken.key(), |_| true).map_err(text)? {
        None => Ok(vec![format!("{device} has {count} virtual functions: nothing to do")]),
        Some(left) => match left.first() {
            Some(left) => Err(left.to_string()),
            None => Ok(vec![format!("{device} has {count} virtual functions, as before")]),
        },
    }
}

fn create(
    host: &mut Host<'_>,
    device: Address,
    kind: &str,
    uuid: &Uuid,
    user: Option<u32>,
) -> Result<Vec<String>, String> {
    let text = |error: Error| error.to_string();
    let inventory = host.inventory().map_err(text)?;
    let plan = Plan::mediated(&inventory, &Conditions::read(host.root), device, kind, uuid.clone());
    let taken = host.take(&plan, &Owner::Administrator).map_err(text)?;
    let node = crate::uses::mediated_node(host.root, uuid);
    if let (Some(user), Some(node)) = (user, node)
        && let Err(error) = give_node(host.root, &node, user)
    {
        return Err(format!("{error}; {}", host.undo(&taken)));
    }
    Ok(vec![format!(
        "{uuid} is a '{kind}' of {device}; `pontoon vm run --vfio {uuid}` gives it to a machine, `pontoon mdev rm` removes it"
    )])
}

fn remove(host: &mut Host<'_>, uuid: &Uuid) -> Result<Vec<String>, String> {
    match host.restore(&format!("mdev-{uuid}"), |_| true).map_err(|error| error.to_string())? {
        Some(_) => Ok(vec![format!("{uuid} is removed")]),
        None if !host.root.join(format!("sys/bus/mdev/devices/{uuid}")).exists() => {
            Err(Problem::NoSlice(uuid.clone()).to_string())
        }
        None => Err(format!(
            "{uuid} was not made by `pontoon mdev create`: left alone; what made it can remove it, or `echo 1 > /sys/bus/mdev/devices/{uuid}/remove`"
        )),
    }
}

/// Puts back what is named, with all that shares its group, or all that nobody has.
fn restore(host: &mut Host<'_>, devices: &[Address], answer: &mut Answer) -> Result<Vec<String>, String> {
    let inventory = host.inventory().map_err(|error| error.to_string())?;
    let (journals, errors) = Journals::below(host.root).list();
    answer.warnings.extend(errors.iter().map(ToString::to_string));
    let tells_of = |journal: &Journal, device: &Address| {
        let group = inventory.at(*device).and_then(|device| device.group);
        journal.taken.devices().contains(device)
            || matches!(&journal.taken, Taken::Group { group: taken, .. } if Some(*taken) == group)
    };
    let wanted =
        |journal: &&Journal| devices.is_empty() || devices.iter().any(|device| tells_of(journal, device));
    let mut wrong = Vec::new();
    for device in devices.iter().filter(|_| answer.done.is_empty()) {
        if !journals.iter().any(|journal| tells_of(journal, device)) {
            wrong.push(format!(
                "{device} was not taken by Pontoon (`pontoon vfio status` shows what was): left alone"
            ));
        }
    }
    for journal in journals.iter().filter(wanted) {
        let machine = matches!(journal.owner, Owner::Process { .. });
        if machine && journal.holds(host.root) {
            let words = words(journal, &format!("owned by {}, which lives: end that first", journal.owner));
            match devices.is_empty() {
                true => answer.warnings.push(words),
                false => wrong.push(words),
            }
            continue;
        }
        match host.restore(&journal.taken.key(), |_| true) {
            Ok(left) => answer.add(journal, "put back", &left.unwrap_or_default()),
            Err(error) => wrong.push(error.to_string()),
        }
    }
    match wrong.is_empty() {
        true => Ok(Vec::new()),
        false => Err(wrong.join("\n")),
    }
}

/// Puts back what was held, once nothing uses it any more: only these journals, and only while they are the same owner's.
fn let_go(root: &Path, look: Look<'_>, perform: Perform<'_>, taken: &[Journal]) -> Answer {
    let viable = |group| viability::check(root, group);
    let begun = Instant::now();
    let mut answer = Answer::default();
    for journal in taken {
        loop {
            // Not kept while it is waited.
            let host = Host::lock(root, look, &mut *perform, DEADLINE, &viable);
            let ended = match host {
                Ok(mut host) => host.restore(&journal.taken.key(), |now| now.owner == journal.owner),
                Err(error) => return Answer::error(&error),
            };
            match ended {
                Err(Error::Busy(_)) if begun.elapsed() < LETTING_GO => {
                    std::thread::sleep(Duration::from_millis(100));
                }
                Err(error) => {
                    answer.error = Some(error.to_string());
                    break;
                }
                Ok(left) => {
                    answer.add(journal, "put back", &left.unwrap_or_default());
                    break;
                }
            }
        }
    }
    answer
}

/// What became of takings, in words; `adopted` ones too where that is of interest.
fn report(fates: &(Vec<Fate>, Vec<JournalError>), adopted: bool) -> Answer {
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
                answer.add(journal, &how, left);
            }
            Fate::Failed(_, error) => answer.warnings.push(error.to_string()),
        }
    }
    answer
}
