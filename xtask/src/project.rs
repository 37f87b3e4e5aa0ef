//! Where the project and its build results lie, and how cargo is called in it.

use std::{
    env,
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};

/// The profile of the programs that the demo and the container tests run: defined in the root
/// manifest, quick to build because the large dependencies are not fully optimised.
pub const PROFILE: &str = "demo";

/// The checkout that this `xtask` belongs to.
#[derive(Debug)]
pub struct Project {
    pub root: PathBuf,
    target: PathBuf,
    triple: String,
}

impl Project {
    pub fn find() -> anyhow::Result<Self> {
        let manifest = env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
        let root = manifest.parent().context("xtask lies in no workspace")?.to_owned();
        let target = match env::var_os("CARGO_TARGET_DIR") {
            Some(target) => root.join(target),
            None => root.join("target"),
        };
        Ok(Self { root, target, triple: host_triple()? })
    }

    /// Whether `path`, relative to the root, exists.
    pub fn has(&self, path: &str) -> bool {
        self.root.join(path).exists()
    }

    /// `cargo ARGS` in the root.
    pub fn cargo(&self, args: &[&str]) -> Command {
        self.cargo_in(&self.root, args)
    }

    /// `cargo ARGS` in `folder`, which may be a workspace of its own.
    pub fn cargo_in(&self, folder: &Path, args: &[&str]) -> Command {
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command.args(args).current_dir(folder);
        command
    }

    /// Whether `cargo NAME` exists.
    pub fn has_cargo_command(&self, name: &str) -> bool {
        self.cargo(&[name, "--version"]).output().is_ok_and(|output| output.status.success())
    }

    /// The build of the example programs for guests: static, so that they run in any container.
    ///
    /// With `--target`, the flags reach neither build scripts nor macros, and the results lie in a
    /// folder of their own: nothing that the host's build made is built again.
    pub fn build_guests(&self) -> Command {
        let mut command =
            self.cargo(&["build", "--profile", PROFILE, "-p", "pontoon-examples", "-p", "pontoon-doctor"]);
        command.args(["--features", "pontoon-examples/tls,pontoon-doctor/tls"]);
        command.args(["--bins", "--target", &self.triple]).env("RUSTFLAGS", "-C target-feature=+crt-static");
        command
    }

    /// Where [`Project::build_guests`] leaves the programs.
    pub fn guest_programs(&self) -> PathBuf {
        self.target.join(&self.triple).join(PROFILE)
    }

    /// Where a build for the host in `profile` leaves its programs.
    pub fn host_programs(&self, profile: &str) -> PathBuf {
        self.target.join(profile)
    }

    /// What the demo's and the tests' own `pontoon` keeps: engines, models.
    pub fn data(&self) -> PathBuf {
        self.target.join("xtask/data")
    }

    /// Programs of Debian's testing.
    pub fn testing(&self) -> PathBuf {
        self.target.join("xtask/testing")
    }

    /// A kernel for virtual machines, and its modules.
    pub fn kernel(&self) -> PathBuf {
        self.target.join("xtask/kernel")
    }

    /// A kernel with all drivers, for an emulated host.
    pub fn whole_kernel(&self) -> PathBuf {
        self.target.join("xtask/whole-kernel")
    }

    /// The headers of that kernel.
    pub fn headers(&self) -> PathBuf {
        self.target.join("xtask/headers")
    }

    /// A newer QEMU.
    pub fn qemu(&self) -> PathBuf {
        self.target.join("xtask/qemu")
    }

    /// A compiler for a Mac's types.
    pub fn mac(&self) -> PathBuf {
        self.target.join("xtask/mac")
    }

    /// The embedding model, and what it is made of.
    pub fn minilm(&self) -> PathBuf {
        self.target.join("xtask/minilm")
    }

    /// The virtual environment of the tests.
    pub fn python(&self) -> PathBuf {
        self.target.join("xtask/python")
    }

    /// Where stages leave their logs.
    pub fn logs(&self) -> PathBuf {
        self.target.join("xtask")
    }
}

fn host_triple() -> anyhow::Result<String> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| OsStr::new("rustc").to_owned());
    let output = Command::new(rustc).arg("-vV").output().context("cannot start rustc")?;
    ensure!(output.status.success(), "rustc -vV failed");
    let text = String::from_utf8_lossy(&output.stdout);
    let triple = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(triple.context("rustc -vV names no host")?.to_owned())
}
