//! The system packages that the tests and the demo need: which are missing, and installing them.

use std::{
    fs,
    io::{self, IsTerminal as _},
    process::Command,
};

use anyhow::{Context as _, bail};
use pontoon_testbed::find_tool;

/// A package of Debian and its children.
struct Package {
    name: &'static str,
    /// A program that makes the package unneeded, wherever it comes from.
    program: Option<&'static str>,
    why: &'static str,
}

const fn package(name: &'static str, program: Option<&'static str>, why: &'static str) -> Package {
    Package { name, program, why }
}

const PACKAGES: [Package; 27] = [
    package("libvulkan1", None, "the Vulkan loader"),
    package("mesa-vulkan-drivers", None, "Vulkan drivers, among them lavapipe for machines without a GPU"),
    package("podman", Some("podman"), "runs containers"),
    package("podman-compose", Some("podman-compose"), "runs a project of several containers in tests"),
    package("runc", Some("runc"), "starts podman's containers"),
    package("netavark", None, "podman's network"),
    package("aardvark-dns", None, "podman's names"),
    package("uidmap", Some("newuidmap"), "podman without root"),
    package("iptables", Some("iptables"), "podman's network rules"),
    package("qemu-system-x86", Some("qemu-system-x86_64"), "emulates a virtual machine in tests"),
    package("qemu-utils", Some("qemu-img"), "makes a machine's disk in tests"),
    package("e2fsprogs", Some("mkfs.ext4"), "makes a machine's disk in tests"),
    package("sudo", Some("sudo"), "asks for root's rights in tests"),
    package("kmod", Some("depmod"), "drivers of an emulated machine in tests"),
    package("xz-utils", Some("xz"), "unpacks that machine's kernel"),
    package("iproute2", Some("ip"), "networks of their own for guests in tests"),
    package("bubblewrap", Some("bwrap"), "runs a root file system where podman cannot"),
    package("busybox-static", None, "the root file system of test containers"),
    package("curl", Some("curl"), "asks the model runner from within a container"),
    package("make", Some("make"), "builds a driver for tests"),
    package("cmake", Some("cmake"), "builds llama-server"),
    package("ninja-build", Some("ninja"), "builds llama-server"),
    package("g++", Some("g++"), "builds llama-server"),
    package("python3", Some("python3"), "converts an embedding model; runs the SDKs and mlx-lm in tests"),
    package("python3-venv", None, "keeps what those need away from the system"),
    package("apache2-utils", Some("htpasswd"), "makes passwords for the registry in tests"),
    package("docker-registry", Some("docker-registry"), "a registry for tests of pulling and pushing"),
];

/// Prints every package, why it is needed and whether it is there.
pub fn list() -> anyhow::Result<()> {
    let missing = missing();
    for package in &PACKAGES {
        let is_missing = missing.iter().any(|other| other.name == package.name);
        let state = if is_missing { "missing" } else { "there" };
        println!("{:8} {:20} {}", state, package.name, package.why);
    }
    Ok(())
}

/// Installs what is missing on Debian and its children; elsewhere says what is needed and goes on.
pub fn install_missing() -> anyhow::Result<()> {
    let missing = missing();
    if missing.is_empty() {
        println!("   all {} system packages are there", PACKAGES.len());
        return Ok(());
    }
    let names: Vec<&str> = missing.iter().map(|package| package.name).collect();
    for package in &missing {
        println!("   needed: {:20} {}", package.name, package.why);
    }
    if !is_debian() {
        println!("   not a Debian system: install what corresponds to these yourself; going on");
        return Ok(());
    }
    println!("   installing: {}", names.join(" "));
    install(&names).with_context(|| {
        format!(
            "cannot install packages; run by hand: apt-get update && apt-get install \
             --no-install-recommends {}",
            names.join(" ")
        )
    })
}

fn missing() -> Vec<&'static Package> {
    let installed = installed();
    PACKAGES
        .iter()
        .filter(|package| !installed.iter().any(|name| name == package.name))
        .filter(|package| package.program.is_none_or(|program| find_tool(program).is_none()))
        .collect()
}

/// Nothing where there is no dpkg.
fn installed() -> Vec<String> {
    let output = Command::new("dpkg-query")
        .args(["-W", "-f=${Package} ${db:Status-Status}\\n"])
        .args(PACKAGES.iter().map(|package| package.name))
        .output();
    // Its exit status is 1 as soon as one package is unknown.
    output.map_or_else(|_| Vec::new(), |output| parse_installed(&String::from_utf8_lossy(&output.stdout)))
}

fn parse_installed(text: &str) -> Vec<String> {
    text.lines().filter_map(|line| line.strip_suffix(" installed")).map(str::to_owned).collect()
}

fn is_debian() -> bool {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    names_debian(&release) && find_tool("apt-get").is_some()
}

fn names_debian(os_release: &str) -> bool {
    os_release
        .lines()
        .filter_map(|line| line.strip_prefix("ID=").or(line.strip_prefix("ID_LIKE=")))
        .flat_map(|value| value.trim_matches('"').split(' '))
        .any(|id| id == "debian")
}

fn install(names: &[&str]) -> anyhow::Result<()> {
    let prefix = privilege()?;
    let attempt = || {
        apt(&prefix, &["update"])?;
        let mut args = vec!["install", "-y", "--no-install-recommends"];
        args.extend(names);
        apt(&prefix, &args)
    };
    attempt().or_else(|error| {
        println!("   {error:#}; once more");
        attempt()
    })
}

/// What goes before `apt-get`: nothing for root, sudo for others.
fn privilege() -> anyhow::Result<Vec<&'static str>> {
    let id = Command::new("id").arg("-u").output().context("cannot start id")?;
    if id.stdout == b"0\n" {
        return Ok(Vec::new());
    }
    if find_tool("sudo").is_none() {
        bail!("this needs root and there is no sudo");
    }
    // Without a terminal nobody can answer the question for a password.
    Ok(match io::stdin().is_terminal() {
        true => vec!["sudo"],
        false => vec!["sudo", "-n"],
    })
}

fn apt(prefix: &[&str], args: &[&str]) -> anyhow::Result<()> {
    let mut words = prefix.to_vec();
    words.extend(["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-o", "DPkg::Lock::Timeout=300"]);
    words.extend(args);
    let output = Command::new(words[0])
        .args(&words[1..])
        .output()
        .with_context(|| format!("cannot start {}", words[0]))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let last = text.trim().lines().last().unwrap_or("no reason given");
    bail!("apt-get {} failed: {last}", args[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_installed_packages_count() {
        let text = "podman installed\nrunc config-files\nlibvulkan1 installed\nuidmap \n";
        assert_eq!(parse_installed(text), ["podman", "libvulkan1"]);
    }

    #[test]
    fn debian_and_its_children() {
        assert!(names_debian("NAME=\"Debian\"\nID=debian\n"));
        assert!(names_debian("ID=ubuntu\nID_LIKE=debian\n"));
        assert!(names_debian("ID=pop\nID_LIKE=\"ubuntu debian\"\n"));
        assert!(!names_debian("ID=fedora\nVERSION_ID=43\n"));
        assert!(!names_debian(""));
    }
}
