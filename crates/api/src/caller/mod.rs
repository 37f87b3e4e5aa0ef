//! Who is at the other end of a connection, and whether it may manage models.

mod process;
mod tcp;

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::OnceCell;

/// Where a connection came in, as the listener knows it.
#[derive(Debug, Clone, Copy)]
pub enum Origin {
    /// The operator's socket.
    Admin,
    /// The guests' socket.
    Guest,
    /// TCP on loopback: our address and the peer's.
    Loopback(SocketAddr, SocketAddr),
    /// TLS, from anywhere.
    Remote(SocketAddr),
}

/// Whom a request counts for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// `container:3f2a…`, `uid:1000`, `loopback`, or the tenant of a key.
    pub id: Arc<str>,
    /// What people read.
    pub description: Arc<str>,
}

impl Caller {
    /// The caller that a key, or an operator's word, stands for.
    pub fn named(tenant: &str) -> Self {
        Self { id: tenant.into(), description: tenant.into() }
    }
}

/// One connection's other end. Costly look-ups are made when first needed, and once.
#[derive(Debug)]
pub struct Peer {
    origin: Origin,
    /// Process and user of a unix socket's other end.
    credentials: Option<(Option<i32>, u32)>,
    caller: OnceCell<Caller>,
    manages: OnceCell<Result<(), String>>,
}

impl Peer {
    /// The other end of a TCP connection.
    pub fn of_tcp(origin: Origin) -> Self {
        Self { origin, credentials: None, caller: OnceCell::new(), manages: OnceCell::new() }
    }

    /// The other end of a unix socket.
    ///
    /// # Errors
    /// What the system said.
    pub fn of_unix(origin: Origin, stream: &tokio::net::UnixStream) -> std::io::Result<Self> {
        let credentials = stream.peer_cred()?;
        Ok(Self { credentials: Some((credentials.pid(), credentials.uid())), ..Self::of_tcp(origin) })
    }

    /// Where the connection came in.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// The caller, as far as the connection itself tells.
    pub async fn caller(&self) -> Caller {
        self.caller.get_or_init(|| async { self.find_caller() }).await.clone()
    }

    fn find_caller(&self) -> Caller {
        if let Some((pid, uid)) = self.credentials {
            return process::caller(pid, uid);
        }
        match self.origin {
            Origin::Remote(address) => {
                let text = format!("remote:{}", address.ip());
                Caller { id: text.as_str().into(), description: text.into() }
            }
            Origin::Loopback(ours, theirs) => match tcp::owner(ours, theirs) {
                Some(owner) => Caller::named(&format!("uid:{}", owner.uid)),
                None => Caller::named("loopback"),
            },
            Origin::Admin | Origin::Guest => Caller::named("local"),
        }
    }

    /// Whether this connection may manage models.
    ///
    /// # Errors
    /// The sentence for the caller: why not, and what to do.
    pub async fn may_manage(&self) -> Result<(), String> {
        match self.origin {
            Origin::Admin => Ok(()),
            Origin::Guest => {
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
