//! Whatever a host looks like, and wherever taking or putting back is cut off: by the journals alone every device gets
//! back the driver, the override and the power state that it had.

mod common;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use common::Tree;
use common::kernel::Kernel;
use pontoon_passthrough::helper::{self, Answer, Order};
use pontoon_passthrough::{
    Address, Conditions, Driver, Error, Fate, Host, Inventory, Journals, Operation, Owner, Plan, StepError,
    VFIO, recover,
};
use proptest::prelude::*;

/// A function of a host: its driver, and what that is by its numbers.
#[derive(Debug, Clone)]
struct Function {
    /// What has it.
    driver: Option<&'static str>,
    /// What its numbers match.
    natural: Option<&'static str>,
    /// What alone may have it.
    only: Option<&'static str>,
    /// Whether it may sleep.
    power: &'static str,
}

fn function() -> impl Strategy<Value = Function> {
    let natural = prop_oneof![Just(None), Just(Some("nouveau")), Just(Some("snd_hda_intel"))];
    (natural, 0..6, any::<bool>()).prop_map(|(natural, how, sleeps)| {
        let (driver, only) = match how {
            // As the kernel found it.
            0..3 => (natural, None),
            // Unbound by hand, or kept from drivers.
            3 => (None, None),
            // Given to another driver by hand, with the override still there or cleared.
            4 => (Some("pci-stub"), Some("pci-stub")),
            _ => (Some("pci-stub"), None),
        };
        let power = if sleeps { "auto" } else { "on" };
        Function { driver, natural, only, power }
    })
}

/// Up to three groups of up to four functions, each group a card.
fn host() -> impl Strategy<Value = Vec<Vec<Function>>> {
    prop::collection::vec(prop::collection::vec(function(), 1..=4), 1..=3)
}

/// A device's driver, override and power state.
type State = (Address, Option<String>, Option<String>, Option<String>);

struct Bench {
    tree: Tree,
    natural: BTreeMap<Address, String>,
    targets: Vec<Address>,
}

static NUMBER: AtomicU32 = AtomicU32::new(0);

