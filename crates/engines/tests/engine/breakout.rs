//! Owns the attempts of a compromised engine to get out: this program in the engine's place.
//!
//! Each attempt runs twice: without a launcher, where it must work (else it proves nothing), and behind
//! the launcher, where it must be refused.
#![allow(unsafe_code, reason = "attempts are raw system calls")]

use std::ffi::{CString, c_long};
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::process::exit;

/// The first argument of this program in the engine's place.
pub const WORD: &str = "break-out";

pub const DONE: i32 = 0;
pub const REFUSED: i32 = 40;
pub const FAILED: i32 = 41;

/// Where everything is: `break-out NAME FOLDER SUPERVISOR TCP`.
pub struct Place {
    folder: String,
    supervisor: i32,
    tcp: String,
}

type Attempt = fn(&Place) -> io::Result<()>;

/// Name, attempt, and whether it works without a launcher on every host.
pub const ATTEMPTS: &[(&str, Attempt, bool)] = &[
    ("read_passwd", |_| fs::read("/etc/passwd").map(drop), true),
    ("read_a_file_beside", |place| fs::read(format!("{}/secret", place.folder)).map(drop), true),
    ("list_the_root", |_| fs::read_dir("/").map(drop), true),
    ("write_beside", |place| fs::write(format!("{}/new", place.folder), "x"), true),
    ("change_the_model", |place| fs::write(format!("{}/model/model.gguf", place.folder), "x"), true),
    ("remove_the_model", |place| fs::remove_file(format!("{}/model/model.gguf", place.folder)), true),
    ("make_a_folder", |place| fs::create_dir(format!("{}/write/folder", place.folder)), true),
    ("make_a_link", |place| std::os::unix::fs::symlink("/etc", format!("{}/write/link", place.folder)), true),
    ("connect_tcp", |place| std::net::TcpStream::connect(&place.tcp).map(drop), true),
    ("listen_tcp", |_| std::net::TcpListener::bind("127.0.0.1:0").map(drop), true),
    ("make_udp", |_| std::net::UdpSocket::bind("127.0.0.1:0").map(drop), true),
    ("connect_unix", |place| UnixStream::connect(format!("{}/outside.sock", place.folder)).map(drop), true),
    (
        "start_a_shell",
        |_| std::process::Command::new("/bin/sh").args(["-c", "true"]).status().map(drop),
        true,
    ),
    ("become_a_shell", |_| become_program("/bin/sh", "-c", "exit 0"), true),
    ("become_itself", |_| become_program("/proc/self/exe", WORD, "succeed"), true),
    ("become_itself_by_path", become_itself_by_path, true),
    ("become_a_descriptor", become_a_descriptor, true),
    ("become_memory", become_memory, true),
    ("through_the_door_by_mmap", |_| through_the_door(map_at_door), true),
    ("through_the_door_by_mremap", |_| through_the_door(move_to_door), true),
    ("through_the_door_by_growing", |_| grow_to_door(), false),
    ("through_the_door_as_it_is", |_| knock(), false),
    ("fork", |_| call(libc::SYS_clone, [libc::SIGCHLD as usize, 0, 0, 0, 0]).map(exit_child), true),
    (
        "signal_the_supervisor",
        |place| call(libc::SYS_kill, [place.supervisor as usize, 0, 0, 0, 0]).map(drop),
        true,
    ),
    ("read_the_supervisors_memory", read_supervisor, false),
    ("trace_the_supervisor", trace_supervisor, false),
    (
        "environment_of_the_supervisor",
        |place| fs::read(format!("/proc/{}/environ", place.supervisor)).map(drop),
        true,
    ),
    (
        "io_uring",
        |_| call(libc::SYS_io_uring_setup, [1, [0u8; 120].as_mut_ptr() as usize, 0, 0, 0]).map(drop),
        false,
    ),
    (
        "user_namespace",
        |_| call(libc::SYS_unshare, [libc::CLONE_NEWUSER as usize, 0, 0, 0, 0]).map(drop),
        false,
    ),
    ("raise_a_limit", |_| raise_a_limit(), false),
    ("bpf", |_| call(libc::SYS_bpf, [0, [0u8; 128].as_mut_ptr() as usize, 128, 0, 0]).map(drop), false),
    ("keys", |_| call(libc::SYS_keyctl, [0, (-3isize) as usize, 1, 0, 0]).map(drop), false),
];

/// This program in the engine's place. Never returns.
pub fn attempt() -> ! {
    let words: Vec<String> = std::env::args().collect();
    let at = words.iter().position(|word| word == WORD).expect("the word");
    let word = |n: usize| words.get(at + n).cloned().unwrap_or_default();
    if word(1) == "succeed" {
        exit(DONE);
    }
    let place = Place { folder: word(2), supervisor: word(3).parse().unwrap_or(0), tcp: word(4) };
    let outcome = match word(1).as_str() {
        "work" => crate::confined::work(&place.folder),
        name => {
            let (_, attempt, _) = ATTEMPTS.iter().find(|(known, ..)| *known == name).expect("an attempt");
            attempt(&place)
        }
    };
    let Err(error) = outcome else { exit(DONE) };
    println!("{error}");
    let refusals = [libc::EPERM, libc::EACCES, libc::ENOSYS, libc::EFAULT];
    let refused = error.raw_os_error().is_some_and(|code| refusals.contains(&code));
    exit(if refused { REFUSED } else { FAILED })
}

