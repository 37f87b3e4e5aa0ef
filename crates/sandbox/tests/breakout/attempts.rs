//! The attempts to break out, by name, and what a process without a sandbox gets from each.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::os::unix::net::{SocketAddr, UnixStream};
use std::os::unix::process::CommandExt;
use std::process::Command;

use Control::{Reaches, Succeeds, SucceedsForRoot};
use Stage::{Enter, Seal};

use crate::raw::{call, fork_with};
use crate::scene::{Kit, Scene};

/// What the attempt does in a process without a sandbox: the proof that it is an attempt at all.
#[derive(Clone, Copy, PartialEq)]
pub enum Control {
    Succeeds,
    SucceedsForRoot,
    /// Fails for a reason of its own (bad arguments), but reaches the kernel's code.
    Reaches,
}

/// The stage from which on it must be refused.
#[derive(Clone, Copy, PartialEq)]
pub enum Stage {
    /// By Landlock, capabilities or namespaces already.
    Enter,
    /// By the system-call filter.
    Seal,
}

pub struct Attempt {
    pub name: &'static str,
    pub control: Control,
    pub refused_from: Stage,
    pub run: fn(&Scene, &Kit) -> io::Result<()>,
}

const fn attempt(
    name: &'static str,
    control: Control,
    refused_from: Stage,
    run: fn(&Scene, &Kit) -> io::Result<()>,
) -> Attempt {
    Attempt { name, control, refused_from, run }
}

pub const FILES: &[Attempt] = &[
    attempt("read_shadow", SucceedsForRoot, Enter, |_, _| read("/etc/shadow")),
    attempt("read_passwd", Succeeds, Enter, |_, _| read("/etc/passwd")),
    attempt("read_by_proc_root", Succeeds, Enter, |_, _| read("/proc/self/root/etc/passwd")),
    attempt("list_root_directory", Succeeds, Enter, |_, _| fs::read_dir("/").map(drop)),
    attempt("list_home_of_root", SucceedsForRoot, Enter, |_, _| fs::read_dir("/root").map(drop)),
    attempt("read_file_of_supervisor", Succeeds, Enter, |s, _| read(&s.file("secret"))),
    attempt("write_file", Succeeds, Enter, |s, _| write(&s.file("secret"))),
    attempt("truncate_file", Succeeds, Enter, |s, _| truncate(&s.file("secret"))),
    attempt("create_file", Succeeds, Enter, |s, _| File::create(s.file("new")).map(drop)),
    attempt("create_unnamed_file", Succeeds, Enter, |s, _| unnamed_file(s)),
    attempt("create_directory", Succeeds, Enter, |s, _| fs::create_dir(s.file("newdir"))),
    attempt("create_symlink", Succeeds, Enter, |s, _| symlink("/", s.file("newlink"))),
    attempt("create_hard_link", Succeeds, Enter, |s, _| fs::hard_link(s.file("secret"), s.file("newhard"))),
    attempt("rename_file", Succeeds, Enter, |s, _| fs::rename(s.file("victim"), s.file("gone"))),
    attempt("remove_file", Succeeds, Enter, |s, _| fs::remove_file(s.file("gone"))),
    attempt("change_mode", Succeeds, Seal, |s, _| {
        fs::set_permissions(s.file("mine"), fs::Permissions::from_mode(0o666))
    }),
    attempt("change_times", Succeeds, Seal, |s, _| {
        let path = c_path(&s.file("mine"));
        call(libc::SYS_utimensat, [AT_CWD, path.as_ptr() as usize]).map(drop)
    }),
    attempt("make_device_node", SucceedsForRoot, Enter, |s, _| {
        let (path, mode) = (c_path(&s.file("node")), (libc::S_IFCHR | 0o600) as usize);
        call(libc::SYS_mknodat, [AT_CWD, path.as_ptr() as usize, mode, 0x103]).map(drop)
    }),
    attempt("open_unlisted_device", Succeeds, Enter, |_, _| write("/dev/full")),
    attempt("write_own_memory_file", Succeeds, Enter, |_, _| write("/proc/self/mem")),
    attempt("write_sysctl", SucceedsForRoot, Enter, |_, _| write("/proc/sys/kernel/core_pattern")),
    attempt("take_handle_on_path", Succeeds, Seal, |s, _| {
        let flags = (libc::O_PATH | libc::O_CLOEXEC) as usize;
        let path = c_path(&s.file("secret"));
        call(libc::SYS_openat, [AT_CWD, path.as_ptr() as usize, flags]).map(drop)
    }),
    attempt("open_with_uncheckable_flags", Succeeds, Seal, |_, _| {
        let how = [0u64; 3];
        let path = c"/usr/lib".as_ptr() as usize;
        call(libc::SYS_openat2, [AT_CWD, path, how.as_ptr() as usize, 24]).map(drop)
    }),
    attempt("change_directory", Succeeds, Seal, |_, _| std::env::set_current_dir("/usr")),
    attempt("watch_files", Succeeds, Seal, |_, _| call(libc::SYS_inotify_init1, [0]).map(drop)),
];

