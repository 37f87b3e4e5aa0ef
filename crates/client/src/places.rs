//! Where a host is looked for when nobody says where it is: sockets of a container or of this machine, then the names
//! that container engines give their host, then the vsock of a virtual machine.

use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pontoon_transport::{DEFAULT_PORT, Endpoint};

use crate::Error;

/// Where containers find the socket.
pub const CONTAINER_SOCKET: &str = "/run/pontoon/pontoon.sock";
/// Names by which Docker Desktop, podman and others make their host known to containers.
pub const HOST_NAMES: [&str; 2] = ["host.docker.internal", "host.containers.internal"];
/// The host's context id on every virtual machine's vsock.
pub const HOST_CID: u32 = 2;

/// A neighbour answers within this time, or is not one.
const PATIENCE: Duration = Duration::from_millis(500);

/// All places, in the order in which they are tried.
pub fn all() -> Vec<Endpoint> {
    let mut sockets = vec![PathBuf::from(CONTAINER_SOCKET)];
    sockets.extend(
        std::env::var_os("XDG_RUNTIME_DIR")
            .filter(|folder| !folder.is_empty())
            .map(|folder| Path::new(&folder).join("pontoon/guest/pontoon.sock")),
    );
    sockets.push("/run/pontoon/guest/pontoon.sock".into());
    let hosts = HOST_NAMES.iter().map(|name| Endpoint::Tcp(format!("{name}:{DEFAULT_PORT}")));
    let vsock = Endpoint::Vsock { cid: HOST_CID, port: DEFAULT_PORT.into() };
    sockets.into_iter().map(Endpoint::Unix).chain(hosts).chain([vsock]).collect()
}

/// The first place where somebody listens.
///
/// # Errors
/// [`Error::Nowhere`] with what was wrong in each.
pub fn find() -> Result<Endpoint, Error> {
    let mut tried = Vec::new();
    for place in all() {
        match knock(&place) {
            Ok(()) => return Ok(place),
            Err(error) => tried.push(format!("{place} ({error})")),
        }
    }
    Err(Error::Nowhere { tried: tried.join(", ") })
}

/// Whether somebody listens there. Nothing is said to them.
fn knock(place: &Endpoint) -> Result<(), String> {
    match place.clone() {
        Endpoint::Unix(path) if !path.exists() => Err("no such socket".into()),
        Endpoint::Unix(path) => UnixStream::connect(path).map(drop).map_err(|error| error.to_string()),
        Endpoint::Tcp(address) => in_time(move || tcp(&address)),
        Endpoint::Vsock { .. } if !Path::new("/dev/vsock").exists() => {
            Err("this machine has no vsock".into())
        }
        Endpoint::Vsock { cid, port } => in_time(move || {
            vsock::VsockStream::connect_with_cid_port(cid, port).map(drop).map_err(|error| error.to_string())
        }),
        Endpoint::Tls(_) => Err("only a ticket leads there".into()),
    }
}

fn tcp(address: &str) -> Result<(), String> {
    let mut last = "no such name".to_owned();
    // The resolver's own words vary and say no more.
    for address in address.to_socket_addrs().map_err(|_| last.clone())? {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(_) => return Ok(()),
            Err(error) => last = error.to_string(),
        }
    }
    Err(last)
}

/// Resolvers and vsock have more patience than we.
fn in_time(dial: impl FnOnce() -> Result<(), String> + Send + 'static) -> Result<(), String> {
    let (tell, told) = std::sync::mpsc::channel();
    let work = move || drop(tell.send(dial()));
    std::thread::Builder::new().name("knock".into()).spawn(work).map_err(|error| error.to_string())?;
    told.recv_timeout(2 * PATIENCE).unwrap_or_else(|_| Err("nobody answers".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_tried_is_told() {
        let places = all();
        assert_eq!(places[0], Endpoint::Unix(CONTAINER_SOCKET.into()));
        assert_eq!(places.last(), Some(&Endpoint::Vsock { cid: 2, port: 7300 }));
        assert_eq!(knock(&Endpoint::Unix("/nonexistent/x".into())), Err("no such socket".into()));
        assert!(knock(&Endpoint::Tcp("name.invalid:7300".into())).is_err());
    }
}
