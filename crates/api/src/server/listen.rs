//! Listening: loopback TCP, the guests' and the operator's unix sockets, and TLS for other machines.

use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use pontoon_engines::http::Stream;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio_rustls::TlsAcceptor;

use super::connection::{self, Place, Places};
use super::lanes::Lanes;
use super::{Error, Shared};
use crate::caller::{Origin, Peer};
use crate::config::{Config, Tls};

/// Something that listens.
pub enum Listener {
    /// TCP on loopback.
    Loopback(TcpListener, SocketAddr),
    /// The guests' socket, or that of a device, which is named.
    Guest(UnixListener, PathBuf, Option<Arc<str>>),
    /// A listener in a container's own network; the container, and the device that it was given.
    Forwarded(TcpListener, Arc<str>, Option<Arc<str>>),
    /// The operator's socket.
    Admin(UnixListener, PathBuf),
    /// The port of a virtual machine; its context id.
    Machine(UnixListener, u32),
    /// TLS.
    Remote(TcpListener, SocketAddr, TlsAcceptor),
}

/// Binds all that the configuration names.
///
/// # Errors
/// [`Error`]. A loopback address of a family that the host does not have is left out, if another is there.
pub async fn bind(config: &Config, devices: &[(Arc<str>, PathBuf)]) -> Result<Vec<Listener>, Error> {
    let mut listeners = Vec::new();
    for address in &config.listen {
        match tcp(*address).await {
            Ok((listener, bound)) => listeners.push(Listener::Loopback(listener, bound)),
            Err(Error::Listen { source, .. })
                if address.is_ipv6() && no_such_family(&source) && config.listen.len() > 1 =>
            {
                log::info!("this host has no IPv6 loopback; not listening on {address}");
            }
            Err(error) => return Err(error),
        }
    }
    if let Some(path) = &config.socket {
        listeners.push(Listener::Guest(unix(path, 0o666, None)?, path.clone(), None));
    }
    for (device, path) in devices {
        listeners.push(Listener::Guest(unix(path, 0o666, None)?, path.clone(), Some(device.clone())));
    }
    if let Some(path) = &config.admin {
        listeners.push(Listener::Admin(unix(path, 0o600, Some(0o700))?, path.clone()));
    }
    // `Config::check` has refused a remote address without certificate or keys.
    if let (Some(address), Some(tls)) = (config.remote, &config.tls) {
        let acceptor = acceptor(tls)?;
        let (listener, bound) = tcp(address).await?;
        listeners.push(Listener::Remote(listener, bound, acceptor));
    }
    Ok(listeners)
}

fn no_such_family(error: &std::io::Error) -> bool {
    use rustix::io::Errno;
    let absent = [Errno::ADDRNOTAVAIL, Errno::AFNOSUPPORT].map(|errno| Some(errno.raw_os_error()));
    absent.contains(&error.raw_os_error())
}

