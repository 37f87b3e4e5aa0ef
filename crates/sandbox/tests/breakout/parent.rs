//! The judge: starts children, confined and not, and compares what they got.

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Failed, Trial};
use pontoon_sandbox::{Level, Mechanism, Report};

use crate::attempts::{Attempt, Control, Stage as From, all};
use crate::child::{MODE, Mode, NOBODY, REFUSED, SCENE, TASK};
use crate::scene::Stage;

pub fn main() {
    let mut trials: Vec<Trial> = all().map(|attempt| Trial::test(attempt.name, || judge(attempt))).collect();
    for mode in [Mode::Sealed, Mode::Nobody, Mode::BornNobody, Mode::ReceiveOnly] {
        let name = format!("work_goes_on_{mode:?}").to_lowercase();
        trials.push(only_root(mode, Trial::test(name, move || work(mode))));
        let name = format!("everything_is_in_force_{mode:?}").to_lowercase();
        trials.push(only_root(mode, Trial::test(name, move || in_force(mode))));
    }
    trials.push(Trial::test("dies_with_its_supervisor", dies_with_its_supervisor));
    trials.push(Trial::test("an_orphan_gives_up", an_orphan_gives_up));
    trials.push(Trial::test("how_long_it_takes", how_long_it_takes));
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

fn is_root() -> bool {
    rustix::process::getuid().is_root()
}

/// Only root can try out what it is like to be another user.
fn only_root(mode: Mode, trial: Trial) -> Trial {
    let needs_root = matches!(mode, Mode::Nobody | Mode::BornNobody);
    trial.with_ignored_flag(needs_root && !is_root())
}

fn spawn(task: &str, mode: Mode, scene: &str) -> Output {
    let mut command = Command::new("/proc/self/exe");
    command.env(TASK, task).env(SCENE, scene);
    command.env(MODE, format!("{mode:?}"));
    if mode == Mode::BornNobody {
        command.uid(NOBODY).gid(NOBODY);
    }
    command.output().unwrap()
}

/// One row of the table: it works without a sandbox, and is refused in every kind of sandbox.
fn judge(attempt: &Attempt) -> Result<(), Failed> {
    let control = control(attempt)?;
    let mut modes = vec![Mode::Sealed, Mode::SealedThread, Mode::ReceiveOnly];
    if attempt.refused_from == From::Enter {
        modes.extend([Mode::Entered, Mode::SameNetwork]);
    }
    if is_root() {
        modes.extend([Mode::Nobody, Mode::BornNobody]);
    }
    let mut answers = Vec::new();
    for mode in modes {
        let answer = confined(attempt, mode)?;
        answers.push(format!("{mode:?}: {answer}"));
    }
    println!("{:<30} free: {control}; {}", attempt.name, answers.join("; "));
    Ok(())
}

/// How the message of ENOSYS ends.
const NOT_IMPLEMENTED: &[u8] = b"(os error 38)\n";

fn control(attempt: &Attempt) -> Result<String, Failed> {
    if attempt.control == Control::SucceedsForRoot && !is_root() {
        return Ok("only root could".to_owned());
    }
    let stage = Stage::set(attempt.name, rustix::process::getuid().as_raw())?;
    let output = spawn(attempt.name, Mode::Free, &stage.scene.write());
    let said = said(&output);
    let refused = output.status.code() == Some(REFUSED);
    match attempt.control {
        // Some kernels and containers lack a facility or refuse it to everybody.
        Control::Reaches if !refused => Ok(said),
        Control::Reaches if !is_root() || output.stdout.ends_with(NOT_IMPLEMENTED) => {
            Ok(format!("not available here: {said}"))
        }
        Control::Succeeds | Control::SucceedsForRoot if output.status.success() => Ok(said),
        _ => Err(format!("not possible even without a sandbox: {said}").into()),
    }
}

fn confined(attempt: &Attempt, mode: Mode) -> Result<String, Failed> {
    let other_user = matches!(mode, Mode::Nobody | Mode::BornNobody);
    let owner = if other_user { NOBODY } else { rustix::process::getuid().as_raw() };
    let stage = Stage::set(&format!("{}-{mode:?}", attempt.name), owner)?;
    let output = spawn(attempt.name, mode, &stage.scene.write());
    let said = said(&output);
    let refused = output.status.code() == Some(REFUSED);
    // The filter ends a process that comes by the door of another architecture.
    let ended = output.status.signal() == Some(libc::SIGSYS);
    match refused || ended {
        true => Ok(said),
        false => Err(format!("{} was not refused in mode {mode:?}: {said}", attempt.name).into()),
    }
}

fn said(output: &Output) -> String {
    if output.status.success() {
        return "done".to_owned();
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    match text.trim() {
        // An answer says why by itself.
        text if !text.is_empty() && output.status.code() == Some(REFUSED) => text.to_owned(),
        text => format!("{}: {text} {}", output.status, errors.trim()),
    }
}

fn work(mode: Mode) -> Result<(), Failed> {
    let output = spawn("work", mode, "");
    match output.status.success() {
        true => Ok(()),
        false => Err(said(&output).into()),
    }
}

fn report(mode: Mode) -> Result<Report, Failed> {
    let output = spawn("report", mode, "");
    serde_json::from_slice(&output.stdout).map_err(|e| format!("{e}: {}", said(&output)).into())
}

/// On a kernel that offers everything, everything is in force; here the kernel may be older or in
/// a container, so only what every supported kernel has is demanded, and the rest is shown.
fn in_force(mode: Mode) -> Result<(), Failed> {
    let report = report(mode)?;
    println!("--- {mode:?}\n{report}");
    for mechanism in [
        Mechanism::SystemCalls,
        Mechanism::NoNewPrivileges,
        Mechanism::Capabilities,
        Mechanism::Limits,
        Mechanism::Undumpable,
        Mechanism::Lifetime,
    ] {
        assert_eq!(report.level(mechanism), Level::InForce, "{mechanism}");
    }
    assert_ne!(report.level(Mechanism::Files), Level::Absent);
    assert_eq!(report.unreachable_devices, [""; 0]);
    Ok(())
}

fn dies_with_its_supervisor() -> Result<(), Failed> {
    let output = spawn("outlive", Mode::Free, "");
    let worker = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let deadline = Instant::now() + Duration::from_secs(5);
    let process = std::path::PathBuf::from("/proc").join(&worker);
    while is_running(&process) {
        if Instant::now() > deadline {
            return Err(format!("worker {worker} outlived its supervisor").into());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    worker.parse::<u32>().map(drop).map_err(|e| format!("{e}: {}", said(&output)).into())
}

/// Whether the process is there and not a zombie that somebody has yet to collect.
fn is_running(process: &std::path::Path) -> bool {
    let status = std::fs::read_to_string(process.join("status"));
    status.is_ok_and(|text| !text.contains("State:\tZ") && !text.contains("State:\tX"))
}

fn an_orphan_gives_up() -> Result<(), Failed> {
    let output = spawn("orphan", Mode::Sealed, "");
    match output.status.success() {
        true => Ok(()),
        false => Err(said(&output).into()),
    }
}

/// Measures, for the record; the bound only catches a blunder.
fn how_long_it_takes() -> Result<(), Failed> {
    let mut modes = vec![Mode::Sealed];
    if is_root() {
        modes.extend([Mode::Nobody, Mode::BornNobody]);
    }
    for mode in modes {
        let reports: Result<Vec<Report>, Failed> = (0..21).map(|_| report(mode)).collect();
        let reports = reports?;
        let enter = median(reports.iter().map(|r| r.enter_micros));
        let seal = median(reports.iter().map(|r| r.seal_micros));
        println!("{mode:?}: median of 21: {enter} µs to enter, {seal} µs to seal");
        assert!(enter + seal < 500_000, "confinement takes {enter} + {seal} µs");
    }
    Ok(())
}

fn median(values: impl Iterator<Item = u64>) -> u64 {
    let mut values: Vec<u64> = values.collect();
    values.sort_unstable();
    values[values.len() / 2]
}
