//! What people read when something stands against taking a device, word for word: each names the device, what else is in
//! its group, and what to do.

mod common;

use std::fs;

use common::Tree;
use common::kernel::Kernel;
use pontoon_passthrough::{
    Address, Conditions, Count, Error, Host, Inventory, Journals, Operation, Owner, Plan, Problem,
    Reservation, StepError, Uuid, against_slices, assign, pick,
};

const VGA: &str = "030000";

/// A host on which much stands against much.
fn host() -> Tree {
    let tree = Tree::new(
        "messages",
        &[
            ("0000:00:01.0", "8086:460d", "060400", Some("pcieport"), Some(1)),
            ("0000:00:02.0", "8086:46a6", VGA, Some("i915"), Some(0)),
            ("0000:01:00.0", "10de:2684", VGA, Some("nvidia"), Some(1)),
            ("0000:01:00.1", "10de:22ba", "040300", Some("snd_hda_intel"), Some(1)),
            ("0000:02:00.0", "1002:744c", VGA, Some("amdgpu"), Some(2)),
            ("0000:03:00.0", "8086:1533", "020000", Some("igb"), Some(2)),
            ("0000:04:00.0", "8086:0bda", "120000", Some("xe"), Some(4)),
            ("0000:05:00.0", "1002:744c", VGA, Some("amdgpu"), None),
            ("0000:06:00.0", "10de:2684", VGA, None, Some(6)),
        ],
    );
    tree.write("0000:00:02.0", "boot_vga", "1");
    tree.write("0000:04:00.0", "sriov_totalvfs", "7");
    tree.write("0000:04:00.0", "sriov_numvfs", "2");
    tree.write("0000:06:00.0", "sriov_totalvfs", "7");
    tree.write("0000:06:00.0", "sriov_numvfs", "0");
    tree.write("0000:01:00.0", "mdev_supported_types/nvidia-105/available_instances", "0");
    fs::create_dir_all(tree.0.join("proc/driver/nvidia/gpus/0000:01:00.0")).unwrap();
    fs::write(tree.0.join("proc/driver/nvidia/gpus/0000:01:00.0/information"), "Device Minor: 0\n").unwrap();
    fs::create_dir_all(tree.0.join("proc/sys/kernel")).unwrap();
    fs::write(tree.0.join("proc/sys/kernel/osrelease"), "6.1.0-test\n").unwrap();
    fs::write(tree.0.join("proc/cpuinfo"), "vendor_id\t: GenuineIntel\n").unwrap();
    tree.program(77, "blender", "/dev/nvidia0");
    tree
}

fn address(text: &str) -> Address {
    text.parse().unwrap()
}

fn against(tree: &Tree, targets: &[&str]) -> Vec<String> {
    let targets: Vec<Address> = targets.iter().map(|text| address(text)).collect();
    let plan = Plan::bind(&tree.read(), &Conditions::read(&tree.0), &targets, false);
    plan.problems.iter().map(Problem::to_string).collect()
}

/// Carries plans out on it as a kernel would, but for what `fail` says of a step.
fn carry_out(tree: &Tree, plan: &Plan, fail: impl Fn(&Operation) -> Option<StepError>) -> Result<(), Error> {
    let kernel = Kernel { tree, natural: Default::default() };
    let mut perform = |operation: &Operation| match fail(operation) {
        Some(error) => Err(error),
        None => kernel.perform(operation),
    };
    let (viable, look) = (|_| Ok(()), || Inventory::read(&tree.0));
    let mut host = Host::lock(&tree.0, &look, &mut perform, Default::default(), &viable).unwrap();
    host.take(plan, &Owner::Administrator).map(drop)
}

#[test]
fn what_stands_against_taking_a_device() {
    let tree = host();
    let all = ["01:00.0", "00:02.0", "02:00.0", "04:00.0", "05:00.0", "0f:00.0", "00:01.0", "01:00.0"];
    assert_eq!(
        against(&tree, &all),
        [
            "0000:05:00.0 has no IOMMU group: a machine that had it could write to all of this host's memory; switch on VT-d or AMD-Vi in the firmware's settings and boot with intel_iommu=on",
            "0000:0f:00.0: there is no such PCI device; `pontoon gpu list` shows the GPUs, `ls /sys/bus/pci/devices` all",
            "0000:00:01.0 is a bridge: name the device behind it",
            "0000:01:00.0 is named twice: name it once",
            "0000:00:02.0 (i915) is the boot display: this host's console goes dark with it and may not come back before a reboot; use another GPU, or add --force (group 0, nothing else in it)",
            "0000:01:00.0 is in use by blender (pid 77): end that first (group 1; with 0000:01:00.1 (snd_hda_intel))",
            "0000:02:00.0 shares IOMMU group 2 with 0000:03:00.0 (igb), which would leave this host with it: name them too, or put the card into another slot, one whose port isolates it (ACS)",
            "0000:04:00.0 has 2 virtual functions, which would vanish with it: `pontoon sriov set 0000:04:00.0 0`, or pass one of them (group 4, nothing else in it)",
            "this kernel (6.1.0-test) has no vfio-pci, neither loaded nor as a module in /lib/modules/6.1.0-test: install the kernel's modules, or a kernel with CONFIG_VFIO_PCI",
        ]
    );
}

