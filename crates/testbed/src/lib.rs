//! Real containers for tests on a bare machine: a busybox root file system, a podman that needs no
//! systemd and leaves the user's own images alone, scratch folders, and visible skipping.
//!
//! Only tests and `xtask` use this crate; no product code does.

mod docker;
mod line;
mod machine;
mod podman;
mod program;
mod rootfs;
mod scratch;
mod tools;

pub use docker::Docker;
pub use line::Line;
pub use machine::Machine;
pub use podman::{Podman, Service};
pub use program::add_program;
pub use rootfs::busybox_rootfs;
pub use scratch::Scratch;
pub use tools::{REQUIRE, find_tool, ready};
