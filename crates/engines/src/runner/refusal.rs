//! Owns the sentences that a caller without a turn gets.

use super::types::{AcquireError, Refusal};
use crate::scheduler::Rejection;

/// What the scheduler's rejection means to a caller of `model`.
pub fn describe(model: &str, rejection: Rejection) -> AcquireError {
    match rejection {
        Rejection::QueueFull { retry_after } => AcquireError::new(
            Refusal::QueueFull { retry_after },
            format!("too many requests wait for {model}; try again in {} s", retry_after.as_secs().max(1)),
        ),
        Rejection::TooBig { need, budget } => AcquireError::new(
            Refusal::TooBig,
            format!(
                "{model} needs {need} and this host gives models {budget}; lower its context size or parallel \
                 slots, or use a smaller quantisation"
            ),
        ),
        Rejection::Pinned { need, left } => AcquireError::new(
            Refusal::TooBig,
            format!(
                "{model} needs {need} and pinned models leave {left}; unpin one or lower its context size"
            ),
        ),
        Rejection::LoadFailed { reason, retry_after } => AcquireError::new(
            Refusal::LoadFailed { retry_after: Some(retry_after) },
            format!("{model} could not be loaded: {reason}"),
        ),
        Rejection::Draining => {
            AcquireError::new(Refusal::Draining, "the model runner is shutting down; try again in a while")
        }
        Rejection::Unknown => AcquireError::new(Refusal::NotFound, format!("there is no model {model} here")),
    }
}
