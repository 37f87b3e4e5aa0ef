//! What would be done to take devices, and what stands against it: decided from what was read, without touching anything.

use std::collections::BTreeSet;

use crate::conditions::Driver;
use crate::operation::VFIO;
use crate::{
    Address, Conditions, Device, Inventory, Journal, Operation, Owner, Problem, Saved, Sriov, Status, Taken,
};

/// One thing to take, and the steps to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// What will be taken.
    pub taken: Taken,
    /// The steps, in order.
    pub operations: Vec<Operation>,
}

/// What would be done, and all that stands against it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// What a machine would get: the functions of the groups, without bridges, also those that are on VFIO already.
    pub devices: Vec<Address>,
    /// What will be taken; nothing where all is on VFIO already.
    pub parts: Vec<Part>,
    /// What stands against it.
    pub problems: Vec<Problem>,
}

/// Devices in words, `; with 0000:01:00.1 (snd_hda_intel)`, for messages about a group.
fn others(inventory: &Inventory, device: &Device) -> String {
    let others: Vec<String> = inventory.companions(device).map(with_driver).collect();
    match others.is_empty() {
        true => ", nothing else in it".into(),
        false => format!("; with {}", others.join(", ")),
    }
}

/// That somebody has a device, and how to end that.
fn owned(inventory: &Inventory, device: &Device, journal: &Journal) -> Problem {
    let remedy = match &journal.owner {
        Owner::Administrator => format!("`pontoon vfio restore {}`", device.address),
        Owner::Process { .. } => "end that first".into(),
    };
    Problem::Owned {
        device: device.address,
        owner: journal.owner.to_string(),
        remedy,
        group: device.group.unwrap_or_default(),
        others: others(inventory, device),
    }
}

fn with_driver(device: &Device) -> String {
    format!("{} ({})", device.address, device.driver.as_deref().unwrap_or("no driver"))
}

impl Plan {
    /// A plan without steps. What a journal that cannot be read tells of might be any device.
    fn for_devices(devices: &[Address], conditions: &Conditions) -> Self {
        let problems = conditions.unreadable.iter().cloned().map(Problem::Journal).collect();
        Self { devices: devices.to_vec(), problems, ..Self::default() }
    }

    /// Plans to give devices, with all that shares their groups, to VFIO. `force` takes the boot display too.
    pub fn bind(inventory: &Inventory, conditions: &Conditions, targets: &[Address], force: bool) -> Self {
        let mut plan = Self::for_devices(&[], conditions);
        let mut groups = BTreeSet::new();
        let mut seen = BTreeSet::new();
        for address in targets {
            let twice = !seen.insert(*address);
            match inventory.at(*address) {
                _ if twice => plan.problems.push(Problem::Twice(*address)),
                None => plan.problems.push(Problem::NoDevice(*address)),
                Some(device) if device.is_bridge() => plan.problems.push(Problem::Bridge(*address)),
                Some(Device { group: None, .. }) => plan
                    .problems
                    .push(Problem::NoIommu { device: *address, parameter: conditions.parameter.clone() }),
                Some(Device { group: Some(group), .. }) => {
                    groups.insert(*group);
                }
            }
        }
        for group in groups {
            plan.group(inventory, conditions, group, targets, force);
        }
        if !plan.parts.is_empty() {
            match conditions.vfio {
                Driver::Loaded => {}
                Driver::Loadable => plan.parts[0].operations.insert(0, Operation::LoadVfio),
                Driver::Missing => {
                    plan.problems.push(Problem::NoVfio { release: conditions.release.clone() });
                }
            }
        }
        plan
    }