fn call(number: c_long, arguments: [usize; 5]) -> io::Result<c_long> {
    let [a, b, c, d, e] = arguments;
    // SAFETY: pointers among the arguments are to memory of this function's caller that lives until the
    // call returns; whatever the call does, it does to this process, which exists for it alone.
    let result = unsafe { libc::syscall(number, a, b, c, d, e) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// In the child of a fork nothing is to be done.
fn exit_child(pid: c_long) {
    if pid == 0 {
        exit(DONE);
    }
}

fn words(program: &str, first: &str, second: &str) -> Vec<CString> {
    [program, first, second].iter().map(|word| CString::new(*word).unwrap()).collect()
}

fn become_program(program: &str, first: &str, second: &str) -> io::Result<()> {
    let words = words(program, first, second);
    let pointers = [words[0].as_ptr(), words[1].as_ptr(), words[2].as_ptr(), std::ptr::null()];
    let none: [*const i8; 1] = [std::ptr::null()];
    call(
        libc::SYS_execve,
        [words[0].as_ptr() as usize, pointers.as_ptr() as usize, none.as_ptr() as usize, 0, 0],
    )
    .map(drop)
}

fn become_itself_by_path(_: &Place) -> io::Result<()> {
    let own = fs::read_link("/proc/self/exe")?;
    become_program(own.to_str().unwrap(), WORD, "succeed")
}

fn become_open(descriptor: i32) -> io::Result<()> {
    let words = words("x", WORD, "succeed");
    let pointers = [words[0].as_ptr(), words[1].as_ptr(), words[2].as_ptr(), std::ptr::null()];
    let empty = c"";
    let none: [*const i8; 1] = [std::ptr::null()];
    let arguments = [
        descriptor as usize,
        empty.as_ptr() as usize,
        pointers.as_ptr() as usize,
        none.as_ptr() as usize,
        libc::AT_EMPTY_PATH as usize,
    ];
    call(libc::SYS_execveat, arguments).map(drop)
}

fn become_a_descriptor(_: &Place) -> io::Result<()> {
    let own = File::open("/proc/self/exe")?;
    become_open(own.as_raw_fd())
}

fn become_memory(_: &Place) -> io::Result<()> {
    let name = c"x";
    let memory = call(libc::SYS_memfd_create, [name.as_ptr() as usize, 0, 0, 0, 0])? as i32;
    let program = fs::read("/proc/self/exe")?;
    fs::write(format!("/proc/self/fd/{memory}"), &program).or_else(|_| {
        // The sandbox may refuse the path; the descriptor itself is writable.
        let mut written = 0;
        while written < program.len() {
            let (start, left) = (program[written..].as_ptr() as usize, program.len() - written);
            written += call(libc::SYS_write, [memory as usize, start, left, 0, 0])? as usize;
        }
        Ok::<(), io::Error>(())
    })?;
    become_open(memory)
}

const DOOR: usize = 0x10_0000;
const PAGE: usize = 4096;

fn map(address: usize, size: usize, flags: i32) -> io::Result<usize> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = flags | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: an anonymous mapping, where nothing of this program is.
    let page = unsafe { libc::mmap(address as *mut _, size, protection, flags, -1, 0) };
    if page == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(page as usize) }
}

fn map_at_door() -> io::Result<()> {
    map(DOOR, PAGE, libc::MAP_FIXED).map(drop)
}

fn move_to_door() -> io::Result<()> {
    let page = map(0, PAGE, 0)?;
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
    call(libc::SYS_mremap, [page, PAGE, PAGE, flags as usize, DOOR]).map(drop)
}

/// Puts the path of this program where the filter lets a path be, and tries to become it.
fn through_the_door(prepare: fn() -> io::Result<()>) -> io::Result<()> {
    prepare()?;
    let own = CString::new(fs::read_link("/proc/self/exe")?.to_str().unwrap()).unwrap();
    // SAFETY: `prepare` has mapped a writable page there, and the path is shorter than a page.
    unsafe { std::ptr::copy_nonoverlapping(own.as_ptr(), DOOR as *mut _, own.as_bytes_with_nul().len()) };
    let words = words("x", WORD, "succeed");
    let pointers = [words[0].as_ptr(), words[1].as_ptr(), words[2].as_ptr(), std::ptr::null()];
    let none: [*const i8; 1] = [std::ptr::null()];
    call(libc::SYS_execve, [DOOR, pointers.as_ptr() as usize, none.as_ptr() as usize, 0, 0]).map(drop)
}

/// The one address that the filter lets pass, at which nothing is any more.
fn knock() -> io::Result<()> {
    let none: [*const i8; 1] = [std::ptr::null()];
    call(libc::SYS_execve, [DOOR, none.as_ptr() as usize, none.as_ptr() as usize, 0, 0]).map(drop)
}

/// A mapping that grows downwards when it is touched below its start.
fn grow_to_door() -> io::Result<()> {
    map(DOOR + (1 << 20), PAGE, libc::MAP_FIXED | libc::MAP_GROWSDOWN).map(drop)
}

fn read_supervisor(place: &Place) -> io::Result<()> {
    let mut byte = 0u8;
    let ours = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    let theirs = libc::iovec { iov_base: std::ptr::without_provenance_mut(0x1000), iov_len: 1 };
    let (ours, theirs) = (&raw const ours as usize, &raw const theirs as usize);
    call(libc::SYS_process_vm_readv, [place.supervisor as usize, ours, 1, theirs, 1]).map(drop)
}

fn trace_supervisor(place: &Place) -> io::Result<()> {
    call(libc::SYS_ptrace, [libc::PTRACE_SEIZE as usize, place.supervisor as usize, 0, 0, 0]).map(drop)
}

fn raise_a_limit() -> io::Result<()> {
    let more = libc::rlimit64 { rlim_cur: 1 << 20, rlim_max: 1 << 20 };
    call(libc::SYS_prlimit64, [0, libc::RLIMIT_CORE as usize, &raw const more as usize, 0, 0]).map(drop)
}