pub const PROCESSES: &[Attempt] = &[
    attempt("exec_shell", Succeeds, Enter, |_, _| Err(Command::new("/bin/sh").args(["-c", "exit 0"]).exec())),
    attempt("exec_unlinked_memory", Succeeds, Seal, |_, kit| {
        let arguments = [c"sh".as_ptr(), c"-c".as_ptr(), c"exit 0".as_ptr(), std::ptr::null()];
        let (name, empty) = (c"".as_ptr() as usize, arguments.as_ptr() as usize);
        let shell = kit.shell.as_raw_fd() as usize;
        let flags = libc::AT_EMPTY_PATH as usize;
        call(libc::SYS_execveat, [shell, name, empty, 0, flags]).map(drop)
    }),
    #[cfg(target_arch = "x86_64")]
    attempt("fork", Succeeds, Seal, |_, _| fork_with(libc::SYS_fork, 0)),
    attempt("clone_process", Succeeds, Seal, |_, _| fork_with(libc::SYS_clone, libc::SIGCHLD as usize)),
    attempt("clone_into_namespace", SucceedsForRoot, Seal, |_, _| {
        fork_with(libc::SYS_clone, (libc::SIGCHLD | libc::CLONE_NEWNS) as usize)
    }),
    attempt("clone3", Succeeds, Seal, |_, _| {
        let mut arguments = [0u64; 8];
        arguments[4] = libc::SIGCHLD as u64;
        if call(libc::SYS_clone3, [arguments.as_ptr() as usize, 64])? == 0 {
            std::process::exit(0);
        }
        Ok(())
    }),
    attempt("ptrace_bystander", Succeeds, Enter, |s, _| {
        call(libc::SYS_ptrace, [libc::PTRACE_SEIZE as usize, s.bystander]).map(drop)
    }),
    attempt("read_memory_of_bystander", Reaches, Enter, |s, _| {
        let mut byte = 0u8;
        let (here, there) = ([&raw mut byte as usize, 1], [0x1000, 1]);
        let (here, there) = (here.as_ptr() as usize, there.as_ptr() as usize);
        call(libc::SYS_process_vm_readv, [s.bystander, here, 1, there, 1, 0]).map(drop)
    }),
    attempt("open_memory_of_parent", Succeeds, Enter, |s, _| {
        File::open(format!("/proc/{}/mem", s.supervisor)).map(drop)
    }),
    attempt("read_environment_of_parent", Succeeds, Enter, |s, _| {
        read(&format!("/proc/{}/environ", s.supervisor))
    }),
    attempt("signal_parent", Succeeds, Enter, |s, _| call(libc::SYS_kill, [s.supervisor, 0]).map(drop)),
    attempt("signal_thread_of_parent", Succeeds, Enter, |s, _| {
        call(libc::SYS_tgkill, [s.supervisor, s.supervisor, 0]).map(drop)
    }),
    attempt("signal_everybody", Succeeds, Seal, |_, _| call(libc::SYS_kill, [-1isize as usize, 0]).map(drop)),
    attempt("queue_signal_to_parent", Reaches, Seal, |s, _| {
        call(libc::SYS_rt_sigqueueinfo, [s.supervisor, 0]).map(drop)
    }),
    attempt("own_a_descriptor_for_parent", Succeeds, Seal, |s, kit| {
        let (fd, command) = (kit.stream.as_raw_fd() as usize, libc::F_SETOWN as usize);
        call(libc::SYS_fcntl, [fd, command, s.supervisor]).map(drop)
    }),
    attempt("pidfd_of_parent", Succeeds, Seal, |s, _| call(libc::SYS_pidfd_open, [s.supervisor]).map(drop)),
    attempt("limit_bystander", Succeeds, Seal, |s, _| {
        let mut old = [0u64; 2];
        let resource = libc::RLIMIT_CORE as usize;
        call(libc::SYS_prlimit64, [s.bystander, resource, 0, old.as_mut_ptr() as usize]).map(drop)
    }),
    attempt("raise_own_limit", Succeeds, Seal, |_, _| {
        let limit = [0u64; 2];
        let resource = libc::RLIMIT_CORE as usize;
        call(libc::SYS_prlimit64, [0, resource, limit.as_ptr() as usize, 0]).map(drop)
    }),
    attempt("slow_bystander", Succeeds, Seal, |s, _| {
        call(libc::SYS_setpriority, [libc::PRIO_PROCESS as usize, s.bystander, 1]).map(drop)
    }),
    attempt("pin_bystander", Succeeds, Seal, |s, _| {
        let cpus = [u64::MAX; 16];
        call(libc::SYS_sched_setaffinity, [s.bystander, 128, cpus.as_ptr() as usize]).map(drop)
    }),
    attempt("become_dumpable", Succeeds, Seal, |_, _| {
        call(libc::SYS_prctl, [libc::PR_SET_DUMPABLE as usize, 1]).map(drop)
    }),
    attempt("outlive_parent", Succeeds, Seal, |_, _| {
        call(libc::SYS_prctl, [libc::PR_SET_PDEATHSIG as usize, 0]).map(drop)
    }),
];