    fn group(
        &mut self,
        inventory: &Inventory,
        conditions: &Conditions,
        group: u32,
        targets: &[Address],
        force: bool,
    ) {
        let members: Vec<&Device> = inventory
            .devices
            .iter()
            .filter(|member| member.group == Some(group) && !member.is_bridge())
            .collect();
        let named = |member: &Device| targets.iter().any(|target| target.same_card(&member.address));
        let foreign: Vec<String> = members
            .iter()
            .filter(|member| !named(member) && !member.on_vfio())
            .map(|member| with_driver(member))
            .collect();
        if !foreign.is_empty() {
            let device =
                members.iter().find(|member| named(member)).map_or(targets[0], |member| member.address);
            self.problems.push(Problem::Shared { device, group, others: foreign.join(", ") });
        }
        for member in &members {
            self.against(inventory, conditions, member, group, force);
        }
        self.devices.extend(members.iter().map(|member| member.address));
        let to_take: Vec<&Device> = members.into_iter().filter(|member| !member.on_vfio()).collect();
        if to_take.is_empty() {
            return;
        }
        let mut operations = Vec::new();
        let vfio = || Some(VFIO.to_owned());
        operations.extend(
            to_take.iter().map(|member| Operation::Override { device: member.address, driver: vfio() }),
        );
        operations.extend(to_take.iter().filter_map(|member| {
            Some(Operation::Unbind { device: member.address, driver: member.driver.clone()? })
        }));
        operations.extend(to_take.iter().map(|member| Operation::Probe { device: member.address }));
        let devices = to_take.into_iter().map(saved).collect();
        self.parts.push(Part { taken: Taken::Group { group, devices }, operations });
    }

    /// What stands against taking one function.
    fn against(
        &mut self,
        inventory: &Inventory,
        conditions: &Conditions,
        member: &Device,
        group: u32,
        force: bool,
    ) {
        let (device, others) = (member.address, others(inventory, member));
        if let Some(journal) = conditions.whole_owner(device) {
            self.problems.push(owned(inventory, member, journal));
            return;
        }
        if member.boot_display && !member.on_vfio() && !force {
            let driver = member.driver.clone().unwrap_or_else(|| "no driver".into());
            self.problems.push(Problem::BootDisplay { device, driver, group, others: others.clone() });
        }
        // What the firmware's screen is used for goes with it.
        let uses: Vec<&str> = member
            .uses
            .iter()
            .map(String::as_str)
            .filter(|by| !(force && member.boot_display && by.starts_with("display ")))
            .collect();
        if !uses.is_empty() {
            let by = uses.join(", ");
            self.problems.push(Problem::InUse { device, by, group, others: others.clone() });
        }
        if let Some(active) = member.sriov.map(|sriov| sriov.active).filter(|active| *active > 0) {
            self.problems.push(Problem::HasFunctions { device, active, group, others });
        }
    }

    /// Plans to give a device `count` virtual functions, which look for no driver of this host.
    pub fn virtual_functions(
        inventory: &Inventory,
        conditions: &Conditions,
        address: Address,
        count: u32,
    ) -> Self {
        let mut plan = Self::for_devices(&[address], conditions);
        let Some(device) = inventory.at(address) else {
            plan.problems.push(Problem::NoDevice(address));
            return plan;
        };
        let Some(sriov) = device.sriov else {
            let hint = device
                .physical
                .map_or_else(String::new, |physical| format!(": it is one itself, of {physical}"));
            plan.problems.push(Problem::NoFunctions { device: address, hint });
            return plan;
        };
        if count > sriov.total {
            plan.problems.push(Problem::TooManyFunctions {
                device: address,
                asked: count,
                total: sriov.total,
            });
        }
        if let Some(journal) = conditions.whole_owner(address) {
            plan.problems.push(owned(inventory, device, journal));
        } else if device.driver.is_none() || device.on_vfio() {
            let driver = device.driver.clone().unwrap_or_else(|| "none".into());
            plan.problems.push(Problem::NoDriver { device: address, driver });
        }
        for function in inventory.devices.iter().filter(|other| other.physical == Some(address)) {
            plan.against(inventory, conditions, function, function.group.unwrap_or_default(), true);
        }
        // Set again: what was before the first time is what it goes back to.
        let earlier = conditions.journals.iter().find_map(|journal| match &journal.taken {
            Taken::VirtualFunctions { device, before, counts, autoprobe } if *device == address => {
                Some((*before, counts.clone(), *autoprobe))
            }
            _ => None,
        });
        if earlier.is_none() && sriov.active > 0 && sriov.active != count {
            plan.problems.push(Problem::ForeignFunctions { device: address, active: sriov.active });
        }
        let (before, mut counts, autoprobe) =
            earlier.unwrap_or_else(|| (sriov.active, Vec::new(), sriov.autoprobe));
        counts.push(count);
        let operations = function_steps(device, sriov, count);
        let taken = Taken::VirtualFunctions { device: address, before, counts, autoprobe };
        plan.parts.push(Part { taken, operations });
        plan
    }

