//! The ways by which a GPU could reach a guest on this host, beside the bridge and the model runner: for each what was
//! looked at, whether it works, and what would change that.

use std::path::Path;

use crate::conditions::Driver;
use crate::{Conditions, Device, Inventory, pick};

/// One way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// What it is called.
    pub name: &'static str,
    /// Whether it works here.
    pub works: bool,
    /// What was looked at, and what was there.
    pub seen: String,
    /// How it is used where it works, or what would make it work.
    pub advice: String,
}

/// Runs a program for its output; nothing where there is none or it fails.
pub type Ask<'a> = &'a dyn Fn(&[&str]) -> Option<String>;

/// Looks at all of them.
pub fn ways(root: &Path, inventory: &Inventory, ask: Ask<'_>) -> Vec<Way> {
    let conditions = Conditions::read(root);
    vec![
        vfio(root, inventory, &conditions),
        sriov(inventory),
        mediated(root, inventory),
        venus(root, ask),
        paravirtual(root),
    ]
}

fn list(devices: &[&Device]) -> String {
    devices.iter().map(|device| device.address.to_string()).collect::<Vec<_>>().join(", ")
}

fn no_gpu(inventory: &Inventory) -> Option<String> {
    let count = inventory.devices.len();
    let none = inventory.gpus().next().is_none();
    none.then(|| format!("no GPU among the {count} devices of /sys/bus/pci/devices"))
}

fn vfio(root: &Path, inventory: &Inventory, conditions: &Conditions) -> Way {
    let name = "VFIO";
    let no = |seen: String, advice: String| Way { name, works: false, seen, advice };
    if let Some(seen) = no_gpu(inventory) {
        return no(seen, "a PCI GPU is needed for it".into());
    }
    let gpus: Vec<&Device> = inventory.gpus().collect();
    if gpus.iter().all(|gpu| gpu.group.is_none()) {
        let line = std::fs::read_to_string(root.join("proc/cmdline")).unwrap_or_default();
        let parameter = &conditions.parameter;
        let seen = format!("{} without iommu_group in /sys/bus/pci/devices", list(&gpus));
        let asked = line.split_whitespace().any(|word| parameter.split(" or ").any(|wanted| wanted == word));
        return no(
            seen,
            match asked {
                true => format!(
                    "/proc/cmdline has {parameter} already: switch on VT-d or AMD-Vi in the firmware's settings"
                ),
                false => format!(
                    "switch on VT-d or AMD-Vi in the firmware's settings, and boot with {parameter} (Debian: GRUB_CMDLINE_LINUX in /etc/default/grub, then update-grub)"
                ),
            },
        );
    }
    if conditions.vfio == Driver::Missing {
        let release = &conditions.release;
        let seen = format!("no vfio-pci in /sys/bus/pci/drivers or /lib/modules/{release}/modules.dep");
        return no(seen, "install the kernel's modules, or a kernel with CONFIG_VFIO_PCI".into());
    }
    match pick(inventory, conditions, &[]) {
        Ok((address, why)) => Way {
            name,
            works: true,
            seen: format!("{address} has a group and nothing uses it: {why}"),
            advice: format!("`pontoon vm run --gpu={address} …`, or `pontoon vfio plan {address}`"),
        },
        Err(problems) => {
            let seen: Vec<String> = problems.iter().map(ToString::to_string).collect();
            no(seen.join("; "), "`pontoon vfio plan BDF` shows all that stands against each".into())
        }
    }
}

fn sriov(inventory: &Inventory) -> Way {
    let name = "SR-IOV";
    let able: Vec<&Device> = inventory.gpus().filter(|gpu| gpu.sriov.is_some()).collect();
    let Some(first) = able.first() else {
        let seen = no_gpu(inventory)
            .unwrap_or_else(|| "no GPU has sriov_totalvfs in /sys/bus/pci/devices".to_owned());
        let advice =
            "a card that has it, with SR-IOV on in the firmware's settings and the vendor's host driver";
        return Way { name, works: false, seen, advice: advice.into() };
    };
    let driver = first.driver.as_deref().unwrap_or("no driver");
    let (active, total) = first.sriov.map_or((0, 0), |sriov| (sriov.active, sriov.total));
    let works = first.driver.is_some() && !first.on_vfio();
    Way {
        name,
        works,
        seen: format!("{} ({driver}): sriov_numvfs {active}, sriov_totalvfs {total}", first.address),
        advice: match works {
            true => format!("`pontoon sriov set {} 1`, then `pontoon vm run --gpu …`", first.address),
            false => {
                format!("its own driver makes them: `echo {} > /sys/bus/pci/drivers_probe`", first.address)
            }
        },
    }
}

