//! The process that is confined, or not, and then does as it is told.

use std::io;
use std::process::{Stdio, exit};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use pontoon_sandbox::{Error, Identity, Policy, Report, WarmUp, enter};

use crate::scene::{Kit, Scene};
use crate::{attempts, work};

pub const TASK: &str = "PONTOON_SANDBOX_TEST_TASK";
pub const MODE: &str = "PONTOON_SANDBOX_TEST_MODE";
pub const SCENE: &str = "PONTOON_SANDBOX_TEST_SCENE";
pub const NOBODY: u32 = 65534;

/// The answers, as exit statuses that nothing else uses.
pub const REFUSED: i32 = 40;
pub const FAILED: i32 = 41;

/// How far the child is confined.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mode {
    /// Not at all: the control.
    Free,
    /// First stage only, as during the warm-up.
    Entered,
    /// First stage only, on a host that permits no network namespace: Landlock stands alone.
    SameNetwork,
    Sealed,
    /// Sealed, and the attempt is made by a thread that was there before.
    SealedThread,
    /// Sealed, and no longer root.
    Nobody,
    /// Sealed, by a user who never was root.
    BornNobody,
    /// Sealed, and may only receive descriptors.
    ReceiveOnly,
}

const MODES: [Mode; 8] = [
    Mode::Free,
    Mode::Entered,
    Mode::SameNetwork,
    Mode::Sealed,
    Mode::SealedThread,
    Mode::Nobody,
    Mode::BornNobody,
    Mode::ReceiveOnly,
];

pub fn main(task: &str) -> ! {
    let mode = std::env::var(MODE).expect("a mode");
    let mode = *MODES.iter().find(|m| format!("{m:?}") == mode).unwrap();
    match task {
        "work" => work::all(mode),
        "report" => report(mode),
        "outlive" => outlive(mode),
        "orphan" => orphan(),
        name => one_attempt(name, mode),
    }
}

pub fn policy(mode: Mode) -> Policy {
    let mut policy = Policy::gpu();
    policy.parent = Some(std::os::unix::process::parent_id());
    policy.network_namespace = mode != Mode::SameNetwork;
    policy.send_descriptors = mode != Mode::ReceiveOnly;
    if mode == Mode::Nobody {
        policy.user = Some(Identity::for_devices(NOBODY, NOBODY, &[]).unwrap());
    }
    policy
}

pub fn begin(mode: Mode) -> WarmUp {
    enter(&policy(mode)).unwrap_or_else(|e| panic!("enter: {e}"))
}

pub fn seal(warm: WarmUp) -> Report {
    warm.seal().unwrap_or_else(|e| panic!("seal: {e}"))
}

fn one_attempt(name: &str, mode: Mode) -> ! {
    let attempt = attempts::all().find(|a| a.name == name).expect("an attempt");
    let scene = Scene::read(&std::env::var(SCENE).expect("a scene"));
    let kit = Kit::pack().unwrap();
    let run = move || (attempt.run)(&scene, &kit);
    let outcome = match mode {
        Mode::Free => run(),
        Mode::Entered | Mode::SameNetwork => {
            let _warm = begin(mode);
            run()
        }
        Mode::SealedThread => {
            let warm = begin(mode);
            let (go, thread) = waiting_thread(run);
            seal(warm);
            go.send(()).unwrap();
            thread.join().unwrap()
        }
        _ => {
            seal(begin(mode));
            run()
        }
    };
    answer(outcome)
}

/// A thread that exists before the process is sealed, as a driver's threads may.
fn waiting_thread<T: Send + 'static>(
    run: impl FnOnce() -> T + Send + 'static,
) -> (Sender<()>, thread::JoinHandle<T>) {
    let (go, wait): (Sender<()>, Receiver<()>) = channel();
    let thread = thread::spawn(move || {
        wait.recv().unwrap();
        run()
    });
    (go, thread)
}

/// A refusal is an error that only a sandbox gives; the last two come from an empty network
/// namespace.
fn answer(outcome: io::Result<()>) -> ! {
    let Err(error) = outcome else { exit(0) };
    let refusals = [libc::EPERM, libc::EACCES, libc::ENOSYS, libc::ENETUNREACH, libc::ECONNREFUSED];
    let refused = error.raw_os_error().is_some_and(|code| refusals.contains(&code));
    println!("{error}");
    exit(if refused { REFUSED } else { FAILED })
}

fn report(mode: Mode) -> ! {
    let report = seal(begin(mode));
    println!("{}", serde_json::to_string(&report).unwrap());
    exit(0)
}

/// Starts a confined child of its own, waits until it is confined, and dies.
fn outlive(mode: Mode) -> ! {
    use std::io::{BufRead, BufReader};
    if mode == Mode::Free {
        let mut command = std::process::Command::new("/proc/self/exe");
        command.env(MODE, "Sealed").stdout(Stdio::piped());
        // Else the judge would wait for the worker, whose error output was its own.
        command.stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        let output = child.stdout.take().unwrap();
        BufReader::new(output).read_line(&mut line).unwrap();
        println!("{}", child.id());
        exit(0)
    }
    seal(begin(mode));
    println!("confined");
    thread::sleep(std::time::Duration::from_secs(60));
    exit(FAILED)
}

/// Expects a parent that it does not have.
fn orphan() -> ! {
    let mut policy = policy(Mode::Sealed);
    policy.parent = Some(1);
    match enter(&policy) {
        Err(Error::Orphan { expected: 1, .. }) => exit(0),
        other => panic!("{:?}", other.err()),
    }
}
