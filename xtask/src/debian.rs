//! What tests need of Debian beyond installed packages: a kernel for virtual machines, and programs that only Debian's
//! testing has yet. Fetched once, unpacked in `target`, never installed.

use std::path::PathBuf;
use std::process::Command;

use pontoon_testbed::find_tool;

use crate::{
    project::Project,
    stages::{Output, Stages},
};

/// Fetches Debian's kernel for clouds, for virtual machines, into the folder `$1`, with its modules.
const KERNEL: &str = r#"set -e
test ! -d "$1/boot" || exit 0
rm -rf "$1.new" && mkdir -p "$1.new" && cd "$1.new"
fetch() {
    package=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: \(linux-image-[^ ]*\)$/\1/p' | head -n 1)
    test -n "$package" && apt-get download "$package"
}
fetch || { apt-get update && fetch; }
dpkg-deb -x linux-image-*.deb . && rm linux-image-*.deb
mv "$1.new" "$1"
"#;

/// A kernel for virtual machines; nothing where Debian's is none for this processor.
pub fn kernel(project: &Project, stages: &mut Stages) -> anyhow::Result<Option<PathBuf>> {
    let title = "a kernel for virtual machines, from Debian (27 MB, the first time)";
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) || find_tool("apt-get").is_none() {
        stages.skip(title, "it is Debian's, for x86-64");
        return Ok(None);
    }
    let folder = project.kernel();
    let mut fetch = Command::new("sh");
    fetch.args(["-c", KERNEL, "sh"]).arg(&folder);
    stages.run(title, Output::Logged, &mut fetch)?;
    Ok(Some(folder))
}

/// Fetches Debian's whole kernel into the folder `$1`, with its modules, unpacked as the machine of
/// `pontoon_testbed::Machine` wants it.
const WHOLE_KERNEL: &str = r#"set -e
test ! -d "$1/boot" || exit 0
rm -rf "$1.new" && mkdir -p "$1.new" && cd "$1.new"
fetch() {
    package=$(apt-cache depends linux-image-amd64 | sed -n 's/.*Depends: \(linux-image-[^ ]*\)$/\1/p' | head -n 1)
    test -n "$package" && apt-get download "$package"
}
fetch || { apt-get update && fetch; }
dpkg-deb -x linux-image-*.deb . && rm linux-image-*.deb
depmod -b "$PWD" "$(ls lib/modules)"
# What is compressed takes an emulated processor five seconds to unpack, each time.
at=$(LC_ALL=C grep -abo "$(printf '\3757zXZ')" boot/vmlinuz-* | head -n 1 | cut -d: -f1)
tail -c "+$((at + 1))" boot/vmlinuz-* | { xz -dc 2> /dev/null || true; } > vmlinux
test "$(head -c 4 vmlinux | tail -c 3)" = ELF
mv "$1.new" "$1"
"#;

/// Debian's whole kernel, for an emulated machine with real drivers; nothing where there is none for this processor.
pub fn whole_kernel(project: &Project, stages: &mut Stages) -> anyhow::Result<Option<PathBuf>> {
    let title = "a kernel with all drivers, for an emulated host, from Debian (71 MB, the first time)";
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) || find_tool("apt-get").is_none() {
        stages.skip(title, "it is Debian's, for x86-64");
        return Ok(None);
    }
    let folder = project.whole_kernel();
    let mut fetch = Command::new("sh");
    fetch.args(["-c", WHOLE_KERNEL, "sh"]).arg(&folder);
    stages.run(title, Output::Logged, &mut fetch)?;
    Ok(Some(folder))
}

