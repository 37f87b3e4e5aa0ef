//! `pontoon model ps`.

use std::process::ExitCode;

use pontoon_daemon::Config;

use serde_json::Value;

use super::http::Daemon;
use crate::table;

/// Show which models are loaded, what they hold, and who waits
#[derive(clap::Args)]
pub struct Arguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Show who waits for a turn, instead
    #[arg(long)]
    queue: bool,
}

pub fn run(config: &Config, arguments: &Arguments) -> Result<ExitCode, String> {
    let path = if arguments.queue { "/pontoon/v1/queue" } else { "/pontoon/v1/ps" };
    let rows = Daemon::here(config)?.get(path)?;
    if arguments.json {
        crate::print_json(&rows)?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows = rows.as_array().map_or(&[][..], Vec::as_slice);
    if arguments.queue {
        let headings = ["CALLER", "MODEL", "POSITION", "WAITED", "EXPECTED"];
        table::print(&headings, &rows.iter().map(waiting).collect::<Vec<_>>());
    } else {
        let headings = [
            "MODEL",
            "STATE",
            "ENGINE",
            "MODES",
            "MEMORY",
            "GPU",
            "CONTEXT",
            "SERVING",
            "WAITING",
            "LEAVES IN",
        ];
        table::print(&headings, &rows.iter().map(loaded).collect::<Vec<_>>());
    }
    Ok(ExitCode::SUCCESS)
}

fn loaded(row: &Value) -> Vec<String> {
    let memory = |kind: &str| {
        let bytes = row["memory"][kind].as_u64().unwrap_or_default();
        let about = if row["estimated"] == true { "~" } else { "" };
        if bytes == 0 { String::new() } else { format!("{about}{}", table::bytes(bytes)) }
    };
    let modes = row["modes"].as_array().map_or(&[][..], Vec::as_slice);
    vec![
        text(&row["model"]),
        text(&row["state"]),
        text(&row["engine"]),
        modes.iter().map(text).collect::<Vec<_>>().join(" "),
        memory("host"),
        memory("gpu"),
        format!("{} x {}", row["slots"], row["context_size"]),
        row["serving"].to_string(),
        row["waiting"].to_string(),
        match (&row["expires_in"], row["pinned"] == true) {
            (_, true) => "pinned".to_owned(),
            (Value::Null, _) => "never".to_owned(),
            (left, _) => table::seconds(seconds(left)),
        },
    ]
}

fn waiting(row: &Value) -> Vec<String> {
    vec![
        text(&row["caller"]),
        text(&row["model"]),
        row["position"].to_string(),
        table::seconds(seconds(&row["waited"])),
        table::seconds(seconds(&row["expected"])),
    ]
}

/// A duration as the daemon writes it.
fn seconds(value: &Value) -> f64 {
    value["secs"].as_f64().unwrap_or_default() + value["nanos"].as_f64().unwrap_or_default() / 1e9
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
