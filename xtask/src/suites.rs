//! What `cargo xtask test --full` adds: suites that are long or live in workspaces of their own.

use crate::{
    project::Project,
    stages::{Output, Stages},
    test::Env,
};

/// A command in a folder; skipped where `needs` does not exist.
struct Suite {
    title: &'static str,
    needs: &'static str,
    folder: &'static str,
    cargo: &'static [&'static str],
}

const SUITES: [Suite; 4] = [
    Suite {
        title: "burn over the bridge",
        needs: "burn/Cargo.toml",
        folder: "burn",
        cargo: &["run", "--release"],
    },
    Suite {
        title: "CubeCL's own tests over the bridge",
        needs: "cubecl-tests/Cargo.toml",
        folder: "cubecl-tests",
        cargo: &["test", "--release"],
    },
    Suite {
        title: "fuzzing, briefly",
        needs: "fuzz/Cargo.toml",
        folder: "fuzz",
        cargo: &["test", "--release"],
    },
    Suite {
        title: "soak",
        needs: "crates/daemon/tests/soak.rs",
        folder: ".",
        cargo: &["test", "--release", "-p", "pontoon-daemon", "--test", "soak", "--", "--ignored"],
    },
];

pub fn run(project: &Project, stages: &mut Stages, env: &Env) -> anyhow::Result<()> {
    for suite in &SUITES {
        if !project.has(suite.needs) {
            stages.skip(suite.title, &format!("there is no {}", suite.needs));
            continue;
        }
        let folder = project.root.join(suite.folder);
        let mut command = project.cargo_in(&folder, suite.cargo);
        stages.run(suite.title, Output::Shown, command.envs(env.clone()))?;
    }
    Ok(())
}
