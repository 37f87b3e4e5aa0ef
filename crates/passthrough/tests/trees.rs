//! Hosts as sysfs shows them, written down: laptops, workstations, servers, and what goes wrong with each.

mod common;

use std::fs;
use std::path::Path;

use common::{Tree, addresses, get};
use pontoon_passthrough::{Address, Conditions, Inventory, Names, Plan, Way, ways};

const NVIDIA: &str = "10de:2684";
const VGA: &str = "030000";

#[test]
fn a_laptop_with_two_gpus() {
    let tree = Tree::new(
        "laptop",
        &[
            ("0000:00:02.0", "8086:46a6", VGA, Some("i915"), Some(0)),
            ("0000:01:00.0", "10de:25a2", "030200", Some("nvidia"), Some(15)),
            ("0000:00:1f.3", "8086:51c8", "040100", Some("snd_hda_intel"), Some(12)),
        ],
    );
    tree.write("0000:00:02.0", "boot_vga", "1");
    tree.write("0000:00:02.0", "drm/card0/card0-eDP-1/status", "connected");
    tree.write("0000:00:02.0", "drm/card0/card0-eDP-1/enabled", "enabled");
    fs::create_dir_all(tree.0.join("proc/driver/nvidia/gpus/0000:01:00.0")).unwrap();
    fs::write(
        tree.0.join("proc/driver/nvidia/gpus/0000:01:00.0/information"),
        "Model: x\nDevice Minor: \t 0\n",
    )
    .unwrap();
    let inventory = tree.read();
    assert_eq!(addresses(inventory.gpus()), ["0000:00:02.0", "0000:01:00.0"], "sound is none");
    assert_eq!(get(&inventory, "0000:00:02.0").uses, ["display eDP-1"]);
    assert_eq!(tree.status("0000:00:02.0"), "boot-vga");
    assert_eq!(tree.status("0000:01:00.0"), "available");
    tree.program(4321, "python3", "/dev/nvidia0");
    tree.program(4322, "bash", "/dev/pts/1");
    assert_eq!(tree.status("0000:01:00.0"), "in-use by python3 (pid 4321)");
    for pid in 5000..5005 {
        tree.program(pid, "render", "/dev/nvidia0");
    }
    assert!(tree.status("0000:01:00.0").ends_with(", 3 more"), "{}", tree.status("0000:01:00.0"));
}

#[test]
fn a_card_with_sound_and_usb() {
    let tree = Tree::new(
        "card",
        &[
            ("0000:00:01.0", "8086:460d", "060400", Some("pcieport"), Some(14)),
            ("0000:01:00.0", NVIDIA, VGA, Some("nouveau"), Some(14)),
            ("0000:01:00.1", "10de:22ba", "040300", Some("snd_hda_intel"), Some(14)),
            ("0000:01:00.2", "10de:1ad8", "0c0330", Some("xhci_hcd"), Some(14)),
            ("0000:01:00.3", "10de:1ad9", "0c8000", None, Some(14)),
            ("0000:02:00.0", "144d:a80a", "010802", Some("nvme"), Some(15)),
        ],
    );
    let inventory = tree.read();
    let card = get(&inventory, "01:00.0");
    let companions = addresses(inventory.companions(card));
    assert_eq!(
        companions,
        ["0000:01:00.1", "0000:01:00.2", "0000:01:00.3"],
        "bridges and other groups are none"
    );
    assert!(inventory.companions(card).all(|other| other.address.same_card(&card.address)));
}

