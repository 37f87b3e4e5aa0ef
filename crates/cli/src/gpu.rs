//! `pontoon gpu`.

use std::path::Path;
use std::process::ExitCode;

use pontoon_daemon::admin::{self, AdapterRow, Answer, Question};
use pontoon_daemon::{paths, worker};

use pontoon_passthrough::{Device, MacGpu, Names, Status};

use crate::table;

#[derive(clap::Subcommand)]
pub enum Verb {
    /// List the adapters that guests may use, and this host's PCI GPUs
    ///
    /// First what the bridge offers: asks the running daemon; without one, loads the host's drivers itself. Then each
    /// GPU and accelerator on PCI, and whether a virtual machine could have it: available, vfio-ready, boot-vga (the
    /// firmware shows its screen on it), in-use, no-iommu, owned by whom. Programs of others that use one are seen by root alone.
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

pub fn run(verb: &Verb) -> Result<ExitCode, String> {
    let Verb::List { json } = verb;
    let rows = adapters()?;
    if cfg!(target_os = "macos") {
        return on_a_mac(&rows, *json);
    }
    let root = Path::new("/");
    let (inventory, conditions) = crate::vfio::look()?;
    let names = Names::of(root, inventory.gpus());
    let status = |device: &Device| Status::of(device, conditions.owner(device.address));
    if *json {
        let devices: Vec<_> =
            inventory.gpus().map(|device| as_json(device, &names, &status(device))).collect();
        crate::print_json(&serde_json::json!({ "adapters": rows, "devices": devices }))?;
        return Ok(ExitCode::SUCCESS);
    }
    if rows.is_empty() && inventory.gpus().next().is_none() {
        return Err("no GPU driver works here: install a Vulkan driver (on Debian `mesa-vulkan-drivers`, which also brings lavapipe for hosts without a GPU)".into());
    }
    print_adapters(&rows);
    if rows.iter().all(|row| row.kind == "cpu") {
        println!("\n{}", no_gpu());
    }
    let devices: Vec<_> =
        inventory.gpus().map(|device| device_cells(device, &names, &status(device))).collect();
    if !devices.is_empty() {
        println!();
        let headings = [
            "PCI ADDRESS",
            "VENDOR",
            "MODEL",
            "DRIVER",
            "GROUP",
            "MEMORY",
            "NUMA",
            "VFS",
            "SLICES",
            "STATUS",
        ];
        table::print(&headings, &devices);
    }
    Ok(ExitCode::SUCCESS)
}

/// A Mac's GPUs have no PCI addresses, and go to no machine whole.
fn on_a_mac(rows: &[AdapterRow], json: bool) -> Result<ExitCode, String> {
    let failed = |error: &dyn std::fmt::Display| format!("/usr/sbin/system_profiler: {error}");
    let output = std::process::Command::new("/usr/sbin/system_profiler")
        .args(["-json", "SPDisplaysDataType"])
        .output()
        .map_err(|error| failed(&error))?;
    let gpus = pontoon_passthrough::mac_gpus(&output.stdout).map_err(|error| failed(&error))?;
    if json {
        crate::print_json(&serde_json::json!({ "adapters": rows, "devices": gpus }))?;
    } else {
        print_adapters(rows);
        println!();
        table::print(&["VENDOR", "MODEL", "MEMORY", "STATUS"], &mac_cells(&gpus, rows));
    }
    Ok(ExitCode::SUCCESS)
}

fn print_adapters(rows: &[AdapterRow]) {
    let cells: Vec<_> = rows.iter().map(cells).collect();
    table::print(&["NAME", "TYPE", "API", "DRIVER", "MEMORY", "USABLE", "WHY"], &cells);
}

fn mac_cells(gpus: &[MacGpu], rows: &[AdapterRow]) -> Vec<Vec<String>> {
    let cells = |gpu: &MacGpu| {
        // What shares the host's memory has no size of its own; Metal says how much of it. A bridge that does not work
        // there is a GPU that nobody can have.
        let adapter = rows.iter().find(|row| row.name == gpu.model);
        let metal = adapter.and_then(|row| row.memory_bytes).map(table::bytes);
        let status = match adapter {
            Some(row) if !row.usable => format!("not usable: {}", row.why),
            _ => gpu.status.clone(),
        };
        vec![
            gpu.vendor.clone(),
            gpu.model.clone(),
            gpu.memory.clone().or(metal).unwrap_or_else(|| "-".into()),
            status,
        ]
    };
    gpus.iter().map(cells).collect()
}

fn device_cells(device: &Device, names: &Names, status: &Status) -> Vec<String> {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    vec![
        device.address.to_string(),
        names.vendor(device),
        names.model(device),
        or_dash(device.driver.clone()),
        or_dash(device.group.map(|group| group.to_string())),
        or_dash(device.memory.map(table::bytes)),
        or_dash(device.numa.map(|node| node.to_string())),
        or_dash(device.sriov.map(|vfs| format!("{}/{}", vfs.active, vfs.total))),
        match device.mdev.len() + device.vgpu.len() {
            0 => "-".to_owned(),
            types => format!("{types} types"),
        },
        status.to_string(),
    ]
}

/// What is known of a device, its names and status beside it.
fn as_json(device: &Device, names: &Names, status: &Status) -> serde_json::Value {
    let mut value = serde_json::to_value(device).unwrap_or_default();
    value["vendor_name"] = names.vendor(device).into();
    value["model"] = names.model(device).into();
    value["state"] = serde_json::to_value(status).unwrap_or_default();
    value
}

fn adapters() -> Result<Vec<AdapterRow>, String> {
    match admin::ask(&paths::admin_socket(&crate::local_socket()?), &Question::Adapters) {
        Ok(Answer::Adapters(rows)) => Ok(rows),
        Ok(answer) => Err(format!("the daemon answered something else: {answer:?}")),
        Err(pontoon_daemon::Error::NotRunning { .. }) => Ok(worker::open_host(&worker::Options::default()).1),
        Err(error) => Err(error.to_string()),
    }
}

fn cells(row: &AdapterRow) -> Vec<String> {
    vec![
        row.name.clone(),
        row.kind.clone(),
        row.backend.clone(),
        row.driver.clone(),
        row.memory_bytes.map_or_else(|| "-".to_owned(), table::bytes),
        if row.usable { "yes" } else { "no" }.to_owned(),
        row.why.clone(),
    ]
}

/// Why there may be only software: device nodes tell a missing driver from a missing GPU.
fn no_gpu() -> &'static str {
    let nodes = ["/dev/dri/renderD128", "/dev/nvidia0"];
    match nodes.into_iter().any(|node| std::path::Path::new(node).exists()) {
        true => {
            "This host has a GPU device node but no Vulkan driver that works with it: install the vendor's, and see that this user may open /dev/dri or /dev/nvidia0."
        }
        false => {
            "This host has no GPU device node (/dev/dri/renderD128, /dev/nvidia0): guests compute on the CPU."
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_macs_own_gpu_has_the_memory_that_metal_tells() {
        let gpu = |vendor: &str, model: &str, memory: Option<&str>| MacGpu {
            vendor: vendor.into(),
            model: model.into(),
            memory: memory.map(str::to_owned),
            status: "available".into(),
        };
        let adapter = |name: &str, usable: bool| AdapterRow {
            name: name.into(),
            kind: "integrated".into(),
            backend: "metal".into(),
            driver: String::new(),
            memory_bytes: Some(12 << 30),
            usable,
            why: "it is too old".into(),
        };
        let gpus = [
            gpu("Apple", "Apple M1 Pro", None),
            gpu("Intel", "Intel HD Graphics 4000", Some("1536 MB")),
            gpu("AMD", "AMD Radeon Pro 5500M", None),
        ];
        let rows = [adapter("Apple M1 Pro", true), adapter("Intel HD Graphics 4000", false)];
        assert_eq!(
            mac_cells(&gpus, &rows),
            [
                ["Apple", "Apple M1 Pro", "12.0 GiB", "available"],
                ["Intel", "Intel HD Graphics 4000", "1536 MB", "not usable: it is too old"],
                ["AMD", "AMD Radeon Pro 5500M", "-", "available"],
            ]
        );
    }
}
