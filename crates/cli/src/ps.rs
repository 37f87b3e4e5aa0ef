//! `pontoon ps`.

use std::process::ExitCode;

use pontoon_daemon::admin::{self, Answer, Question, SessionRow};
use pontoon_daemon::paths;

use crate::table;

/// Show the live sessions: who, what they hold and what they have used
#[derive(clap::Args)]
pub struct Arguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Arguments) -> Result<ExitCode, String> {
    let path = paths::admin_socket(&crate::local_socket()?);
    let rows = match admin::ask(&path, &Question::Sessions) {
        Ok(Answer::Sessions(rows)) => rows,
        Ok(answer) => return Err(format!("the daemon answered something else: {answer:?}")),
        Err(error) => return Err(error.to_string()),
    };
    if arguments.json {
        crate::print_json(&rows)?;
        return Ok(ExitCode::SUCCESS);
    }
    let headings = [
        "SESSION", "PROGRAM", "WHO", "VIA", "AGE", "MEMORY", "OBJECTS", "GPU", "COMMANDS", "SUBMITS",
        "BYTES", "TRIPS", "ERRORS",
    ];
    table::print(&headings, &rows.iter().map(cells).collect::<Vec<_>>());
    Ok(ExitCode::SUCCESS)
}

fn cells(row: &SessionRow) -> Vec<String> {
    vec![
        row.session.to_string(),
        row.program.clone(),
        row.who.clone(),
        row.transport.clone(),
        table::seconds(row.seconds),
        table::bytes(row.memory_bytes),
        row.objects.to_string(),
        table::seconds(row.gpu_seconds),
        row.commands.to_string(),
        row.submissions.to_string(),
        table::bytes(row.bytes),
        row.round_trips.to_string(),
        row.errors.to_string(),
    ]
}
