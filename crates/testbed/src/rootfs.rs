//! The smallest root file system that programs can be run in.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail, ensure};

use crate::tools::find_tool;

/// Busybox names itself too; a link of that name would replace the program by a link to itself.
const SELF: &str = "busybox";

/// The folders that engines mount on, and `/mnt` for the caller's own mount.
const FOLDERS: [&str; 10] = ["bin", "dev", "etc", "mnt", "proc", "root", "run", "sys", "tmp", "var"];

/// Makes `dir/rootfs` out of the static busybox: `/bin` with all its applets and the usual empty
/// folders. Static programs can be copied into its `/bin`.
pub fn busybox_rootfs(dir: &Path) -> anyhow::Result<PathBuf> {
    let busybox = find_tool(SELF).context("busybox is missing (Debian: busybox-static)")?;
    ensure_static(&busybox)?;
    let rootfs = dir.join("rootfs");
    for folder in FOLDERS {
        let folder = rootfs.join(folder);
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    fs::set_permissions(rootfs.join("tmp"), fs::Permissions::from_mode(0o1777))?;
    fs::copy(&busybox, rootfs.join("bin").join(SELF)).context("cannot copy busybox")?;
    for applet in applets(&busybox)? {
        symlink(SELF, rootfs.join("bin").join(&applet))
            .with_context(|| format!("cannot link busybox's {applet}"))?;
    }
    Ok(rootfs)
}

/// A busybox that needs a dynamic linker fails in the container with a bare "not found".
fn ensure_static(busybox: &Path) -> anyhow::Result<()> {
    let program = fs::read(busybox).context("cannot read busybox")?;
    ensure!(
        !has_interpreter(&program)?,
        "{} is linked dynamically (Debian: install busybox-static)",
        busybox.display()
    );
    Ok(())
}

/// Whether a 64-bit ELF program asks for a dynamic linker (a program header of type `PT_INTERP`).
fn has_interpreter(elf: &[u8]) -> anyhow::Result<bool> {
    const PT_INTERP: u32 = 3;
    let bytes = |at: usize, length: usize| {
        let end = at.checked_add(length)?;
        elf.get(at..end)
    };
    let number = |at, length| -> anyhow::Result<usize> {
        let mut value = [0; 8];
        let found = bytes(at, length).context("busybox is no complete ELF program")?;
        value[..length].copy_from_slice(found);
        Ok(u64::from_le_bytes(value) as usize)
    };
    if bytes(0, 5) != Some(b"\x7fELF\x02") {
        bail!("busybox is not a 64-bit ELF program");
    }
    let (table, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    for index in 0..count {
        if number(table + index * size, 4)? == PT_INTERP as usize {
            return Ok(true);
        }
    }
    Ok(false)
}

fn applets(busybox: &Path) -> anyhow::Result<Vec<String>> {
    let output = Command::new(busybox).arg("--list").output().context("cannot run busybox")?;
    ensure!(output.status.success(), "busybox --list failed");
    let list = String::from_utf8(output.stdout).context("busybox --list is not UTF-8")?;
    Ok(list.lines().filter(|applet| *applet != SELF).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_test_is_dynamic_and_junk_is_refused() {
        let this = fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(has_interpreter(&this).unwrap());
        assert!(has_interpreter(b"#!/bin/sh").is_err());
        assert!(has_interpreter(b"\x7fELF\x02").is_err());
        assert!(has_interpreter(&this[..60]).is_err());
    }
}
