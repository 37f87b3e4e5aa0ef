//! Owns the bound of what an engine may take once it is ready. The kernel counts its private, writable memory
//! (`RLIMIT_DATA`; `VmData` in `/proc`, see proc(5) and getrlimit(2)) and refuses it more: what a request made it
//! want is then the engine's failure, and not that of everything else on the host.

use std::io;

use crate::Memory;

/// What an engine may always grow by: pictures, long requests, buffers of a computation of another shape.
const LEAST: u64 = 2 << 30;

/// What an engine that took so much when it was ready may grow by, its prompt cache apart, unless the operator
/// says otherwise: what the budget of all engines leaves beside it. Some take gigabytes in ordinary use, such as
/// llama-server for the checkpoints of models with a sliding window; one that is refused memory there may end.
pub fn usual(ready: Memory, budget: Memory) -> u64 {
    budget.without(ready).host.max(LEAST)
}

/// Lets a process take `growth` bytes more than it has, and no more. What it may have then, in bytes. The number must
/// be that of a child that is not collected before this returns.
///
/// # Errors
/// The system's: the process has ended, or belongs to somebody else.
#[cfg(target_os = "linux")]
pub(super) fn bound(pid: u32, growth: u64) -> io::Result<u64> {
    use rustix::process::{Pid, Resource, Rlimit, prlimit};
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let has = super::measure::kilobytes(&status, "VmData:");
    let has = has.ok_or_else(|| io::Error::other("the system does not say what it has"))?;
    let most = has.saturating_add(growth);
    // No number would mean this process.
    let number = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let number = number.ok_or_else(|| io::Error::other(format!("{pid} is no process")))?;
    let limit = Rlimit { current: Some(most), maximum: Some(most) };
    prlimit(Some(number), Resource::Data, limit)?;
    Ok(most)
}

/// macOS has no such limit.
#[cfg(not(target_os = "linux"))]
pub(super) fn bound(_: u32, _: u64) -> io::Result<u64> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::process::{Command, Stdio};

    use super::*;

    /// Takes so many MiB for each line that it reads, and says whether it got them.
    const HUNGRY: &str = "
import mmap, sys
kept = []
for line in sys.stdin:
    try:
        kept.append(mmap.mmap(-1, int(line) << 20, flags=mmap.MAP_PRIVATE))
        print('had', flush=True)
    except OSError:
        print('refused', flush=True)
";

    #[test]
    fn a_process_gets_so_much_more_and_lives_on() {
        let mut child = Command::new("python3")
            .args(["-c", HUNGRY])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3, which the tests need elsewhere too");
        let (mut ask, mut answers) =
            (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()).lines());
        let mut get = |mib: u32| {
            writeln!(ask, "{mib}").unwrap();
            answers.next().unwrap().unwrap()
        };
        assert_eq!(get(300), "had");
        bound(child.id(), 100 << 20).unwrap();
        assert_eq!([get(60), get(60), get(20)], ["had", "refused", "had"]);
        drop(ask);
        assert!(child.wait().unwrap().success());
        let of = |gib: u64| Memory::host(gib << 30);
        assert_eq!((usual(of(3), of(20)), usual(of(19), of(20))), (17 << 30, LEAST));
        assert!(bound(u32::MAX, 0).is_err());
    }
}
