//! A computer of one's own, emulated: Debian's kernel with all its drivers, root, and this machine's files, which it reads
//! and cannot change (9p below an overlay in its memory). For what a test must not do to the machine it runs on, and for
//! what that one's kernel lacks.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::{Scratch, find_tool};

/// The folder with the kernel, its modules (with `modules.dep`) and `vmlinux`.
const KERNEL: &str = "PONTOON_TEST_WHOLE_KERNEL";

/// Drivers that are needed before this machine's files are there, and what they need.
const MODULES: [&str; 14] = [
    "virtio",
    "virtio_ring",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_pci",
    "netfs",
    "fscache",
    "9pnet",
    "9pnet_virtio",
    "9p",
    "overlay",
    "failover",
    "net_failover",
    "virtio_rng",
];

/// The first process: `$modules` and `$script` are put in.
const INIT: &str = r#"#!/bin/busybox sh
B=/bin/busybox
$B mount -t proc none /proc
$B mount -t sysfs none /sys
$B mount -t devtmpfs none /dev
for module in $($B cat /modules/order /modules/order); do $B insmod /modules/$module 2> /dev/null; done
$B mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=loose,ro host /lower || echo "no files"
$B mount -t tmpfs -o size=75% none /upper
$B mkdir /upper/files /upper/work
$B mount -t overlay -o lowerdir=/lower,upperdir=/upper/files,workdir=/upper/work none /new || echo "no overlay"
for place in proc sys dev; do $B mount -o move /$place /new/$place; done
$B mkdir -p /new/dev/pts /new/dev/shm /new/lib/modules
$B mount -t devpts -o mode=600,ptmxmode=666 none /new/dev/pts
$B mount -t tmpfs none /new/dev/shm
$B mount -t tmpfs none /new/run
$B mount -o bind "/lower$modules" /new/lib/modules
$B ln -s /proc/self/fd /new/dev/fd
$B ip link set lo up
$B cp /script /new/run/script
cd /new
echo machine-begins > /new/dev/ttyS0
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TMPDIR=/run $B chroot /new /bin/bash /run/script \
    < /new/dev/null > /new/dev/ttyS0 2>&1
echo "machine-exit $?" > /new/dev/ttyS0
$B stty -F /new/dev/ttyS0 cooked
$B poweroff -f
"#;

/// What the first process says before the script begins.
const BEGINS: &str = "machine-begins\n";

/// An emulated computer.
#[derive(Debug)]
pub struct Machine {
    kernel: PathBuf,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// More of QEMU's options: its devices.
    pub options: Vec<String>,
    /// More of the kernel's parameters.
    pub parameters: String,
    /// QEMU; the one in `PATH` where nothing else is said.
    pub qemu: Command,
}

impl Machine {
    /// A machine with two processors and 2 GiB of memory.
    ///
    /// # Errors
    /// What is missing for it.
    pub fn new() -> anyhow::Result<Self> {
        let qemu = find_tool("qemu-system-x86_64")
            .context("qemu-system-x86_64 is missing (Debian: qemu-system-x86)")?;
        let kernel = std::env::var_os(KERNEL)
            .with_context(|| format!("{KERNEL} is not set: `cargo xtask test` sets it"))?;
        Ok(Self {
            kernel: kernel.into(),
            memory_mib: 2048,
            options: Vec::new(),
            parameters: String::new(),
            qemu: Command::new(qemu),
        })
    }

    /// Has a newer QEMU emulate it, unpacked in a folder as `cargo xtask test` does.
    pub fn with_qemu(mut self, folder: &Path) -> Self {
        let usr = folder.join("usr");
        self.qemu = Command::new(usr.join("bin/qemu-system-x86_64"));
        self.qemu.env("QEMU_MODULE_DIR", usr.join("lib/x86_64-linux-gnu/qemu"));
        for data in ["share/qemu", "share/seabios"] {
            self.qemu.arg("-L").arg(usr.join(data));
        }
        self
    }

