//! A program of the host in a test's root file system, with the libraries that it needs.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};

use crate::tools::find_tool;

/// Copies the host's program `name` and its shared libraries, at the paths that they have on the host.
///
/// # Errors
/// Where the program is missing, or its libraries cannot be found or copied.
pub fn add_program(rootfs: &Path, name: &str) -> anyhow::Result<()> {
    let program = find_tool(name).with_context(|| format!("{name} is missing (Debian: {name})"))?;
    let output = Command::new("ldd").arg(&program).output().context("cannot start ldd")?;
    ensure!(output.status.success(), "ldd does not read {}", program.display());
    let libraries = libraries(&String::from_utf8_lossy(&output.stdout));
    copy(&program, &rootfs.join("bin").join(name))?;
    libraries
        .iter()
        .try_for_each(|library| copy(library, &rootfs.join(library.strip_prefix("/").unwrap_or(library))))
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    let folder = to.parent().context("a file lies in a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    Ok(())
}

/// The paths in what `ldd` prints: `name => /path (address)`, and the loader's own line.
fn libraries(text: &str) -> Vec<PathBuf> {
    let path = |line: &str| line.split_whitespace().find(|word| word.starts_with('/')).map(PathBuf::from);
    text.lines().filter_map(path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_libraries() {
        let text = "\tlinux-vdso.so.1 (0x0)\n\tlibc.so.6 => /lib/libc.so.6 (0x1)\n\t/lib64/ld.so.2 (0x2)\n";
        assert_eq!(libraries(text), [PathBuf::from("/lib/libc.so.6"), PathBuf::from("/lib64/ld.so.2")]);
    }
}
