//! The project's chores, behind `cargo xtask`: reads the command line and reports the outcome.

mod check;
mod debian;
mod demo;
mod driver;
mod engine;
mod mac;
mod packages;
mod project;
mod signals;
mod stages;
mod suites;
mod test;

use std::{env, process::ExitCode};

use anyhow::bail;

use crate::project::Project;

const USAGE: &str = "\
cargo xtask demo [--burn]    show GPU programs natively and in a container, and compare them
cargo xtask test [--full]    install what is missing, then check, build and test everything
cargo xtask check            formatting, lints, licences
cargo xtask packages [--list]
                             install the system packages that tests and the demo need";

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match run(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nxtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[&str]) -> anyhow::Result<()> {
    match *words {
        [] | ["help" | "--help" | "-h"] => {
            println!("{USAGE}");
            Ok(())
        }
        ["demo"] => demo::run(&Project::find()?, false),
        ["demo", "--burn"] => demo::run(&Project::find()?, true),
        ["test"] => test::run(&Project::find()?, false),
        ["test", "--full"] => test::run(&Project::find()?, true),
        ["check"] => check::run(&Project::find()?),
        ["packages"] => packages::install_missing(),
        ["packages", "--list"] => packages::list(),
        _ => bail!("unknown command '{}'; there are:\n{USAGE}", words.join(" ")),
    }
}
