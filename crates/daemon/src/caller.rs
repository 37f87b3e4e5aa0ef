//! A caller of the bridge: who it is, and what the operator's policies give it.

use std::os::unix::net::UnixStream;
use std::sync::Arc;

use pontoon_callers::{Directory, Facts, Policy, Via, Way};
use pontoon_wire::hello::RefusalKind;

use crate::config::Limits;
use crate::peer::Peer;

/// A caller.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Whom limits count for: the policy's tenant, else `uid:1000`, `container:3f2a…`, or the name that goes with a
    /// token.
    pub tenant: String,
    /// What is known of it.
    pub facts: Facts,
    /// The policy that is about it.
    pub policy: Option<Arc<Policy>>,
}

impl Caller {
    /// The process at the other end of a unix socket (`SO_PEERCRED`). `device` is the policy whose own socket it is.
    ///
    /// # Errors
    /// What to refuse it with.
    pub fn of_unix(
        socket: &UnixStream,
        device: Option<&str>,
        directory: &Directory,
    ) -> Result<Self, (RefusalKind, String)> {
        let refuse = |message: String| (RefusalKind::Unauthorized, message);
        let credentials = Peer::of(socket)
            .map_err(|error| refuse(format!("the system does not say who is calling: {error}")))?;
        let facts =
            directory.of_process(Some(credentials.pid), credentials.uid, device).ok_or_else(|| {
                refuse(
                    "the process that opened this connection has ended, or poses as a container, so nobody can say whose it is".into(),
                )
            })?;
        Self::of(facts, directory)
    }

    /// A caller whose facts are known.
    ///
    /// # Errors
    /// What to refuse it with: a policy keeps it out.
    pub fn of(facts: Facts, directory: &Directory) -> Result<Self, (RefusalKind, String)> {
        let admitted = directory.admit(&facts, Way::Bridge);
        let (tenant, policy) = admitted.map_err(|message| (RefusalKind::Unauthorized, message))?;
        let policy = policy.map(Arc::new);
        Ok(Self { tenant, facts, policy })
    }

    /// What one of its sessions may use.
    pub fn limits(&self, all: &Limits) -> Limits {
        let mut limits = all.clone();
        if let Some(policy) = &self.policy {
            let own = &policy.limits;
            limits.memory_bytes = own.memory_bytes.unwrap_or(limits.memory_bytes);
            limits.objects = own.objects.unwrap_or(limits.objects);
            limits.bytes_in_flight = own.bytes_in_flight.unwrap_or(limits.bytes_in_flight);
            limits.submission_seconds = own.submission_seconds.unwrap_or(limits.submission_seconds);
            limits.sessions_per_tenant = own.sessions_per_tenant.unwrap_or(limits.sessions_per_tenant);
        }
        limits
    }

    /// A name that stands for the same guest tomorrow and for nobody else, under which its uploads are kept: a policy's
    /// tenant, a token's, a container that its engine vouches for, a user. Nothing for others: the context id of a
    /// virtual machine is given to the next one.
    pub fn lasting_name(&self) -> Option<String> {
        let Facts { token, container, uid, via, .. } = &self.facts;
        let policys = self.policy.as_ref().and_then(|policy| policy.tenant.as_ref());
        match (policys, token, container, uid) {
            (Some(tenant), ..) => Some(format!("policy {tenant}")),
            (_, Some(tenant), ..) => Some(format!("token {tenant}")),
            (_, _, Some(container), _) => {
                container.name.as_ref().map(|_| format!("container {}", container.id))
            }
            (_, _, _, Some(uid)) if matches!(via, Via::Unix) => Some(format!("user {uid}")),
            _ => None,
        }
    }

    /// Its share of what is short.
    pub fn weight(&self) -> u32 {
        self.policy.as_ref().and_then(|policy| policy.weight).unwrap_or(1)
    }

    /// The only adapters that it may see, if its policy says so.
    pub fn adapter(&self) -> Option<String> {
        self.policy.as_ref().and_then(|policy| policy.adapter.clone())
    }
}
