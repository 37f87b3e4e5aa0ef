//! Owns the wishes: what a worker may read, which devices it may drive, as whom, and how much.

use std::ffi::OsString;
#[cfg(unix)]
use std::io;
use std::path::{Path, PathBuf};

/// What a worker may still do after confinement. Whatever is not named here is refused.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Files and directories (with all below) that may be read. Missing ones are skipped.
    pub read_paths: Vec<PathBuf>,
    /// Directories that may be listed, without reading what they contain.
    pub list_paths: Vec<PathBuf>,
    /// Device nodes that may be opened for reading, writing and `ioctl`.
    pub device_paths: Vec<PathBuf>,
    /// Directories in which files and unix sockets may be made, written and removed.
    pub write_paths: Vec<PathBuf>,
    /// Programs that may be executed: for [`crate::WarmUp::become_program`], the program and its loader.
    pub execute_paths: Vec<PathBuf>,
    /// Which system calls remain.
    pub calls: Calls,
    /// Whom to become. `None` keeps the user; privileges are dropped in any case. Changing needs
    /// root, and a number of its own per worker keeps workers of different guests apart even where
    /// Landlock is missing.
    pub user: Option<Identity>,
    /// The supervisor's process id: the worker is killed as soon as it is gone. Note that Linux
    /// ties this to the *thread* that spawned the worker, so the supervisor must spawn workers from
    /// a thread that lives as long as it does.
    pub parent: Option<u32>,
    pub limits: Limits,
    /// Allows core dumps and debuggers. A dump holds everything the guest uploaded.
    pub core_dumps: bool,
    /// Whether the worker may still pass descriptors to others with `sendmsg`.
    ///
    /// **Prefer `false`.** A compromised worker could open a directory it may read and pass it to
    /// its guest, for which no rule of this sandbox holds: from there `openat(fd, "../..")` leaves
    /// a container. Let the supervisor create the shared memory and hand it to both sides.
    pub send_descriptors: bool,
    /// Asks for a network namespace without interfaces (as root, or through a user namespace).
    pub network_namespace: bool,
    /// Refuses to run on kernels without Landlock instead of reporting its absence.
    pub landlock_required: bool,
    /// Raised so that the kernel ends this worker before the supervisor when memory runs out.
    pub oom_score_adj: Option<i32>,
    /// Scheduling niceness; GPU work is latency-sensitive, so the default leaves it alone.
    pub nice: Option<i32>,
}

/// Which list of system calls a confined process keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Calls {
    /// Those of a worker that was given its sockets and opens nothing new.
    #[default]
    Worker,
    /// Those of an inference engine: it listens on a unix socket of its own, writes where
    /// [`Policy::write_paths`] lets it, and is started by the one `execve` of
    /// [`crate::WarmUp::become_program`].
    Engine,
}

/// Upper limits on what a worker takes from the host.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of address space. Leave unset where drivers reserve far more than they use (NVIDIA,
    /// LLVM); memory is better limited by the supervisor with a cgroup.
    pub address_space: Option<u64>,
    /// Open descriptors.
    pub files: u64,
    /// Bytes of one file. Nothing can be created, but the limit also counts for memfds, for newer
    /// lavapipe's whole device memory, and for a log file that the worker inherited as stderr.
    pub file_size: Option<u64>,
    /// Threads and processes **of the whole user**, so set it only with a user per worker. Does not
    /// bind root.
    pub processes: Option<u64>,
}

/// The user a worker becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups; all others are given up.
    pub groups: Vec<u32>,
}

/// Environment that the supervisor must set when it spawns a worker: without it drivers try to
/// write shader caches (refused, and slow to find out) and the Vulkan loader pulls in layers that
/// open windows-system sockets.
pub const QUIET_DRIVER_ENV: &[(&str, &str)] = &[
    ("MESA_SHADER_CACHE_DISABLE", "true"),
    ("MESA_GLSL_CACHE_DISABLE", "true"),
    ("__GL_SHADER_DISK_CACHE", "0"),
    ("CUDA_CACHE_DISABLE", "1"),
    ("VK_LOADER_LAYERS_DISABLE", "~implicit~"),
];

/// Where the loader, the drivers and their libraries live on the distributions we know.
const LIBRARIES: &[&str] = &[
    "/usr",
    "/lib",
    "/lib64",
    "/opt/amdgpu",
    "/nix/store",
    "/gnu/store",
    "/run/opengl-driver",
    "/etc/ld.so.cache",
    "/etc/vulkan",
    "/etc/glvnd",
    "/etc/drirc",
    "/etc/nvidia",
];

/// What drivers read about the machine. Deliberately not all of /proc (other processes) and not
/// /sys/kernel (tracing, debugfs).
const MACHINE: &[&str] = &[
    "/proc/self",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/version",
    "/proc/devices",
    "/proc/modules",
    "/proc/driver/nvidia",
    "/proc/driver/nvidia-uvm",
    "/proc/sys/vm",
    "/sys/bus/pci",
    "/sys/class/drm",
    "/sys/dev/char",
    "/sys/devices",
    "/sys/module",
    "/dev/urandom",
    "/dev/random",
];

