//! `pontoon vm`.

use std::io::{IsTerminal as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use pontoon_daemon::admin::{self, Answer, Question};
use pontoon_daemon::forward::NewMachine;
use pontoon_daemon::paths;
use pontoon_vm::{Accelerator, Mount, Root};
use pontoon_wiring::{Machine, Monitor, vm_lines};
use rustix::termios::OptionalActions;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

#[derive(clap::Subcommand)]
pub enum Verb {
    /// Print what to write where, so that a machine that you start yourself reaches this host
    ///
    /// Three parts: options or configuration of the machine's monitor, keys of pontoon.toml, and what the guest sets.
    ///
    /// Example:
    ///   pontoon vm args firecracker --cid 4 --uds /run/vm4.vsock
    #[command(verbatim_doc_comment)]
    Args {
        /// qemu, qemu-user (with vhost-device-vsock), cloud-hypervisor, firecracker, krunkit, vfkit, libkrun or lima
        #[arg(value_name = "MONITOR")]
        monitor: Monitor,
        /// The machine's vsock context id
        #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(3..=4_294_967_294))]
        cid: u32,
        /// The unix socket by which the monitor offers the machine's vsock, for those that do
        #[arg(long, value_name = "PATH", default_value = "/run/pontoon-vm.vsock")]
        uds: PathBuf,
        /// A file in /dev/shm for memory that the machine shares with this host; with qemu-user
        #[arg(long, value_name = "PATH")]
        shared_memory: Option<PathBuf>,
        /// Port that the guest dials
        #[arg(long, default_value_t = 7300, value_parser = clap::value_parser!(u32).range(1..))]
        port: u32,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Start a virtual machine around a root file system, run a command in it, and pass on its exit code
    ///
    /// The machine reaches this host's GPU and models and nothing else, unless --gpu or --vfio gives it a whole PCI device:
    /// that is taken from this host before it starts, and put back when it has ended, however it ends. It runs in QEMU: on the
    /// processor where KVM works, else emulated, and says which. Its files are a copy in memory:
    /// what it writes is gone when it ends. It needs a kernel with its modules (Debian:
    /// linux-image-cloud-amd64), qemu-system-x86 and busybox-static.
    ///
    /// Examples:
    ///   pontoon vm run ./rootfs /bin/digits
    ///   pontoon vm run image.tar                # podman save --format oci-archive -o image.tar IMAGE
    ///   pontoon vm run -i -v ./data:/data:ro ./rootfs /bin/sh
    ///   pontoon vm run --gpu debian.qcow2 lspci -k
    #[command(verbatim_doc_comment)]
    Run(Box<Run>),
    /// Print which whole GPUs each service of a Compose file would get in a virtual machine of its own, and why, or why not
    ///
    /// Services ask by deploy.resources.reservations.devices or gpus. Nothing is started or changed.
    ComposePlan {
        /// The file; `-` reads it from standard input, as `docker compose config` writes it
        #[arg(value_name = "FILE", default_value = "compose.yaml")]
        file: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// What QEMU starts for each connection of the machine: not for people
    #[command(hide = true)]
    Relay {
        /// The machine's socket
        socket: PathBuf,
    },
}

/// A machine to start.
#[derive(clap::Args)]
pub struct Run {
    /// The kernel [default: /boot/vmlinuz of the running kernel]
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// The kernel's modules, the folder with modules.dep [default: /lib/modules of the running kernel]
    #[arg(long, value_name = "DIR")]
    modules: Option<PathBuf>,
    #[command(flatten)]
    passed: crate::passed::Options,
    /// Memory: MiB, or with M or G behind; unless it is a disk, the root file system lies in it too
    #[arg(short, long, default_value = "1024", value_parser = memory)]
    memory: u32,
    /// Processors
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=255))]
    cpus: u32,
    /// kvm, hvf or tcg [default: kvm or hvf where it starts the machine, else tcg]
    #[arg(long, value_name = "ACCELERATOR", value_parser = accelerator)]
    accel: Option<Accelerator>,
    /// Seconds that the machine may take until its command begins: emulated ones on a busy host take tens of them
    #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=3600))]
    boot_timeout: u64,
    /// MiB that the machine shares with this host, so that its programs' data need not travel: a power of two from 16,
    /// or 0
    #[arg(long, value_name = "MIB", default_value_t = if cfg!(target_os = "linux") { 256 } else { 0 }, value_parser = shared_memory)]
    shared_memory: u32,
    /// The program vhost-device-vsock, for a vsock [default: the one in PATH, if there is one]
    #[arg(long, value_name = "FILE")]
    vsock: Option<PathBuf>,
    /// Context id by which policies know the machine [default: made of the process id]
    #[arg(long, value_parser = clap::value_parser!(u32).range(3..=4_294_967_294))]
    cid: Option<u32>,
    /// Set a variable in the machine
    #[arg(short = 'e', long = "env", value_name = "KEY=VALUE")]
    variables: Vec<String>,
    /// Mount a folder of this host in the machine: SOURCE:TARGET, with :ro for reading alone (virtiofs)
    #[arg(short = 'v', long = "volume", value_name = "SOURCE:TARGET")]
    volumes: Vec<std::ffi::OsString>,
    /// Let the command have this terminal
    #[arg(short, long)]
    interactive: bool,
    /// Working folder in the machine
    #[arg(short = 'w', long, value_name = "DIR")]
    workdir: Option<String>,
    /// Root file system folder, an OCI image layout (its folder, or an archive of it), or a disk image (raw or qcow2)
    #[arg(value_name = "ROOTFS")]
    root: PathBuf,
    /// Command and its arguments; an image may bring its own
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

fn accelerator(name: &str) -> Result<Accelerator, String> {
    let all = [Accelerator::Kvm, Accelerator::Hvf, Accelerator::Tcg];
    all.into_iter().find(|one| one.name() == name).ok_or_else(|| "it must be kvm, hvf or tcg".to_owned())
}

fn memory(text: &str) -> Result<u32, String> {
    let (number, unit) = match text.strip_suffix(['G', 'g']) {
        Some(number) => (number, 1024),
        None => (text.trim_end_matches(['M', 'm']), 1),
    };
    let mib = number.parse::<u32>().ok().and_then(|number| number.checked_mul(unit));
    mib.filter(|mib| (128..=1_048_576).contains(mib))
        .ok_or_else(|| "it must be from 128 to 1048576 MiB, such as 512, 512M or 8G".to_owned())
}

fn shared_memory(text: &str) -> Result<u32, String> {
    let mib: u32 = text.parse().map_err(|_| "it must be a number".to_owned())?;
    match mib == 0 || mib.is_power_of_two() && (16..=65_536).contains(&mib) {
        true => Ok(mib),
        false => Err("it must be 0, or a power of two from 16 to 65536".into()),
    }
}

pub fn run(verb: &Verb) -> Result<ExitCode, String> {
    let (monitor, machine, json) = match verb {
        Verb::Args { monitor, cid, uds, shared_memory, port, json } => {
            let memory = shared_memory.clone();
            (monitor, Machine { cid: *cid, uds: uds.clone(), port: *port, memory }, json)
        }
        Verb::Run(machine) => return start(machine),
        Verb::ComposePlan { file, json } => return crate::compose::plan::run(file, *json),
        Verb::Relay { socket } => {
            pontoon_vm::relay(socket).map_err(|error| error.to_string())?;
            return Ok(ExitCode::SUCCESS);
        }
    };
    let lines = vm_lines(*monitor, &machine).map_err(|error| error.to_string())?;
    if *json {
        crate::print_json(
            &serde_json::json!({ "monitor": lines.monitor, "host": lines.host, "guest": lines.guest }),
        )?;
        return Ok(ExitCode::SUCCESS);
    }
    for (title, lines) in
        [("the monitor", lines.monitor), ("pontoon.toml", lines.host), ("the guest", lines.guest)]
    {
        if !lines.is_empty() {
            println!("# {title}\n{}\n", lines.join("\n"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A folder that goes when this is dropped.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What such folders are called, before the number of the process.
const FOLDER: &str = "pontoon-vm-";

fn scratch() -> Result<Scratch, String> {
    use std::os::unix::fs::DirBuilderExt;
    sweep();
    let folder = std::env::temp_dir().join(format!("{FOLDER}{}", std::process::id()));
    let made = std::fs::DirBuilder::new().mode(0o700).create(&folder);
    made.map_err(|error| format!("{}: {error}", folder.display()))?;
    end_with(folder.clone())?;
    Ok(Scratch(folder))
}

/// Removes what processes that were killed have left.
fn sweep() {
    for entry in std::fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let process = name.to_str().and_then(|name| name.strip_prefix(FOLDER)?.parse::<u32>().ok());
        let own = entry
            .metadata()
            .is_ok_and(|found| found.is_dir() && found.uid() == rustix::process::getuid().as_raw());
        if process.is_some_and(|process| !Path::new(&format!("/proc/{process}")).exists()) && own {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// A signal ends this program, and with it QEMU and what is beside it; the folder and the terminal's ways are put back.
fn end_with(folder: PathBuf) -> Result<(), String> {
    let terminal = rustix::termios::tcgetattr(std::io::stdin()).ok();
    let signals = [SIGINT, SIGTERM, SIGHUP];
    let mut signals = Signals::new(signals).map_err(|error| format!("no word of signals: {error}"))?;
    std::thread::spawn(move || {
        let Some(signal) = signals.forever().next() else { return };
        let _ = std::fs::remove_dir_all(&folder);
        if let Some(terminal) = terminal {
            let _ = rustix::termios::tcsetattr(std::io::stdin(), OptionalActions::Now, &terminal);
        }
        std::process::exit(128 + signal);
    });
    Ok(())
}

fn start(machine: &Run) -> Result<ExitCode, String> {
    let text = |error: pontoon_vm::Error| error.to_string();
    let admin = paths::admin_socket(&crate::local_socket()?);
    // A machine without a host would only find out later.
    admin::ask(&admin, &Question::Sessions).map_err(|error| error.to_string())?;
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim();
    let kernel = machine.kernel.clone().unwrap_or_else(|| format!("/boot/vmlinuz-{release}").into());
    let modules = machine.modules.clone().unwrap_or_else(|| format!("/lib/modules/{release}").into());
    if !kernel.is_file() {
        return Err(format!(
            "there is no kernel at {}: name one with --kernel, and its modules with --modules",
            kernel.display()
        ));
    }
    if !modules.is_dir() {
        return Err(format!(
            "there are no modules at {}: name their folder with --modules",
            modules.display()
        ));
    }
    if machine.interactive && !std::io::stdin().is_terminal() {
        return Err("-i: standard input is no terminal".into());
    }
    let here = std::env::current_dir().map_err(|error| error.to_string())?;
    let mounts = machine.volumes.iter().map(|text| {
        let mount = pontoon_wiring::parse_mount(text, &here).map_err(|error| error.to_string())?;
        Ok(Mount { source: mount.source, target: mount.target, read_only: mount.read_only })
    });
    let mut mounts = mounts.collect::<Result<Vec<_>, String>>()?;
    if machine.passed.any() {
        // Where its programs look for the drivers of what it gets.
        let release = modules.file_name().unwrap_or_default();
        let target = Path::new("/lib/modules").join(release);
        mounts.push(Mount { source: modules.clone(), target, read_only: true });
    }
    for (at, mount) in mounts.iter().enumerate() {
        if mounts[..at].iter().any(|other| other.target == mount.target) {
            return Err(format!("two folders are to be mounted at {}", mount.target.display()));
        }
    }
    let folder = scratch()?;
    let root = Root::open(&machine.root, &folder.0).map_err(text)?;
    let words = root.command(&machine.command)?;
    let (mut variables, image_workdir) = root.surroundings();
    for variable in &machine.variables {
        let parsed = pontoon_wiring::parse_env(variable.as_ref()).map_err(|error| error.to_string())?;
        variables.push((parsed.name, parsed.value.to_string_lossy().into_owned()));
    }
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].map(Path::new).into_iter().find(|path| path.is_file());
    let busybox = busybox.ok_or("busybox is missing: install the package busybox-static")?;
    if let Some(program) = machine.vsock.as_ref().filter(|program| !program.is_file()) {
        return Err(format!("--vsock {}: there is no such program", program.display()));
    }
    let initramfs = folder.0.join("initramfs");
    let shared = (machine.shared_memory > 0).then(|| pontoon_vm::SharedMemory::create(machine.shared_memory));
    // Beyond those that people give to machines of their own.
    let cid = machine.cid.unwrap_or(0x8000_0000 | std::process::id());
    let mut request = pontoon_vm::Request {
        kernel,
        initramfs: initramfs.clone(),
        memory_mib: machine.memory,
        processors: machine.cpus,
        program: std::env::current_exe().map_err(|error| error.to_string())?,
        folder: folder.0.clone(),
        cid,
        vsock: machine.vsock.clone().or_else(pontoon_vm::find_vsock),
        shared: shared.transpose().map_err(text)?,
        mounts,
        disk: match &root {
            Root::Disk(disk) => Some(disk.clone()),
            _ => None,
        },
        devices: Vec::new(),
        slices: Vec::new(),
        interactive: machine.interactive,
        boot_timeout: Duration::from_secs(machine.boot_timeout),
    };
    let bridge = request.bridge_address();
    let workdir = machine.workdir.as_deref().or(image_workdir);
    let command = pontoon_vm::command_script(&words, &bridge, &variables, workdir);
    let contents = pontoon_vm::Contents {
        root: &root,
        busybox,
        modules: &modules,
        command: &command,
        mounts: &request.mounts,
        devices: machine.passed.any(),
        interactive: machine.interactive,
    };
    pontoon_vm::write_initramfs(&contents, &initramfs).map_err(text)?;
    // The kernel holds it twice while it unpacks it, and lets files fill half of the memory.
    let size = std::fs::metadata(&initramfs).map_err(|error| error.to_string())?.len() >> 20;
    let needed = 2 * size + 96;
    if u64::from(machine.memory) < needed {
        return Err(format!(
            "the root file system takes {size} MiB: give the machine --memory {needed} or more"
        ));
    }
    // Last of all: what is taken is the host's loss.
    let passed = machine.passed.take(machine.memory)?;
    if let Some(passed) = &passed {
        (request.devices, request.slices) = (passed.devices.clone(), passed.slices.clone());
    }
    let listeners = pontoon_vm::listen(&request).map_err(text)?;
    let mut started = |accelerator: Accelerator, pid: u32| {
        let vsock = if request.vsock.is_some() { ", with a vsock" } else { "" };
        eprintln!("the machine runs on {} as vm:{cid}{vsock}", accelerator.name());
        let question = Question::Machine(NewMachine { cid, pid: pid as i32 });
        let mut descriptors = vec![listeners[0].as_fd(), listeners[1].as_fd()];
        descriptors.extend(request.shared.iter().map(|shared| shared.as_fd()));
        match admin::ask_with(&admin, &question, &descriptors).map_err(|error| error.to_string())? {
            Answer::Done => Ok(()),
            Answer::Error(message) => Err(message),
            other => Err(format!("the daemon answered something else: {other:?}")),
        }
    };
    let mut output = |bytes: &[u8]| {
        // Nobody reads any more: the command goes on all the same.
        let mut out = std::io::stdout().lock();
        let _ = out.write_all(bytes).and_then(|()| out.flush());
    };
    let ended = request.run(machine.accel, &mut started, &mut output).map_err(text);
    let back = passed.map_or(Ok(()), crate::passed::Passed::put_back);
    let code = match (ended, back) {
        (Ok(code), Ok(())) => code,
        (Ok(_), Err(error)) | (Err(error), Ok(())) => return Err(error),
        (Err(error), Err(other)) => return Err(format!("{error}; {other}")),
    };
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}
