//! What can go wrong while training, writing, reading or examining the model.

use std::path::PathBuf;

/// One failure, told in a sentence.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The tensor library refused an operation.
    #[error("the tensor library refused: {0}")]
    Tensor(#[from] candle_core::Error),
    /// The tokenizer library refused an operation.
    #[error("the tokenizer library refused: {0}")]
    Tokenizer(#[from] tokenizers::Error),
    /// A file could not be written or read.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A GGUF file lacks what this program writes into every one of its own.
    #[error("{path} is not a model of this program: {reason}")]
    NotOurs {
        /// The file.
        path: PathBuf,
        /// What is missing or different.
        reason: String,
    },
    /// A setting that cannot work.
    #[error("{name} is {value}; it must be {needed}")]
    Setting {
        /// The command line's name of it.
        name: &'static str,
        /// What was given.
        value: usize,
        /// What would do.
        needed: &'static str,
    },
    /// The loss is no longer a number.
    #[error("the loss at step {step} is {loss}; train again with a lower --rate")]
    Diverged {
        /// The step, from 0.
        step: usize,
        /// The loss there.
        loss: f32,
    },
    /// A server under examination did not answer as an OpenAI-compatible one does.
    #[error("{url} did not answer the question: {reason}")]
    Server {
        /// The address asked.
        url: String,
        /// What it said instead.
        reason: String,
    },
    /// The model answered too little of what it must know.
    #[error("the model knows too little about {topics}; train it for more --steps")]
    Failed {
        /// The topics it failed in.
        topics: String,
    },
}
