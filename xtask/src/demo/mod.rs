//! `cargo xtask demo`: GPU programs on the host and in a container without a GPU, side by side.
//!
//! One file per step: [`build`], [`serve`], [`container`], [`programs`], [`models`], [`compare`], [`burn`].

pub mod build;
mod burn;
mod compare;
mod container;
mod models;
mod programs;
pub mod serve;

use std::{fs, path::PathBuf};

use anyhow::{Context as _, ensure};
use pontoon_testbed::Scratch;

use crate::{driver::Driver, engine, packages, project::Project, signals, stages::Stages};

pub fn run(project: &Project, with_burn: bool) -> anyhow::Result<()> {
    ensure!(cfg!(target_os = "linux"), "the demo starts a container, which needs a Linux host");
    signals::outlive_interrupts();
    let mut stages = Stages::new(project)?;
    stages.step("system packages", packages::install_missing)?;
    let programs = build::all(project, &mut stages)?;
    let driver = Driver::find();
    let folders = Folders::new(project)?;
    // Before everything that lies in it, so that it goes last.
    let scratch = Scratch::new("demo")?;

    let host = stages.step("pontoon serve, on the host", || {
        println!("   {}", driver.sentence());
        serve::start(&programs, &driver, scratch.path(), &folders.out, None)
    })?;
    let guest = stages.step("a container with neither GPU nor network", || {
        let guest = container::prepare(&programs, scratch.path())?;
        container::show_isolation(&guest, &host)?;
        Ok(guest)
    })?;
    let mut rows = Vec::new();
    for program in &programs::PROGRAMS {
        let title = format!("{}: {}", program.name, program.what);
        let row = stages
            .step(&title, || programs::run_both(program, &programs, &driver, &host, &guest, &folders))?;
        rows.push(row);
    }
    if with_burn {
        burn::run(project, &mut stages, &host)?;
    }
    stages.step("comparison", || compare::report(&rows, &folders))?;
    stages.halfway("the GPU in a container", "models come next");
    drop(host);

    let llama_server = engine::llama_server(project, &mut stages, &programs.pontoon())?;
    let minilm = engine::minilm(project, &mut stages)?;
    let host = stages.step("two models", || {
        let host = serve::start(&programs, &driver, scratch.path(), &folders.out, Some(&llama_server))?;
        models::package(project, &host, &minilm)?;
        Ok(host)
    })?;
    stages.step("a chat, streamed to curl in the container", || models::chat(&guest, &host))?;
    stages.step("an embedding search from the container", || {
        models::search(project, &guest, &host, &folders.container)
    })?;
    stages.finish("demo");
    Ok(())
}

/// Where the pictures go, which stay after the demo.
pub struct Folders {
    pub out: PathBuf,
    pub native: PathBuf,
    pub container: PathBuf,
}

impl Folders {
    /// Empty ones: pictures of an earlier run must not pass for this one's.
    fn new(project: &Project) -> anyhow::Result<Self> {
        let out = project.root.join("demo-out");
        let folders = Self { native: out.join("native"), container: out.join("container"), out };
        if folders.out.exists() {
            fs::remove_dir_all(&folders.out).context("cannot empty demo-out")?;
        }
        for folder in [&folders.native, &folders.container] {
            fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        Ok(folders)
    }
}
