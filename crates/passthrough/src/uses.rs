//! What uses a device now: programs that have its nodes in `/dev` open, displays that it drives, networks that are up,
//! disks that are mounted.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::{Device, Inventory, Problem, Uuid};

/// Programs that are named; more are counted.
const MAX_NAMED: usize = 3;

/// Fills in what uses each device. Programs of other users are seen by root alone.
pub(crate) fn find(root: &Path, devices: &mut [Device]) {
    // A group's node is each member's.
    let mut nodes: BTreeMap<PathBuf, Vec<usize>> = BTreeMap::new();
    let (mounted, swaps) = (mounted(root), swaps(root));
    for (at, device) in devices.iter_mut().enumerate() {
        if device.class >> 16 == 0x06 {
            // What hangs behind a bridge is not its own.
            continue;
        }
        let path = root.join("sys/bus/pci/devices").join(device.address.to_string());
        for node in own_nodes(root, device, &path) {
            nodes.entry(node).or_default().push(at);
        }
        device.uses = displays(&path);
        if device.stuck {
            device.uses.push("a driver that waits until programs let go of it".into());
        }
        device.uses.extend(networks(&path));
        let mut disks_found = Vec::new();
        block_devices(&path, 8, &mut disks_found);
        for disk in &disks_found {
            nodes.entry(Path::new("/dev").join(disk.file_name().unwrap_or_default())).or_default().push(at);
        }
        device.uses.extend(disks(&disks_found, &mounted, &swaps));
        device.uses.extend(mediated(&path));
    }
    if nodes.is_empty() {
        return;
    }
    let mut programs: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for (pid, opened) in open_files(root) {
        let mut seen: Vec<usize> =
            opened.iter().filter_map(|file| nodes.get(file)).flatten().copied().collect();
        seen.sort_unstable();
        seen.dedup();
        for at in seen {
            programs.entry(at).or_default().push(named(root, pid));
        }
    }
    for (at, mut named) in programs {
        let more = named.len().saturating_sub(MAX_NAMED);
        named.truncate(MAX_NAMED);
        if more > 0 {
            named.push(format!("{more} more"));
        }
        devices[at].uses.extend(named);
    }
}

/// Programs that have a mediated device open, by its group's node or its own.
pub(crate) fn of_mediated(root: &Path, uuid: &Uuid) -> Vec<String> {
    let device = root.join(format!("sys/bus/mdev/devices/{uuid}"));
    let own = std::fs::read_dir(device.join("vfio-dev")).into_iter().flatten().flatten();
    let mut nodes: Vec<PathBuf> =
        own.map(|entry| Path::new("/dev/vfio/devices").join(entry.file_name())).collect();
    nodes.extend(mediated_node(root, uuid));
    let open =
        open_files(root).into_iter().filter(|(_, opened)| nodes.iter().any(|node| opened.contains(node)));
    open.map(|(pid, _)| named(root, pid)).collect()
}

/// The node of a mediated device's group.
pub(crate) fn mediated_node(root: &Path, uuid: &Uuid) -> Option<PathBuf> {
    let link = std::fs::read_link(root.join(format!("sys/bus/mdev/devices/{uuid}/iommu_group"))).ok()?;
    Some(Path::new("/dev/vfio").join(link.file_name()?))
}

/// What stands against giving mediated devices to a machine of this user's.
pub fn against_slices(root: &Path, inventory: &Inventory, slices: &[Uuid]) -> Vec<Problem> {
    let against = |(at, uuid): (usize, &Uuid)| {
        if slices[..at].contains(uuid) {
            return Some(Problem::SliceTwice(uuid.clone()));
        }
        if !inventory.mediated.contains(uuid) {
            return Some(Problem::NoSlice(uuid.clone()));
        }
        let by = of_mediated(root, uuid);
        if !by.is_empty() {
            return Some(Problem::SliceInUse { uuid: uuid.clone(), by: by.join(", ") });
        }
        let node = mediated_node(root, uuid)?;
        let below = root.join(node.strip_prefix("/").unwrap_or(&node));
        let both = rustix::fs::Access::READ_OK | rustix::fs::Access::WRITE_OK;
        let denied = rustix::fs::access(&below, both) == Err(rustix::io::Errno::ACCESS);
        denied.then(|| Problem::SliceForeign { uuid: uuid.clone(), node: node.display().to_string() })
    };
    slices.iter().enumerate().filter_map(against).collect()
}

