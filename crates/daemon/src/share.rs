//! A session's share of the host's processors, by the weight of its policy.

use rustix::process::{Pid, setpriority_process};

/// A step of niceness is worth a quarter of the processor time where threads compete (`sched(7)`).
const STEP: f64 = 1.25;

/// How nice a worker is whose policy has `weight`, where `most` is the greatest of all: who has that is not nice at all.
fn niceness(weight: u32, most: u32) -> i32 {
    let steps = (f64::from(most.max(weight)) / f64::from(weight.max(1))).ln() / STEP.ln();
    steps.round().min(19.0) as i32
}

/// Gives the threads of a worker their share. Threads that they start have it too.
pub fn give(worker: u32, weight: u32, most: u32) {
    let nice = niceness(weight, most);
    let Ok(threads) = std::fs::read_dir(format!("/proc/{worker}/task")) else { return };
    for thread in threads.flatten() {
        let number = thread.file_name().to_str().and_then(|name| name.parse().ok());
        if let Some(thread) = number.and_then(Pid::from_raw)
            && let Err(error) = setpriority_process(Some(thread), nice)
        {
            log::debug!("worker {worker} keeps its share of processors: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_shares() {
        assert_eq!(
            [(1, 1), (5, 5), (1, 2), (10, 100), (1, 1000)].map(|(own, most)| niceness(own, most)),
            [0, 0, 3, 10, 19]
        );
    }
}
