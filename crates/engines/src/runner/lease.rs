//! Owns a turn: who has it may talk to the engine, and gives it back when done or gone.

use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::actor::{Message, Monitor};
use super::plan::Plan;
use super::types::Usage;
use crate::instance::ended;
use crate::scheduler::Ticket;

/// What is the same for all turns at one process.
#[derive(Debug)]
pub struct Serving {
    /// Where the engine listens.
    pub socket: PathBuf,
    /// What the engine calls its model; write it into the request.
    pub engine_model: String,
    /// The scale of each of the model's adapters, for a request that names none. What a slot has cached is used
    /// again with other scales unless every request says all of them.
    pub adapters: Vec<f64>,
    /// The model's id.
    pub digest: String,
    /// The model's name, to show.
    pub model: Arc<str>,
    pub engine: String,
    /// Tokens of context of a turn.
    pub context_size: u32,
}

/// A turn at an engine. Dropping it gives the turn back.
#[derive(Debug)]
pub struct Lease {
    /// Where.
    pub at: Arc<Serving>,
    /// Loading that this request waited for; zero if the model was there.
    pub load: Duration,
    /// All the time between asking and getting.
    pub wait: Duration,
    /// Requests of this model that waited when this one came.
    pub position: usize,
    pub(super) ticket: Ticket,
    pub(super) exited: watch::Receiver<Option<ExitStatus>>,
    /// Taken when the turn has been given back.
    pub(super) back: Option<Monitor>,
}

impl Serving {
    /// A process that was started by this plan and listens there.
    pub(super) fn new(plan: &Plan, socket: PathBuf) -> Self {
        Self {
            socket,
            engine_model: plan.engine_model(),
            adapters: plan.adapters(),
            digest: plan.digest.clone(),
            model: plan.name.as_str().into(),
            engine: plan.engine.label(),
            context_size: plan.context_size(),
        }
    }
}

impl Lease {
    /// Gives the turn back with what it took, so that the caller is charged for that.
    pub fn finish(mut self, usage: Usage) {
        let tokens = usage.prompt_tokens.saturating_add(usage.completion_tokens);
        self.give_back(Some(tokens));
    }

    /// Waits until the engine has ended. A connection that breaks says the same.
    pub async fn gone(&self) {
        ended(&mut self.exited.clone()).await;
    }

    fn give_back(&mut self, tokens: Option<u32>) {
        if let Some(back) = self.back.take() {
            back.tell(Message::Finished { ticket: self.ticket, tokens });
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.give_back(None);
    }
}