/// Fetches programs of Debian's testing into the folder `$1`, from the mirror that this machine uses, and sees whether
/// they run here.
const TESTING: &str = r#"set -e
test ! -d "$1/usr" || exit 0
rm -rf "$1.new" && mkdir -p "$1.new/apt/lists/partial" "$1.new/apt/cache/archives/partial" && cd "$1.new"
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep '/debian/*$' | head -n 1)
test -n "$mirror" || { echo "no mirror of Debian is among apt's sources"; exit 1; }
key=/usr/share/keyrings/debian-archive-keyring.gpg
echo "deb [signed-by=$key] $mirror testing main" > apt/sources.list
touch apt/status
apt() {
    apt-get -qq -o Dir::Etc::sourcelist="$PWD/apt/sources.list" -o Dir::Etc::sourceparts=/dev/null \
        -o Dir::State::lists="$PWD/apt/lists" -o Dir::Cache="$PWD/apt/cache" -o Dir::State::status="$PWD/apt/status" \
        -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false -o APT::Sandbox::User=root "$@"
}
apt update && apt download docker-compose docker.io containerd vhost-device-vsock
for package in *.deb; do dpkg-deb -x "$package" .; done
rm -rf ./*.deb apt etc lib usr/lib usr/share
usr/bin/vhost-device-vsock --version
usr/libexec/docker/cli-plugins/docker-compose version
usr/sbin/dockerd --version
mv "$1.new" "$1"
"#;

/// Fetches a newer QEMU into the folder `$1`: one that emulates a card with virtual functions.
const QEMU: &str = r#"set -e
test ! -d "$1/usr" || exit 0
rm -rf "$1.new" && mkdir -p "$1.new/apt/lists/partial" "$1.new/apt/cache/archives/partial" && cd "$1.new"
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep '/debian/*$' | head -n 1)
test -n "$mirror" || { echo "no mirror of Debian is among apt's sources"; exit 1; }
key=/usr/share/keyrings/debian-archive-keyring.gpg
echo "deb [signed-by=$key] $mirror bookworm-backports main" > apt/sources.list
touch apt/status
apt() {
    apt-get -qq -o Dir::Etc::sourcelist="$PWD/apt/sources.list" -o Dir::Etc::sourceparts=/dev/null \
        -o Dir::State::lists="$PWD/apt/lists" -o Dir::Cache="$PWD/apt/cache" -o Dir::State::status="$PWD/apt/status" \
        -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false -o APT::Sandbox::User=root "$@"
}
apt update && apt download qemu-system-x86 qemu-system-common qemu-system-data seabios
for package in *.deb; do dpkg-deb -x "$package" .; done
rm -rf ./*.deb apt etc
usr/bin/qemu-system-x86_64 -L usr/share/qemu -L usr/share/seabios -device igb,help > /dev/null
mv "$1.new" "$1"
"#;

/// A QEMU that emulates cards with virtual functions (igb); nothing, visibly, where it is not to be had.
pub fn qemu(project: &Project, stages: &mut Stages) -> Option<PathBuf> {
    let title = "a newer QEMU, from Debian's backports (13 MB, the first time)";
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) || find_tool("apt-get").is_none() {
        stages.skip(title, "it is Debian's, for x86-64");
        return None;
    }
    let folder = project.qemu();
    let mut fetch = Command::new("sh");
    fetch.args(["-c", QEMU, "sh"]).arg(&folder);
    match stages.run(title, Output::Logged, &mut fetch) {
        Ok(()) => Some(folder),
        Err(error) => {
            println!("   SKIPPED: {error:#}");
            None
        }
    }
}

/// Docker's engine and Compose, and a vsock for emulated machines, in the folders that they have in a Debian; nothing, visibly,
/// where they are not to be had: the tests with them are skipped then.
pub fn testing(project: &Project, stages: &mut Stages) -> Option<PathBuf> {
    let title = "Docker and vhost-device-vsock, from Debian's testing (74 MB, the first time)";
    if !cfg!(target_os = "linux") || find_tool("apt-get").is_none() {
        stages.skip(title, "they are Debian's");
        return None;
    }
    let folder = project.testing();
    let mut fetch = Command::new("sh");
    fetch.args(["-c", TESTING, "sh"]).arg(&folder);
    match stages.run(title, Output::Logged, &mut fetch) {
        Ok(()) => Some(folder),
        Err(error) => {
            println!("   SKIPPED: {error:#}");
            None
        }
    }
}