#[test]
fn two_identical_cards_are_two() {
    let both = [
        ("0000:01:00.0", NVIDIA, VGA, Some("vfio-pci"), Some(1)),
        ("0000:02:00.0", NVIDIA, VGA, Some("nvidia"), Some(2)),
    ];
    let tree = Tree::new("twins", &both);
    tree.write("0000:01:00.0", "driver_override", "vfio-pci");
    let inventory = tree.read();
    assert_eq!(get(&inventory, "01:00.0").driver_override.as_deref(), Some("vfio-pci"));
    assert_eq!(get(&inventory, "02:00.0").driver_override, None, "(null) is none");
    assert_eq!(tree.status("01:00.0"), "vfio-ready");
    assert_eq!(tree.status("02:00.0"), "available");
    tree.program(77, "qemu-system-x86", "/dev/vfio/1");
    assert_eq!(tree.status("01:00.0"), "in-use by qemu-system-x86 (pid 77)");
}

#[test]
fn a_host_without_an_iommu_says_so() {
    let tree = Tree::new("bare", &[("0000:01:00.0", "1002:744c", VGA, Some("amdgpu"), None)]);
    tree.write("0000:01:00.0", "mem_info_vram_total", "25753026560");
    assert_eq!(tree.status("01:00.0"), "no-iommu");
    let inventory = tree.read();
    let card = get(&inventory, "01:00.0");
    assert_eq!((card.memory, card.numa), (Some(25_753_026_560), None), "node -1 is none");
    assert_eq!(inventory.companions(card).count(), 0);
}

#[test]
fn a_group_without_acs_holds_more_than_the_card() {
    let tree = Tree::new(
        "acs",
        &[
            ("0000:01:00.0", NVIDIA, VGA, Some("nvidia"), Some(1)),
            ("0000:02:00.0", "8086:1533", "020000", Some("igb"), Some(1)),
        ],
    );
    let inventory = tree.read();
    let card = get(&inventory, "01:00.0");
    let foreign: Vec<_> =
        inventory.companions(card).filter(|other| !other.address.same_card(&card.address)).collect();
    assert_eq!(addresses(foreign.into_iter()), ["0000:02:00.0"]);
}

#[test]
fn a_server_in_a_long_domain_with_virtual_functions_and_slices() {
    let physical = "10000:02:05.0";
    let tree = Tree::new(
        "server",
        &[
            (physical, "8086:0bda", "120000", Some("xe"), Some(40)),
            ("10000:02:05.1", "8086:0bda", "120000", None, Some(41)),
            ("10000:03:00.0", "10de:20b7", "030200", Some("nvidia"), Some(42)),
        ],
    );
    tree.write(physical, "sriov_totalvfs", "63");
    tree.write(physical, "sriov_numvfs", "1");
    tree.write(physical, "numa_node", "1");
    tree.link("10000:02:05.1", "physfn", &format!("../{physical}"));
    tree.write("10000:03:00.0", "mdev_supported_types/nvidia-105/available_instances", "4");
    tree.write("10000:03:00.0", "mdev_supported_types/nvidia-105/name", "GRID A100-1");
    let inventory = tree.read();
    assert_eq!(inventory.gpus().count(), 3, "accelerators count");
    let server = get(&inventory, physical);
    assert_eq!((server.sriov.unwrap().active, server.sriov.unwrap().total, server.numa), (1, 63, Some(1)));
    assert_eq!(get(&inventory, "10000:02:05.1").physical, Some(physical.parse::<Address>().unwrap()));
    let slices = &get(&inventory, "10000:03:00.0").mdev["nvidia-105"];
    assert_eq!((slices.name.as_deref(), slices.left), (Some("GRID A100-1"), 4));
}

#[test]
fn what_vanishes_or_makes_no_sense_is_left_out() {
    let tree = Tree::new(
        "gone",
        &[("0000:01:00.0", NVIDIA, VGA, None, Some(1)), ("0000:02:00.0", NVIDIA, VGA, None, Some(2))],
    );
    fs::remove_file(tree.path("0000:01:00.0").join("vendor")).unwrap();
    fs::create_dir_all(tree.path("nonsense")).unwrap();
    tree.write("0000:03:00.0", "vendor", "0xzz");
    assert_eq!(addresses(tree.read().devices.iter()), ["0000:02:00.0"]);
    assert_eq!(
        Inventory::read(Path::new("/nonexistent")).unwrap(),
        Inventory::default(),
        "a host without PCI"
    );
}

