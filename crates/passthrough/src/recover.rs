//! What the supervisor does when it starts: what dead processes had is put back, what living ones have stays theirs.

use crate::apply::{Error, Host};
use crate::restore::Left;
use crate::{Journal, JournalError, Journals, Owner, Phase};

/// What became of a taking.
#[derive(Debug)]
pub enum Fate {
    /// Its owner lives.
    Adopted(Journal),
    /// It was put back; what somebody else had changed was left alone.
    Restored(Journal, Vec<Left>),
    /// Somebody is at it this moment.
    Busy(Journal),
    /// It could not be put back.
    Failed(Journal, Error),
}

/// Looks through all journals. What an administrator has taken stays taken, but for what was cut off in the middle.
pub fn recover(host: &mut Host<'_>) -> (Vec<Fate>, Vec<JournalError>) {
    let (journals, errors) = Journals::below(host.root).list();
    let mut fates = Vec::new();
    for journal in journals {
        let whole = journal.phase == Phase::Taken;
        if journal.owner.lives(host.root) && (whole || matches!(journal.owner, Owner::Process { .. })) {
            fates.push(Fate::Adopted(journal));
            continue;
        }
        fates.push(match host.restore(&journal.taken.key()) {
            Ok(left) => Fate::Restored(journal, left),
            Err(Error::Journal(JournalError::Locked(_))) => Fate::Busy(journal),
            Err(error) => Fate::Failed(journal, error),
        });
    }
    (fates, errors)
}
