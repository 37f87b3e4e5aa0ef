//! Owns the account of what is in force after confinement, for logs and `pontoon doctor`.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One independent fence around the worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Mechanism {
    /// Landlock rules on files: only listed paths, nothing written, nothing executed.
    Files,
    /// Landlock rules on TCP: no bind, no connect.
    Tcp,
    /// Landlock scopes: no abstract unix sockets and no signals to the outside.
    Scopes,
    /// A network namespace without any interface.
    NetworkNamespace,
    /// The seccomp allow-list, in all threads.
    SystemCalls,
    NoNewPrivileges,
    Capabilities,
    /// An unprivileged user of its own.
    User,
    Limits,
    /// No core dump, no debugger from the same user.
    Undumpable,
    /// Dies with its supervisor.
    Lifetime,
    Niceness,
    /// Chosen first when memory runs out.
    OutOfMemory,
    /// Has no controlling terminal.
    Session,
    /// The macOS sandbox profile.
    Profile,
}

/// How far a mechanism got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// Not asked for, or refused by the host; the detail says which.
    Absent,
    /// Weaker than it could be on a newer or less restricted host.
    Partial,
    InForce,
}

/// One mechanism, how far it got, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    pub mechanism: Mechanism,
    pub level: Level,
    pub detail: String,
}

/// Everything known about one confined process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    pub findings: Vec<Finding>,
    /// Device nodes of the policy that exist but which the worker's user may not open: without a
    /// look at this list the driver would silently fall back to another adapter.
    pub unreachable_devices: Vec<String>,
    /// Descriptors beyond 0, 1 and 2 that were open on entry: each is a hole that only the
    /// supervisor can justify.
    pub inherited: Vec<String>,
    /// Time that the two stages took.
    pub enter_micros: u64,
    pub seal_micros: u64,
}

impl Report {
    // Where there is no sandbox, there is nothing to note.
    #[cfg_attr(not(any(target_os = "linux", target_os = "macos")), allow(dead_code))]
    pub(crate) fn note(&mut self, mechanism: Mechanism, level: Level, detail: impl Into<String>) {
        let detail = detail.into();
        self.findings.push(Finding { mechanism, level, detail });
    }

    /// How far `mechanism` got; one that was never tried is absent.
    pub fn level(&self, mechanism: Mechanism) -> Level {
        let mut found = self.findings.iter().filter(|f| f.mechanism == mechanism);
        found.next_back().map_or(Level::Absent, |f| f.level)
    }

    /// The findings that an operator should read.
    pub fn weaknesses(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|f| f.level != Level::InForce)
    }
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Mechanism::Files => "files",
            Mechanism::Tcp => "tcp",
            Mechanism::Scopes => "scopes",
            Mechanism::NetworkNamespace => "network namespace",
            Mechanism::SystemCalls => "system calls",
            Mechanism::NoNewPrivileges => "no new privileges",
            Mechanism::Capabilities => "capabilities",
            Mechanism::User => "user",
            Mechanism::Limits => "limits",
            Mechanism::Undumpable => "undumpable",
            Mechanism::Lifetime => "lifetime",
            Mechanism::Niceness => "niceness",
            Mechanism::OutOfMemory => "out of memory",
            Mechanism::Session => "session",
            Mechanism::Profile => "profile",
        })
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Level::Absent => "absent",
            Level::Partial => "partial",
            Level::InForce => "in force",
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            let Finding { mechanism, level, detail } = finding;
            writeln!(f, "{mechanism:<18} {level:<9} {detail}")?;
        }
        for device in &self.unreachable_devices {
            writeln!(f, "device             unreachable for the worker's user: {device}")?;
        }
        for descriptor in &self.inherited {
            writeln!(f, "descriptor         inherited: {descriptor}")?;
        }
        let (enter, seal) = (self.enter_micros, self.seal_micros);
        write!(f, "took {enter} µs to enter, {seal} µs to seal")
    }
}
