//! Devices taken and put back on a real kernel: an emulated computer with an IOMMU and several cards, booted with Debian's
//! kernel and its drivers. What is done to it by hand, and what kills us at each step, is in `passthrough/*.sh`.

mod common;

use std::time::Duration;

use common::models::variable;
use pontoon_testbed::{Machine, ready};

/// The devices: a boot display; a card alone; a card with sound; a display and a network that share a group behind a bridge;
/// two cards that are the same; a network with virtual functions. (Root ports come first: buses 1 to 6.)
const DEVICES: &str = "-device intel-iommu,intremap=on,caching-mode=on -vga std \
    -device pcie-root-port,id=p1,slot=1,chassis=1 -device bochs-display,bus=p1 \
    -device pcie-root-port,id=p2,slot=2,chassis=2 -device bochs-display,bus=p2,addr=0.0,multifunction=on \
    -device intel-hda,id=hda,bus=p2,addr=0.1 -audiodev none,id=snd -device hda-duplex,bus=hda.0,audiodev=snd \
    -device pcie-root-port,id=p3,slot=3,chassis=3 -device pcie-pci-bridge,id=b3,bus=p3 \
    -device secondary-vga,bus=b3,addr=1 -device e1000,bus=b3,addr=2,romfile= \
    -device pcie-root-port,id=p4,slot=4,chassis=4 -device virtio-gpu-pci,bus=p4 \
    -device pcie-root-port,id=p5,slot=5,chassis=5 -device virtio-gpu-pci,bus=p5 \
    -device pcie-root-port,id=p6,slot=6,chassis=6 -device igb,bus=p6,netdev=n6,romfile= -netdev user,id=n6";

/// A computer with these devices; nothing, visibly, where the machine lacks a part.
fn host() -> Option<Machine> {
    let host = || -> anyhow::Result<Machine> {
        let mut machine = Machine::new()?.with_qemu(&variable("PONTOON_TEST_QEMU")?);
        machine.options = DEVICES.split_whitespace().map(str::to_owned).collect();
        machine.parameters = "intel_iommu=on".into();
        Ok(machine)
    };
    match host() {
        Ok(machine) => Some(machine),
        Err(reason) => {
            if std::env::var_os("PONTOON_TEST_QEMU").is_none() {
                eprintln!("SKIPPED: {reason:#}");
            } else {
                ready(Err(reason));
            }
            None
        }
    }
}

#[test]
#[ignore = "takes five minutes: `cargo xtask test --full`"]
fn a_machine_within_has_the_card() {
    let Some(said) = run(include_str!("passthrough/nested.sh")) else { return };
    assert!(said.contains("ALL DONE"), "{said}");
}

/// Whether the driver that offers slices lies among the kernel's modules.
fn has_slices() -> bool {
    let modules = std::env::var("PONTOON_TEST_WHOLE_KERNEL").map(|kernel| kernel + "/lib/modules");
    let versions = modules.map(std::fs::read_dir).into_iter().flatten().flatten().flatten();
    versions.into_iter().any(|version| version.path().join("updates/slices.ko").exists())
}

/// Runs one of the scripts in it, and returns what it said.
fn run(script: &str) -> Option<String> {
    let script = format!(
        "PONTOON={}\nVMLINUX={}/vmlinux\nQEMU={}\n{}\n{script}",
        env!("CARGO_BIN_EXE_pontoon"),
        std::env::var("PONTOON_TEST_WHOLE_KERNEL").unwrap_or_default(),
        std::env::var("PONTOON_TEST_QEMU").unwrap_or_default(),
        include_str!("passthrough/common.sh")
    );
    let said = host()?.run(&script, Duration::from_secs(600)).unwrap();
    eprintln!("{said}");
    Some(said)
}

#[test]
fn devices_are_listed_taken_and_put_back() {
    let Some(said) = run(include_str!("passthrough/taking.sh")) else { return };
    assert!(said.contains("ALL DONE"), "{said}");
}

#[test]
fn whatever_is_killed_at_whatever_step_everything_goes_back() {
    let Some(said) = run(include_str!("passthrough/killing.sh")) else { return };
    assert!(said.contains("ALL DONE"), "{said}");
}

/// The driver is ours (`passthrough/slices`), as no card that is emulated has slices; the kernel's part is the kernel's.
#[test]
fn slices_are_made_given_and_removed() {
    if !has_slices() {
        eprintln!("SKIPPED: the tests' driver for slices was not built for the kernel");
        return;
    }
    let Some(said) = run(include_str!("passthrough/slices.sh")) else { return };
    assert!(said.contains("ALL DONE"), "{said}");
}
