//! Hosts as sysfs shows them, written down.
#![allow(dead_code, reason = "each test uses a part")]

pub mod kernel;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use pontoon_passthrough::{Device, Inventory, Status};

/// A root with files as a kernel would show them; gone when this is dropped.
pub struct Tree(pub PathBuf);

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A function: address, `vendor:device`, class, driver, group.
pub type Function<'a> = (&'a str, &'a str, &'a str, Option<&'a str>, Option<u32>);

impl Tree {
    pub fn new(name: &str, functions: &[Function<'_>]) -> Self {
        // Tests of one name may run beside each other, in one process or in several.
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = format!("pontoon-tree-{name}-{}-{number}", std::process::id());
        let root = std::env::temp_dir().join(folder);
        let _ = fs::remove_dir_all(&root);
        let tree = Self(root);
        fs::create_dir_all(tree.0.join("sys/bus/pci/devices")).unwrap();
        fs::create_dir_all(tree.0.join("proc/sys/kernel/random")).unwrap();
        fs::write(tree.0.join("proc/sys/kernel/random/boot_id"), "one\n").unwrap();
        for (address, numbers, class, driver, group) in functions {
            let (vendor, device) = numbers.split_once(':').unwrap();
            for (file, value) in [("vendor", vendor), ("device", device), ("class", class)] {
                tree.write(address, file, &format!("0x{value}"));
            }
            tree.write(address, "driver_override", "(null)");
            tree.write(address, "numa_node", "-1");
            if let Some(driver) = driver {
                tree.link(address, "driver", &format!("../../../bus/pci/drivers/{driver}"));
            }
            if let Some(group) = group {
                tree.link(address, "iommu_group", &format!("../../../kernel/iommu_groups/{group}"));
            }
        }
        tree
    }

    pub fn path(&self, address: &str) -> PathBuf {
        self.0.join("sys/bus/pci/devices").join(address)
    }

    pub fn write(&self, address: &str, file: &str, value: &str) {
        let path = self.path(address).join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("{value}\n")).unwrap();
    }

    pub fn link(&self, address: &str, file: &str, target: &str) {
        symlink(target, self.path(address).join(file)).unwrap();
    }

    /// A program with a file open.
    pub fn program(&self, pid: u32, name: &str, file: &str) {
        let process = self.0.join(format!("proc/{pid}"));
        fs::create_dir_all(process.join("fd")).unwrap();
        fs::write(process.join("comm"), format!("{name}\n")).unwrap();
        symlink(file, process.join("fd/7")).unwrap();
    }

    pub fn read(&self) -> Inventory {
        Inventory::read(&self.0).unwrap()
    }

    pub fn status(&self, address: &str) -> String {
        Status::of(get(&self.read(), address), None).to_string()
    }
}

pub fn get<'a>(inventory: &'a Inventory, address: &str) -> &'a Device {
    inventory.at(address.parse().unwrap()).unwrap()
}

pub fn addresses<'a>(devices: impl Iterator<Item = &'a Device>) -> Vec<String> {
    devices.map(|device| device.address.to_string()).collect()
}