fn mediated(root: &Path, inventory: &Inventory) -> Way {
    let name = "mdev/vGPU";
    let able: Vec<&Device> = inventory.gpus().filter(|gpu| !gpu.mdev.is_empty()).collect();
    if let Some(gpu) = able.first() {
        let types: Vec<String> =
            gpu.mdev.iter().map(|(id, slices)| format!("{id} ({} left)", slices.left)).collect();
        return Way {
            name,
            works: true,
            seen: format!("{} offers {} in mdev_supported_types", gpu.address, types.join(", ")),
            advice: format!("`pontoon mdev create {} TYPE`", gpu.address),
        };
    }
    // NVIDIA's newer ones are virtual functions with a type.
    let nvidia = inventory.gpus().find(|gpu| !gpu.vgpu.is_empty());
    if let Some(gpu) = nvidia {
        return Way {
            name,
            works: true,
            seen: format!("{} offers {} in nvidia/creatable_vgpu_types", gpu.address, gpu.vgpu.join(", ")),
            advice: format!(
                "write a type's number to /sys/bus/pci/devices/{0}/nvidia/current_vgpu_type, then `pontoon vm run --vfio {0}`",
                gpu.address
            ),
        };
    }
    let seen = no_gpu(inventory).unwrap_or_else(|| match root.join("sys/class/mdev_bus").exists() {
        true => "no GPU in /sys/class/mdev_bus".to_owned(),
        false => "there is no /sys/class/mdev_bus: no driver offers slices".to_owned(),
    });
    let vendors: Vec<u16> = inventory.gpus().map(|gpu| gpu.vendor).collect();
    let advice = if vendors.contains(&0x10de) {
        "NVIDIA's vGPU host driver (licensed), on a card that it supports"
    } else if vendors.contains(&0x8086) {
        "Intel's GPUs of 2014 to 2019: boot with i915.enable_gvt=1, then `modprobe kvmgt`; later ones have SR-IOV"
    } else {
        "a card whose vendor's host driver offers them"
    };
    Way { name, works: false, seen, advice: advice.into() }
}

/// Vulkan over virtio-gpu, by QEMU and virglrenderer.
fn venus(root: &Path, ask: Ask<'_>) -> Way {
    let name = "Venus";
    let drivers = std::fs::read_dir(root.join("usr/share/vulkan/icd.d")).into_iter().flatten().count();
    let options = ask(&["qemu-system-x86_64", "-device", "virtio-gpu-gl-pci,help"]);
    let test_server = ask(&["virgl_test_server", "--help"]).is_some_and(|text| text.contains("venus"));
    let qemu = match &options {
        None => "QEMU has no virtio-gpu-gl-pci",
        Some(text) if text.contains("venus=") => "QEMU's virtio-gpu-gl-pci has venus",
        Some(_) => "QEMU's virtio-gpu-gl-pci has no option venus",
    };
    let works = options.is_some_and(|text| text.contains("venus=")) && drivers > 0;
    let server = if test_server { "virgl_test_server has it" } else { "no virgl_test_server with it" };
    Way {
        name,
        works,
        seen: format!("{qemu}; {server}; {drivers} drivers in /usr/share/vulkan/icd.d"),
        advice: match works {
            true => "QEMU: -device virtio-gpu-gl-pci,venus=on,blob=on,hostmem=4G; Pontoon's bridge needs no such device".into(),
            false => "QEMU 9.2 or later with its OpenGL modules (Debian 13: qemu-system-modules-opengl), virglrenderer 1.0 or later, a Vulkan driver".into(),
        },
    }
}

/// The GPU of a Windows host in its Linux (WSL2).
fn paravirtual(root: &Path) -> Way {
    let name = "GPU-PV";
    let release = std::fs::read_to_string(root.join("proc/sys/kernel/osrelease")).unwrap_or_default();
    let (release, windows) = (release.trim(), release.to_lowercase().contains("microsoft"));
    if root.join("dev/dxg").exists() {
        let libraries = root.join("usr/lib/wsl/lib").exists();
        return Way {
            name,
            works: libraries,
            seen: format!(
                "/dev/dxg is there, /usr/lib/wsl/lib {}",
                if libraries { "too" } else { "is not" }
            ),
            advice: match libraries {
                true => "`pontoon serve` here offers it to containers, by Mesa's dzn or the vendor's Vulkan driver".into(),
                false => "install the vendor's driver on Windows, then `wsl --shutdown`".into(),
            },
        };
    }
    Way {
        name,
        works: false,
        seen: format!("there is no /dev/dxg, and the kernel is {release}"),
        advice: match windows {
            true => "`wsl --update` on Windows, and a GPU driver for it there".into(),
            false => "it is for Linux within Windows (WSL2)".into(),
        },
    }
}
