//! What dead processes had is put back, what living ones have stays theirs: before anything is taken, and whenever the
//! supervisor looks.

use crate::apply::{Error, Host};
use crate::restore::Left;
use crate::{Journal, JournalError, Journals};

/// What became of a taking.
#[derive(Debug)]
pub enum Fate {
    /// Its owner lives.
    Adopted(Journal),
    /// It was put back; what somebody else had changed was left alone.
    Restored(Journal, Vec<Left>),
    /// It could not be put back.
    Failed(Journal, Error),
}

/// Looks through all journals. What an administrator has taken stays taken, but for what was cut off in the middle.
pub fn recover(host: &mut Host<'_>) -> (Vec<Fate>, Vec<JournalError>) {
    let (journals, errors) = Journals::below(host.root).list();
    let mut fates = Vec::new();
    for journal in journals {
        if journal.holds(host.root) {
            fates.push(Fate::Adopted(journal));
            continue;
        }
        match host.restore(&journal.taken.key(), |_| true) {
            Ok(left) => fates.push(Fate::Restored(journal, left.unwrap_or_default())),
            Err(error) => fates.push(Fate::Failed(journal, error)),
        }
    }
    (fates, errors)
}
