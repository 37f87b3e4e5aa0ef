//! Owns the order of the two stages on Linux, and the look back whether they are in force.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{Access, access};

use crate::{
    Calls, Error, Level, Mechanism, Policy, Program, Report, allowed_engine, identity, landlock, limits,
    seccomp, sys,
};

/// What the second stage must remember of the policy.
pub struct Entered {
    calls: Calls,
    send_descriptors: bool,
}

const TASKS: &str = "/proc/self/task";

/// Each step makes a later one impossible to undo or to get around, so the order is the design:
/// files last, because the steps before them still write to /proc/self.
pub fn enter(policy: &Policy, report: &mut Report) -> Result<Entered, Error> {
    only_one_thread()?;
    report.inherited = inherited_descriptors()?;
    identity::leave_terminal(report);
    limits::volunteer_for_oom(policy, report);
    limits::be_nice(policy, report);
    limits::lower(policy, report)?;
    identity::surrender(policy, report)?;
    identity::hide(policy, report)?;
    identity::follow_parent(policy, report)?;
    report.unreachable_devices = unreachable_devices(policy);
    landlock::restrict(policy, report)?;
    Ok(Entered { calls: policy.calls, send_descriptors: policy.send_descriptors })
}

/// Everything that [`execute`] needs, made before the seal: afterwards it would not be allowed.
pub struct Ready {
    door: sys::Door,
    name: String,
    arguments: Vec<CString>,
    environment: Vec<CString>,
}

pub fn prepare(program: &Program) -> Result<Ready, Error> {
    let name = program.path.display().to_string();
    let refused = |source: io::Error| Error::Execute { program: name.clone(), source };
    let string = |bytes: &[u8]| CString::new(bytes).map_err(|e| refused(e.into()));
    let path = string(program.path.as_os_str().as_bytes())?;
    let door = sys::open_door(allowed_engine::DOOR, &path).map_err(refused)?;
    let mut arguments = vec![path];
    for argument in &program.arguments {
        arguments.push(string(argument.as_bytes())?);
    }
    let mut environment = Vec::new();
    for (key, value) in &program.environment {
        environment.push(string(&[key.as_bytes(), b"=", value.as_bytes()].concat())?);
    }
    Ok(Ready { door, name, arguments, environment })
}

/// Returns only on failure.
pub fn execute(ready: Ready) -> Error {
    let source = sys::execute(&ready.door, &ready.arguments, &ready.environment);
    Error::Execute { program: ready.name, source }
}

pub fn seal(entered: Entered, report: &mut Report) -> Result<(), Error> {
    let rules = seccomp::install(entered.calls, entered.send_descriptors)?;
    let threads = every_thread_is_confined()?;
    let detail = format!("{rules} system calls allowed, in {threads} threads");
    report.note(Mechanism::SystemCalls, Level::InForce, detail);
    Ok(())
}

fn only_one_thread() -> Result<(), Error> {
    let threads = entries(TASKS)?.len();
    match threads {
        1 => Ok(()),
        _ => Err(Error::TooLate { threads }),
    }
}

/// Names of the descriptors beyond the standard three, for the report.
fn inherited_descriptors() -> Result<Vec<String>, Error> {
    const OPEN: &str = "/proc/self/fd";
    let mut found = Vec::new();
    for name in entries(OPEN)? {
        // The descriptor that lists the directory is gone by now, and so has no target.
        let Ok(target) = fs::read_link(Path::new(OPEN).join(&name)) else {
            continue;
        };
        if name.parse::<u32>().is_ok_and(|number| number > 2) {
            found.push(format!("{name} -> {}", target.display()));
        }
    }
    Ok(found)
}

/// The devices of the policy that the user we have become may not open. Landlock does not decide
/// about `access`, so this is about users and groups only.
fn unreachable_devices(policy: &Policy) -> Vec<String> {
    let closed = |device: &&std::path::PathBuf| {
        device.exists() && access(*device, Access::READ_OK | Access::WRITE_OK).is_err()
    };
    let devices = policy.device_paths.iter().filter(closed);
    devices.map(|device| device.display().to_string()).collect()
}