    /// Plans a mediated device of a type.
    pub fn mediated(
        inventory: &Inventory,
        conditions: &Conditions,
        address: Address,
        kind: &str,
        uuid: crate::Uuid,
    ) -> Self {
        let mut plan = Self::for_devices(&[address], conditions);
        let Some(device) = inventory.at(address) else {
            plan.problems.push(Problem::NoDevice(address));
            return plan;
        };
        let found = device.mdev.iter().find(|(id, _)| *id == kind);
        match found {
            None => {
                let offered: Vec<&str> = device.mdev.keys().map(String::as_str).collect();
                let offered = match offered.is_empty() {
                    true => {
                        "it offers none; the vendor's driver for virtual GPUs does, where the card can".into()
                    }
                    false => format!("it offers {}", offered.join(", ")),
                };
                plan.problems.push(Problem::NoType { device: address, kind: kind.to_owned(), offered });
            }
            Some((_, slice)) if slice.left == 0 => {
                plan.problems.push(Problem::NoneLeft { device: address, kind: kind.to_owned() });
            }
            Some(_) => {}
        }
        if let Some(journal) = conditions.whole_owner(address) {
            plan.problems.push(owned(inventory, device, journal));
        }
        if inventory.mediated.contains(&uuid) {
            plan.problems.push(Problem::NameTaken(uuid.clone()));
        }
        let operation =
            Operation::CreateMediated { device: address, kind: kind.to_owned(), uuid: uuid.clone() };
        let taken = Taken::Mediated { device: address, mediated: kind.to_owned(), uuid };
        plan.parts.push(Part { taken, operations: vec![operation] });
        plan
    }
}

/// The steps to another number of virtual functions; between two numbers there must be none.
fn function_steps(device: &Device, sriov: Sriov, count: u32) -> Vec<Operation> {
    let device = device.address;
    let mut steps = Vec::new();
    if sriov.autoprobe == Some(true) && count > 0 {
        steps.push(Operation::Autoprobe { device, on: false });
    }
    if sriov.active > 0 {
        steps.push(Operation::VirtualFunctions { device, count: 0 });
    }
    if count > 0 {
        steps.push(Operation::VirtualFunctions { device, count });
    }
    steps
}

fn saved(device: &Device) -> Saved {
    Saved {
        address: device.address,
        vendor: device.vendor,
        device: device.device,
        driver: device.driver.clone(),
        driver_override: device.driver_override.clone(),
        power: device.power.clone(),
    }
}

/// Picks the GPU for somebody who named none: a free one, not the boot display, with most memory, alone in its group
/// rather than not; `passed` are picked already.
///
/// # Errors
/// For each GPU what stands against it.
pub fn pick(
    inventory: &Inventory,
    conditions: &Conditions,
    passed: &[Address],
) -> Result<(Address, String), Vec<Problem>> {
    let mut problems = Vec::new();
    let mut free: Vec<&Device> = Vec::new();
    for gpu in inventory.gpus().filter(|gpu| !passed.contains(&gpu.address)) {
        let plan = Plan::bind(inventory, conditions, &[gpu.address], false);
        match plan.problems.is_empty() {
            true => free.push(gpu),
            false => problems.extend(plan.problems),
        }
    }
    let rank = |gpu: &&Device| {
        let companions = inventory.companions(gpu).count();
        (
            gpu.memory,
            gpu.largest_bar,
            gpu.on_vfio(),
            std::cmp::Reverse(companions),
            std::cmp::Reverse(gpu.address),
        )
    };
    let Some(best) = free.iter().copied().max_by_key(rank) else { return Err(problems) };
    let why = match (free.len(), Status::of(best, None)) {
        (1, _) => "the only free GPU".to_owned(),
        (many, Status::VfioReady) => {
            format!("of {many} free GPUs the one with most memory that is on {VFIO} already")
        }
        (many, _) => {
            format!("of {many} free GPUs the one with most memory, then with fewest others in its group")
        }
    };
    Ok((best.address, why))
}
