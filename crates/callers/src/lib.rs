//! Who is calling, and what the operator's policies give it. Both ways in, the bridge and the model runner, ask
//! here, so that a container is the same caller to both.
//!
//! What a caller says of itself does not count. A unix socket's other end is a process that the kernel names; its
//! control group names its container; the container's engine knows the container's name, image and Compose
//! service. A connection that comes out of a container's own network namespace was opened there by us.

mod container;
mod directory;
mod engine;
mod facts;
mod policy;
mod process;

pub use container::Container;
pub use directory::{CallersConfig, Directory, Way};
pub use facts::{Facts, Via};
pub use policy::{Match, Policy, PolicyLimits, Verdict, check as check_policies, decide};
pub use process::{foreign_container, foreign_in, groups};
