//! Owns the translation of the allow-list into a filter, and its installation in all threads.

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Width, SeccompCmpOp as Op, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch, apply_filter_all_threads, sock_filter,
};

use crate::{Calls, Error, allowed, allowed_engine};

/// A condition on one argument of a system call.
#[derive(Clone)]
pub struct Check {
    argument: u8,
    width: Width,
    operation: Op,
    value: u64,
}

/// Allowed system calls. One with an empty list of alternatives is allowed whatever its arguments.
#[derive(Default)]
pub struct Rules {
    calls: BTreeMap<i64, Vec<SeccompRule>>,
    broken: Option<seccompiler::BackendError>,
}

/// Installs the filter in every thread, for good, and returns the number of calls it allows.
pub fn install(calls: Calls, send_descriptors: bool) -> Result<usize, Error> {
    let pid = std::process::id();
    let rules = match calls {
        Calls::Worker => allowed::rules(pid, send_descriptors),
        Calls::Engine => allowed_engine::rules(pid),
    };
    let count = rules.calls.len();
    let program = compile(rules).map_err(|e| Error::Seccomp { reason: e.to_string() })?;
    apply_filter_all_threads(&program).map_err(|e| Error::Seccomp { reason: e.to_string() })?;
    Ok(count)
}

fn compile(rules: Rules) -> Result<BpfProgram, seccompiler::BackendError> {
    if let Some(error) = rules.broken {
        return Err(error);
    }
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let refuse = SeccompAction::Errno(libc::EPERM as u32);
    let filter = SeccompFilter::new(rules.calls, refuse, SeccompAction::Allow, arch)?;
    let mut program = not_implemented();
    program.extend(BpfProgram::try_from(filter)?);
    Ok(program)
}

/// Instructions in front of the allow-list that answer ENOSYS, which the list's one default (EPERM)
/// cannot. They only ever refuse, so it does not matter that they run before the check of the
/// architecture.
fn not_implemented() -> BpfProgram {
    const LOAD_NUMBER: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const IF_AT_LEAST: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, k, jf| sock_filter { code, jt: 0, jf, k };
    let answer = u32::from(SeccompAction::Errno(libc::ENOSYS as u32));

    // The number is the first field of `seccomp_data`.
    let mut program = vec![step(LOAD_NUMBER, 0, 0)];
    let calls = allowed::UNCHECKABLE.iter().map(|call| (IF_EQUAL, *call as u32));
    for (test, number) in calls.chain([(IF_AT_LEAST, allowed::UNKNOWN_FROM)]) {
        program.push(step(test, number, 1));
        program.push(step(RETURN, answer, 0));
    }
    program
}

impl Rules {
    /// Allows `calls` with any arguments.
    pub fn allow(&mut self, calls: &[c_long]) {
        for call in calls {
            let earlier = self.calls.insert(*call, Vec::new());
            debug_assert!(earlier.is_none(), "system call {call} is listed twice");
        }
    }

    /// Allows `call` if all `checks` hold. Further calls of this function add alternatives.
    pub fn allow_if(&mut self, call: c_long, checks: &[Check]) {
        let conditions: Result<Vec<_>, _> = checks.iter().map(Check::condition).collect();
        match conditions.and_then(SeccompRule::new) {
            Ok(rule) => self.calls.entry(call).or_default().push(rule),
            Err(error) => self.broken = Some(error),
        }
    }
}

impl Check {
    /// The kernel looks at the lower half of these arguments only, and so do we: anything else
    /// would let the same call through with a different upper half.
    fn new(argument: u8, operation: Op, value: u64) -> Check {
        Check { argument, width: Width::Dword, operation, value }
    }

    pub fn is(argument: u8, value: u64) -> Check {
        Check::new(argument, Op::Eq, value)
    }

    pub fn is_not(argument: u8, value: u64) -> Check {
        Check::new(argument, Op::Ne, value)
    }

    /// None of the bits in `mask` is set.
    pub fn none_of(argument: u8, mask: u64) -> Check {
        Check::bits(argument, mask, 0)
    }

    /// Of the bits in `mask`, exactly those in `value` are set.
    pub fn bits(argument: u8, mask: u64, value: u64) -> Check {
        Check::new(argument, Op::MaskedEq(mask), value)
    }

    /// An address is exactly this, in all its bits.
    pub fn is_address(argument: u8, address: u64) -> Check {
        Check { width: Width::Qword, ..Check::is(argument, address) }
    }

    /// An address is this or above, in all its bits.
    pub fn is_from(argument: u8, address: u64) -> Check {
        Check { width: Width::Qword, ..Check::new(argument, Op::Ge, address) }
    }

