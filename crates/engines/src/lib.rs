//! Inference engines: where they come from, how they are confined, and when they run.
//!
//! An engine is a confined process that speaks OpenAI-compatible HTTP on a unix socket of its own; there
//! is one for each loaded model. This crate finds or installs engines ([`engine`]), turns typed
//! [`Settings`] into their command lines, starts them through a [`launcher`] that checks the model and
//! confines itself before it becomes the engine, watches them, and decides when which model is loaded
//! ([`scheduler`], pure). [`Runner`] puts these together.

#![deny(unsafe_code)]

pub mod engine;
mod error;
mod files;
pub mod footprint;
pub mod http;
pub mod instance;
pub mod launcher;
pub mod memory;
pub mod runner;
pub mod scheduler;
pub mod settings;

pub use error::Error;
pub use memory::Memory;
pub use runner::{
    AcquireError, Caller, Change, Counters, Df, Lease, Mode, Notice, Options, Refusal, Request, Runner,
    Running, Serving, Shown, Usage, Waiting, Which,
};
pub use settings::{KeepAlive, Settings};
