//! The dialects: what callers say, turned into what engines understand, and back.
//!
//! Pure: bytes in, bytes out; no socket, and no clock but the durations that are passed in. A request is
//! understood by [`prepare`] into a [`Call`]; its [`EngineRequest`] goes to an engine, which speaks llama-server's
//! OpenAI-compatible HTTP; the answer comes back through [`Call::reply`] or a [`StreamTranslator`].
#![forbid(unsafe_code)]

mod adapters;
pub mod anthropic;
mod call;
mod cards;
mod chunk;
mod duration;
mod error;
mod grammar;
mod json;
pub mod limits;
pub mod ollama;
pub mod openai;
pub mod pictures;
pub mod responses;
mod sse;
mod stream;

pub use call::{
    Action, Call, Dialect, Endpoint, EngineRequest, History, KeepAlive, Meta, Mode, Reply, no_history,
    prepare,
};
pub use cards::{Capability, Details, ModelCard, Running};
pub use chunk::Usage;
pub use duration::parse_keep_alive;
pub use error::{DialectError, ErrorKind};
pub use responses::Stored;
pub use stream::{End, StreamTranslator};