pub const NETWORK: &[Attempt] = &[
    attempt("connect_tcp", Succeeds, Enter, |s, _| TcpStream::connect(&s.tcp).map(drop)),
    attempt("listen_tcp", Succeeds, Enter, |_, _| TcpListener::bind("127.0.0.1:0").map(drop)),
    attempt("send_udp", Succeeds, Seal, |s, _| {
        UdpSocket::bind("127.0.0.1:0")?.send_to(b"!", &s.udp).map(drop)
    }),
    attempt("send_from_given_udp_socket", Succeeds, Seal, |s, kit| kit.udp.send_to(b"!", &s.udp).map(drop)),
    attempt("connect_given_udp_socket", Succeeds, Seal, |s, kit| kit.udp.connect(&s.udp)),
    attempt("filter_given_socket", Reaches, Seal, |_, kit| {
        let (level, option) = (libc::SOL_SOCKET as usize, libc::SO_ATTACH_FILTER as usize);
        call(libc::SYS_setsockopt, [kit.udp.as_raw_fd() as usize, level, option, 0, 16]).map(drop)
    }),
    attempt("connect_unix_path", Succeeds, Seal, |s, _| UnixStream::connect(s.file("socket")).map(drop)),
    attempt("connect_unix_abstract", Succeeds, Enter, |s, _| {
        UnixStream::connect_addr(&SocketAddr::from_abstract_name(&s.abstract_name)?).map(drop)
    }),
    attempt("create_socket_pair", Succeeds, Seal, |_, _| UnixStream::pair().map(drop)),
    attempt("create_netlink_socket", Succeeds, Seal, |_, _| socket(libc::AF_NETLINK)),
    attempt("create_kernel_crypto_socket", Reaches, Seal, |_, _| socket(libc::AF_ALG)),
    attempt("create_packet_socket", SucceedsForRoot, Enter, |_, _| socket(libc::AF_PACKET)),
];

