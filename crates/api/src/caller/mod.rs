//! Who is at the other end of a connection, what it may use, and whether it may manage models.

mod process;
mod tcp;

use std::net::SocketAddr;
use std::sync::Arc;

use pontoon_callers::{Directory, Facts, Policy, Via, Way};
use tokio::sync::OnceCell;

/// Where a connection came in, as the listener knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The operator's socket.
    Admin,
    /// A socket of the guests': the usual one or a device's.
    Guest,
    /// A listener in a container's own network.
    Forwarded,
    /// TCP on loopback: our address and the peer's.
    Loopback(SocketAddr, SocketAddr),
    /// TLS, from anywhere.
    Remote(SocketAddr),
}

/// Whom a request counts for.
#[derive(Debug, Clone, PartialEq)]
pub struct Caller {
    /// `container:3f2a…`, `uid:1000`, `loopback`, or the tenant of a policy or key.
    pub id: Arc<str>,
    /// What people read.
    pub description: Arc<str>,
    /// The policy that is about it.
    pub policy: Option<Arc<Policy>>,
}

impl Caller {
    /// The caller that an operator's word stands for.
    pub fn named(tenant: &str) -> Self {
        Self { id: tenant.into(), description: tenant.into(), policy: None }
    }

    /// A caller whose facts are known.
    ///
    /// # Errors
    /// The sentence for the caller: a policy keeps it out.
    pub fn of(facts: &Facts, directory: &Directory) -> Result<Self, String> {
        let (tenant, policy) = directory.admit(facts, Way::Models)?;
        let policy = policy.map(Arc::new);
        Ok(Self { id: tenant.into(), description: facts.describe().into(), policy })
    }
}

/// One connection's other end. Costly look-ups are made when first needed, and once.
#[derive(Debug)]
pub struct Peer {
    origin: Origin,
    /// Process and user of a unix socket's other end.
    credentials: Option<(Option<i32>, u32)>,
    /// The container in whose network the connection was accepted.
    container: Option<Arc<str>>,
    /// The policy by whose own socket it came.
    device: Option<Arc<str>>,
    /// The virtual machine whose port it is.
    machine: Option<u32>,
    /// None: the process has ended, and nobody can say whose the connection is.
    facts: OnceCell<Option<Facts>>,
    caller: OnceCell<Result<Caller, String>>,
    manages: OnceCell<Result<(), String>>,
}

impl Peer {
    /// The other end of a TCP connection.
    pub fn of_tcp(origin: Origin) -> Self {
        Self {
            origin,
            credentials: None,
            container: None,
            device: None,
            machine: None,
            facts: OnceCell::new(),
            caller: OnceCell::new(),
            manages: OnceCell::new(),
        }
    }

    /// The other end of a unix socket; `device` is the policy whose own it is.
    ///
    /// # Errors
    /// What the system said.
    pub fn of_unix(
        origin: Origin,
        device: Option<Arc<str>>,
        stream: &tokio::net::UnixStream,
    ) -> std::io::Result<Self> {
        let credentials = stream.peer_cred()?;
        let credentials = Some((credentials.pid(), credentials.uid()));
        Ok(Self { credentials, device, ..Self::of_tcp(origin) })
    }

    /// The other end of a connection in a container's own network.
    pub fn of_container(id: Arc<str>, device: Option<Arc<str>>) -> Self {
        Self { container: Some(id), device, ..Self::of_tcp(Origin::Forwarded) }
    }

    /// The other end of a connection from a virtual machine with this context id.
    pub fn of_machine(cid: u32) -> Self {
        Self { machine: Some(cid), ..Self::of_tcp(Origin::Guest) }
    }

    /// The port of one container or virtual machine by which it came, if it did.
    pub fn port(&self) -> Option<Arc<str>> {
        let container = self.container.as_ref().map(|id| format!("port of container {id}").into());
        container.or_else(|| self.machine.map(|cid| format!("port of machine {cid}").into()))
    }

