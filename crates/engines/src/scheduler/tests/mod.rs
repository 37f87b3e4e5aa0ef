//! Owns the scheduler's tests: each rule by itself, and any interleaving.

mod any_order;
mod rules;
mod world;