async fn tcp(address: SocketAddr) -> Result<(TcpListener, SocketAddr), Error> {
    let failed = |source| Error::Listen { what: address.to_string(), source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

/// Binds a unix socket. It takes the place of one that nobody listens on any more, and of nothing else.
fn unix(path: &Path, mode: u32, folder_mode: Option<u32>) -> Result<UnixListener, Error> {
    let failed = |source| Error::Listen { what: path.display().to_string(), source };
    if let Some(folder) = path.parent() {
        let made = !folder.exists();
        std::fs::create_dir_all(folder).map_err(failed)?;
        match folder_mode {
            Some(mode) if made => {
                std::fs::set_permissions(folder, std::fs::Permissions::from_mode(mode)).map_err(failed)?;
            }
            // A folder of somebody else's is not ours to close.
            Some(_) if folder.metadata().map_err(failed)?.permissions().mode() & 0o077 != 0 => {
                let message = "its folder must be one that only this user may enter (chmod 700)";
                return Err(failed(std::io::Error::new(std::io::ErrorKind::PermissionDenied, message)));
            }
            _ => {}
        }
    }
    if let Ok(found) = std::fs::symlink_metadata(path) {
        if !found.file_type().is_socket() {
            return Err(failed(std::io::Error::new(
                std::io::ErrorKind::AlreadyExists,
                "a file that is no socket is there",
            )));
        }
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(failed(std::io::Error::new(
                std::io::ErrorKind::AddrInUse,
                "another pontoon listens there",
            )));
        }
        std::fs::remove_file(path).map_err(failed)?;
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(failed)?;
    Ok(listener)
}

fn acceptor(tls: &Tls) -> Result<TlsAcceptor, Error> {
    let failed = |path: &Path, message: String| Error::Tls { path: path.to_owned(), message };
    let chain: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(&tls.certificate).and_then(Iterator::collect);
    let chain = chain.map_err(|error| failed(&tls.certificate, error.to_string()))?;
    let key = PrivateKeyDer::from_pem_file(&tls.key).map_err(|error| failed(&tls.key, error.to_string()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|error| failed(&tls.certificate, error.to_string()))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

impl Listener {
    /// What a client is told.
    pub fn address(&self) -> String {
        match self {
            Self::Loopback(_, address) => format!("http://{address}"),
            Self::Guest(_, path, _) | Self::Admin(_, path) => format!("unix:{}", path.display()),
            Self::Machine(_, cid) => format!("the port of virtual machine {cid}"),
            Self::Forwarded(_, container, _) => format!("the network of container {container}"),
            Self::Remote(_, address, _) => format!("https://{address}"),
        }
    }

    /// The file to remove at the end.
    pub fn file(&self) -> Option<PathBuf> {
        match self {
            Self::Guest(_, path, _) | Self::Admin(_, path) => Some(path.clone()),
            _ => None,
        }
    }

    /// Accepts connections until it is dropped.
    pub async fn accept(self, handles: Handles) {
        loop {
            let handles = handles.clone();
            let accepted = match &self {
                Self::Loopback(listener, ours) => {
                    let ours = *ours;
                    listener.accept().await.and_then(|(stream, theirs)| {
                        let ours = stream.local_addr().unwrap_or(ours);
                        plain(stream, Peer::of_tcp(Origin::Loopback(ours, theirs)), handles)
                    })
                }
                Self::Guest(listener, _, device) => listener.accept().await.and_then(|(stream, _)| {
                    let peer = Peer::of_unix(Origin::Guest, device.clone(), &stream)?;
                    local(stream, peer, handles)
                }),
                Self::Admin(listener, _) => listener.accept().await.and_then(|(stream, _)| {
                    let peer = Peer::of_unix(Origin::Admin, None, &stream)?;
                    local(stream, peer, handles)
                }),
                Self::Forwarded(listener, container, device) => {
                    listener.accept().await.and_then(|(stream, _)| {
                        plain(stream, Peer::of_container(container.clone(), device.clone()), handles)
                    })
                }
                Self::Machine(listener, cid) => listener
                    .accept()
                    .await
                    .and_then(|(stream, _)| local(stream, Peer::of_machine(*cid), handles)),
                Self::Remote(listener, _, acceptor) => listener
                    .accept()
                    .await
                    .and_then(|(stream, theirs)| secure(stream, theirs, acceptor.clone(), handles)),
            };
            if let Err(error) = accepted {
                // Out of file descriptors, mostly: nothing is gained by asking again at once.
                log::warn!("cannot accept a connection on {}: {error}", self.address());
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// What serving a connection takes.
#[derive(Clone)]
pub struct Handles {
    pub shared: Arc<Shared>,
    pub places: Arc<Places>,
    pub lanes: Arc<Lanes>,
    pub stopped: watch::Receiver<bool>,
}

/// Places for a connection before it has said anything: one among all, and among those of its own port where that is a
/// container's or a machine's, so that these cannot take all. None: there is no place.
fn places(handles: &Handles, peer: &Peer) -> Option<(Option<OwnedSemaphorePermit>, Option<Place>)> {
    // The operator is let in whatever guests do: nobody else reaches that socket.
    if peer.origin() == Origin::Admin {
        return Some((None, None));
    }
    let own = match peer.port() {
        Some(port) => Some(handles.places.of(&port)?),
        None => None,
    };
    Some((Some(handles.places.take()?), own))
}

fn plain(stream: TcpStream, peer: Peer, handles: Handles) -> std::io::Result<()> {
    let Some(place) = places(&handles, &peer) else { return full() };
    let _ = stream.set_nodelay(true);
    let peer = Arc::new(peer);
    let stream = stream.into_std()?;
    handles.lanes.clone().spawn(async move {
        if let Some(stream) = taken_over(TcpStream::from_std(stream)) {
            connection::serve(stream, peer, handles.shared, handles.places, handles.stopped).await;
        }
        drop(place);
    });
    Ok(())
}

fn local(stream: UnixStream, peer: Peer, handles: Handles) -> std::io::Result<()> {
    let Some(place) = places(&handles, &peer) else { return full() };
    let peer = Arc::new(peer);
    let stream = stream.into_std()?;
    handles.lanes.clone().spawn(async move {
        if let Some(stream) = taken_over(Stream::new(stream)) {
            connection::serve(stream, peer, handles.shared, handles.places, handles.stopped).await;
        }
        drop(place);
    });
    Ok(())
}

fn secure(
    stream: TcpStream,
    theirs: SocketAddr,
    acceptor: TlsAcceptor,
    handles: Handles,
) -> std::io::Result<()> {
    let Some(place) = handles.places.take() else { return full() };
    let _ = stream.set_nodelay(true);
    let peer = Arc::new(Peer::of_tcp(Origin::Remote(theirs)));
    let limit = Duration::from_secs(handles.shared.config.limits.header_seconds);
    let stream = stream.into_std()?;
    handles.lanes.clone().spawn(async move {
        if let Some(stream) = taken_over(TcpStream::from_std(stream)) {
            match tokio::time::timeout(limit, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => {
                    connection::serve(stream, peer, handles.shared, handles.places, handles.stopped).await;
                }
                Ok(Err(error)) => log::debug!("no TLS with {theirs}: {error}"),
                Err(_) => log::debug!("no TLS with {theirs} within {limit:?}"),
            }
        }
        drop(place);
    });
    Ok(())
}

/// A stream in the event loop that it was handed to.
fn taken_over<S>(stream: std::io::Result<S>) -> Option<S> {
    stream.inspect_err(|error| log::warn!("a connection was lost on its way to its event loop: {error}")).ok()
}

fn full() -> std::io::Result<()> {
    log::warn!("a connection was refused: http.limits.connections of them are open");
    Ok(())
}
