//! `pontoon model requests`.

use std::process::ExitCode;

use pontoon_daemon::Config;

use serde_json::Value;

use super::http::{Daemon, query};
use crate::table;

/// Show recent requests: who asked, how long they waited, how fast the answer came
///
/// Prompts and answers are not kept unless the configuration says so (http.requests.bodies).
#[derive(clap::Args)]
pub struct Arguments {
    /// Those of one model
    #[arg(value_name = "MODEL")]
    model: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(config: &Config, arguments: &Arguments) -> Result<ExitCode, String> {
    let path = match &arguments.model {
        Some(model) => format!("/engines/requests?model={}", query(model)),
        None => "/engines/requests".to_owned(),
    };
    let models = Daemon::here(config)?.get(&path)?;
    if arguments.json {
        crate::print_json(&models)?;
        return Ok(ExitCode::SUCCESS);
    }
    let records = models.as_array().into_iter().flatten().flat_map(|model| model["records"].as_array());
    let rows: Vec<_> = records.flatten().map(cells).collect();
    let headings = [
        "MODEL",
        "CALLER",
        "PATH",
        "STATUS",
        "OUTCOME",
        "QUEUE",
        "FIRST TOKEN",
        "TOTAL",
        "PROMPT",
        "CACHED",
        "ANSWER",
    ];
    table::print(&headings, &rows);
    Ok(ExitCode::SUCCESS)
}

fn cells(record: &Value) -> Vec<String> {
    let text = |name: &str| record[name].as_str().unwrap_or_default().to_owned();
    let milliseconds =
        |name: &str| record[name].as_f64().map_or_else(String::new, |ms| format!("{ms:.1} ms"));
    vec![
        text("model"),
        text("caller"),
        text("url"),
        record["status_code"].to_string(),
        text("outcome"),
        milliseconds("queue_ms"),
        milliseconds("first_token_ms"),
        milliseconds("duration_ms"),
        record["prompt_tokens"].to_string(),
        record["cached_tokens"].to_string(),
        record["completion_tokens"].to_string(),
    ]
}
