//! Owns the refusal on platforms for which there is no sandbox.

use crate::{Error, Policy, Program, Report};

/// Cannot exist here.
pub enum Entered {}

pub fn enter(_policy: &Policy, _report: &mut Report) -> Result<Entered, Error> {
    Err(Error::Unsupported)
}

pub fn seal(entered: Entered, _report: &mut Report) -> Result<(), Error> {
    match entered {}
}

pub fn prepare(_program: &Program) -> Result<Entered, Error> {
    Err(Error::Unsupported)
}

pub fn execute(ready: Entered) -> Error {
    match ready {}
}
