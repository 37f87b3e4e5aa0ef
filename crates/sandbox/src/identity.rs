//! Owns who the worker is: namespaces, user, groups, capabilities, and whose child it is.

use std::io;

use rustix::process::{
    DumpableBehavior, Gid, Signal, Uid, getgid, getppid, getuid, set_dumpable_behavior,
    set_parent_process_death_signal,
};
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set, remove_capability_from_bounding_set,
    set_capabilities, set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

use crate::{Error, Identity, Level, Mechanism, Policy, Report, sys};

/// Gives up the network, the user and every privilege, in the only order that works: a plain
/// network namespace needs privileges, so it comes before the change of user; a user namespace can
/// map only the user one already is, so it comes after; it hands out capabilities anew, so they go
/// last.
pub fn surrender(policy: &Policy, report: &mut Report) -> Result<(), Error> {
    let isolated = policy.network_namespace && sys::unshare(false).is_ok();
    become_user(policy.user.as_ref(), report)?;
    match (policy.network_namespace, isolated) {
        (false, _) => absent_namespace(report, "not asked for"),
        (true, true) => note_namespace(report, "without interfaces"),
        (true, false) => match isolate_unprivileged() {
            Ok(()) => note_namespace(report, "without interfaces, in a user namespace"),
            Err(e) => absent_namespace(report, &format!("this host permits none: {e}")),
        },
    }
    drop_capabilities()?;
    report.note(Mechanism::Capabilities, Level::InForce, "none left");
    set_no_new_privs(true).map_err(refused("give up gaining privileges (no_new_privs)"))?;
    report.note(Mechanism::NoNewPrivileges, Level::InForce, "set");
    Ok(())
}

fn note_namespace(report: &mut Report, detail: &str) {
    report.note(Mechanism::NetworkNamespace, Level::InForce, detail);
}

fn absent_namespace(report: &mut Report, detail: &str) {
    report.note(Mechanism::NetworkNamespace, Level::Absent, detail);
}

/// A network namespace for those without privileges: in a user namespace that knows only ourselves.
/// The maps live in /proc/self, which must belong to us while we write them.
fn isolate_unprivileged() -> io::Result<()> {
    let (uid, gid) = (getuid().as_raw(), getgid().as_raw());
    set_dumpable_behavior(DumpableBehavior::Dumpable)?;
    sys::unshare(true)?;
    std::fs::write("/proc/self/setgroups", "deny")?;
    std::fs::write("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
    std::fs::write("/proc/self/gid_map", format!("{gid} {gid} 1"))
}

fn become_user(user: Option<&Identity>, report: &mut Report) -> Result<(), Error> {
    let Some(user) = user else {
        let uid = getuid();
        let level = if uid.is_root() { Level::Absent } else { Level::InForce };
        let detail = format!("stays user {uid}");
        report.note(Mechanism::User, level, detail);
        return Ok(());
    };
    switch_user(user).map_err(|source| Error::Privileges {
        action: "become the user that the policy names (only root can)",
        source: source.into(),
    })?;
    let Identity { uid, gid, groups } = user;
    let detail = format!("user {uid}, group {gid}, supplementary {groups:?}");
    report.note(Mechanism::User, Level::InForce, detail);
    Ok(())
}

/// The system calls behind these functions change one thread; `enter` has made sure that there is
/// only one.
fn switch_user(user: &Identity) -> rustix::io::Result<()> {
    let groups: Vec<Gid> = user.groups.iter().copied().map(Gid::from_raw).collect();
    let (gid, uid) = (Gid::from_raw(user.gid), Uid::from_raw(user.uid));
    empty_bounding_set();
    set_thread_groups(&groups)?;
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)
}

fn drop_capabilities() -> Result<(), Error> {
    empty_bounding_set();
    // Fails only on kernels before 4.3, which have no ambient set.
    let _ = clear_ambient_capability_set();
    let none = CapabilitySet::empty();
    let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
    set_capabilities(None, sets).map_err(refused("drop its capabilities"))
}

/// Needs CAP_SETPCAP; without it there is nothing to worry about, because the set only matters for
/// `execve` of privileged files, and no_new_privs forbids gaining anything from these.
fn empty_bounding_set() {
    let numbers = 0..u64::BITS;
    let mut flags = numbers.map(|n| CapabilitySet::from_bits_retain(1 << n));
    while let Some(true) = flags.next().map(|f| remove_capability_from_bounding_set(f).is_ok()) {}
}

/// Hides memory from debuggers and dumps. Comes after everything that writes to /proc/self, which
/// belongs to root from here on.
pub fn hide(policy: &Policy, report: &mut Report) -> Result<(), Error> {
    if policy.core_dumps {
        report.note(Mechanism::Undumpable, Level::Absent, "the policy allows core dumps");
        // A change of user made the process undumpable on its own account.
        return set_dumpable_behavior(DumpableBehavior::Dumpable).map_err(refused("become dumpable"));
    }
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(refused("become undumpable"))?;
    report.note(Mechanism::Undumpable, Level::InForce, "no core dumps, no debuggers");
    Ok(())
}

/// Ties our life to the supervisor's. Comes after the change of user, which clears this setting;
/// the second look at the parent closes the race with one that died before.
pub fn follow_parent(policy: &Policy, report: &mut Report) -> Result<(), Error> {
    let Some(expected) = policy.parent else {
        report.note(Mechanism::Lifetime, Level::Absent, "the policy names no parent");
        return Ok(());
    };
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(refused("tie its life to its supervisor"))?;
    let found = getppid().map_or(0, |pid| pid.as_raw_pid().unsigned_abs());
    if found != expected {
        return Err(Error::Orphan { expected, found });
    }
    let detail = format!("ends with process {expected}");
    report.note(Mechanism::Lifetime, Level::InForce, detail);
    Ok(())
}

/// Leaves the supervisor's terminal, so that nothing can be typed into it.
pub fn leave_terminal(report: &mut Report) {
    match rustix::process::setsid() {
        Ok(_) => report.note(Mechanism::Session, Level::InForce, "its own"),
        // The caller leads a process group already, and keeps the terminal it may have.
        Err(e) => report.note(Mechanism::Session, Level::Absent, e.to_string()),
    }
}

fn refused(action: &'static str) -> impl FnOnce(rustix::io::Errno) -> Error {
    move |errno| Error::Privileges { action, source: errno.into() }
}
