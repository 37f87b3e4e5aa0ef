//! `pontoon vfio`, `pontoon sriov`, `pontoon mdev`: devices for virtual machines.

use std::path::Path;
use std::process::ExitCode;

use pontoon_passthrough::helper::{Answer, Order};
use pontoon_passthrough::{
    Address, Conditions, Inventory, Journals, Names, Operation, Owner, Phase, Plan, Taken, Uuid, ask, pick,
};

use crate::table;

#[derive(clap::Subcommand)]
pub enum Verb {
    /// Print every step that would be done, and everything that stands against it; change nothing
    ///
    /// Programs of other users that use a device are seen by root alone: `bind` looks again as root.
    Plan {
        #[command(flatten)]
        devices: Devices,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Take devices from this host, with all that shares their IOMMU groups, for virtual machines that you start yourself
    ///
    /// What was taken is written down first; `pontoon vfio restore` puts it back. `pontoon vm run --gpu` does both by
    /// itself.
    Bind {
        #[command(flatten)]
        devices: Devices,
    },
    /// Put devices back: drivers, overrides and power states as they were
    ///
    /// Without addresses all that is not owned by a process that lives. What somebody else has changed meanwhile is
    /// left alone, and said.
    Restore {
        /// PCI addresses
        #[arg(value_name = "BDF")]
        devices: Vec<Address>,
    },
    /// Show what was taken, for whom, and what it goes back to
    Status {
        /// PCI addresses
        #[arg(value_name = "BDF")]
        devices: Vec<Address>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// Which devices.
#[derive(clap::Args)]
pub struct Devices {
    /// PCI addresses, such as 0000:01:00.0 or 01:00.0 [default: the best free GPU, and it says why]
    #[arg(value_name = "BDF")]
    devices: Vec<Address>,
    /// Take the boot display too: this host's console goes dark with it, and may stay so until a reboot
    #[arg(long)]
    force: bool,
}

impl Devices {
    /// Those named, or the best free GPU.
    fn chosen(&self) -> Result<Vec<Address>, String> {
        match self.devices.is_empty() {
            false => Ok(self.devices.clone()),
            true => Ok(vec![best(&[])?]),
        }
    }
}

/// The best free GPU that is not picked already; says why it is.
pub fn best(passed: &[Address]) -> Result<Address, String> {
    let (inventory, conditions) = look()?;
    match pick(&inventory, &conditions, passed) {
        Ok((address, why)) => {
            let names = Names::of(Path::new("/"), inventory.gpus());
            let name = inventory
                .at(address)
                .map(|gpu| format!("{} {}", names.vendor(gpu), names.model(gpu)))
                .unwrap_or_default();
            eprintln!("{address} ({name}): {why}");
            Ok(address)
        }
        Err(problems) if problems.is_empty() => {
            Err("this host has no PCI GPU; `pontoon doctor` shows the other ways".into())
        }
        Err(problems) => {
            let lines: Vec<String> = problems.iter().map(|problem| format!("\n  {problem}")).collect();
            Err(format!("no GPU is free:{}", lines.concat()))
        }
    }
}

/// This host's devices, and what else decides whether one can be taken.
pub fn look() -> Result<(Inventory, Conditions), String> {
    let inventory = pontoon_passthrough::look().map_err(|error| format!("PCI devices: {error}"))?;
    Ok((inventory, Conditions::read(Path::new("/"))))
}

pub fn run(verb: &Verb) -> Result<ExitCode, String> {
    match verb {
        Verb::Plan { devices, json } => plan(devices, *json),
        Verb::Bind { devices } => bind(devices),
        Verb::Restore { devices } => {
            let (journals, errors) = Journals::below(Path::new("/")).list();
            if journals.is_empty() && errors.is_empty() && devices.is_empty() {
                println!("nothing is taken: nothing to put back");
                return Ok(ExitCode::SUCCESS);
            }
            let answer = ask(&Order::Restore { devices: devices.clone() })?;
            said(&answer)
        }
        Verb::Status { devices, json } => status(devices, *json),
    }
}

fn bind(devices: &Devices) -> Result<ExitCode, String> {
    let chosen = devices.chosen()?;
    // What is known without rights is said before anybody is asked for them.
    let (inventory, conditions) = look()?;
    let plan = Plan::bind(&inventory, &conditions, &chosen, devices.force);
    if !plan.problems.is_empty() {
        return Err(pontoon_passthrough::Error::Problems(plan.problems).to_string());
    }
    let grant = !rustix::process::geteuid().is_root();
    order(&Order::Bind { devices: chosen, force: devices.force, grant })
}

/// Has an order carried out, and says what came of it.
pub fn order(order: &Order) -> Result<ExitCode, String> {
    said(&ask(order)?)
}

fn said(answer: &Answer) -> Result<ExitCode, String> {
    answer.done.iter().for_each(|line| println!("{line}"));
    warn(answer);
    match &answer.error {
        Some(error) => Err(error.clone()),
        None => Ok(ExitCode::SUCCESS),
    }
}

/// What an answer warns of.
pub fn warn(answer: &Answer) {
    answer.warnings.iter().for_each(|line| eprintln!("warning: {line}"));
}

fn plan(devices: &Devices, json: bool) -> Result<ExitCode, String> {
    let targets = devices.chosen()?;
    let (inventory, conditions) = look()?;
    let plan = Plan::bind(&inventory, &conditions, &targets, devices.force);
    let steps: Vec<&Operation> = plan.parts.iter().flat_map(|part| &part.operations).collect();
    let problems: Vec<String> = plan.problems.iter().map(ToString::to_string).collect();
    if json {
        let steps: Vec<String> = steps.iter().map(ToString::to_string).collect();
        crate::print_json(
            &serde_json::json!({ "devices": plan.devices, "steps": steps, "problems": problems }),
        )?;
    } else {
        for address in &plan.devices {
            let Some(device) = inventory.at(*address) else { continue };
            let driver = device.driver.as_deref().unwrap_or("no driver");
            let group = device.group.map_or_else(|| "none".to_owned(), |group| group.to_string());
            println!("{address}  {driver}, IOMMU group {group}");
        }
        match steps.is_empty() {
            true if problems.is_empty() => println!("all is on VFIO already: nothing to do"),
            true => {}
            false => println!("\nsteps, each written down before it is done:"),
        }
        for (number, step) in steps.iter().enumerate() {
            println!("{:3}. {step}", number + 1);
        }
        if !problems.is_empty() {
            println!("\nagainst it:");
            problems.iter().for_each(|problem| println!("  - {problem}"));
        }
    }
    Ok(if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn status(devices: &[Address], json: bool) -> Result<ExitCode, String> {
    let root = Path::new("/");
    let (mut journals, errors) = Journals::below(root).list();
    errors.iter().for_each(|error| eprintln!("warning: {error}"));
    if !devices.is_empty() {
        journals.retain(|journal| journal.taken.devices().iter().any(|device| devices.contains(device)));
    }
    if json {
        crate::print_json(&journals)?;
        return Ok(ExitCode::SUCCESS);
    }
    if journals.is_empty() {
        println!("nothing is taken");
        return Ok(ExitCode::SUCCESS);
    }
    let mut rows = Vec::new();
    for journal in &journals {
        let owner = match &journal.owner {
            owner @ Owner::Process { .. } if !owner.lives(root) => {
                format!("{owner}, which has gone: `pontoon vfio restore`")
            }
            owner @ Owner::Process { .. } => owner.to_string(),
            Owner::Administrator => match &journal.taken {
                Taken::Group { .. } => Owner::Administrator.to_string(),
                Taken::VirtualFunctions { .. } => "`pontoon sriov set`".to_owned(),
                Taken::Mediated { .. } => "`pontoon mdev create`".to_owned(),
            },
        };
        let phase = match journal.phase {
            Phase::Taking => "being taken",
            Phase::Taken => "taken",
            Phase::Restoring => "being put back",
        };
        for (device, back) in journal.taken.goes_back_to() {
            rows.push(vec![device.to_string(), phase.to_owned(), owner.clone(), back]);
        }
    }
    table::print(&["PCI ADDRESS", "STATE", "OWNER", "GOES BACK TO"], &rows);
    Ok(ExitCode::SUCCESS)
}

/// Virtual functions (SR-IOV)
#[derive(clap::Subcommand)]
pub enum Sriov {
    /// Set how many virtual functions a device has; this host's drivers leave new ones alone
    ///
    /// `pontoon vfio restore BDF` goes back to as many as there were before the first time.
    Set {
        /// The physical function's PCI address
        #[arg(value_name = "PF")]
        device: Address,
        /// How many
        #[arg(value_name = "N")]
        count: u32,
    },
}

pub fn sriov(verb: &Sriov) -> Result<ExitCode, String> {
    let Sriov::Set { device, count } = verb;
    order(&Order::VirtualFunctions { device: *device, count: *count })
}

/// Mediated devices: slices that a vendor's driver makes
#[derive(clap::Subcommand)]
pub enum Mdev {
    /// Make one; `pontoon gpu list --json` shows the types that each device offers
    Create {
        /// PCI address of the device
        #[arg(value_name = "BDF")]
        device: Address,
        /// Its type, such as nvidia-105
        #[arg(value_name = "TYPE")]
        kind: String,
        /// Its name [default: a random UUID]
        #[arg(long)]
        uuid: Option<Uuid>,
    },
    /// Remove one that `create` made
    Rm {
        /// Its name
        uuid: Uuid,
    },
}

pub fn mdev(verb: &Mdev) -> Result<ExitCode, String> {
    match verb {
        Mdev::Create { device, kind, uuid } => {
            let uuid = match uuid {
                Some(uuid) => uuid.clone(),
                None => Uuid::random().map_err(|error| format!("a random UUID: {error}"))?,
            };
            let grant = !rustix::process::geteuid().is_root();
            order(&Order::CreateMediated { device: *device, kind: kind.clone(), uuid, grant })
        }
        Mdev::Rm { uuid } => order(&Order::RemoveMediated { uuid: uuid.clone() }),
    }
}
