//! What the supervisor does about devices that were taken for virtual machines: when it starts, what dead owners had goes
//! back, and what living ones have stays theirs.

use std::path::Path;
use std::time::Duration;

use pontoon_passthrough::helper::report;
use pontoon_passthrough::{Host, Journals, Operation, Owner, Phase, recover, step, viability};

/// How long the kernel may take for one step.
const DEADLINE: Duration = Duration::from_secs(20);

/// Looks through the journals, and says what came of it. Without root nothing can be put back; then it says how.
pub fn look_after() {
    let root = Path::new("/");
    let (journals, errors) = Journals::below(root).list();
    if journals.is_empty() && errors.is_empty() {
        return;
    }
    if !rustix::process::geteuid().is_root() {
        let orphaned = |journal: &&pontoon_passthrough::Journal| {
            !journal.owner.lives(root)
                || journal.owner == Owner::Administrator && journal.phase != Phase::Taken
        };
        let orphaned = journals.iter().filter(orphaned).count();
        if orphaned > 0 {
            log::warn!("what {orphaned} virtual machines had was not put back: `sudo pontoon vfio restore`");
        }
        return;
    }
    let Ok(program) = step::program() else { return };
    let mut perform = |operation: &Operation| step::in_process(&program, operation, DEADLINE);
    let viable = |group| viability::check(root, group);
    let mut host = Host { root, perform: &mut perform, patience: DEADLINE, viable: &viable };
    let answer = report(&recover(&mut host), true);
    answer.done.iter().for_each(|line| log::info!("{line}"));
    answer.warnings.iter().for_each(|line| log::warn!("{line}"));
}
