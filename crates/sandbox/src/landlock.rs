//! Owns the Landlock rules: which files, and that no TCP, abstract socket or foreign process.

use std::io::ErrorKind;
use std::path::Path;

use ::landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, LandlockStatus, RestrictionStatus, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, Scope, path_beneath_rules,
};

use crate::{Error, Level, Mechanism, Policy, Report};

/// The newest interface whose rights we have thought about; older kernels enforce what they know.
const KNOWN: ABI = ABI::V9;
const FIRST_WITH_TCP: ABI = ABI::V4;
const FIRST_WITH_IOCTL: ABI = ABI::V5;
const FIRST_WITH_SCOPES: ABI = ABI::V6;

/// Restricts the calling thread and all threads it starts from now on.
pub fn restrict(policy: &Policy, report: &mut Report) -> Result<(), Error> {
    let status = apply(policy).map_err(|e| Error::Landlock { reason: e.to_string() })?;
    let interface = interface(&status);
    if interface == ABI::Unsupported && policy.landlock_required {
        return Err(Error::NoLandlock);
    }
    describe(interface, report);
    if interface != ABI::Unsupported {
        prove(policy)?;
    }
    Ok(())
}

/// Every right that exists is handled, and so refused, unless a rule grants it. No rule grants a TCP
/// port or a scope, and a worker's none to execute, create or remove. Executing is not needed to map a
/// library: Landlock's right is about `execve` alone.
fn apply(policy: &Policy) -> Result<RestrictionStatus, RulesetError> {
    let read: BitFlags<AccessFs> = AccessFs::ReadFile | AccessFs::ReadDir;
    let drive = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::IoctlDev;
    let write = read
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeReg
        | AccessFs::MakeSock
        | AccessFs::RemoveFile;
    let execute = AccessFs::ReadFile | AccessFs::Execute;
    Ruleset::default()
        .handle_access(AccessFs::from_all(KNOWN))?
        .handle_access(AccessNet::from_all(KNOWN))?
        .scope(Scope::from_all(KNOWN))?
        .create()?
        .add_rules(path_beneath_rules(&policy.read_paths, read))?
        // `seal` checks its work in /proc/self, so that is never optional.
        .add_rules(path_beneath_rules(["/proc/self"], read))?
        .add_rules(path_beneath_rules(&policy.list_paths, AccessFs::ReadDir))?
        .add_rules(path_beneath_rules(&policy.device_paths, drive))?
        .add_rules(path_beneath_rules(&policy.write_paths, write))?
        .add_rules(path_beneath_rules(&policy.execute_paths, execute))?
        .restrict_self()
}

fn interface(status: &RestrictionStatus) -> ABI {
    match status.landlock {
        LandlockStatus::Available { effective_abi, .. } => effective_abi,
        LandlockStatus::NotEnabled | LandlockStatus::NotImplemented => ABI::Unsupported,
    }
}

fn describe(interface: ABI, report: &mut Report) {
    let version = interface as u32;
    let (level, missing) = match interface {
        ABI::Unsupported => (Level::Absent, ", this kernel has no Landlock"),
        older if older < FIRST_WITH_IOCTL => (Level::Partial, ", ioctl of devices not covered"),
        _ => (Level::InForce, ""),
    };
    let detail = format!("Landlock interface {version}{missing}");
    report.note(Mechanism::Files, level, detail);
    for (mechanism, first) in [(Mechanism::Tcp, FIRST_WITH_TCP), (Mechanism::Scopes, FIRST_WITH_SCOPES)] {
        let found = format!("Landlock interface {version}");
        let missing = format!("{found}, but {} is needed", first as u32);
        match interface >= first {
            true => report.note(mechanism, Level::InForce, found),
            false => report.note(mechanism, Level::Absent, missing),
        }
    }
}

/// Asks the kernel instead of trusting the crate: what no rule grants must be refused.
fn prove(policy: &Policy) -> Result<(), Error> {
    let root = Path::new("/");
    let mut readable = policy.read_paths.iter().chain(&policy.list_paths);
    if readable.any(|path| path == root) {
        return Ok(());
    }
    match std::fs::read_dir(root) {
        Err(e) if e.kind() == ErrorKind::PermissionDenied => Ok(()),
        other => Err(Error::NotInForce { what: format!("listing / was not refused ({:?})", other.err()) }),
    }
}
