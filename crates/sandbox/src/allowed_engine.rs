//! Owns the list of system calls of an inference engine, which differs from a worker's in three ways.
//!
//! 1. It makes its own socket: unix stream sockets may be made, bound and listened on. There is no
//!    `connect`, no other family and no `sendmsg`, so nothing outside can be reached through one.
//! 2. It may create and remove files; Landlock decides where.
//! 3. It is another program, so one `execve` must be allowed *after* the filter is in force, and none
//!    after that. A filter cannot count, but it can compare addresses: the path must lie at [`DOOR`], an
//!    address below everything that may be mapped. Before `execve` our page is there. `execve` replaces
//!    the address space, and from then on nothing can be at [`DOOR`]: a mapping at a chosen address must
//!    be from [`LOWEST`] on, the kernel itself chooses far higher ones (from a third of the address space
//!    on, or above 1 GiB with MAP_32BIT), and mappings that grow downwards are refused. Every later
//!    `execve` therefore fails, by the filter or with EFAULT.

use libc::c_long;

use crate::allowed;
use crate::seccomp::{Check, Rules};

/// Where the path of the only program that can be executed lies. Above `vm.mmap_min_addr` (at most
/// 64 KiB everywhere), below where programs are linked.
pub const DOOR: usize = 0x10_0000;

/// The lowest address that may be asked of `mmap` and `mremap`.
pub const LOWEST: u64 = 0x20_0000;

/// Beyond a worker's: its own socket, files, and what a program's start needs.
const MORE: &[c_long] = &[
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_fdatasync,
    libc::SYS_flock,
    libc::SYS_fsync,
    libc::SYS_listen,
    libc::SYS_mincore,
    libc::SYS_mlock2,
    libc::SYS_unlinkat,
];

#[cfg(target_arch = "x86_64")]
const MORE_X86: &[c_long] = &[libc::SYS_arch_prctl, libc::SYS_unlink, libc::SYS_getpgrp];
#[cfg(not(target_arch = "x86_64"))]
const MORE_X86: &[c_long] = &[];

/// All rules, for the process `pid`, which is also the program's.
pub fn rules(pid: u32) -> Rules {
    let mut rules = Rules::default();
    allowed::common(&mut rules, pid);
    rules.allow(MORE);
    rules.allow(MORE_X86);
    opening(&mut rules);
    mapping(&mut rules);
    own_sockets(&mut rules);
    rules.allow_if(libc::SYS_execve, &[Check::is_address(0, DOOR as u64)]);
    rules
}

/// Open, create, truncate; no handle on a path (O_PATH, which Landlock does not cover) and no file
/// without a name.
fn opening(rules: &mut Rules) {
    let temporary = libc::O_TMPFILE & !libc::O_DIRECTORY;
    let forbidden = (temporary | libc::O_PATH) as u64;
    rules.allow_if(libc::SYS_openat, &[Check::none_of(2, forbidden)]);
    #[cfg(target_arch = "x86_64")]
    rules.allow_if(libc::SYS_open, &[Check::none_of(1, forbidden)]);
}

/// Nothing can ever be mapped at the door.
fn mapping(rules: &mut Rules) {
    let no_growing = Check::none_of(3, libc::MAP_GROWSDOWN as u64);
    rules.allow_if(libc::SYS_mmap, &[Check::is_null(0), no_growing.clone()]);
    rules.allow_if(libc::SYS_mmap, &[Check::is_from(0, LOWEST), no_growing]);
    let chosen = (libc::MREMAP_FIXED | libc::MREMAP_DONTUNMAP) as u64;
    rules.allow_if(libc::SYS_mremap, &[Check::none_of(3, chosen)]);
    rules.allow_if(libc::SYS_mremap, &[Check::is_from(4, LOWEST)]);
}

/// Unix stream sockets. `SOCK_CLOEXEC` and `SOCK_NONBLOCK` are bits of the type.
fn own_sockets(rules: &mut Rules) {
    const KIND: u64 = 0xf;
    let stream = Check::bits(1, KIND, libc::SOCK_STREAM as u64);
    for call in [libc::SYS_socket, libc::SYS_socketpair] {
        let unix = Check::is(0, libc::AF_UNIX as u64);
        rules.allow_if(call, &[unix, stream.clone()]);
    }
    let level = Check::is(1, libc::SOL_SOCKET as u64);
    for option in [libc::SO_REUSEADDR, libc::SO_REUSEPORT] {
        rules.allow_if(libc::SYS_setsockopt, &[level.clone(), Check::is(2, option as u64)]);
    }
}
