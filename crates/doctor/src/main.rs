//! `pontoon-doctor`: the guest's side of `pontoon doctor`, small and, built with `+crt-static`, at home in any container.

use std::process::ExitCode;

use pontoon_doctor::{State, Wanted, guest, text, worst};

const HELP: &str = "pontoon-doctor: can this guest use a host's GPU and models through Pontoon?

Usage: pontoon-doctor [--json] [--no-gpu] [--no-models]

  --json       one line of JSON
  --no-gpu     do not look at the bridge
  --no-models  do not look at the model runner

Looks where PONTOON_HOST and OPENAI_BASE_URL say, else in the usual places. Exit codes: 0 all works; 1 something does
not, and the line says what is missing; 2 wrong usage.";

fn main() -> ExitCode {
    let (mut json, mut wanted) = (false, Wanted { gpu: true, models: true });
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--json" => json = true,
            "--no-gpu" => wanted.gpu = false,
            "--no-models" => wanted.models = false,
            "-h" | "--help" => {
                println!("{HELP}");
                return ExitCode::SUCCESS;
            }
            other => {
                eprintln!("pontoon-doctor: unknown argument '{other}'\n\n{HELP}");
                return ExitCode::from(2);
            }
        }
    }
    if !wanted.gpu && !wanted.models {
        eprintln!("pontoon-doctor: --no-gpu and --no-models leave nothing to look at");
        return ExitCode::from(2);
    }
    let findings = guest(wanted);
    match json {
        true => println!("{}", serde_json::to_string(&findings).unwrap_or_default()),
        false => print!("{}", text(&findings)),
    }
    if worst(&findings) == State::Failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
