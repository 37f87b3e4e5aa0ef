//! What uses a device now: programs that have its nodes in `/dev` open, displays that it drives, networks that are up,
//! disks that are mounted.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::Device;

/// Programs that are named; more are counted.
const MAX_NAMED: usize = 3;

/// Fills in what uses each device. Programs of other users are seen by root alone.
pub(crate) fn find(root: &Path, devices: &mut [Device]) {
    let mut nodes: BTreeMap<PathBuf, usize> = BTreeMap::new();
    let mounted = mounted(root);
    for (at, device) in devices.iter_mut().enumerate() {
        if device.class >> 16 == 0x06 {
            // What hangs behind a bridge is not its own.
            continue;
        }
        let path = root.join("sys/bus/pci/devices").join(device.address.to_string());
        nodes.extend(own_nodes(root, device, &path).into_iter().map(|node| (node, at)));
        device.uses = displays(&path);
        if device.stuck {
            device.uses.push("a driver that waits until programs let go of it".into());
        }
        device.uses.extend(networks(&path));
        device.uses.extend(disks(&path, &mounted));
    }
    if nodes.is_empty() {
        return;
    }
    let mut programs: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for (pid, opened) in open_files(root) {
        let name = std::fs::read_to_string(root.join(format!("proc/{pid}/comm"))).unwrap_or_default();
        let mut seen: Vec<usize> = opened.iter().filter_map(|file| nodes.get(file)).copied().collect();
        seen.sort_unstable();
        seen.dedup();
        for at in seen {
            programs.entry(at).or_default().push(format!("{} (pid {pid})", name.trim()));
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

/// The nodes by which programs open a device.
fn own_nodes(root: &Path, device: &Device, path: &Path) -> Vec<PathBuf> {
    let mut nodes = Vec::new();
    let drm = std::fs::read_dir(path.join("drm")).into_iter().flatten().flatten();
    nodes.extend(drm.map(|entry| Path::new("/dev/dri").join(entry.file_name())));
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
    let cards = std::fs::read_dir(path.join("drm")).into_iter().flatten().flatten();
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

/// Networks of it that are up (the first of an interface's `flags`).
fn networks(path: &Path) -> Vec<String> {
    let interfaces = std::fs::read_dir(path.join("net")).into_iter().flatten().flatten();
    let up = |entry: &std::fs::DirEntry| {
        let flags = std::fs::read_to_string(entry.path().join("flags")).unwrap_or_default();
        u32::from_str_radix(flags.trim().trim_start_matches("0x"), 16).is_ok_and(|flags| flags & 1 == 1)
    };
    interfaces.filter(up).map(|entry| format!("network {}", entry.file_name().to_string_lossy())).collect()
}

/// Disks of it that are mounted, and where.
fn disks(path: &Path, mounted: &BTreeMap<String, String>) -> Vec<String> {
    let mut found = Vec::new();
    block_devices(path, 8, &mut found);
    found.iter().filter_map(|number| Some(format!("the file system at {}", mounted.get(number)?))).collect()
}

/// The numbers, `major:minor`, of what has a file `dev` below a folder and is a disk or a part of one. Links are not
/// followed.
fn block_devices(folder: &Path, depth: u32, found: &mut Vec<String>) {
    let disk = ["size", "stat"].iter().all(|file| folder.join(file).is_file());
    if disk && let Ok(number) = std::fs::read_to_string(folder.join("dev")) {
        found.push(number.trim().to_owned());
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

/// What is mounted where, by `major:minor` (fields 3 and 5 of `/proc/self/mountinfo`).
fn mounted(root: &Path) -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(root.join("proc/self/mountinfo")).unwrap_or_default();
    let line = |line: &str| {
        let mut fields = line.split(' ');
        Some((fields.nth(2)?.to_owned(), fields.nth(1)?.to_owned()))
    };
    text.lines().rev().filter_map(line).collect()
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
