//! PCI GPUs and accelerators of this host, and how a virtual machine gets one: what they are ([`Inventory`]), what would
//! be done and what stands against it ([`Plan`]), what was taken ([`Journal`]), and the one writer ([`Host`]) that takes
//! and puts back. Every decision is made from what was read before; only [`apply`] writes, and only [`Operation`]s.
//!
//! Everything is read below a root that the caller names, `/` on a real host, so that recorded trees can be read as well.
#![deny(unsafe_code)]

mod address;
pub mod apply;
mod ask;
mod conditions;
pub mod helper;
mod inventory;
mod journal;
mod look;
mod mac;
mod names;
mod operation;
mod owner;
mod plan;
mod problem;
mod recover;
mod reservations;
mod restore;
mod status;
pub mod step;
mod uses;
pub mod viability;
mod ways;

pub use address::{Address, AddressError};
pub use apply::{Error, Host, StepError};
pub use ask::{Helper, ask};
pub use conditions::{Conditions, Driver};
pub use inventory::{Device, Inventory, Slices, Sriov};
pub use journal::{Journal, JournalError, Journals, Phase, Saved, Taken};
pub use look::{look, run as run_look};
pub use mac::{MacGpu, mac_gpus};
pub use names::Names;
pub use operation::{Operation, Uuid, VFIO};
pub use owner::Owner;
pub use plan::{Part, Plan, pick};
pub use problem::Problem;
pub use recover::{Fate, recover};
pub use reservations::{Count, Granted, Reservation, assign};
pub use restore::Left;
pub use status::Status;
pub use uses::against_slices;
pub use ways::{Way, ways};
