//! Builds the host's program, the examples for the host and the examples for guests.

use std::path::PathBuf;

use crate::{
    project::{PROFILE, Project},
    stages::{Output, Stages},
};

/// Folders of the programs that the demo starts.
pub struct Programs {
    /// `pontoon` and the native examples.
    pub host: PathBuf,
    /// The examples as static programs that know no GPU but Pontoon's.
    pub guest: PathBuf,
}

impl Programs {
    pub fn pontoon(&self) -> PathBuf {
        self.host.join("pontoon")
    }
}

/// Two builds: what runs on the host needs one wgpu between them, and guests need flags of their
/// own. Both in one target folder, so that macros and build scripts are built once.
pub fn all(project: &Project, stages: &mut Stages) -> anyhow::Result<Programs> {
    let mut host = project.cargo(&["build", "--profile", PROFILE, "--bins"]);
    host.args(["-p", "pontoon-cli", "-p", "pontoon-examples"]).args([
        "--no-default-features",
        "--features",
        "pontoon-examples/native",
    ]);
    let title = "building pontoon and the native programs (minutes, the first time)";
    stages.run(title, Output::Logged, &mut host)?;
    let mut guests = project.build_guests();
    let title = "building the same programs for containers";
    stages.run(title, Output::Logged, &mut guests)?;
    Ok(Programs { host: project.host_programs(PROFILE), guest: project.guest_programs() })
}
