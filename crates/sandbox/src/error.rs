//! Owns the sentences a failed confinement is reported with: what failed and what to do.

use std::io;

/// Why a worker could not be confined. The process may be half confined and must exit.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error(
        "there is no sandbox for workers on this platform; run Pontoon on Linux or macOS, or keep \
         this worker away from guests"
    )]
    Unsupported,

    #[error(
        "the worker already runs {threads} threads, and only later threads would be confined; call \
         pontoon_sandbox::enter first in main, before any driver, runtime or logger starts a thread"
    )]
    TooLate { threads: usize },

    #[error("the worker cannot read {path}, which it needs to confine itself; is /proc mounted?")]
    Proc { path: String, source: io::Error },

    #[error(
        "the supervisor that should own this worker (process {expected}) is gone, its parent is \
         now {found}; nothing to do but exit"
    )]
    Orphan { expected: u32, found: u32 },

    #[error("the worker could not {action}; check what its service manager or container forbids")]
    Privileges { action: &'static str, source: io::Error },

    #[error(
        "the kernel did not accept the limit on {what}; raise the hard limit that the supervisor \
         runs under or lower the one in the policy"
    )]
    Limit { what: &'static str, source: io::Error },

    #[error(
        "this kernel offers no Landlock, so files would stay open to a compromised driver; use \
         Linux 5.13 or newer with `landlock` in the `lsm=` boot parameter, or set \
         `landlock_required = false` and accept the risk"
    )]
    NoLandlock,

    #[error("the file rules could not be put in force: {reason}; report this as a bug")]
    Landlock { reason: String },

    #[error(
        "the system-call filter could not be put in force: {reason}; the kernel needs \
         CONFIG_SECCOMP_FILTER, and no outer sandbox may forbid seccomp()"
    )]
    Seccomp { reason: String },

    #[error("after confinement {what}; this is a bug in the sandbox, do not serve guests")]
    NotInForce { what: String },

    #[error(
        "{program} could not be executed: {source}; it must be an ELF program, not a script, and readable"
    )]
    Execute { program: String, source: io::Error },

    #[error("the sandbox profile was refused by macOS: {reason}; report this as a bug")]
    Profile { reason: String },
}
