//! What the supervisor does about devices that were taken for virtual machines: at its start and from time to time, what
//! dead owners had goes back, and what living ones have stays theirs.

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use pontoon_passthrough::helper::Order;
use pontoon_passthrough::{Journal, Journals, ask};

/// How often it looks.
const PAUSE: Duration = Duration::from_secs(30);

/// Looks through the journals for as long as the supervisor runs, and says what came of it, each thing once. Without
/// root nothing can be put back; then it says how.
pub fn look_after() {
    let root = Path::new("/");
    let mut said = HashSet::new();
    loop {
        let (journals, errors) = Journals::below(root).list();
        let orphans: Vec<&Journal> = journals.iter().filter(|journal| !journal.holds(root)).collect();
        if !rustix::process::geteuid().is_root() {
            for journal in orphans {
                let devices: Vec<String> = journal.taken.devices().iter().map(ToString::to_string).collect();
                let line = format!(
                    "{} was not put back, and {} has gone: `sudo pontoon vfio restore`",
                    devices.join(", "),
                    journal.owner
                );
                if said.insert(line.clone()) {
                    log::warn!("{line}");
                }
            }
        } else if !journals.is_empty() || !errors.is_empty() {
            match ask(&Order::Recover) {
                Ok(answer) => {
                    let new = |line: &&String| said.insert((*line).clone());
                    answer.done.iter().filter(new).for_each(|line| log::info!("{line}"));
                    let new = |line: &&String| said.insert((*line).clone());
                    let warnings = answer.warnings.iter().chain(&answer.error);
                    warnings.filter(new).for_each(|line| log::warn!("{line}"));
                }
                Err(error) => log::warn!("devices of machines: {error}"),
            }
        }
        std::thread::sleep(PAUSE);
    }
}