/// A program by its name and number.
fn named(root: &Path, pid: u32) -> String {
    let name = std::fs::read_to_string(root.join(format!("proc/{pid}/comm"))).unwrap_or_default();
    format!("{} (pid {pid})", name.trim())
}

/// Where a device's own things are: in its folder, or in one of virtio's below that.
fn parts(path: &Path) -> Vec<PathBuf> {
    let below = std::fs::read_dir(path).into_iter().flatten().flatten();
    let virtio = below.filter(|entry| entry.file_name().to_string_lossy().starts_with("virtio"));
    std::iter::once(path.to_owned()).chain(virtio.map(|entry| entry.path())).collect()
}

/// The nodes by which programs open a device.
fn own_nodes(root: &Path, device: &Device, path: &Path) -> Vec<PathBuf> {
    let mut nodes = Vec::new();
    for part in parts(path) {
        for (kind, place) in [("drm", "/dev/dri"), ("accel", "/dev/accel")] {
            let entries = std::fs::read_dir(part.join(kind)).into_iter().flatten().flatten();
            nodes.extend(entries.map(|entry| Path::new(place).join(entry.file_name())));
        }
    }
    // NVIDIA's own driver numbers its nodes itself.
    let information = root.join(format!("proc/driver/nvidia/gpus/{}/information", device.address));
    let text = std::fs::read_to_string(information).unwrap_or_default();
    let minor = text.lines().find_map(|line| line.strip_prefix("Device Minor:"));
    nodes.extend(minor.map(|minor| PathBuf::from(format!("/dev/nvidia{}", minor.trim()))));
    for card in std::fs::read_dir(path.join("sound")).into_iter().flatten().flatten() {
        let parts = std::fs::read_dir(card.path()).into_iter().flatten().flatten();
        nodes.extend(parts.map(|entry| Path::new("/dev/snd").join(entry.file_name())));
    }
    if device.on_vfio()
        && let Some(group) = device.group
    {
        nodes.push(PathBuf::from(format!("/dev/vfio/{group}")));
        let cdevs = std::fs::read_dir(path.join("vfio-dev")).into_iter().flatten().flatten();
        nodes.extend(cdevs.map(|entry| Path::new("/dev/vfio/devices").join(entry.file_name())));
    }
    nodes
}

/// Displays that are connected and switched on.
fn displays(path: &Path) -> Vec<String> {
    let cards =
        parts(path).into_iter().flat_map(|part| std::fs::read_dir(part.join("drm"))).flatten().flatten();
    let mut found = Vec::new();
    for card in cards {
        let card_name = card.file_name().to_string_lossy().into_owned();
        for connector in std::fs::read_dir(card.path()).into_iter().flatten().flatten() {
            let name = connector.file_name().to_string_lossy().into_owned();
            let Some(short) = name.strip_prefix(&format!("{card_name}-")) else { continue };
            let says = |file: &str, wanted: &str| {
                std::fs::read_to_string(connector.path().join(file)).is_ok_and(|text| text.trim() == wanted)
            };
            if says("status", "connected") && says("enabled", "enabled") {
                found.push(format!("display {short}"));
            }
        }
    }
    found.sort();
    found
}

/// Mediated devices of it, which vanish with it: folders with a link `mdev_type`.
fn mediated(path: &Path) -> Vec<String> {
    let below = std::fs::read_dir(path).into_iter().flatten().flatten();
    let slices = below.filter(|entry| entry.path().join("mdev_type").exists());
    slices.map(|entry| format!("mediated device {}", entry.file_name().to_string_lossy())).collect()
}

