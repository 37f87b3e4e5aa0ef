//! Owns the list of system calls a sealed worker may make, each group with its reason.
//!
//! What is missing is missing on purpose: anything that creates a socket, a process, a namespace or
//! a file, changes one, reads another process, or reaches a kernel subsystem that no GPU driver
//! needs. Calls that are safe only with certain arguments are in [`checked`].

use libc::c_long;

use crate::seccomp::{Check, Rules};

/// Memory: a driver's just-in-time compiler (LLVM in lavapipe) maps and protects code pages, so
/// PROT_EXEC cannot be forbidden. memfds back shared buffers.
const MEMORY: &[c_long] = &[
    libc::SYS_brk,
    libc::SYS_madvise,
    libc::SYS_memfd_create,
    libc::SYS_mlock,
    libc::SYS_mprotect,
    libc::SYS_msync,
    libc::SYS_munlock,
    libc::SYS_munmap,
];

/// New mappings, at any address.
const MAPPING: &[c_long] = &[libc::SYS_mmap, libc::SYS_mremap];

/// Reading and writing what is already open; the size of memfds; closing and duplicating.
const OPEN_FILES: &[c_long] = &[
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_fallocate,
    libc::SYS_ftruncate,
    libc::SYS_lseek,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_preadv2,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_pwritev2,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_write,
    libc::SYS_writev,
];

/// Looking at files: libraries that drivers load late, and device enumeration. Landlock decides
/// about content; names and metadata of other files can be seen, which it does not cover.
const LOOKING: &[c_long] = &[
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fadvise64,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_newfstatat,
    libc::SYS_readlinkat,
    libc::SYS_statfs,
    libc::SYS_statx,
];

/// Waiting, and waking other threads.
const WAITING: &[c_long] = &[
    libc::SYS_clock_nanosleep,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_futex,
    libc::SYS_nanosleep,
    libc::SYS_pipe2,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_gettime,
    libc::SYS_timerfd_settime,
];

/// Sockets that the supervisor has passed: receive, look at, shut down. Sending is checked.
/// `socketpair` is missing too: a datagram socket of one's own can address any unix socket by path.
const SOCKETS: &[c_long] = &[
    libc::SYS_getpeername,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_shutdown,
];

/// The life of a thread, and of the process: start-up by the C library, signals to handlers of our
/// own, the end.
const THREADS: &[c_long] = &[
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_membarrier,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigpending,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_sigaltstack,
];

/// Questions about ourselves, the clock and the machine. Drivers size their thread pools by them.
const QUESTIONS: &[c_long] = &[
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_get_mempolicy,
    libc::SYS_getcpu,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_getpriority,
    libc::SYS_getrandom,
    libc::SYS_getresgid,
    libc::SYS_getresuid,
    libc::SYS_getrusage,
    libc::SYS_gettid,
    libc::SYS_gettimeofday,
    libc::SYS_getuid,
    libc::SYS_sched_get_priority_max,
    libc::SYS_sched_get_priority_min,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_getparam,
    libc::SYS_sched_getscheduler,
    libc::SYS_sched_yield,
    libc::SYS_sysinfo,
    libc::SYS_uname,
];