    /// A pointer argument is null, in all its bits.
    pub fn is_null(argument: u8) -> Check {
        Check { width: Width::Qword, ..Check::is(argument, 0) }
    }

    fn condition(&self) -> Result<SeccompCondition, seccompiler::BackendError> {
        let (width, operation) = (self.width.clone(), self.operation.clone());
        SeccompCondition::new(self.argument, width, operation, self.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Calls that would open a way out. They must never appear in the list, with or without checks.
    const NEVER: &[c_long] = &[
        libc::SYS_accept4,
        libc::SYS_bind,
        libc::SYS_bpf,
        libc::SYS_chdir,
        libc::SYS_chroot,
        libc::SYS_clone3,
        libc::SYS_connect,
        libc::SYS_execve,
        libc::SYS_execveat,
        libc::SYS_fchmod,
        libc::SYS_fchmodat,
        libc::SYS_finit_module,
        libc::SYS_init_module,
        libc::SYS_io_setup,
        libc::SYS_io_uring_setup,
        libc::SYS_kexec_load,
        libc::SYS_keyctl,
        libc::SYS_linkat,
        libc::SYS_listen,
        libc::SYS_mkdirat,
        libc::SYS_mount,
        libc::SYS_move_mount,
        libc::SYS_name_to_handle_at,
        libc::SYS_open_by_handle_at,
        libc::SYS_openat2,
        libc::SYS_perf_event_open,
        libc::SYS_personality,
        libc::SYS_pidfd_getfd,
        libc::SYS_pidfd_open,
        libc::SYS_pidfd_send_signal,
        libc::SYS_pivot_root,
        libc::SYS_process_madvise,
        libc::SYS_process_vm_readv,
        libc::SYS_process_vm_writev,
        libc::SYS_ptrace,
        libc::SYS_renameat2,
        libc::SYS_rt_sigqueueinfo,
        libc::SYS_rt_tgsigqueueinfo,
        libc::SYS_seccomp,
        libc::SYS_sendmmsg,
        libc::SYS_setns,
        libc::SYS_setpriority,
        libc::SYS_setuid,
        libc::SYS_shmget,
        libc::SYS_socket,
        libc::SYS_socketpair,
        libc::SYS_splice,
        libc::SYS_symlinkat,
        libc::SYS_tkill,
        libc::SYS_truncate,
        libc::SYS_unlinkat,
        libc::SYS_unshare,
        libc::SYS_userfaultfd,
        libc::SYS_vmsplice,
    ];

    #[test]
    fn the_list_has_no_way_out() {
        let rules = allowed::rules(1, true);
        for call in NEVER {
            assert!(!rules.calls.contains_key(call), "system call {call} is allowed");
        }
    }

    /// What an engine may do beyond a worker: to bind one socket, to write files where Landlock lets
    /// it, and one `execve`, through a door that is gone afterwards.
    #[test]
    fn an_engine_has_no_way_out_either() {
        const MORE: &[c_long] =
            &[libc::SYS_accept4, libc::SYS_bind, libc::SYS_listen, libc::SYS_socket, libc::SYS_execve];
        let rules = allowed_engine::rules(1);
        for call in NEVER.iter().filter(|call| !MORE.contains(call) && **call != libc::SYS_unlinkat) {
            // A socket pair is allowed with checks: Python's event loop wakes itself through one.
            let checked = *call == libc::SYS_socketpair;
            let found = rules.calls.get(call);
            assert!(
                found.is_none() || checked && !found.unwrap().is_empty(),
                "system call {call} is allowed"
            );
        }
        for call in [libc::SYS_execve, libc::SYS_socket, libc::SYS_mmap, libc::SYS_mremap] {
            assert!(!rules.calls[&call].is_empty(), "system call {call} is allowed without checks");
        }
        compile(rules).unwrap();
    }

    #[test]
    fn sending_descriptors_is_a_matter_of_policy() {
        let sends = |may| allowed::rules(1, may).calls.contains_key(&libc::SYS_sendmsg);
        assert!(sends(true) && !sends(false));
    }

    #[test]
    fn no_number_is_both_allowed_and_unknown() {
        let rules = allowed::rules(1, true);
        let last = rules.calls.last_key_value().unwrap();
        assert!(*last.0 < allowed::UNKNOWN_FROM.into());
    }

    #[test]
    fn the_filter_compiles_and_fits() {
        let program = compile(allowed::rules(1, true)).unwrap();
        assert!(program.len() < 1024, "{} instructions", program.len());
    }
}