    /// Where the connection came in.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// What is known of the other end, as far as the connection itself tells; none where its process has ended.
    pub async fn facts(&self, directory: &Arc<Directory>) -> Option<&Facts> {
        let find = || async {
            let (origin, credentials) = (self.origin, self.credentials);
            let (container, device) = (self.container.clone(), self.device.clone());
            if let Some(cid) = self.machine {
                return Some(Facts { via: Via::Vsock(cid), ..Facts::default() });
            }
            let directory = directory.clone();
            // A container's engine may be asked, which must not hold up an event loop.
            let foreign = matches!(credentials, Some((Some(pid), _)) if pontoon_callers::foreign_container(pid).is_some());
            let slow = foreign || container.is_some() || !directory.policies().is_empty();
            let look =
                move || find_facts(origin, credentials, container.as_deref(), device.as_deref(), &directory);
            match slow {
                false => look(),
                true => tokio::task::spawn_blocking(look).await.unwrap_or_default(),
            }
        };
        self.facts.get_or_init(find).await.as_ref()
    }

    /// The caller, as far as the connection itself tells.
    ///
    /// # Errors
    /// The sentence for the caller: a policy keeps it out.
    pub async fn caller(&self, directory: &Arc<Directory>) -> Result<Caller, String> {
        let facts = self.facts(directory).await;
        let find = || async {
            let facts = facts.ok_or_else(|| GONE.to_owned())?;
            if self.origin == Origin::Admin { Ok(operator(facts)) } else { Caller::of(facts, directory) }
        };
        self.caller.get_or_init(find).await.clone()
    }

    /// Whether this connection may manage models.
    ///
    /// # Errors
    /// The sentence for the caller: why not, and what to do.
    pub async fn may_manage(&self) -> Result<(), String> {
        match self.origin {
            Origin::Admin => Ok(()),
            Origin::Guest | Origin::Forwarded => {
                Err("this socket is for inference; manage models on the host, with `pontoon model` \
                                  or on the admin socket"
                    .into())
            }
            Origin::Remote(_) => {
                Err("models are not managed from other machines; use `pontoon model` on the host".into())
            }
            Origin::Loopback(ours, theirs) => {
                let look = || async move {
                    let found = tokio::task::spawn_blocking(move || process::may_manage(ours, theirs)).await;
                    found.unwrap_or_else(|error| Err(error.to_string()))
                };
                self.manages.get_or_init(look).await.clone()
            }
        }
    }
}

/// What is said to who cannot be told from anybody.
pub const GONE: &str = "the process that opened this connection has ended, or poses as a container, so nobody can say whose it is";

/// Policies are not about the operator.
fn operator(facts: &Facts) -> Caller {
    Caller { id: facts.tenant().into(), description: facts.describe().into(), policy: None }
}

fn find_facts(
    origin: Origin,
    credentials: Option<(Option<i32>, u32)>,
    container: Option<&str>,
    device: Option<&str>,
    directory: &Directory,
) -> Option<Facts> {
    if let Some((pid, uid)) = credentials {
        return directory.of_process(pid, uid, device);
    }
    if let Some(id) = container {
        return Some(directory.of_container(id, device));
    }
    match origin {
        Origin::Remote(address) => Some(Facts { via: Via::Tcp(address), ..Facts::default() }),
        Origin::Loopback(ours, theirs) => {
            let via = Via::Tcp(theirs);
            let Some(owner) = tcp::owner(ours, theirs) else {
                return Some(Facts { via, ..Facts::default() });
            };
            // Policies may be about containers, also about those that share the host's network; without policies
            // the user is enough, and a search through all processes is saved.
            if directory.policies().is_empty() {
                return Some(Facts { via, uid: Some(owner.uid), ..Facts::default() });
            }
            let holder = process::holders(owner.inode).first().copied();
            Some(Facts { via, ..directory.of_process(holder, owner.uid, None)? })
        }
        Origin::Admin | Origin::Guest | Origin::Forwarded => Some(Facts::default()),
    }
}