    /// Boots it, runs a script of bash in it, and returns what that printed once the machine has powered itself off.
    ///
    /// # Errors
    /// What kept it from that, with what it said; a script that fails.
    pub fn run(mut self, script: &str, patience: Duration) -> anyhow::Result<String> {
        let scratch = Scratch::new("machine")?;
        let initramfs = self.initramfs(scratch.path(), script)?;
        let words = [
            "-machine",
            "q35,kernel-irqchip=split",
            "-accel",
            "tcg,thread=multi",
            // Without what emulation makes slow: copies by single bytes, checks of every access.
            "-cpu",
            "max,-erms,-fsrm,-smap,-smep,-la57,-pku,-umip",
            "-smp",
            "2",
            "-nodefaults",
            "-display",
            "none",
            "-no-reboot",
            "-monitor",
            "none",
            "-serial",
            "stdio",
            "-virtfs",
            "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap",
        ];
        self.qemu.args(words).args(["-m", &self.memory_mib.to_string()]);
        self.qemu
            .arg("-kernel")
            .arg(self.kernel.join("vmlinux"))
            .arg("-initrd")
            .arg(initramfs)
            .arg("-append");
        self.qemu.arg(format!(
            "console=ttyS0 quiet panic=-1 nokaslr mitigations=off tsc=reliable clearcpuid=112 {}",
            self.parameters
        ));
        self.qemu.args(&self.options).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut tries = 0;
        let (in_time, said) = loop {
            tries += 1;
            match boot(&mut self.qemu, patience)? {
                End::Stalled if tries < 3 => {
                    eprintln!("the emulated computer's clock stopped while it booted; again")
                }
                End::Stalled => {
                    anyhow::bail!("the emulated computer's clock stopped {tries} times while it booted")
                }
                End::Ended(said) => break (true, said),
                End::Late(said) => break (false, said),
            }
        };
        anyhow::ensure!(in_time, "the machine took longer than {patience:?}: {said}");
        let script = said.split_once(BEGINS).map_or(said.as_str(), |(_, script)| script);
        match script.rsplit_once("machine-exit ") {
            // What the kernel says last comes behind it.
            Some((said, rest)) if rest.starts_with("0\n") => Ok(said.to_owned()),
            _ => anyhow::bail!("the machine's script failed: {said}"),
        }
    }

    /// The first file system: busybox, a few drivers, the script.
    fn initramfs(&self, scratch: &Path, script: &str) -> anyhow::Result<PathBuf> {
        let root = scratch.join("initramfs");
        for folder in ["bin", "proc", "sys", "dev", "lower", "upper", "new", "modules"] {
            std::fs::create_dir_all(root.join(folder))?;
        }
        let busybox = ["/bin/busybox", "/usr/bin/busybox"].iter().find(|path| Path::new(path).is_file());
        std::fs::copy(
            busybox.context("busybox is missing (Debian: busybox-static)")?,
            root.join("bin/busybox"),
        )?;
        let modules = self.kernel.join("lib/modules");
        let release = std::fs::read_dir(&modules)?.flatten().next().context("the kernel has no modules")?;
        let list = std::fs::read_to_string(release.path().join("modules.dep"))?;
        let mut order = String::new();
        for name in MODULES {
            let file = format!("/{name}.ko");
            let Some(path) = list
                .lines()
                .filter_map(|line| line.split_once(':'))
                .find_map(|(path, _)| path.ends_with(&file).then_some(path))
            else {
                continue;
            };
            std::fs::copy(release.path().join(path), root.join(format!("modules/{name}.ko")))?;
            order += &format!("{name}.ko\n");
        }
        std::fs::write(root.join("modules/order"), order)?;
        std::fs::write(root.join("script"), script)?;
        let init = INIT.replace("$modules", modules.to_str().context("the kernel's path")?);
        std::fs::write(root.join("init"), init)?;
        let mut pack = Command::new("sh");
        pack.args(["-c", "chmod +x init && find . | busybox cpio -o -H newc 2> /dev/null"])
            .current_dir(&root);
        let packed = pack.output()?;
        anyhow::ensure!(packed.status.success(), "busybox cpio: {packed:?}");
        let path = scratch.join("initramfs.cpio");
        std::fs::File::create(&path)?.write_all(&packed.stdout)?;
        Ok(path)
    }
}

/// How a machine ended, with what it and QEMU said.
enum End {
    /// By itself.
    Ended(String),
    /// It would have taken too long.
    Late(String),
    /// Its clock stopped before its script began, which happens to emulated processors.
    Stalled,
}

/// What Linux says where no timer goes off any more.
const STALL: &str = "timer wakeup didn't happen";

fn boot(qemu: &mut Command, patience: Duration) -> anyhow::Result<End> {
    let mut qemu = qemu.spawn().context("qemu-system-x86_64")?;
    let mut errors = qemu.stderr.take().context("no errors")?;
    let errors = std::thread::spawn(move || {
        let mut text = String::new();
        let _ = errors.read_to_string(&mut text);
        text
    });
    let mut console = qemu.stdout.take().context("no console")?;
    let said = Arc::new(Mutex::new(Vec::new()));
    let saying = said.clone();
    let console = std::thread::spawn(move || {
        let mut piece = [0; 4096];
        while let Ok(count @ 1..) = console.read(&mut piece) {
            saying.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&piece[..count]);
        }
    });
    let text = || {
        let said = said.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&said).replace('\r', "")
    };
    let begun = Instant::now();
    let (mut in_time, mut stalled, mut booting) = (true, false, true);
    while qemu.try_wait()?.is_none() && in_time && !stalled {
        std::thread::sleep(Duration::from_millis(20));
        in_time = begun.elapsed() <= patience;
        if booting {
            let said = text();
            booting = !said.contains(BEGINS);
            stalled = booting && said.contains(STALL);
        }
    }
    let _ = qemu.kill();
    let _ = qemu.wait();
    let _ = console.join();
    let said = text() + &errors.join().unwrap_or_default();
    Ok(match (stalled, in_time) {
        (true, _) => End::Stalled,
        (false, true) => End::Ended(said),
        (false, false) => End::Late(said),
    })
}