#[test]
fn names_come_from_the_list() {
    let tree = Tree::new(
        "names",
        &[
            ("0000:01:00.0", NVIDIA, VGA, None, None),
            ("0000:02:00.0", "1234:1111", VGA, None, None),
            ("0000:03:00.0", "abcd:0001", VGA, None, None),
        ],
    );
    let list = "# comment\n10de  NVIDIA Corporation\n\t2684  AD102 [GeForce RTX 4090]\n\t\t1043 88e2  A board\n\
                abcd  Somebody Ltd.\nC 03  Display controller\n\t2684  no device\n";
    let inventory = tree.read();
    let names = Names::read(list, inventory.gpus());
    let of = |address: &str| {
        let device = get(&inventory, address);
        (names.vendor(device), names.model(device))
    };
    assert_eq!(of("01:00.0"), ("NVIDIA".into(), "AD102 [GeForce RTX 4090]".into()));
    assert_eq!(of("02:00.0"), ("QEMU".into(), "[1234:1111]".into()));
    assert_eq!(of("03:00.0"), ("Somebody Ltd.".into(), "[abcd:0001]".into()));
}

#[test]
fn disks_and_networks_that_are_in_use_are_seen() {
    let tree = Tree::new(
        "uses",
        &[
            ("0000:01:00.0", "144d:a80a", "010802", Some("nvme"), Some(1)),
            ("0000:02:00.0", "8086:1533", "020000", Some("igb"), Some(2)),
        ],
    );
    for (disk, number) in [
        ("nvme0n1", "259:0"),
        ("nvme0n1/nvme0n1p1", "259:1"),
        ("nvme0n1/nvme0n1p2", "259:2"),
        ("nvme0n1/nvme0n1p3", "259:3"),
    ] {
        for (file, value) in [("dev", number), ("size", "1"), ("stat", "0")] {
            tree.write("0000:01:00.0", &format!("nvme/nvme0/{disk}/{file}"), value);
        }
    }
    assert!(get(&tree.read(), "01:00.0").uses.is_empty());
    fs::create_dir_all(tree.0.join("proc/self")).unwrap();
    fs::write(tree.0.join("proc/self/mountinfo"), "22 1 259:1 / /boot rw - ext4 /dev/nvme0n1p1 rw\n")
        .unwrap();
    fs::write(
        tree.0.join("proc/swaps"),
        "Filename Type Size Used Priority\n/dev/nvme0n1p3 partition 1 0 -2\n",
    )
    .unwrap();
    fs::create_dir_all(tree.path("0000:01:00.0").join("nvme/nvme0/nvme0n1/nvme0n1p2/holders/dm-0")).unwrap();
    assert_eq!(
        get(&tree.read(), "01:00.0").uses,
        ["dm-0, which nvme0n1p2 is part of", "swap on nvme0n1p3", "the file system at /boot"]
    );
    tree.write("0000:02:00.0", "net/eth0/flags", "0x1002");
    assert!(get(&tree.read(), "02:00.0").uses.is_empty());
    tree.write("0000:02:00.0", "net/eth0/flags", "0x1003");
    assert_eq!(get(&tree.read(), "02:00.0").uses, ["network eth0"]);
}

/// What planning to take devices of a tree says: the steps, and what stands against them.
fn plan(tree: &Tree, targets: &[&str]) -> (Vec<String>, Vec<String>) {
    fs::create_dir_all(tree.0.join("sys/bus/pci/drivers/vfio-pci")).unwrap();
    let targets: Vec<Address> = targets.iter().map(|text| text.parse().unwrap()).collect();
    let plan = Plan::bind(&tree.read(), &Conditions::read(&tree.0), &targets, false);
    let steps = plan.parts.iter().flat_map(|part| &part.operations).map(ToString::to_string).collect();
    (steps, plan.problems.iter().map(ToString::to_string).collect())
}

