//! The two things that `xtask` asks of the system about signals; its only `unsafe` code.

use std::{os::unix::process::CommandExt as _, process::Command};

/// Makes an interrupt from the keyboard end the children but not `xtask` itself, which then fails
/// because they did, and clears up on its way out.
pub fn outlive_interrupts() {
    extern "C" fn nothing(_: libc::c_int) {}
    let handler = nothing as extern "C" fn(libc::c_int);
    // SAFETY: a handler that does nothing is safe at any point. Unlike "ignore" it is not handed
    // on to children.
    unsafe { libc::signal(libc::SIGINT, handler as libc::sighandler_t) };
}

/// Makes the command end when this process does, even if that is killed. To be started from the
/// main thread, whose end is what the kernel watches. Only Linux can do this.
pub fn end_with_parent(command: &mut Command) {
    let request = || {
        // SAFETY: the call takes two plain numbers and changes nothing but the calling process's
        // own wish for a signal.
        #[cfg(target_os = "linux")]
        unsafe {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM)
        };
        Ok(())
    };
    // SAFETY: `request` runs between fork and exec, where it makes one system call, takes no lock
    // and allocates nothing.
    unsafe { command.pre_exec(request) };
}

/// Asks a child of ours to end, so that it can clear up; it may take its time.
pub fn ask_to_end(child: &std::process::Child) {
    // SAFETY: the child has not been waited for yet, so the number still names it.
    unsafe { libc::kill(child.id().cast_signed(), libc::SIGTERM) };
}