/// Reads back from the kernel what `seal` claims, thread by thread.
fn every_thread_is_confined() -> Result<usize, Error> {
    let mut confined = 0;
    for thread in entries(TASKS)? {
        let read = |name: &str| fs::read_to_string(format!("{TASKS}/{thread}/{name}"));
        let failed = |source| Error::Proc { path: format!("{TASKS}/{thread}/status"), source };
        let Some(status) = unless_gone(read("status")).map_err(failed)? else { continue };
        let Err(error) = judge(&thread, &status) else {
            confined += 1;
            continue;
        };
        // The kernel passes over threads that are ending when it confines all others. They run nothing any more.
        let Some(stat) = unless_gone(read("stat")).map_err(failed)? else { continue };
        if !is_ending(&stat) {
            return Err(error);
        }
    }
    Ok(confined)
}

/// What was read of a thread; nothing if it ended in the meantime.
fn unless_gone(read: io::Result<String>) -> io::Result<Option<String>> {
    match read {
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => Ok(None),
        other => other.map(Some),
    }
}

/// Whether a thread has `PF_EXITING` (`include/linux/sched.h`), which no thread loses again: in the ninth field of its
/// `stat`, see proc_pid_stat(5). The second is its name, in parentheses.
fn is_ending(stat: &str) -> bool {
    const PF_EXITING: u64 = 4;
    let flags =
        stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(6)?.parse::<u64>().ok());
    flags.is_some_and(|flags| flags & PF_EXITING != 0)
}

/// A thread is confined if it has the filter, can gain nothing, and has no capability.
fn judge(thread: &str, status: &str) -> Result<(), Error> {
    const NONE: &str = "0000000000000000";
    let expected = [("Seccomp", "2"), ("NoNewPrivs", "1"), ("CapPrm", NONE), ("CapEff", NONE)];
    for (field, wanted) in expected {
        let found = field_of(status, field);
        if found != Some(wanted) {
            let found = found.unwrap_or("nothing");
            let what = format!("thread {thread} has {field} {found} instead of {wanted}");
            return Err(Error::NotInForce { what });
        }
    }
    Ok(())
}

fn field_of<'a>(status: &'a str, field: &str) -> Option<&'a str> {
    let mut lines = status.lines().filter_map(|line| line.split_once(':'));
    let found = lines.find(|(name, _)| *name == field);
    found.map(|(_, value)| value.trim())
}

fn entries(directory: &str) -> Result<Vec<String>, Error> {
    let read = || -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(directory)? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        Ok(names)
    };
    read().map_err(|source| Error::Proc { path: directory.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFINED: &str = "Name:\tx\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\n\
                            NoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t1\n";

    #[test]
    fn a_confined_thread_passes() {
        judge("1", CONFINED).unwrap();
    }

    #[test]
    fn a_thread_that_is_ending_is_told_from_one_that_runs() {
        let ours = fs::read_to_string("/proc/thread-self/stat").unwrap();
        assert!(!is_ending(&ours), "{ours}");
        assert!(is_ending("7 (odd) name) R 1 1 1 0 -1 4227148 0 0"));
        assert!(!is_ending("7 (4 4 4 4 4 4 4 4) R 1 1 1 0 -1 4227136 0 0"));
        assert!(!is_ending("nonsense"));
        assert!(unless_gone(Err(io::Error::from_raw_os_error(libc::ESRCH))).unwrap().is_none());
    }

    #[test]
    fn a_thread_without_any_one_of_the_fences_is_found() {
        for (good, bad) in [
            ("Seccomp:\t2", "Seccomp:\t0"),
            ("NoNewPrivs:\t1", "NoNewPrivs:\t0"),
            ("CapEff:\t0000000000000000", "CapEff:\t0000000000000001"),
            ("CapPrm:\t0000000000000000\n", ""),
        ] {
            assert!(CONFINED.contains(good));
            let error = judge("7", &CONFINED.replace(good, bad)).unwrap_err();
            assert!(error.to_string().contains("thread 7"), "{error}");
        }
    }

    #[test]
    fn a_process_with_threads_is_refused() {
        // The test harness itself runs threads.
        let other = std::thread::spawn(std::thread::park);
        let outcome = enter(&Policy::gpu(), &mut Report::default());
        assert!(matches!(outcome, Err(Error::TooLate { .. })));
        other.thread().unpark();
    }
}