#[test]
fn what_stands_against_slices() {
    let tree = host();
    let (inventory, conditions) = (tree.read(), Conditions::read(&tree.0));
    let functions = |text: &str, count: u32| {
        let plan = Plan::virtual_functions(&inventory, &conditions, address(text), count);
        plan.problems.iter().map(Problem::to_string).collect::<Vec<_>>()
    };
    assert_eq!(functions("01:00.0", 1), ["0000:01:00.0 has no SR-IOV: it can have no virtual functions"]);
    assert_eq!(
        functions("06:00.0", 9),
        [
            "0000:06:00.0 can have 7 virtual functions, not 9",
            "0000:06:00.0 has no driver that could make virtual functions (none): bind its own first, `echo 0000:06:00.0 > /sys/bus/pci/drivers_probe`",
        ]
    );
    let slice = |text: &str, kind: &str| {
        let uuid = "123e4567-e89b-12d3-a456-426614174000".parse().unwrap();
        let plan = Plan::mediated(&inventory, &conditions, address(text), kind, uuid);
        plan.problems.iter().map(Problem::to_string).collect::<Vec<_>>()
    };
    assert_eq!(
        slice("01:00.0", "nvidia-105"),
        ["0000:01:00.0 has no 'nvidia-105' left: remove one (`pontoon vfio status`), or take another type"]
    );
    assert_eq!(
        slice("01:00.0", "nvidia-1"),
        ["0000:01:00.0 offers no mediated type 'nvidia-1': it offers nvidia-105"]
    );
    assert_eq!(
        slice("02:00.0", "x"),
        [
            "0000:02:00.0 offers no mediated type 'x': it offers none; the vendor's driver for virtual GPUs does, where the card can"
        ]
    );
}

#[test]
fn what_goes_wrong_while_a_device_is_taken() {
    let tree = host();
    fs::create_dir_all(tree.0.join("sys/bus/pci/drivers/vfio-pci")).unwrap();
    let plan = |targets: &[&str]| {
        let targets: Vec<Address> = targets.iter().map(|text| address(text)).collect();
        Plan::bind(&tree.read(), &Conditions::read(&tree.0), &targets, false)
    };
    let late = |operation: &Operation| {
        let late = matches!(operation, Operation::Unbind { driver, .. } if driver == "amdgpu");
        late.then(|| StepError::Late { step: operation.to_string(), seconds: 20 })
    };
    let error = carry_out(&tree, &plan(&["02:00.0", "03:00.0"]), late).unwrap_err();
    assert_eq!(
        error.to_string(),
        "write '0000:02:00.0' to /sys/bus/pci/drivers/amdgpu/unbind: no answer within 20 s; the driver waits for programs that have the device open, or hangs; everything was put back"
    );
    let refused = |operation: &Operation| {
        let source = std::io::Error::from_raw_os_error(16);
        let probe = matches!(operation, Operation::Override { driver: Some(_), .. });
        probe.then(|| StepError::Refused { step: operation.to_string(), source })
    };
    let error = carry_out(&tree, &plan(&["06:00.0"]), refused).unwrap_err();
    assert_eq!(
        error.to_string(),
        "write 'vfio-pci' to /sys/bus/pci/devices/0000:06:00.0/driver_override: Device or resource busy (os error 16); everything was put back"
    );
    // The driver does not take it, for a reason of its own.
    let lost = |operation: &Operation| {
        let probe = matches!(operation, Operation::Probe { .. });
        probe.then(|| StepError::Refused {
            step: operation.to_string(),
            source: std::io::Error::from_raw_os_error(19),
        })
    };
    let error = carry_out(&tree, &plan(&["06:00.0"]), lost).unwrap_err();
    assert_eq!(
        error.to_string(),
        "write '0000:06:00.0' to /sys/bus/pci/drivers_probe: No such device (os error 19); everything was put back"
    );
    // What is owned.
    carry_out(&tree, &plan(&["06:00.0"]), |_| None).unwrap();
    assert_eq!(
        against(&tree, &["06:00.0"]),
        [
            "0000:06:00.0 is owned by `pontoon vfio bind`: `pontoon vfio restore 0000:06:00.0` (group 6, nothing else in it)"
        ]
    );
    let journals = Journals::below(&tree.0);
    fs::write(tree.0.join("run/pontoon-passthrough/group-9.json"), "{}").unwrap();
    let said = journals.list().1[0].to_string();
    assert!(said.contains("group-9.json is no journal that this version can read (missing field"), "{said}");
}

