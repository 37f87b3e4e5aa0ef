//! `cargo xtask demo --burn`: the burn workspace's own program, over the demo's daemon.

use crate::{
    demo::serve::Host,
    project::Project,
    stages::{Output, Stages},
};

pub fn run(project: &Project, stages: &mut Stages, host: &Host) -> anyhow::Result<()> {
    let title = "burn, over the bridge";
    if !project.has("burn/Cargo.toml") {
        stages.skip(title, "there is no burn/Cargo.toml");
        return Ok(());
    }
    let mut burn = project.cargo_in(&project.root.join("burn"), &["run"]);
    burn.env("PONTOON_HOST", host.address());
    stages.run(title, Output::Shown, &mut burn)
}
