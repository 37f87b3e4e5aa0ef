//! `cargo xtask check`: formatting, lints and, where cargo-deny is installed, licences and sources.

use crate::{
    project::Project,
    stages::{Output, Stages},
};

pub fn run(project: &Project) -> anyhow::Result<()> {
    let mut stages = Stages::new(project)?;
    format_and_lint(project, &mut stages)?;
    let title = "licences, advisories and sources";
    if project.has_cargo_command("deny") {
        let mut deny = project.cargo(&["deny", "check"]);
        stages.run(title, Output::Logged, &mut deny)?;
    } else {
        stages.skip(title, "cargo-deny is not installed");
    }
    stages.finish("check");
    Ok(())
}

/// The two stages that `test` begins with as well.
pub fn format_and_lint(project: &Project, stages: &mut Stages) -> anyhow::Result<()> {
    let mut format = project.cargo(&["fmt", "--all", "--check"]);
    stages.run("formatting", Output::Logged, &mut format)?;
    let mut clippy = project.cargo(&["clippy", "--workspace", "--all-targets"]);
    clippy.args(["--", "-D", "warnings"]);
    stages.run("lints", Output::Logged, &mut clippy)
}
