//! PCI GPUs and accelerators of this host, as the kernel shows them in sysfs: what they are, what drives them, what
//! shares their IOMMU group, and whether a virtual machine could have one. Reading alone: nothing here writes.
//!
//! Everything is read below a root that the caller names, `/` on a real host, so that recorded trees can be read as well.
#![forbid(unsafe_code)]

mod address;
mod inventory;
mod names;
mod status;
mod uses;

pub use address::{Address, AddressError};
pub use inventory::{Device, Inventory, Sriov};
pub use names::Names;
pub use status::Status;