#[test]
fn plans_take_whole_cards_in_one_order_and_leave_their_twins() {
    let tree = Tree::new(
        "plans",
        &[
            ("0000:00:01.0", "8086:460d", "060400", Some("pcieport"), Some(14)),
            ("0000:01:00.0", NVIDIA, VGA, Some("nouveau"), Some(14)),
            ("0000:01:00.1", "10de:22ba", "040300", Some("snd_hda_intel"), Some(14)),
            ("0000:01:00.2", "10de:1ad8", "0c0330", None, Some(14)),
            ("0000:02:00.0", NVIDIA, VGA, Some("nouveau"), Some(15)),
            ("10000:02:05.0", "8086:0bda", "120000", Some("xe"), Some(40)),
        ],
    );
    tree.write("0000:01:00.1", "driver_override", "snd_hda_intel");
    let (steps, problems) = plan(&tree, &["01:00.0"]);
    assert_eq!(problems, [""; 0]);
    let device = "/sys/bus/pci/devices/0000:01:00";
    assert_eq!(
        steps,
        [
            format!("write 'vfio-pci' to {device}.0/driver_override"),
            format!("write 'vfio-pci' to {device}.1/driver_override"),
            format!("write 'vfio-pci' to {device}.2/driver_override"),
            "write '0000:01:00.0' to /sys/bus/pci/drivers/nouveau/unbind".into(),
            "write '0000:01:00.1' to /sys/bus/pci/drivers/snd_hda_intel/unbind".into(),
            "write '0000:01:00.0' to /sys/bus/pci/drivers_probe".into(),
            "write '0000:01:00.1' to /sys/bus/pci/drivers_probe".into(),
            "write '0000:01:00.2' to /sys/bus/pci/drivers_probe".into(),
        ],
        "neither the bridge nor the twin"
    );
    let (steps, problems) = plan(&tree, &["10000:02:05.0"]);
    assert_eq!((steps.len(), problems.len()), (3, 0), "long domains are like others");
    assert_eq!(steps[1], "write '10000:02:05.0' to /sys/bus/pci/drivers/xe/unbind");
    // One that is there twice over: on VFIO already.
    fs::remove_file(tree.path("0000:02:00.0").join("driver")).unwrap();
    tree.link("0000:02:00.0", "driver", "../../../bus/pci/drivers/vfio-pci");
    assert_eq!(plan(&tree, &["02:00.0"]), (Vec::new(), Vec::new()));
    // One that vanishes.
    fs::remove_dir_all(tree.path("0000:02:00.0")).unwrap();
    assert!(plan(&tree, &["02:00.0"]).1[0].starts_with("0000:02:00.0: there is no such PCI device"));
}

#[test]
fn a_virtual_function_goes_without_its_physical_one() {
    let tree = Tree::new(
        "functions",
        &[
            ("0000:03:00.0", "8086:56c0", "038000", Some("xe"), Some(20)),
            ("0000:03:00.1", "8086:56c0", "038000", None, Some(21)),
        ],
    );
    tree.write("0000:03:00.0", "sriov_totalvfs", "7");
    tree.write("0000:03:00.0", "sriov_numvfs", "1");
    tree.write("0000:03:00.0", "nvidia/creatable_vgpu_types", "ID    : vGPU Name\n700   : NVIDIA A16-1B");
    tree.link("0000:03:00.1", "physfn", "../0000:03:00.0");
    assert_eq!(get(&tree.read(), "03:00.0").vgpu, ["700 NVIDIA A16-1B"]);
    let (steps, problems) = plan(&tree, &["03:00.1"]);
    assert_eq!((steps.len(), problems.len()), (2, 0), "{steps:?} {problems:?}");
    assert!(plan(&tree, &["03:00.0"]).1[0].contains("has 1 virtual functions, which would vanish"));
}

