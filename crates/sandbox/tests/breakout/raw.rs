//! The attempts' only `unsafe`: system calls that no safe interface offers, made by number.

use std::io;

use libc::c_long;

/// Makes system call `number`. Missing arguments are zero.
///
/// The attempts pass integers, or addresses of buffers that live until the call returns. A call
/// that changes this process (a new program, a new user) is the purpose: each attempt has a process
/// to itself.
pub fn call<const N: usize>(number: c_long, given: [usize; N]) -> io::Result<usize> {
    let mut all = [0; 6];
    all[..N].copy_from_slice(&given);
    let [a, b, c, d, e, f] = all;
    // SAFETY: see above; the kernel checks every address itself and answers EFAULT.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// Continues after a fork in the parent only: the child of the attempt has proved enough.
pub fn fork_with(number: c_long, flags: usize) -> io::Result<()> {
    if call(number, [flags])? == 0 {
        // SAFETY: always safe; ends the new process without running anything of the old one.
        unsafe { libc::_exit(0) }
    }
    Ok(())
}

/// `getpid` by the 32-bit door, which a filter for 64-bit numbers must not leave open.
#[cfg(target_arch = "x86_64")]
pub fn call_i386_getpid() -> io::Result<usize> {
    let result: i32;
    // SAFETY: the interrupt enters the kernel with a call number and clobbers `eax` alone (and
    // r8 to r11, which are declared).
    unsafe {
        std::arch::asm!("int 0x80", inlateout("eax") 20 => result,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _);
    }
    usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result))
}

/// Maps `length` bytes of `fd` (or of nothing), writes to them, and makes them executable, as a
/// just-in-time compiler does.
pub fn map_and_make_executable(fd: Option<i32>, length: usize) -> io::Result<()> {
    let (flags, fd) = match fd {
        Some(fd) => (libc::MAP_SHARED, fd),
        None => (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1),
    };
    let writable = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping at an address of the kernel's choice aliases nothing.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), length, writable, flags, fd, 0) };
    if at == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the mapping is writable, `length` bytes long, and nobody else knows it.
    unsafe { at.cast::<u8>().write_bytes(0xc3, length) };
    // SAFETY: the whole of our own mapping; nothing in it is executed.
    match unsafe { libc::mprotect(at, length, libc::PROT_READ | libc::PROT_EXEC) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
