//! Owns the bound of what an engine may take once it is ready. The kernel counts its private, writable memory
//! (`RLIMIT_DATA`; `VmData` in `/proc`, see proc(5) and getrlimit(2)) and refuses it more: what a request made it
//! want is then its own failure, and not that of everybody else on the host.

use std::io;

use crate::Memory;

/// What an engine may always grow by: pictures, long requests, buffers of a computation of another shape.
const LEAST: u64 = 2 << 30;

/// What an engine that took so much when it was ready may grow by, its prompt cache apart, unless the operator
/// says otherwise.
pub fn usual(ready: Memory) -> u64 {
    LEAST.max(ready.host / 2)
}

/// Lets a process take `growth` bytes more than it has, and no more. What it may have then, in bytes.
///
/// # Errors
/// The system's: the process is gone, or belongs to somebody else.
#[cfg(target_os = "linux")]
pub fn bound(pid: u32, growth: u64) -> io::Result<u64> {
    use rustix::process::{Pid, Resource, Rlimit, prlimit};
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let has = super::measure::kilobytes(&status, "VmData:");
    let has = has.ok_or_else(|| io::Error::other("the system does not say what it has"))?;
    let most = has.saturating_add(growth);
    let number = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let limit = Rlimit { current: Some(most), maximum: Some(most) };
    prlimit(number, Resource::Data, limit)?;
    Ok(most)
}

/// macOS has no such limit.
#[cfg(not(target_os = "linux"))]
pub fn bound(_: u32, _: u64) -> io::Result<u64> {
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
        assert!(bound(u32::MAX, 0).is_err());
    }
}
