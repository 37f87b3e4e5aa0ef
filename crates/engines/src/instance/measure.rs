//! Owns measuring: what a process takes of main and GPU memory, and what this host has.

use std::collections::HashMap;
use std::fs;
#[cfg(target_os = "linux")]
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Memory;

/// What process `pid` takes: its share of main memory, and what the GPU drivers say.
pub fn memory_of(pid: u32) -> Option<Memory> {
    Some(Memory { host: resident(pid)?, gpu: gpu_memory_of(pid) })
}

/// Proportional set size: pages that several processes map are divided among them.
#[cfg(target_os = "linux")]
fn resident(pid: u32) -> Option<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok();
    let proportional = rollup.as_deref().and_then(|text| kilobytes(text, "Pss:"));
    proportional.or_else(|| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        kilobytes(&status, "VmRSS:")
    })
}

#[cfg(not(target_os = "linux"))]
fn resident(pid: u32) -> Option<u64> {
    let output = Command::new("/bin/ps").args(["-o", "rss=", "-p", &pid.to_string()]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.trim().parse::<u64>().ok().map(|kilobytes| kilobytes << 10)
}

#[cfg(target_os = "linux")]
pub(super) fn kilobytes(text: &str, field: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|number| number << 10)
}

/// What the drivers say that `pid` has of GPU memory: through `fdinfo` (AMD, Intel and others of the
/// kernel's DRM) and NVIDIA's own tool. Zero where no driver says anything.
pub fn gpu_memory_of(pid: u32) -> u64 {
    drm_memory(pid)
        + nvidia("--query-compute-apps=pid,used_memory").get(&u64::from(pid)).copied().unwrap_or(0)
}

/// Each client of a DRM device appears once for each of its descriptors.
fn drm_memory(pid: u32) -> u64 {
    let mut clients: HashMap<String, u64> = HashMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo")).into_iter().flatten().flatten() {
        let Ok(text) = fs::read_to_string(entry.path()) else { continue };
        let Some(client) = text.lines().find_map(|line| line.strip_prefix("drm-client-id:")) else {
            continue;
        };
        let device = text.lines().find_map(|line| line.strip_prefix("drm-pdev:")).unwrap_or_default();
        let local = |field: &str| {
            let lines = text.lines().filter_map(|line| line.strip_prefix(field));
            lines.filter_map(amount).sum::<u64>()
        };
        let used =
            local("drm-memory-vram:").max(local("drm-total-vram0:")).max(local("drm-resident-local0:"));
        clients.insert(format!("{client}{device}"), used);
    }
    clients.values().sum()
}

/// `123 KiB`, `4 MiB` or a number of bytes.
fn amount(text: &str) -> Option<u64> {
    let mut words = text.split_whitespace();
    let number: u64 = words.next()?.parse().ok()?;
    let shift = match words.next() {
        Some("KiB") => 10,
        Some("MiB") => 20,
        Some("GiB") => 30,
        _ => 0,
    };
    number.checked_shl(shift)
}

/// Pairs of number and MiB from NVIDIA's tool, in bytes. Asked only where its driver is.
fn nvidia(query: &str) -> HashMap<u64, u64> {
    if !std::path::Path::new("/dev/nvidiactl").exists() {
        return HashMap::new();
    }
    let output = Command::new("nvidia-smi").args([query, "--format=csv,noheader,nounits"]).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let pairs = text.lines().filter_map(|line| {
        let (number, mib) = line.split_once(',')?;
        Some((number.trim().parse().ok()?, mib.trim().parse::<u64>().ok()? << 20))
    });
    let mut sums = HashMap::new();
    for (number, bytes) in pairs {
        *sums.entry(number).or_insert(0) += bytes;
    }
    sums
}

/// What engines may take of this host, unless the operator says otherwise: main memory (the container's,
/// if there is a limit) less an eighth, at least 512 MiB, for everybody else; and of each GPU that says
/// how much it has, nine tenths.
pub fn detect_budget() -> Memory {
    let total = main_memory();
    let spare = (total / 8).max(512 << 20);
    Memory { host: total.saturating_sub(spare), gpu: gpu_memory() / 10 * 9 }
}

#[cfg(target_os = "linux")]
fn main_memory() -> u64 {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| kilobytes(&text, "MemTotal:"));
    let ours = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limits = limit_files(&ours);
    let limits = limits.iter().filter_map(|path| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok());
    machine.unwrap_or(4 << 30).min(limits.min().unwrap_or(u64::MAX))
}

/// The files that may hold limits of memory for the control group that `/proc/self/cgroup` names and those above it, see
/// cgroups(7). A container sees its own group as the root.
#[cfg(target_os = "linux")]
fn limit_files(cgroup: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in cgroup.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (parts.next(), parts.next()) else { continue };
        let (root, name) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            _ if controllers.split(',').any(|one| one == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        let group = Path::new(group.trim_start_matches('/'));
        files.extend(group.ancestors().map(|group| Path::new(root).join(group).join(name)));
    }
    files
}

#[cfg(not(target_os = "linux"))]
fn main_memory() -> u64 {
    let output = Command::new("/usr/sbin/sysctl").args(["-n", "hw.memsize"]).output().ok();
    let text = output.and_then(|output| String::from_utf8(output.stdout).ok()).unwrap_or_default();
    text.trim().parse().unwrap_or(4 << 30)
}

fn gpu_memory() -> u64 {
    let cards = fs::read_dir("/sys/class/drm").into_iter().flatten().flatten();
    let amd = cards.filter_map(|card| {
        let text = fs::read_to_string(card.path().join("device/mem_info_vram_total")).ok()?;
        // Connectors (`card0-DP-1`) lead to the same device.
        let name = card.file_name().into_string().ok()?;
        (name.starts_with("card") && !name.contains('-')).then(|| text.trim().parse::<u64>().ok()).flatten()
    });
    amd.sum::<u64>() + nvidia("--query-gpu=index,memory.total").values().sum::<u64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_takes_some_memory_and_the_host_has_more() {
        let ours = memory_of(std::process::id()).unwrap();
        assert!(ours.host > 100 << 10, "{ours}");
        assert!(ours.fits(detect_budget()));
        assert!(memory_of(u32::MAX).is_none());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn limits_are_those_of_our_own_group_and_of_all_above() {
        let files = limit_files("4:memory:/a/b\n1:cpu,cpuacct:/a\n0::/system.slice/pontoon.service\nx\n");
        let shown: Vec<_> = files.iter().map(|path| path.display().to_string()).collect();
        assert_eq!(
            shown,
            [
                "/sys/fs/cgroup/memory/a/b/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/a/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/memory.limit_in_bytes",
                "/sys/fs/cgroup/system.slice/pontoon.service/memory.max",
                "/sys/fs/cgroup/system.slice/memory.max",
                "/sys/fs/cgroup/memory.max",
            ]
        );
    }

    #[test]
    fn amounts_have_units() {
        assert_eq!(amount("  12 KiB"), Some(12 << 10));
        assert_eq!(amount("5 MiB"), Some(5 << 20));
        assert_eq!(amount("7"), Some(7));
        assert_eq!(amount("x"), None);
        #[cfg(target_os = "linux")]
        assert_eq!(kilobytes("Rss: 1 kB\nPss:      20 kB\n", "Pss:"), Some(20 << 10));
    }
}
