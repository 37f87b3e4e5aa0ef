//! The model runner over HTTP: dialects, callers, keys, management.
//!
//! [`start`] binds what the configuration names and serves it: a request is let in by its connection and
//! key ([`caller`], [`keys`]), routed ([`route`]), understood by its [`dialect`], given a turn on an engine by
//! [`pontoon_engines::Runner`], and its answer flows back through one translator without a task or channel
//! of its own. Whoever may manage models is told by the connection, never by the request.

#![forbid(unsafe_code)]

mod answers;
pub mod bench;
mod body;
pub mod caller;
mod config;
pub mod dialect;
mod infer;
pub mod keys;
mod logs;
mod manage;
mod metrics;
mod openapi;
mod rates;
mod recorder;
mod reply;
pub mod route;
mod server;

pub use config::{Allowance, Config, Key, Limits, ModelsConfig, Requests, Responses, Tls};
pub use logs::LogTail;
pub use metrics::label;
pub use server::{Api, Error, Forwarder, MoreMetrics, Server, serve, start};
