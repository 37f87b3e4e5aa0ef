//! What tests need of Debian beyond installed packages: kernels for virtual machines, and programs that only newer
//! Debians have. Fetched once, unpacked in `target`, never installed.

use std::path::{Path, PathBuf};
use std::process::Command;

use pontoon_testbed::find_tool;

use crate::{
    project::Project,
    stages::{Output, Stages},
};

/// What all scripts begin with: they make the folder `$1`, whole or not at all.
pub const FOLDER: &str = r#"set -e
test ! -d "$1" || exit 0
rm -rf "$1.new"
mkdir -p "$1.new"
cd "$1.new"
# Functions that stand before && have no `set -e`.
unpack() { for package in *.deb; do dpkg-deb -x "$package" . || return 1; done; rm ./*.deb; }
"#;

/// Fetches the packages that are named, and unpacks what the package of a kernel stands for today.
const LATEST: &str = r#"
latest() {
    package=$(apt-cache depends "$1" | sed -n 's/.*Depends: \(linux-image-[^ ]*\)$/\1/p' | head -n 1)
    test -n "$package" && apt-get download "$package"
}
kernel() { { latest "$1" || { apt-get update && latest "$1"; }; } && unpack; }
"#;

/// An apt of its own for another suite of Debian, from the mirror that this machine uses.
const SUITE: &str = r#"
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep '/debian/*$' | head -n 1)
test -n "$mirror" || { echo "no mirror of Debian is among apt's sources"; exit 1; }
suite() {
    mkdir -p apt/lists/partial apt/cache/archives/partial
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $1 main" > apt/sources.list
    touch apt/status
    shift
    own_apt update && own_apt download "$@" && unpack && rm -rf apt etc
}
own_apt() {
    apt-get -qq -o Dir::Etc::sourcelist="$PWD/apt/sources.list" -o Dir::Etc::sourceparts=/dev/null \
        -o Dir::State::lists="$PWD/apt/lists" -o Dir::Cache="$PWD/apt/cache" -o Dir::State::status="$PWD/apt/status" \
        -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false -o APT::Sandbox::User=root "$@"
}
"#;

/// Whether Debian's packages can be fetched here, of this processor's or `only` of x86-64, for which the tests' machines are.
fn has_debian(only: &[&str]) -> bool {
    let fits = only.is_empty() || only.contains(&std::env::consts::ARCH);
    fits && cfg!(target_os = "linux") && find_tool("apt-get").is_some()
}

/// Machines that are emulated in tests are of this kind.
pub const X86: &[&str] = &["x86_64"];

/// A script's command, with the folder that it makes.
fn script(parts: &[&str], folder: &Path) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", &parts.concat(), "sh"]).arg(folder);
    command
}

/// A folder that a script makes, of what it fetches.
pub struct Folder<'a> {
    /// The processors for which there is one; all where none is named.
    pub only: &'a [&'a str],
    /// What the stage is called.
    pub title: &'a str,
    /// Where it comes to be.
    pub path: PathBuf,
    /// The script.
    pub parts: &'a [&'a str],
    /// What it is told beside that.
    pub argument: Option<&'a Path>,
}

impl Folder<'_> {
    /// Makes it; nothing where Debian has none for this machine.
    pub fn must(self, stages: &mut Stages) -> anyhow::Result<Option<PathBuf>> {
        if !has_debian(self.only) {
            let processors = if self.only.is_empty() { "" } else { ", for x86-64" };
            stages.skip(self.title, &format!("it is Debian's{processors}"));
            return Ok(None);
        }
        stages.run(self.title, Output::Logged, script(self.parts, &self.path).args(self.argument))?;
        Ok(Some(self.path))
    }

    /// The same; nothing, visibly, where it cannot be had either: the tests with it are skipped then.
    pub fn may(self, stages: &mut Stages) -> Option<PathBuf> {
        self.must(stages).unwrap_or_else(|error| {
            println!("   SKIPPED: {error:#}");
            None
        })
    }
}

/// A kernel for virtual machines; nothing where Debian's is none for this processor.
pub fn kernel(project: &Project, stages: &mut Stages) -> anyhow::Result<Option<PathBuf>> {
    const CLOUD: &str = "kernel linux-image-cloud-amd64\nmv \"$1.new\" \"$1\"\n";
    let title = "a kernel for virtual machines, from Debian (27 MB, the first time)";
    Folder { only: X86, title, path: project.kernel(), parts: &[FOLDER, LATEST, CLOUD], argument: None }
        .must(stages)
}

/// Debian's whole kernel, as the machine of `pontoon_testbed::Machine` wants it, for an emulated machine with real
/// drivers; nothing where there is none for this processor.
pub fn whole_kernel(project: &Project, stages: &mut Stages) -> anyhow::Result<Option<PathBuf>> {
    const WHOLE: &str = r#"
kernel linux-image-amd64
depmod -b "$PWD" "$(ls lib/modules)"
# What is compressed takes an emulated processor five seconds to unpack, each time.
at=$(LC_ALL=C grep -abo "$(printf '\3757zXZ')" boot/vmlinuz-* | head -n 1 | cut -d: -f1)
tail -c "+$((at + 1))" boot/vmlinuz-* | { xz -dc 2> /dev/null || true; } > vmlinux
test "$(head -c 4 vmlinux | tail -c 3)" = ELF
mv "$1.new" "$1"
"#;
    let title = "a kernel with all drivers, for an emulated host, from Debian (71 MB, the first time)";
    Folder { only: X86, title, path: project.whole_kernel(), parts: &[FOLDER, LATEST, WHOLE], argument: None }
        .must(stages)
}

/// Fetches the headers of the kernel in the folder `$2`. They expect each other at places of their own.
const HEADERS: &str = r#"
version=$(ls "$2/lib/modules")
needed() { apt-cache depends "linux-headers-$version" | sed -n 's/.*Depends: \(linux-headers-[^ ]*\|linux-kbuild-[^ ]*\)$/\1/p'; }
fetch() { packages=$(needed) && test -n "$packages" && apt-get download "linux-headers-$version" $packages; }
fetch || { apt-get update && fetch; } || { echo "Debian has no headers for $version any more: remove $2"; exit 1; }
unpack
sed -i "s| /usr/src| $1/usr/src|" "usr/src/linux-headers-$version/Makefile"
mv "$1.new" "$1"
"#;

/// Builds the tests' driver that offers slices of a card with the headers in the folder `$1`, for the kernel in the folder
/// `$2`, among whose modules it comes to lie.
const SLICES: &str = r#"set -e
version=$(ls "$2/lib/modules")
modules="$2/lib/modules/$version"
if test "$modules/updates/slices.ko" -nt slices.c && grep -q updates/slices.ko "$modules/modules.dep"; then exit 0; fi
rm -rf "$1/slices"
mkdir -p "$1/slices" "$modules/updates"
cp slices.c Makefile "$1/slices"
make -C "$1/usr/src/linux-headers-$version" M="$1/slices" modules
cp "$1/slices/slices.ko" "$modules/updates/slices.new"
mv "$modules/updates/slices.new" "$modules/updates/slices.ko"
depmod -b "$2" "$version"
"#;

/// A driver that stands where a vendor's for virtual GPUs would, for the whole kernel; nothing, visibly, where the kernel's
/// headers are not to be had: the tests with it are skipped then.
pub fn slices(project: &Project, stages: &mut Stages, kernel: Option<&Path>) -> anyhow::Result<()> {
    let title = "that kernel's headers, from Debian (14 MB, the first time)";
    let Some(kernel) = kernel else {
        stages.skip(title, "there is no such kernel");
        return Ok(());
    };
    let headers = Folder {
        only: X86,
        title,
        path: project.headers(),
        parts: &[FOLDER, HEADERS],
        argument: Some(kernel),
    };
    let Some(headers) = headers.may(stages) else { return Ok(()) };
    let mut build = script(&[SLICES], &headers);
    build.arg(kernel).current_dir(project.root.join("crates/cli/tests/passthrough/slices"));
    stages.run("a driver with mediated devices, for that kernel", Output::Logged, &mut build)
}

/// A QEMU that emulates cards with virtual functions (igb).
pub fn qemu(project: &Project, stages: &mut Stages) -> Option<PathBuf> {
    const QEMU: &str = r#"
suite bookworm-backports qemu-system-x86 qemu-system-common qemu-system-data seabios
usr/bin/qemu-system-x86_64 -L usr/share/qemu -L usr/share/seabios -device igb,help > /dev/null
mv "$1.new" "$1"
"#;
    let title = "a newer QEMU, from Debian's backports (13 MB, the first time)";
    Folder { only: X86, title, path: project.qemu(), parts: &[FOLDER, SUITE, QEMU], argument: None }
        .may(stages)
}

/// Docker's engine and Compose, and a vsock for emulated machines, in the folders that they have in a Debian.
pub fn testing(project: &Project, stages: &mut Stages) -> Option<PathBuf> {
    const TESTING: &str = r#"
suite testing docker-compose docker.io containerd vhost-device-vsock
rm -rf lib usr/lib usr/share
usr/bin/vhost-device-vsock --version
usr/libexec/docker/cli-plugins/docker-compose version
usr/sbin/dockerd --version
mv "$1.new" "$1"
"#;
    let title = "Docker and vhost-device-vsock, from Debian's testing (74 MB, the first time)";
    Folder { only: &[], title, path: project.testing(), parts: &[FOLDER, SUITE, TESTING], argument: None }
        .may(stages)
}
