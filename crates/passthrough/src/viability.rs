//! Whether VFIO would give a group to a machine: asked of VFIO itself
//! (<https://docs.kernel.org/driver-api/vfio.html>, `linux/vfio.h`).
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::fs::File;
use std::path::Path;

use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, ioctl, opcode};

/// `struct vfio_group_status`.
#[repr(C)]
struct Status {
    /// Bytes of this structure.
    size: u32,
    /// Bit 0: viable.
    flags: u32,
}

/// `VFIO_GROUP_GET_STATUS`: type `;`, number 103, without a size.
struct GetStatus(Status);

// SAFETY: the number is that of the command whose argument is this structure, which the kernel fills in, and no more
// than its first member says; it outlives the call.
unsafe impl Ioctl for GetStatus {
    type Output = bool;
    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        opcode::none(b';', 103)
    }

    fn as_ptr(&mut self) -> *mut c_void {
        (&raw mut self.0).cast()
    }

    // SAFETY: who calls it gives the pointer of `as_ptr`, after the kernel has answered: the trait's promise.
    unsafe fn output_from_ptr(_: IoctlOutput, pointer: *mut c_void) -> rustix::io::Result<bool> {
        // SAFETY: it is the pointer of `as_ptr`, to a `Status` that the kernel has filled in.
        let status = unsafe { &*pointer.cast::<Status>() };
        Ok(status.flags & 1 == 1)
    }
}

/// Asks VFIO about a group.
///
/// # Errors
/// Why it is not viable, or cannot be asked.
pub fn check(root: &Path, group: u32) -> Result<(), String> {
    let path = root.join(format!("dev/vfio/{group}"));
    let file = File::options().read(true).write(true).open(&path);
    let file = file.map_err(|error| format!("/dev/vfio/{group}: {error}"))?;
    let request = GetStatus(Status { size: size_of::<Status>() as u32, flags: 0 });
    // SAFETY: see `GetStatus`; the descriptor is open as long as `file`.
    match unsafe { ioctl(&file, request) } {
        Ok(true) => Ok(()),
        Ok(false) => Err("a device in it is on a driver of this host".into()),
        Err(errno) => Err(format!("/dev/vfio/{group}: {errno}")),
    }
}
