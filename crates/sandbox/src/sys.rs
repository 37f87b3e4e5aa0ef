//! Owns the few calls of this crate that the compiler cannot check; the only file with `unsafe`.
#![allow(unsafe_code)]

#[cfg(target_os = "linux")]
pub use door::{Door, execute, open as open_door};
#[cfg(target_os = "linux")]
pub use linux::{ignore_file_size_signal, unshare};
#[cfg(target_os = "macos")]
pub use macos::apply_profile;

#[cfg(target_os = "linux")]
mod linux {
    use std::io;

    use rustix::thread::UnshareFlags;

    /// Moves the calling thread into a new network namespace, on request inside a new user
    /// namespace.
    pub fn unshare(user: bool) -> io::Result<()> {
        let mut flags = UnshareFlags::NEWNET;
        flags.set(UnshareFlags::NEWUSER, user);
        // SAFETY: the call is unsafe only for `UnshareFlags::FILES`, which is not among the flags.
        unsafe { rustix::thread::unshare_unsafe(flags) }.map_err(io::Error::from)
    }

    /// Lets a write beyond the file-size limit fail with EFBIG instead of killing the worker.
    pub fn ignore_file_size_signal() -> io::Result<()> {
        // SAFETY: SIG_IGN is a valid disposition and installs no handler of ours.
        let previous = unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
        match previous {
            libc::SIG_ERR => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }
}

#[cfg(target_os = "linux")]
mod door {
    use std::ffi::{CStr, CString, c_char};
    use std::io;

    /// A page that holds a program's path at an address of our choice.
    pub struct Door {
        address: *const c_char,
    }

    /// Maps the page at `address`, which nothing else may use, and writes `path` there.
    pub fn open(address: usize, path: &CStr) -> io::Result<Door> {
        const PAGE: usize = 4096;
        let bytes = path.to_bytes_with_nul();
        if bytes.len() > PAGE {
            return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
        }
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
        // SAFETY: an anonymous mapping of our own, which replaces no other: NOREPLACE refuses that.
        let page = unsafe { libc::mmap(address as *mut _, PAGE, protection, flags, -1, 0) };
        if page == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // Kernels before 4.17 do not know NOREPLACE and take the address for a suggestion.
        if page as usize != address {
            return Err(io::Error::from_raw_os_error(libc::EEXIST));
        }
        // SAFETY: the page is writable, ours alone, and at least as long as `bytes`.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), page.cast(), bytes.len()) };
        Ok(Door { address: page.cast_const().cast() })
    }

    /// Becomes the program whose path is behind the door; returns why not.
    pub fn execute(door: &Door, arguments: &[CString], environment: &[CString]) -> io::Error {
        let pointers = |strings: &[CString]| -> Vec<*const c_char> {
            let all = strings.iter().map(|string| string.as_ptr());
            all.chain([std::ptr::null()]).collect()
        };
        let (arguments, environment) = (pointers(arguments), pointers(environment));
        // SAFETY: `address` is a C string in a page that is never unmapped, and both lists are arrays of
        // C strings that end with null and live until the call returns.
        unsafe { libc::execve(door.address, arguments.as_ptr(), environment.as_ptr()) };
        io::Error::last_os_error()
    }
}

#[cfg(target_os = "macos")]
mod macos {
    use std::ffi::{CStr, CString, c_char, c_int};

    // Deprecated by Apple for years, still what browsers on macOS confine themselves with.
    unsafe extern "C" {
        fn sandbox_init(profile: *const c_char, flags: u64, error: *mut *mut c_char) -> c_int;
        fn sandbox_free_error(error: *mut c_char);
    }

    /// Puts the profile, given as its text, in force for the whole process.
    pub fn apply_profile(profile: &str) -> Result<(), String> {
        let profile = CString::new(profile).map_err(|e| e.to_string())?;
        let mut message = std::ptr::null_mut();
        // SAFETY: both pointers are valid for the call; flags 0 means `profile` is the text itself.
        let outcome = unsafe { sandbox_init(profile.as_ptr(), 0, &mut message) };
        if outcome == 0 {
            return Ok(());
        }
        if message.is_null() {
            return Err("no reason given".to_owned());
        }
        // SAFETY: on failure `message` is a C string that belongs to us until we free it, below.
        let reason = unsafe { CStr::from_ptr(message) }.to_string_lossy().into_owned();
        // SAFETY: `message` came from `sandbox_init` and is not used again.
        unsafe { sandbox_free_error(message) };
        Err(reason)
    }
}