impl Bench {
    fn new(groups: &[Vec<Function>]) -> Self {
        let mut rows = Vec::new();
        for (group, functions) in groups.iter().enumerate() {
            for (number, function) in functions.iter().enumerate() {
                rows.push((format!("0000:{:02x}:00.{number}", group + 1), function.clone(), group as u32));
            }
        }
        let listed: Vec<_> = rows
            .iter()
            .map(|(address, function, group)| {
                (address.as_str(), "10de:2684", "030000", function.driver, Some(*group))
            })
            .collect();
        let name = format!("restoring-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let tree = Tree::new(&name, &listed);
        let mut natural = BTreeMap::new();
        for (address, function, _) in &rows {
            tree.write(address, "driver_override", function.only.unwrap_or("(null)"));
            tree.write(address, "power/control", function.power);
            if let Some(driver) = function.natural {
                natural.insert(address.parse().unwrap(), driver.to_owned());
            }
        }
        let targets = (1..=groups.len()).map(|bus| format!("0000:{bus:02x}:00.0").parse().unwrap()).collect();
        Self { tree, natural, targets }
    }

    fn root(&self) -> &Path {
        &self.tree.0
    }

    fn state(&self) -> Vec<State> {
        let devices = self.tree.read().devices;
        devices.into_iter().map(|d| (d.address, d.driver, d.driver_override, d.power)).collect()
    }

    fn plan(&self) -> Plan {
        let conditions = Conditions {
            vfio: Driver::Loadable,
            release: "6.1.0".into(),
            parameter: "intel_iommu=on".into(),
            journals: Vec::new(),
            unreadable: Vec::new(),
        };
        Plan::bind(&Inventory::read(self.root()).unwrap(), &conditions, &self.targets, false)
    }

    /// Lets a host do something; the step with this number and all after it are met by `end`.
    fn with<R>(
        &self,
        steps: usize,
        end: impl Fn(&Operation) -> StepError,
        act: impl FnOnce(&mut Host<'_>) -> R,
    ) -> R {
        let kernel = Kernel { tree: &self.tree, natural: self.natural.clone() };
        let mut left = steps;
        let mut perform = |operation: &Operation| match left {
            0 => Err(end(operation)),
            _ => {
                left -= 1;
                kernel.perform(operation)
            }
        };
        let look = || Inventory::read(self.root());
        act(&mut Host::lock(self.root(), &look, &mut perform, Duration::ZERO, &|_| Ok(())).unwrap())
    }

    /// The same, where the process is killed at that step.
    fn killed_at(&self, steps: usize, act: impl FnOnce(&mut Host<'_>)) {
        let kill = |_: &Operation| -> StepError { std::panic::resume_unwind(Box::new("killed")) };
        let _ = catch_unwind(AssertUnwindSafe(|| self.with(steps, kill, act)));
    }
}

fn nobody() -> Owner {
    Owner::Process { pid: u32::MAX, started: 0, what: "a test".into() }
}

fn never(_: &Operation) -> StepError {
    unreachable!("all steps are done")
}

/// Puts everything back that journals tell of.
fn recover_all(host: &mut Host<'_>) {
    let (fates, errors) = recover(host);
    assert!(errors.is_empty(), "{errors:?}");
    for fate in fates {
        assert!(matches!(&fate, Fate::Restored(_, left) if left.is_empty()), "{fate:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn what_was_cut_off_anywhere_is_put_back(groups in host(), first in 0usize..40, second in 0usize..40) {
        let bench = Bench::new(&groups);
        let before = bench.state();
        let plan = bench.plan();
        prop_assert!(plan.problems.is_empty(), "{:?}", plan.problems);
        bench.killed_at(first, |host| drop(host.take(&plan, &nobody())));
        bench.killed_at(second, recover_all);
        bench.with(usize::MAX, never, recover_all);
        prop_assert_eq!(bench.state(), before);
        prop_assert!(Journals::below(bench.root()).list().0.is_empty(), "no journal is left");
    }

    #[test]
    fn a_step_that_fails_undoes_those_before_it(groups in host(), at in 0usize..30) {
        let bench = Bench::new(&groups);
        let before = bench.state();
        let plan = bench.plan();
        let steps: usize = plan.parts.iter().map(|part| part.operations.len()).sum();
        prop_assume!(at < steps);
        // One step fails, not those that undo the others.
        let kernel = Kernel { tree: &bench.tree, natural: bench.natural.clone() };
        let mut number = 0;
        let mut perform = |operation: &Operation| {
            number += 1;
            match number == at + 1 {
                true => Err(StepError::Late { step: operation.to_string(), seconds: 5 }),
                false => kernel.perform(operation),
            }
        };
        let (viable, look) = (|_| Ok(()), || Inventory::read(bench.root()));
        let mut host = Host::lock(bench.root(), &look, &mut perform, Duration::ZERO, &viable).unwrap();
        let error = host.take(&plan, &nobody()).unwrap_err();
        prop_assert!(error.to_string().ends_with("everything was put back"), "{}", error);
        prop_assert_eq!(bench.state(), before);
    }
}

/// One card with sound, of nouveau and the sound's driver.
fn card() -> Bench {
    let with = |driver: &'static str| Function {
        driver: Some(driver),
        natural: Some(driver),
        only: None,
        power: "auto",
    };
    Bench::new(&[vec![with("nouveau"), with("snd_hda_intel")]])
}

#[test]
fn what_is_taken_is_on_vfio_and_somebody_elses_doing_is_left_alone() {
    let bench = card();
    bench.with(usize::MAX, never, |host| host.take(&bench.plan(), &Owner::Administrator)).unwrap();
    for (_, driver, only, _) in bench.state() {
        assert_eq!((driver.as_deref(), only.as_deref()), (Some(VFIO), Some(VFIO)));
    }
    // Taken once, it is nobody else's.
    let conditions = Conditions::read(bench.root());
    let again = Plan::bind(&bench.tree.read(), &conditions, &bench.targets, false);
    let said = again.problems[0].to_string();
    assert!(
        said.contains("owned by `pontoon vfio bind`") && said.contains("pontoon vfio restore 0000:01:00.0"),
        "{said}"
    );
    // Somebody gives the sound to another driver: it stays there; the card goes back.
    let sound: Address = "01:00.1".parse().unwrap();
    let kernel = Kernel { tree: &bench.tree, natural: bench.natural.clone() };
    for step in [
        Operation::Override { device: sound, driver: Some("pci-stub".into()) },
        Operation::Unbind { device: sound, driver: VFIO.into() },
        Operation::Probe { device: sound },
    ] {
        kernel.perform(&step).unwrap();
    }
    let left = bench.with(usize::MAX, never, |host| host.restore("group-0", |_| true)).unwrap().unwrap();
    assert_eq!(left.len(), 1);
    assert_eq!(
        left[0].to_string(),
        "0000:01:00.1 was changed by somebody else (its driver is pci-stub, not vfio-pci or snd_hda_intel): left alone"
    );
    assert_eq!(bench.state()[0].1.as_deref(), Some("nouveau"));
    assert_eq!(bench.state()[1].1.as_deref(), Some("pci-stub"));
}

#[test]
fn owners_that_live_keep_what_they_have() {
    let bench = card();
    std::fs::create_dir_all(bench.root().join("proc/4321")).unwrap();
    let stat = |started: u32| format!("4321 (a ) b) S {} {started} 0", "0 ".repeat(18).trim());
    std::fs::write(bench.root().join("proc/4321/stat"), stat(777)).unwrap();
    let owner = Owner::process(bench.root(), 4321, "pontoon vm run").unwrap();
    bench.with(usize::MAX, never, |host| host.take(&bench.plan(), &owner)).unwrap();
    let (fates, _) = bench.with(usize::MAX, never, recover);
    assert!(matches!(fates[..], [Fate::Adopted(_)]), "{fates:?}");
    // A later process has the number.
    std::fs::write(bench.root().join("proc/4321/stat"), stat(778)).unwrap();
    bench.with(usize::MAX, never, recover_all);
    assert_eq!(bench.state()[0].1.as_deref(), Some("nouveau"));
}

#[test]
fn devices_that_vanish_and_journals_of_another_boot_are_no_trouble() {
    let bench = card();
    bench.with(usize::MAX, never, |host| host.take(&bench.plan(), &nobody())).unwrap();
    std::fs::remove_dir_all(bench.tree.path("0000:01:00.1")).unwrap();
    let left = bench.with(usize::MAX, never, |host| host.restore("group-0", |_| true)).unwrap().unwrap();
    assert_eq!(left[0].to_string(), "0000:01:00.1 has gone: there is nothing to put back");
    let bench = card();
    let boot = bench.root().join("proc/sys/kernel/random/boot_id");
    bench.with(usize::MAX, never, |host| host.take(&bench.plan(), &nobody())).unwrap();
    std::fs::write(&boot, "two\n").unwrap();
    let taken = bench.state();
    bench.with(0, never, recover_all);
    assert_eq!(bench.state(), taken, "what a reboot has undone is not undone again");
}

#[test]
fn a_group_that_is_not_viable_is_given_back() {
    let bench = card();
    let before = bench.state();
    let kernel = Kernel { tree: &bench.tree, natural: bench.natural.clone() };
    let mut perform = |operation: &Operation| kernel.perform(operation);
    let viable = |_| Err("a device in it is on a driver of this host".to_owned());
    let look = || Inventory::read(bench.root());
    let mut host = Host::lock(bench.root(), &look, &mut perform, Duration::ZERO, &viable).unwrap();
    let error = host.take(&bench.plan(), &nobody()).unwrap_err();
    assert!(matches!(error, Error::NotViable { .. }));
    assert_eq!(
        error.to_string(),
        "IOMMU group 0 (0000:01:00.0, 0000:01:00.1) is not viable: a device in it is on a driver of this host; everything was put back"
    );
    assert_eq!(bench.state(), before);
}

#[test]
fn virtual_functions_and_slices_go_as_they_came() {
    let bench = card();
    for (file, value) in [("sriov_totalvfs", "7"), ("sriov_numvfs", "0"), ("sriov_drivers_autoprobe", "1")] {
        bench.tree.write("0000:01:00.0", file, value);
    }
    bench.tree.write("0000:01:00.0", "mdev_supported_types/nvidia-105/available_instances", "2");
    let card: Address = "01:00.0".parse().unwrap();
    let set = |count: u32| {
        let conditions = Conditions::read(bench.root());
        let plan = Plan::virtual_functions(&bench.tree.read(), &conditions, card, count);
        bench.with(usize::MAX, never, |host| host.take(&plan, &Owner::Administrator)).map(drop)
    };
    let now = || bench.tree.read().at(card).unwrap().sriov.unwrap();
    set(3).unwrap();
    assert_eq!((now().active, now().autoprobe), (3, Some(false)));
    set(5).unwrap();
    assert_eq!(now().active, 5);
    assert_eq!(set(8).unwrap_err().to_string(), "0000:01:00.0 can have 7 virtual functions, not 8");
    let conditions = Conditions::read(bench.root());
    let whole = Plan::bind(&bench.tree.read(), &conditions, &[card], false);
    assert!(whole.problems[0].to_string().contains("`pontoon sriov set 0000:01:00.0 0`"), "{whole:?}");
    bench.with(usize::MAX, never, |host| host.restore("sriov-0000:01:00.0", |_| true)).unwrap();
    assert_eq!((now().active, now().autoprobe), (0, Some(true)), "as before the first");
    let uuid: pontoon_passthrough::Uuid = "123e4567-e89b-12d3-a456-426614174000".parse().unwrap();
    let plan = Plan::mediated(&bench.tree.read(), &conditions, card, "nvidia-105", uuid.clone());
    bench.with(usize::MAX, never, |host| host.take(&plan, &Owner::Administrator)).unwrap();
    let slice = bench.root().join(format!("sys/bus/mdev/devices/{uuid}"));
    assert!(slice.exists());
    bench.with(usize::MAX, never, |host| host.restore(&format!("mdev-{uuid}"), |_| true)).unwrap();
    assert!(!slice.exists());
    let other = Plan::mediated(&bench.tree.read(), &conditions, card, "nvidia-9", uuid);
    assert_eq!(
        other.problems[0].to_string(),
        "0000:01:00.0 offers no mediated type 'nvidia-9': it offers nvidia-105"
    );
}

/// Carries out an order as root's helper does, on a kernel of ours.
fn obey(bench: &Bench, order: &Order) -> Answer {
    let kernel = Kernel { tree: &bench.tree, natural: bench.natural.clone() };
    let mut perform = |operation: &Operation| kernel.perform(operation);
    let look = || Inventory::read(bench.root());
    helper::obey(bench.root(), &look, &mut perform, order).0
}

#[test]
fn who_uses_a_device_keeps_it_and_is_named() {
    let bench = card();
    bench.with(usize::MAX, never, |host| host.take(&bench.plan(), &nobody())).unwrap();
    // The owner has gone; its machine has not.
    bench.tree.program(77, "qemu-system-x86", "/dev/vfio/0");
    for device in bench.tree.read().devices {
        assert_eq!(device.uses, ["qemu-system-x86 (pid 77)"], "a group's node is each member's");
    }
    let taken = bench.state();
    let answer = obey(&bench, &Order::Restore { devices: Vec::new() });
    let error = answer.error.unwrap();
    assert_eq!(
        error,
        "0000:01:00.0 is not put back: it is in use by qemu-system-x86 (pid 77); end that, then `pontoon vfio restore 0000:01:00.0`"
    );
    assert_eq!(bench.state(), taken, "nothing was written under the machine's hands");
    std::fs::remove_dir_all(bench.root().join("proc/77")).unwrap();
    assert_eq!(obey(&bench, &Order::Recover).error, None);
    assert_eq!(bench.state()[0].1.as_deref(), Some("nouveau"));
}

#[test]
fn a_card_half_on_vfio_before_goes_back_by_any_of_its_functions() {
    let with = |driver: &'static str, natural: &'static str, only| Function {
        driver: Some(driver),
        natural: Some(natural),
        only,
        power: "on",
    };
    let bench =
        Bench::new(&[vec![with(VFIO, "nouveau", Some(VFIO)), with("snd_hda_intel", "snd_hda_intel", None)]]);
    let before = bench.state();
    bench.with(usize::MAX, never, |host| host.take(&bench.plan(), &Owner::Administrator)).unwrap();
    assert_eq!(bench.state()[1].1.as_deref(), Some(VFIO));
    let answer = obey(&bench, &Order::Restore { devices: vec!["01:00.0".parse().unwrap()] });
    assert_eq!(answer.error, None);
    assert_eq!(bench.state(), before);
}

#[test]
fn functions_of_others_stay_and_a_change_that_fails_goes_one_step_back() {
    let bench = card();
    for (file, value) in [("sriov_totalvfs", "7"), ("sriov_numvfs", "2"), ("sriov_drivers_autoprobe", "0")] {
        bench.tree.write("0000:01:00.0", file, value);
    }
    let device: Address = "01:00.0".parse().unwrap();
    let now = || bench.tree.read().at(device).unwrap().sriov.unwrap().active;
    let error = obey(&bench, &Order::VirtualFunctions { device, count: 3 }).error.unwrap();
    assert!(error.contains("has 2 virtual functions that Pontoon did not make"), "{error}");
    bench.tree.write("0000:01:00.0", "sriov_numvfs", "0");
    assert_eq!(obey(&bench, &Order::VirtualFunctions { device, count: 2 }).error, None);
    // The first write of a change is refused: two there were, two there are, and they are still ours.
    let plan = Plan::virtual_functions(&bench.tree.read(), &Conditions::read(bench.root()), device, 5);
    let kernel = Kernel { tree: &bench.tree, natural: bench.natural.clone() };
    let mut first = true;
    let mut perform = |operation: &Operation| match std::mem::take(&mut first) {
        true => Err(StepError::Late { step: operation.to_string(), seconds: 20 }),
        false => kernel.perform(operation),
    };
    let (viable, look) = (|_| Ok(()), || Inventory::read(bench.root()));
    let mut host = Host::lock(bench.root(), &look, &mut perform, Duration::ZERO, &viable).unwrap();
    let error = host.take(&plan, &Owner::Administrator).unwrap_err().to_string();
    assert!(error.ends_with("; it has 2 virtual functions again"), "{error}");
    drop(host);
    // A change that was killed may have come to any of our numbers.
    bench.killed_at(1, |host| drop(host.take(&plan, &Owner::Administrator)));
    assert_eq!(now(), 0);
    assert_eq!(obey(&bench, &Order::Restore { devices: vec![device] }).error, None);
    assert_eq!(now(), 0);
    assert!(Journals::below(bench.root()).list().0.is_empty());
    // One that a machine has is not pulled away.
    assert_eq!(obey(&bench, &Order::VirtualFunctions { device, count: 1 }).error, None);
    bench.tree.link("0000:01:00.1", "physfn", "../0000:01:00.0");
    let function: Address = "01:00.1".parse().unwrap();
    bench.tree.program(78, "qemu-system-x86", "/dev/snd/pcmC0D0p");
    bench.tree.write("0000:01:00.1", "sound/card0/pcmC0D0p/dev", "1:1");
    let error = obey(&bench, &Order::Restore { devices: vec![device] }).error.unwrap();
    assert!(error.contains(&format!("{function} is not put back")) && now() == 1, "{error}");
}

#[test]
fn names_of_mediated_devices_that_are_taken_stay_whose_they_are() {
    let bench = card();
    bench.tree.write("0000:01:00.0", "mdev_supported_types/nvidia-105/available_instances", "2");
    let uuid: pontoon_passthrough::Uuid = "123e4567-e89b-12d3-a456-426614174000".parse().unwrap();
    let theirs = bench.root().join(format!("sys/bus/mdev/devices/{uuid}"));
    std::fs::create_dir_all(&theirs).unwrap();
    let order = Order::CreateMediated {
        device: "01:00.0".parse().unwrap(),
        kind: "nvidia-105".into(),
        uuid: uuid.clone(),
        grant: false,
    };
    let error = obey(&bench, &order).error.unwrap();
    assert!(error.starts_with(&format!("there is a mediated device {uuid} already")), "{error}");
    let error = obey(&bench, &Order::RemoveMediated { uuid }).error.unwrap();
    assert!(error.contains("left alone") && theirs.exists(), "{error}");
}

#[test]
fn a_journal_that_cannot_be_read_stops_everything() {
    let bench = card();
    let folder = bench.root().join("run/pontoon-passthrough");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("group-7.json"), "{\"version\": 9}").unwrap();
    let before = bench.state();
    let order = Order::Bind { devices: bench.targets.clone(), force: false, grant: false };
    let error = obey(&bench, &order).error.unwrap();
    assert!(error.contains("group-7.json is no journal that this version can read"), "{error}");
    assert_eq!(bench.state(), before);
    // Whose boot it is must be known before anything is called undone.
    std::fs::remove_file(folder.join("group-7.json")).unwrap();
    bench.with(usize::MAX, never, |host| host.take(&bench.plan(), &nobody())).unwrap();
    std::fs::remove_file(bench.root().join("proc/sys/kernel/random/boot_id")).unwrap();
    let answer = obey(&bench, &Order::Recover);
    assert!(answer.warnings[0].contains("boot_id"), "{answer:?}");
    assert_eq!(Journals::below(bench.root()).list().0.len(), 1, "it stays");
}

#[test]
fn only_own_processes_can_have_devices() {
    let bench = card();
    let order = Order::Hold { devices: bench.targets.clone(), force: false, pid: 4321, memory_mib: 256 };
    assert_eq!(obey(&bench, &order).error.as_deref(), Some("process 4321 has gone"));
}