/// Older spellings of the above, which only x86-64 has.
#[cfg(target_arch = "x86_64")]
const OLDER: &[c_long] = &[
    libc::SYS_access,
    libc::SYS_dup2,
    libc::SYS_epoll_create,
    libc::SYS_epoll_wait,
    libc::SYS_eventfd,
    libc::SYS_getdents,
    libc::SYS_lstat,
    libc::SYS_pipe,
    libc::SYS_poll,
    libc::SYS_readlink,
    libc::SYS_select,
    libc::SYS_stat,
    libc::SYS_time,
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: &[c_long] = &[];

/// Calls whose arguments no filter can check, because they are in memory: answered with ENOSYS, at
/// which the C library falls back to `clone` and `openat`.
pub const UNCHECKABLE: &[c_long] = &[libc::SYS_clone3, libc::SYS_openat2];

/// Every number from here on is younger than this list (Linux 6.11, the same on all machines).
/// Callers of new system calls expect ENOSYS from a kernel that lacks them, not EPERM.
pub const UNKNOWN_FROM: u32 = 463;

/// All rules, for the process `pid`.
pub fn rules(pid: u32, send_descriptors: bool) -> Rules {
    let mut rules = Rules::default();
    common(&mut rules, pid);
    rules.allow(MAPPING);
    opening(&mut rules);
    if send_descriptors {
        // With MSG_FASTOPEN a TCP socket could be pointed at a new peer.
        let no_fast_open = Check::none_of(2, libc::MSG_FASTOPEN as u64);
        rules.allow_if(libc::SYS_sendmsg, &[no_fast_open]);
    }
    rules
}

/// What every confined process may do, whatever it is for.
pub(crate) fn common(rules: &mut Rules, pid: u32) {
    for group in [MEMORY, OPEN_FILES, LOOKING, WAITING, SOCKETS, THREADS, QUESTIONS, OLDER] {
        rules.allow(group);
    }
    checked(rules, pid);
}

fn checked(rules: &mut Rules, pid: u32) {
    threads_not_processes(rules);
    signals_to_ourselves(rules, pid);
    devices_not_terminals(rules);
    descriptor_flags(rules);
    socket_options(rules);
    ourselves_only(rules, pid);
}

/// Open, but never create, truncate, or take a handle on a path (O_PATH, which Landlock does not
/// cover). What may be opened is Landlock's decision.
fn opening(rules: &mut Rules) {
    let temporary = libc::O_TMPFILE & !libc::O_DIRECTORY;
    let forbidden = (libc::O_CREAT | temporary | libc::O_TRUNC | libc::O_PATH) as u64;
    rules.allow_if(libc::SYS_openat, &[Check::none_of(2, forbidden)]);
    #[cfg(target_arch = "x86_64")]
    rules.allow_if(libc::SYS_open, &[Check::none_of(1, forbidden)]);
}

/// `clone` only as `pthread_create` calls it: sharing everything, and in no new namespace.
fn threads_not_processes(rules: &mut Rules) {
    let shared = libc::CLONE_THREAD | libc::CLONE_VM | libc::CLONE_SIGHAND | libc::CLONE_FILES;
    let fresh = libc::CLONE_NEWCGROUP
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWUSER
        | libc::CLONE_NEWUTS
        | libc::CLONE_PTRACE
        | libc::CLONE_PIDFD;
    let mask = (shared | fresh) as u64;
    rules.allow_if(libc::SYS_clone, &[Check::bits(0, mask, shared as u64)]);
}

/// `abort` and `pthread_kill` signal the own process. Nobody else gets a signal.
fn signals_to_ourselves(rules: &mut Rules, pid: u32) {
    rules.allow_if(libc::SYS_kill, &[Check::is(0, pid.into())]);
    rules.allow_if(libc::SYS_tgkill, &[Check::is(0, pid.into())]);
}

/// `ioctl` is how GPUs are driven, with thousands of numbers. Excepted are those that type into a
/// terminal or turn a descriptor into a source of signals to others.
fn devices_not_terminals(rules: &mut Rules) {
    const FIOSETOWN: u64 = 0x8901;
    const SIOCSPGRP: u64 = 0x8902;
    let forbidden =
        [libc::TIOCSTI, libc::TIOCLINUX, libc::TIOCCONS, libc::TIOCSCTTY, libc::TIOCSETD, libc::FIOASYNC];
    let forbidden = forbidden.into_iter().chain([FIOSETOWN, SIOCSPGRP]);
    let checks: Vec<Check> = forbidden.map(|number| Check::is_not(1, number)).collect();
    rules.allow_if(libc::SYS_ioctl, &checks);
}

/// Descriptor flags, duplication, seals of memfds and the size of pipes; no leases, no owners.
fn descriptor_flags(rules: &mut Rules) {
    const F_DUPFD_QUERY: i32 = 1024 + 3;
    for command in [
        libc::F_DUPFD,
        libc::F_DUPFD_CLOEXEC,
        F_DUPFD_QUERY,
        libc::F_GETFD,
        libc::F_SETFD,
        libc::F_GETFL,
        libc::F_SETFL,
        libc::F_ADD_SEALS,
        libc::F_GET_SEALS,
        libc::F_GETPIPE_SZ,
        libc::F_SETPIPE_SZ,
    ] {
        rules.allow_if(libc::SYS_fcntl, &[Check::is(1, command as u64)]);
    }
}

/// Sending goes to the peer the supervisor chose: `sendto` without an address. Options are those
/// that tune a connection; attaching a filter program, for one, is not.
fn socket_options(rules: &mut Rules) {
    let connected = [Check::is_null(4), Check::none_of(3, libc::MSG_FASTOPEN as u64)];
    rules.allow_if(libc::SYS_sendto, &connected);
    let tuning = [
        (libc::SOL_SOCKET, libc::SO_KEEPALIVE),
        (libc::SOL_SOCKET, libc::SO_LINGER),
        (libc::SOL_SOCKET, libc::SO_RCVBUF),
        (libc::SOL_SOCKET, libc::SO_SNDBUF),
        (libc::SOL_SOCKET, libc::SO_RCVTIMEO),
        (libc::SOL_SOCKET, libc::SO_SNDTIMEO),
        (libc::IPPROTO_TCP, libc::TCP_NODELAY),
        (libc::IPPROTO_TCP, libc::TCP_QUICKACK),
        (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE),
        (libc::IPPROTO_TCP, libc::TCP_KEEPINTVL),
        (libc::IPPROTO_TCP, libc::TCP_KEEPCNT),
        (libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT),
    ];
    for (level, option) in tuning {
        let checks = [Check::is(1, level as u64), Check::is(2, option as u64)];
        rules.allow_if(libc::SYS_setsockopt, &checks);
    }
}

/// Calls that can name another process, allowed for ourselves: reading limits, comparing our own
/// descriptors (Mesa), pinning the calling thread, and naming threads and mappings.
fn ourselves_only(rules: &mut Rules, pid: u32) {
    let (us, ours) = (Check::is(0, 0), Check::is(0, pid.into()));
    rules.allow_if(libc::SYS_prlimit64, &[us.clone(), Check::is_null(2)]);
    #[cfg(target_arch = "x86_64")]
    rules.allow(&[libc::SYS_getrlimit]);
    rules.allow_if(libc::SYS_kcmp, &[ours, Check::is(1, pid.into())]);
    rules.allow_if(libc::SYS_sched_setaffinity, &[us]);
    for option in [
        libc::PR_SET_NAME,
        libc::PR_GET_NAME,
        libc::PR_SET_VMA,
        libc::PR_GET_DUMPABLE,
        libc::PR_SET_TIMERSLACK,
    ] {
        rules.allow_if(libc::SYS_prctl, &[Check::is(0, option as u64)]);
    }
}