pub const KERNEL: &[Attempt] = &[
    attempt("become_another_user", SucceedsForRoot, Enter, |_, _| {
        call(libc::SYS_setresuid, [1234, 1234, 1234]).map(drop).map_err(unknown_user)
    }),
    attempt("unshare_user_namespace", Succeeds, Seal, |_, _| {
        call(libc::SYS_unshare, [libc::CLONE_NEWUSER as usize]).map(drop)
    }),
    attempt("unshare_mounts", SucceedsForRoot, Enter, |_, _| {
        call(libc::SYS_unshare, [libc::CLONE_NEWNS as usize]).map(drop)
    }),
    attempt("join_namespace", Reaches, Seal, |_, kit| {
        call(libc::SYS_setns, [kit.shell.as_raw_fd() as usize]).map(drop)
    }),
    attempt("mount", Reaches, Enter, |s, _| {
        let (target, kind) = (c_path(&s.file("")), c"no-such-kind");
        let (target, kind) = (target.as_ptr() as usize, kind.as_ptr() as usize);
        call(libc::SYS_mount, [kind, target, kind]).map(drop)
    }),
    attempt("unmount", Reaches, Enter, |s, _| {
        let target = c_path(&s.file(""));
        call(libc::SYS_umount2, [target.as_ptr() as usize]).map(drop)
    }),
    attempt("change_root", SucceedsForRoot, Enter, |_, _| {
        call(libc::SYS_chroot, [c"/usr".as_ptr() as usize]).map(drop)
    }),
    attempt("open_by_handle", Reaches, Enter, |_, _| {
        let handle = [8u32, 1, 0, 0];
        call(libc::SYS_open_by_handle_at, [AT_CWD, handle.as_ptr() as usize]).map(drop)
    }),
    attempt("load_module", Reaches, Enter, |_, kit| {
        let empty = c"".as_ptr() as usize;
        call(libc::SYS_finit_module, [kit.stream.as_raw_fd() as usize, empty]).map(drop)
    }),
    attempt("set_host_name", Reaches, Enter, |_, _| call(libc::SYS_sethostname, [0, usize::MAX]).map(drop)),
    attempt("load_bpf", Reaches, Seal, |_, _| call(libc::SYS_bpf, [5]).map(drop)),
    attempt("open_perf_event", Reaches, Seal, |_, _| call(libc::SYS_perf_event_open, [0]).map(drop)),
    attempt("set_up_io_uring", Reaches, Seal, |_, _| call(libc::SYS_io_uring_setup, [0]).map(drop)),
    attempt("set_up_aio", Reaches, Seal, |_, _| call(libc::SYS_io_setup, [1]).map(drop)),
    attempt("use_keyring", Reaches, Seal, |_, _| call(libc::SYS_keyctl, [6, 1]).map(drop)),
    attempt("handle_page_faults", Succeeds, Seal, |_, _| call(libc::SYS_userfaultfd, [1]).map(drop)),
    attempt("change_personality", Succeeds, Seal, |_, _| call(libc::SYS_personality, [0]).map(drop)),
    attempt("create_sysv_memory", Succeeds, Seal, |_, _| call(libc::SYS_shmget, [0, 4096, 0o600]).map(drop)),
    attempt("splice", Reaches, Seal, |_, _| call(libc::SYS_splice, [99, 0, 99, 0, 1]).map(drop)),
    attempt("type_into_terminal", Reaches, Seal, |_, kit| {
        let typed = b'x';
        let request = libc::TIOCSTI as usize;
        let at = &raw const typed as usize;
        call(libc::SYS_ioctl, [kit.stream.as_raw_fd() as usize, request, at]).map(drop)
    }),
    attempt("hide_request_in_upper_half", Reaches, Seal, |_, kit| {
        let request = libc::TIOCSTI as usize | 1 << 40;
        call(libc::SYS_ioctl, [kit.stream.as_raw_fd() as usize, request]).map(drop)
    }),
    #[cfg(target_arch = "x86_64")]
    attempt("enter_by_32_bit_door", Succeeds, Seal, |_, _| crate::raw::call_i386_getpid().map(drop)),
];

const AT_CWD: usize = libc::AT_FDCWD as usize;

pub fn all() -> impl Iterator<Item = &'static Attempt> {
    [FILES, PROCESSES, NETWORK, KERNEL].into_iter().flatten()
}

fn read(path: &str) -> io::Result<()> {
    fs::read(path).map(drop)
}

fn write(path: &str) -> io::Result<()> {
    OpenOptions::new().write(true).open(path).map(drop)
}

fn truncate(path: &str) -> io::Result<()> {
    let path = c_path(path);
    call(libc::SYS_truncate, [path.as_ptr() as usize, 1]).map(drop)
}

fn unnamed_file(scene: &Scene) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).custom_flags(libc::O_TMPFILE);
    options.open(scene.file(""))?.write_all(b"!")
}

/// In a user namespace that maps one user only, any other is an invalid argument.
fn unknown_user(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(libc::EINVAL) => io::Error::from_raw_os_error(libc::EPERM),
        _ => error,
    }
}

fn socket(family: i32) -> io::Result<()> {
    let kind = if family == libc::AF_ALG { libc::SOCK_SEQPACKET } else { libc::SOCK_RAW };
    call(libc::SYS_socket, [family as usize, kind as usize]).map(drop)
}

fn c_path(path: &str) -> CString {
    CString::new(path).unwrap()
}