/// Beginnings of GPU device names in /dev: NVIDIA, AMD compute, Tegra, Mali, Adreno, WSL.
const GPU_NODES: &[&str] = &["nvidia", "kfd", "nvgpu", "nvhost", "nvmap", "mali", "kgsl", "dxg"];

impl Policy {
    /// For a worker that drives a GPU through Vulkan on this host.
    pub fn gpu() -> Policy {
        Policy {
            read_paths: paths(LIBRARIES).chain(paths(MACHINE)).collect(),
            list_paths: paths(&["/dev/dri"]).collect(),
            device_paths: gpu_devices(Path::new("/dev")),
            write_paths: Vec::new(),
            execute_paths: Vec::new(),
            calls: Calls::Worker,
            user: None,
            parent: None,
            limits: Limits::default(),
            core_dumps: false,
            send_descriptors: true,
            network_namespace: true,
            landlock_required: true,
            oom_score_adj: Some(500),
            nice: None,
        }
    }

    /// For an inference engine: like a worker with a GPU, and it may make its socket and its files in
    /// the directories that the caller adds to [`Policy::write_paths`]. What it may read (model,
    /// program, libraries) the caller adds to [`Policy::read_paths`].
    pub fn engine() -> Policy {
        Policy { calls: Calls::Engine, send_descriptors: false, ..Policy::gpu() }
    }

    /// Adds what the environment names as drivers: a Mesa built at home, for example. `variable`
    /// is usually `|name| std::env::var_os(name)`.
    pub fn add_driver_environment(&mut self, variable: impl Fn(&str) -> Option<OsString>) {
        const LISTS: [&str; 5] = [
            "VK_DRIVER_FILES",
            "VK_ADD_DRIVER_FILES",
            "VK_ICD_FILENAMES",
            "VK_LAYER_PATH",
            "LD_LIBRARY_PATH",
        ];
        for list in LISTS.into_iter().filter_map(variable) {
            let named = std::env::split_paths(&list);
            self.read_paths.extend(named.filter(|p| p.is_absolute()));
        }
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { address_space: None, files: 1024, file_size: None, processes: None }
    }
}

impl Identity {
    /// `uid` and `gid`, with the groups (`render`, `video`) that open those of `devices` which a
    /// group may open. Group 0 is never kept.
    #[cfg(unix)]
    pub fn for_devices(uid: u32, gid: u32, devices: &[PathBuf]) -> io::Result<Identity> {
        let mut groups = Vec::new();
        for device in devices {
            match group_that_may_use(device) {
                Ok(Some(group)) if group != gid && !groups.contains(&group) => groups.push(group),
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        Ok(Identity { uid, gid, groups })
    }
}

#[cfg(unix)]
fn group_that_may_use(device: &Path) -> io::Result<Option<u32>> {
    use std::os::unix::fs::MetadataExt;
    let node = std::fs::metadata(device)?;
    let for_group = node.mode() & 0o060 == 0o060 && node.mode() & 0o006 != 0o006;
    Ok((for_group && node.gid() != 0).then_some(node.gid()))
}

fn paths(names: &'static [&'static str]) -> impl Iterator<Item = PathBuf> {
    names.iter().map(PathBuf::from)
}

/// GPU nodes below `dev`. Of /dev/dri only the render nodes: the others can set display modes.
fn gpu_devices(dev: &Path) -> Vec<PathBuf> {
    let is_gpu = |name: &str| GPU_NODES.iter().any(|start| name.starts_with(start));
    let mut nodes = named(dev, is_gpu);
    nodes.extend(named(&dev.join("dri"), |name| name.starts_with("renderD")));
    nodes.extend(["null", "zero"].map(|name| dev.join(name)));
    nodes.sort();
    nodes
}

fn named(directory: &Path, wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let matching = entries.filter(|entry| entry.file_name().to_str().is_some_and(&wanted));
    matching.map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_gpu_nodes_are_devices() {
        let dev = std::env::temp_dir().join(format!("pontoon-sandbox-dev-{}", std::process::id()));
        std::fs::create_dir_all(dev.join("dri")).unwrap();
        for name in ["nvidia0", "nvidiactl", "sda", "mem", "kvm", "dri/renderD128", "dri/card0"] {
            std::fs::write(dev.join(name), "").unwrap();
        }
        let found = gpu_devices(&dev);
        std::fs::remove_dir_all(&dev).unwrap();
        let expected = ["dri/renderD128", "null", "nvidia0", "nvidiactl", "zero"];
        assert_eq!(found, expected.map(|name| dev.join(name)));
    }

    #[test]
    fn environment_adds_absolute_paths_only() {
        let mut policy = Policy::gpu();
        let before = policy.read_paths.len();
        policy.add_driver_environment(|name| {
            (name == "LD_LIBRARY_PATH").then(|| OsString::from(":lib:/home/me/mesa/lib"))
        });
        assert_eq!(policy.read_paths[before..], [PathBuf::from("/home/me/mesa/lib")]);
    }

    #[test]
    fn groups_come_from_the_devices() {
        let nothing = Identity::for_devices(7, 8, &["/dev/null".into(), "/no/such".into()]);
        let expected = Identity { uid: 7, gid: 8, groups: vec![] };
        assert_eq!(nothing.unwrap(), expected);
    }
}
