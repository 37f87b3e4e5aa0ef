//! `cargo xtask test`: from a bare machine to every test passed.

use std::{ffi::OsString, process::Command};

use pontoon_testbed::REQUIRE;

use crate::{
    check, debian,
    driver::Driver,
    engine, mac, packages,
    project::Project,
    stages::{Output, Stages},
    suites,
};

pub fn run(project: &Project, full: bool) -> anyhow::Result<()> {
    let mut stages = Stages::new(project)?;
    stages.step("system packages", packages::install_missing)?;
    let mut env = environment(project);
    check::format_and_lint(project, &mut stages)?;
    build(project, &mut stages)?;
    env.extend(models(project, &mut stages)?);
    tests(project, &mut stages, &env)?;
    mac::check(project, &mut stages, &project.python().join("bin/python"))?;
    if full {
        suites::run(project, &mut stages, &env)?;
    }
    stages.finish(if full { "test --full" } else { "test" });
    Ok(())
}

/// What tests are told: the programs that were built for them, the driver to use, and that nothing
/// may be skipped any more.
pub type Env = Vec<(&'static str, OsString)>;

fn environment(project: &Project) -> Env {
    let driver = Driver::find();
    println!("\n{}", driver.sentence());
    let mut env = vec![
        (REQUIRE, "1".into()),
        ("PONTOON_GUEST_BIN", project.guest_programs().into()),
        ("PONTOON_BIN", project.host_programs("debug").join("pontoon").into()),
    ];
    env.extend(driver.env().map(|(name, value)| (name, value.into())));
    env
}

/// What tests of the model runner need: an engine, an embedding model, and the clients' SDKs.
fn models(project: &Project, stages: &mut Stages) -> anyhow::Result<Env> {
    let pontoon = project.host_programs("debug").join("pontoon");
    let llama_server = engine::llama_server(project, stages, &pontoon)?;
    let minilm = engine::minilm(project, stages)?;
    let reranker = engine::reranker(project, stages)?;
    let python = engine::python(project, stages)?;
    let kernel = debian::kernel(project, stages)?;
    let whole_kernel = debian::whole_kernel(project, stages)?;
    debian::slices(project, stages, whole_kernel.as_deref())?;
    let qemu = debian::qemu(project, stages);
    let testing = debian::testing(project, stages);
    let mut env: Env = vec![
        (engine::LLAMA_SERVER, llama_server.into()),
        ("PONTOON_MINILM_GGUF", minilm.clone().into()),
        ("PONTOON_TEST_MINILM", minilm.into()),
        ("PONTOON_TEST_MINILM_ORIGINAL", project.minilm().into()),
        ("PONTOON_TEST_RERANKER", reranker.into()),
        ("PONTOON_MLX_PYTHON", python.clone().into()),
        ("PONTOON_TEST_PYTHON", python.into()),
    ];
    env.extend(kernel.map(|folder| ("PONTOON_TEST_KERNEL", folder.into())));
    env.extend(whole_kernel.map(|folder| ("PONTOON_TEST_WHOLE_KERNEL", folder.into())));
    env.extend(qemu.map(|folder| ("PONTOON_TEST_QEMU", folder.into())));
    env.extend(testing.map(|folder| ("PONTOON_TEST_TESTING", folder.into())));
    Ok(env)
}

/// Everything at once, tests included, is one set of features: `pontoon` alone would be another, and
/// with it a second build of wgpu.
fn build(project: &Project, stages: &mut Stages) -> anyhow::Result<()> {
    let title = "static guest programs";
    if cfg!(target_os = "linux") {
        stages.run(title, Output::Logged, &mut project.build_guests())?;
    } else {
        stages.skip(title, "containers share a kernel with Linux only");
    }
    let mut all = project.cargo(&["build", "--workspace", "--all-targets"]);
    stages.run("building everything", Output::Logged, &mut all)
}

fn tests(project: &Project, stages: &mut Stages, env: &Env) -> anyhow::Result<()> {
    let mut run = |title, args: &[&str]| {
        let mut command: Command = project.cargo(args);
        stages.run(title, Output::Shown, command.envs(env.clone()))
    };
    if project.has_cargo_command("nextest") {
        run("tests", &["nextest", "run", "--workspace", "--no-fail-fast"])?;
    } else {
        run("tests", &["test", "--workspace", "--all-targets"])?;
    }
    run("examples in the documentation", &["test", "--quiet", "--workspace", "--doc"])
}