/// Networks of it that are up (the first of an interface's `flags`).
fn networks(path: &Path) -> Vec<String> {
    let interfaces =
        parts(path).into_iter().flat_map(|part| std::fs::read_dir(part.join("net"))).flatten().flatten();
    let up = |entry: &std::fs::DirEntry| {
        let flags = std::fs::read_to_string(entry.path().join("flags")).unwrap_or_default();
        u32::from_str_radix(flags.trim().trim_start_matches("0x"), 16).is_ok_and(|flags| flags & 1 == 1)
    };
    interfaces.filter(up).map(|entry| format!("network {}", entry.file_name().to_string_lossy())).collect()
}

/// Disks of it, and parts of them, that are mounted, swapped to, or parts of something larger.
fn disks(disks: &[PathBuf], mounted: &BTreeMap<String, String>, swaps: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    for disk in disks {
        let name = disk.file_name().unwrap_or_default().to_string_lossy();
        let number = std::fs::read_to_string(disk.join("dev")).unwrap_or_default();
        // Some file systems have numbers of their own; the source's name tells then.
        let place = mounted.get(number.trim()).or_else(|| mounted.get(&*name));
        found.extend(place.map(|place| format!("the file system at {place}")));
        if swaps.iter().any(|swap| *swap == name) {
            found.push(format!("swap on {name}"));
        }
        let holders = std::fs::read_dir(disk.join("holders")).into_iter().flatten().flatten();
        found.extend(
            holders
                .map(|holder| format!("{}, which {name} is part of", holder.file_name().to_string_lossy())),
        );
    }
    found.sort();
    found
}

/// The folders below one that are of a disk, or of a part of one. Links are not followed.
fn block_devices(folder: &Path, depth: u32, found: &mut Vec<PathBuf>) {
    if ["size", "stat", "dev"].iter().all(|file| folder.join(file).is_file()) {
        found.push(folder.to_owned());
    }
    if depth == 0 {
        return;
    }
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            block_devices(&entry.path(), depth - 1, found);
        }
    }
}

/// Disks that are swapped to, by name (`/proc/swaps`).
fn swaps(root: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(root.join("proc/swaps")).unwrap_or_default();
    let name = |line: &str| Some(line.split_whitespace().next()?.rsplit('/').next()?.to_owned());
    text.lines().skip(1).filter_map(name).collect()
}

/// What is mounted where, by `major:minor` and by the source's name (fields 3 and 5, and behind the dash the second, of
/// `/proc/self/mountinfo`).
fn mounted(root: &Path) -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(root.join("proc/self/mountinfo")).unwrap_or_default();
    let line = |line: &str| {
        let (known, source) = line.split_once(" - ")?;
        let mut fields = known.split(' ');
        let (number, place) = (fields.nth(2)?.to_owned(), fields.nth(1)?.to_owned());
        let name = source.split(' ').nth(1)?.rsplit('/').next()?.to_owned();
        Some([(number, place.clone()), (name, place)])
    };
    text.lines().rev().filter_map(line).flatten().collect()
}

/// Files that each process has open.
fn open_files(root: &Path) -> Vec<(u32, Vec<PathBuf>)> {
    let processes = std::fs::read_dir(root.join("proc")).into_iter().flatten().flatten();
    let mut all: Vec<(u32, Vec<PathBuf>)> = processes
        .filter_map(|process| {
            let pid = process.file_name().to_str()?.parse().ok()?;
            let files = std::fs::read_dir(process.path().join("fd")).ok()?.flatten();
            let files: Vec<PathBuf> = files
                .filter_map(|file| std::fs::read_link(file.path()).ok())
                .filter(|to| to.starts_with("/dev"))
                .collect();
            (!files.is_empty()).then_some((pid, files))
        })
        .collect();
    all.sort();
    all
}
