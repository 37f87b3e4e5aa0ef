//! What `cargo xtask test --full` adds: suites that are long or live in workspaces of their own. They run
//! against a daemon that is started for them.

use std::process::Command;

use pontoon_testbed::Scratch;

use crate::{
    demo::{build::Programs, serve},
    driver::Driver,
    project::Project,
    stages::{Output, Stages},
    test::Env,
};

/// Seconds that each of two fuzz targets runs.
const FUZZ_SECONDS: u32 = 1800;

/// Seconds that the soak lasts.
const SOAK_SECONDS: &str = "1800";

/// A command in a folder.
struct Suite {
    title: &'static str,
    folder: &'static str,
    words: Vec<String>,
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

/// One after the other.
fn in_turn(address: &str) -> Vec<Suite> {
    vec![
        Suite { title: "burn, natively", folder: "burn", words: words("cargo run -- --native") },
        Suite { title: "burn, over the bridge", folder: "burn", words: words("cargo run") },
        Suite {
            title: "emulated computers: all lines, and a machine within that has a card",
            folder: ".",
            words: words(
                "cargo test -p pontoon-cli --test netem --test passthrough -- --ignored --nocapture --test-threads 1",
            ),
        },
        Suite {
            title: "CubeCL's own tests, natively and over the bridge",
            folder: "cubecl-tests",
            words: vec!["sh".into(), "compare.sh".into(), address.into()],
        },
    ]
}

/// Beside each other, since each has little use for more than one core.
fn side_by_side() -> Vec<Suite> {
    let fuzz = |target: &str| {
        words(&format!(
            "cargo fuzz run -s none {target} -- -max_total_time={FUZZ_SECONDS} -max_len=65536 -rss_limit_mb=4096"
        ))
    };
    vec![
        Suite {
            title: "soak: guests that come, work, die and vanish",
            folder: ".",
            words: words("cargo test -p pontoon-cli --test soak -- --nocapture"),
        },
        Suite { title: "fuzzing the decoder", folder: "fuzz", words: fuzz("decode") },
        Suite { title: "fuzzing a session", folder: "fuzz", words: fuzz("session") },
    ]
}

pub fn run(project: &Project, stages: &mut Stages, env: &Env) -> anyhow::Result<()> {
    let scratch = Scratch::new("full")?;
    let programs = Programs { host: project.host_programs("debug"), guest: project.guest_programs() };
    let host = serve::start(&programs, &Driver::find(), scratch.path(), scratch.path(), None)?;
    let command = |suite: &Suite| {
        let mut command = Command::new(&suite.words[0]);
        command.args(&suite.words[1..]).current_dir(project.root.join(suite.folder));
        command.envs(env.clone()).env("PONTOON_HOST", host.address()).env("NODEVICE_SELECT", "1");
        command.env("PONTOON_SOAK_SECONDS", SOAK_SECONDS);
        if suite.folder == "fuzz" {
            // cargo-fuzz wants options of the unstable compiler.
            command.env("RUSTC_BOOTSTRAP", "1");
        }
        command
    };
    for suite in in_turn(&host.address()) {
        stages.run(suite.title, Output::Shown, &mut command(&suite))?;
    }
    let mut long = side_by_side();
    if project.has_cargo_command("fuzz") {
        let title = "building the fuzz targets";
        let build = Suite { title, folder: "fuzz", words: words("cargo fuzz build -s none") };
        stages.run(title, Output::Logged, &mut command(&build))?;
    } else {
        stages.skip("fuzzing", "cargo-fuzz is missing: cargo install cargo-fuzz");
        long.retain(|suite| suite.folder != "fuzz");
    }
    let commands = long.iter().map(|suite| (suite.title, command(suite))).collect();
    stages.together("half an hour of soak and of fuzzing", commands)
}
