//! `pontoon gpu`.

use std::process::ExitCode;

use pontoon_daemon::admin::{self, AdapterRow, Answer, Question};
use pontoon_daemon::{paths, worker};

use crate::table;

#[derive(clap::Subcommand)]
pub enum Verb {
    /// List the adapters, and whether guests may use each
    ///
    /// Asks the running daemon; without one, loads the host's drivers itself.
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

pub fn run(verb: &Verb) -> Result<ExitCode, String> {
    let Verb::List { json } = verb;
    let rows = adapters()?;
    if *json {
        crate::print_json(&rows)?;
        return Ok(ExitCode::SUCCESS);
    }
    if rows.is_empty() {
        return Err("no GPU driver works here: install a Vulkan driver (on Debian `mesa-vulkan-drivers`, which also brings lavapipe for hosts without a GPU)".into());
    }
    let cells: Vec<_> = rows.iter().map(cells).collect();
    table::print(&["NAME", "TYPE", "API", "DRIVER", "MEMORY", "USABLE", "WHY"], &cells);
    if rows.iter().all(|row| row.kind == "cpu") {
        println!("\n{}", no_gpu());
    }
    Ok(ExitCode::SUCCESS)
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