#[test]
fn services_get_what_is_free_and_hear_why_not() {
    let tree = host();
    fs::create_dir_all(tree.0.join("sys/bus/pci/drivers/vfio-pci")).unwrap();
    let asks = |driver: Option<&str>, count: Option<Count>, ids: &[&str]| Reservation {
        driver: driver.map(str::to_owned),
        count,
        ids: ids.iter().map(|id| (*id).to_owned()).collect(),
    };
    let services = [
        ("a".to_owned(), vec![asks(Some("nvidia"), Some(Count::Of(1)), &[])]),
        ("b".to_owned(), vec![asks(Some("nvidia"), Some(Count::Of(2)), &[])]),
        ("c".to_owned(), vec![asks(Some("amd"), None, &[]), asks(None, None, &["0", "6", "x"])]),
        ("d".to_owned(), vec![asks(Some("tpu"), None, &[]), asks(None, Some(Count::All), &["1"])]),
    ];
    let granted = assign(&tree.read(), &Conditions::read(&tree.0), &services);
    let [a, b, c, d] = &granted[..] else { panic!() };
    assert_eq!(a.1.devices, [address("06:00.0")]);
    assert_eq!(a.1.why, ["0000:06:00.0: the only free GPU"]);
    assert_eq!(
        b.1.misses,
        [
            "2 of 2 GPUs: 0000:01:00.0 is in use by blender (pid 77): end that first (group 1; with 0000:01:00.1 (snd_hda_intel)); 0000:06:00.0 goes to a"
        ]
    );
    assert!(c.1.misses[0].starts_with("GPUs: 0000:02:00.0 shares IOMMU group 2"), "{:?}", c.1);
    assert!(c.1.misses[1].starts_with("0000:00:02.0 (i915) is the boot display"), "{:?}", c.1);
    assert!(c.1.misses[2].starts_with("'6': it is neither"), "{:?}", c.1);
    assert_eq!(d.1.misses[0], "driver 'tpu': whole GPUs are asked for by nvidia, amd, intel, or no driver");
    assert_eq!(d.1.misses[1], "count and device_ids exclude each other: leave one out");
}

#[test]
fn where_no_gpu_is_free_each_says_why() {
    let tree = host();
    fs::create_dir_all(tree.0.join("sys/bus/pci/drivers/vfio-pci")).unwrap();
    let conditions = Conditions::read(&tree.0);
    let (best, why) = pick(&tree.read(), &conditions, &[]).unwrap();
    assert_eq!((best.to_string().as_str(), why.as_str()), ("0000:06:00.0", "the only free GPU"));
    let problems = pick(&tree.read(), &conditions, &[best]).unwrap_err();
    assert_eq!(problems.len(), 5, "{problems:?}");
    let none = Inventory::default();
    assert_eq!(pick(&none, &conditions, &[]), Err(Vec::new()));
}

#[test]
fn mediated_devices_that_a_machine_cannot_have() {
    let tree = host();
    let slice = tree.0.join("sys/bus/mdev/devices/123e4567-e89b-12d3-a456-426614174000");
    fs::create_dir_all(&slice).unwrap();
    std::os::unix::fs::symlink("../../../../kernel/iommu_groups/9", slice.join("iommu_group")).unwrap();
    tree.program(78, "qemu-system-x86", "/dev/vfio/9");
    let wanted = ["123e4567-e89b-12d3-a456-426614174000", "123e4567-e89b-12d3-a456-426614174001"];
    let mut wanted: Vec<Uuid> = wanted.iter().map(|uuid| uuid.parse().unwrap()).collect();
    wanted.push(wanted[1].clone());
    let problems = against_slices(&tree.0, &tree.read(), &wanted);
    assert_eq!(
        problems.iter().map(Problem::to_string).collect::<Vec<_>>(),
        [
            "the mediated device 123e4567-e89b-12d3-a456-426614174000 is in use by qemu-system-x86 (pid 78): end that first, or make another one",
            "123e4567-e89b-12d3-a456-426614174001: there is no such mediated device; `pontoon mdev create BDF TYPE` makes one",
            "123e4567-e89b-12d3-a456-426614174001 is named twice: name it once",
        ]
    );
    let node = "/dev/vfio/9".into();
    assert_eq!(
        Problem::SliceForeign { uuid: wanted[0].clone(), node }.to_string(),
        "you may not open /dev/vfio/9, the mediated device 123e4567-e89b-12d3-a456-426614174000: make it as the user who runs the machine (`pontoon mdev create`, without sudo), or run the machine as root"
    );
}
