//! A chat model small enough to train in minutes: its corpus, tokenizer, network, training and GGUF file.

pub mod chat;
pub mod corpus;
pub mod error;
pub mod exam;
mod facts;
pub mod gguf;
pub mod model;
pub mod packing;
pub mod server;
pub mod speaker;
pub mod tokenizer;
pub mod training;

pub use error::Error;
