//! Owns what a report says about the machine it was made on; Linux and macOS.

use std::process::Command;

use serde::Serialize;

/// Where and under what circumstances the numbers were taken. What cannot be found out is empty or 0.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Machine {
    /// Model of the CPU.
    pub cpu: String,
    /// Cores this process may use.
    pub cores: usize,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Name of the operating system.
    pub os: String,
    /// Release of the kernel.
    pub kernel: String,
    /// Load averages over 1, 5 and 15 minutes when the run began.
    pub load_average: [f64; 3],
    /// Name of the adapter.
    pub adapter: String,
    /// Kind of adapter: `DiscreteGpu`, `Cpu`, ...
    pub device_type: String,
    /// wgpu's back end.
    pub backend: String,
    /// Driver and its version.
    pub driver: String,
    /// Version of wgpu.
    pub wgpu: String,
    /// What a reader of the numbers should know besides.
    pub notes: Vec<String>,
}

impl Machine {
    /// All but the adapter.
    pub(crate) fn here() -> Self {
        Self {
            cpu: cpu().unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_mib: memory().unwrap_or(0) >> 20,
            os: os().unwrap_or_else(|| std::env::consts::OS.to_owned()),
            kernel: output("uname", &["-sr"]).unwrap_or_default(),
            load_average: load_average().unwrap_or_default(),
            wgpu: env!("PONTOON_WGPU_VERSION").to_owned(),
            ..Self::default()
        }
    }

    pub(crate) fn describe(&mut self, info: &wgpu::AdapterInfo) {
        self.adapter = info.name.clone();
        self.device_type = format!("{:?}", info.device_type);
        self.backend = info.backend.to_string();
        self.driver = format!("{} {}", info.driver, info.driver_info).trim().to_owned();
    }
}

fn cpu() -> Option<String> {
    // 64-bit Arm Linux has no name in /proc/cpuinfo; lscpu knows it from the part number.
    field("/proc/cpuinfo", "model name")
        .or_else(|| line(&output("lscpu", &[])?, "Model name"))
        .or_else(|| output("sysctl", &["-n", "machdep.cpu.brand_string"]))
}

/// In bytes.
fn memory() -> Option<u64> {
    let linux = || field("/proc/meminfo", "MemTotal")?.strip_suffix(" kB")?.parse::<u64>().ok();
    linux().map(|kib| kib << 10).or_else(|| output("sysctl", &["-n", "hw.memsize"])?.parse().ok())
}

fn os() -> Option<String> {
    let linux = std::fs::read_to_string("/etc/os-release").ok();
    let name = |text: String| {
        let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
        Some(name.trim_matches('"').to_owned())
    };
    linux.and_then(name).or_else(|| Some(format!("macOS {}", output("sw_vers", &["-productVersion"])?)))
}

fn load_average() -> Option<[f64; 3]> {
    let linux = std::fs::read_to_string("/proc/loadavg").ok();
    let text = linux.or_else(|| output("sysctl", &["-n", "vm.loadavg"]))?;
    let mut numbers = text.split_whitespace().filter_map(|word| word.parse().ok());
    Some([numbers.next()?, numbers.next()?, numbers.next()?])
}

/// The value of the first `name : value` line of a file.
fn field(path: &str, name: &str) -> Option<String> {
    line(&std::fs::read_to_string(path).ok()?, name)
}

fn line(text: &str, name: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim().to_owned())
    })
}

/// What a program prints, if it is there and succeeds.
fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok().filter(|o| o.status.success())?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (!text.is_empty()).then_some(text)
}