fn way(tree: &Tree, name: &str) -> Way {
    let found = ways(&tree.0, &tree.read(), &|_| None);
    found.into_iter().find(|way| way.name == name).unwrap()
}

#[test]
fn each_way_says_what_it_looked_at_and_what_would_change_it() {
    let tree = Tree::new("ways", &[("0000:01:00.0", NVIDIA, VGA, Some("nvidia"), None)]);
    fs::create_dir_all(tree.0.join("proc/sys/kernel")).unwrap();
    fs::write(tree.0.join("proc/cpuinfo"), "vendor_id\t: AuthenticAMD\n").unwrap();
    fs::write(tree.0.join("proc/sys/kernel/osrelease"), "6.1.0-test\n").unwrap();
    let vfio = way(&tree, "VFIO");
    assert!(!vfio.works && vfio.seen == "0000:01:00.0 without iommu_group in /sys/bus/pci/devices");
    assert!(vfio.advice.contains("boot with amd_iommu=on"), "{}", vfio.advice);
    fs::write(tree.0.join("proc/cmdline"), "quiet amd_iommu=on\n").unwrap();
    assert!(way(&tree, "VFIO").advice.starts_with("/proc/cmdline has amd_iommu=on already"));
    tree.link("0000:01:00.0", "iommu_group", "../../../kernel/iommu_groups/7");
    assert!(way(&tree, "VFIO").seen.contains("/lib/modules/6.1.0-test/modules.dep"));
    fs::create_dir_all(tree.0.join("lib/modules/6.1.0-test")).unwrap();
    fs::write(
        tree.0.join("lib/modules/6.1.0-test/modules.dep"),
        "kernel/drivers/vfio/pci/vfio-pci.ko: kernel/drivers/vfio/vfio.ko\n",
    )
    .unwrap();
    let vfio = way(&tree, "VFIO");
    assert!(vfio.works && vfio.advice.contains("`pontoon vm run --gpu=0000:01:00.0 …`"), "{vfio:?}");
    tree.write("0000:01:00.0", "boot_vga", "1");
    assert!(way(&tree, "VFIO").seen.contains("is the boot display"));
    assert_eq!(way(&tree, "SR-IOV").seen, "no GPU has sriov_totalvfs in /sys/bus/pci/devices");
    tree.write("0000:01:00.0", "sriov_totalvfs", "4");
    tree.write("0000:01:00.0", "sriov_numvfs", "0");
    assert!(way(&tree, "SR-IOV").works);
    assert!(way(&tree, "mdev/vGPU").advice.contains("NVIDIA's vGPU host driver"));
    tree.write("0000:01:00.0", "mdev_supported_types/nvidia-105/available_instances", "4");
    assert!(way(&tree, "mdev/vGPU").works);
    let venus = way(&tree, "Venus");
    assert!(!venus.works && venus.seen.starts_with("QEMU has no virtio-gpu-gl-pci;"), "{venus:?}");
    fs::create_dir_all(tree.0.join("usr/share/vulkan/icd.d")).unwrap();
    fs::write(tree.0.join("usr/share/vulkan/icd.d/a.json"), "{}").unwrap();
    let newer = |words: &[&str]| (words[0] != "virgl_test_server").then(|| "  venus=<bool>\n".to_owned());
    assert!(ways(&tree.0, &tree.read(), &newer)[3].works);
    let other = way(&tree, "GPU-PV");
    assert_eq!(
        (other.works, other.seen.as_str()),
        (false, "there is no /dev/dxg, and the kernel is 6.1.0-test")
    );
    fs::create_dir_all(tree.0.join("dev/dxg")).unwrap();
    fs::create_dir_all(tree.0.join("usr/lib/wsl/lib")).unwrap();
    assert!(way(&tree, "GPU-PV").works);
    let empty = Tree::new("ways-none", &[("0000:00:1f.0", "8086:2918", "060100", None, None)]);
    assert_eq!(way(&empty, "VFIO").seen, "no GPU among the 1 devices of /sys/bus/pci/devices");
}
