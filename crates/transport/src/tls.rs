//! TLS 1.3 under the protocol. A connection's plain bytes come out of a socket pair, whose other end a thread carries
//! to and from TLS: so whoever serves the plain end (a worker, which must not know the host's key) needs no TLS.
//!
//! A guest knows its host by the certificate's fingerprint and by nothing else: no names, no authorities, no dates. The
//! guest itself proves who it is by the secret in its first words, within TLS.

mod carrier;

use std::io::ErrorKind;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, ClientConnection, Connection, DigitallySignedStruct, ServerConfig,
    ServerConnection, SignatureScheme,
};
use sha2::{Digest, Sha256};

use crate::{Fingerprint, Socket};
use carrier::{CHUNK, Carrier};

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The host's key or certificate is not usable: the operator's to mend.
    #[error("the certificate or its key is not usable: {0}")]
    Identity(rustls::Error),
    /// The other side's certificate is not the one of the ticket: another host answers there.
    #[error(
        "another host answers there: its certificate is not the one of the ticket; if the host got a new one, ask for a new ticket"
    )]
    WrongHost,
    /// The other side speaks no TLS, or not well.
    #[error("no TLS: {0}")]
    Protocol(String),
    /// The other side took too long, or the connection broke.
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

/// A host's certificate and key.
#[derive(Debug, Clone)]
pub struct Identity {
    config: Arc<ServerConfig>,
    fingerprint: Fingerprint,
}

/// The fingerprint of a certificate.
pub fn fingerprint(certificate: &CertificateDer<'_>) -> Fingerprint {
    let digest: [u8; 32] = Sha256::digest(certificate).into();
    let mut first = [0; 16];
    first.copy_from_slice(&digest[..16]);
    Fingerprint(first)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

impl Identity {
    /// An identity of a certificate, its chain, and its key.
    ///
    /// # Errors
    /// [`TlsError::Identity`].
    pub fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<Self, TlsError> {
        let first = chain.first().ok_or(TlsError::Identity(rustls::Error::NoCertificatesPresented))?;
        let fingerprint = fingerprint(first);
        let config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
            .map_err(TlsError::Identity)?;
        Ok(Self { config: Arc::new(config), fingerprint })
    }

    /// What guests know this host by.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Shakes hands with a guest, within `patience`; the plain end.
    ///
    /// # Errors
    /// [`TlsError`]: the guest's doing.
    pub fn accept(&self, socket: TcpStream, patience: Duration) -> Result<Socket, TlsError> {
        let connection = ServerConnection::new(self.config.clone()).map_err(TlsError::Identity)?;
        carry(socket, connection.into(), patience)
    }
}

/// Shakes hands with the host of a fingerprint, within `patience`; the plain end.
///
/// # Errors
/// [`TlsError::WrongHost`] where another host answers, and the others.
pub fn connect(socket: TcpStream, wanted: Fingerprint, patience: Duration) -> Result<Socket, TlsError> {
    let provider = provider();
    let verifier = Arc::new(Pinned { wanted, provider: provider.clone() });
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Identity)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    // The name is not sent anywhere and not looked at: the fingerprint is what counts.
    let name = ServerName::try_from("pontoon").map_err(|error| TlsError::Protocol(error.to_string()))?;
    let mut config = config;
    config.enable_sni = false;
    let connection = ClientConnection::new(Arc::new(config), name).map_err(TlsError::Identity)?;
    carry(socket, connection.into(), patience)
}

/// Accepts one certificate, whoever signed it for whatever name.
#[derive(Debug)]
struct Pinned {
    wanted: Fingerprint,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match fingerprint(certificate) == self.wanted {
            true => Ok(ServerCertVerified::assertion()),
            false => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn carry(socket: TcpStream, mut connection: Connection, patience: Duration) -> Result<Socket, TlsError> {
    socket.set_nodelay(true)?;
    shake_hands(&socket, &mut connection, Instant::now() + patience)?;
    let (plain, ours) = UnixStream::pair()?;
    for end in [&plain, &ours] {
        let _ = rustix::net::sockopt::set_socket_send_buffer_size(end, 1 << 20);
    }
    socket.set_nonblocking(true)?;
    ours.set_nonblocking(true)?;
    connection.set_buffer_limit(Some(2 * CHUNK));
    let reason = Arc::new(OnceLock::new());
    let told = reason.clone();
    std::thread::Builder::new().name("tls".into()).spawn(move || {
        let ended = Carrier::new(&socket, &ours, connection).run();
        let _ = told.set(ended);
        let _ = ours.shutdown(std::net::Shutdown::Both);
        let _ = socket.shutdown(std::net::Shutdown::Both);
    })?;
    Ok(Socket::Carried(plain, reason))
}

fn shake_hands(socket: &TcpStream, connection: &mut Connection, deadline: Instant) -> Result<(), TlsError> {
    while connection.is_handshaking() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(std::io::Error::new(ErrorKind::TimedOut, "the TLS handshake took too long").into());
        }
        socket.set_read_timeout(Some(left))?;
        socket.set_write_timeout(Some(left))?;
        while connection.wants_write() {
            connection.write_tls(&mut &*socket)?;
        }
        if !connection.is_handshaking() {
            break;
        }
        match connection.read_tls(&mut &*socket) {
            Ok(0) => {
                return Err(TlsError::Protocol(
                    "the connection was closed in the middle of the handshake".into(),
                ));
            }
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
            Err(error) => return Err(error.into()),
        }
        if let Err(error) = connection.process_new_packets() {
            // The other side is told why, as far as TLS has a word for it.
            let _ = connection.write_tls(&mut &*socket);
            return Err(match error {
                rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure) => {
                    TlsError::WrongHost
                }
                error => TlsError::Protocol(error.to_string()),
            });
        }
    }
    while connection.wants_write() {
        connection.write_tls(&mut &*socket)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use rustix::event::{PollFd, PollFlags, Timespec};

    use rustls::pki_types::PrivatePkcs8KeyDer;

    use super::*;

    fn identity() -> Identity {
        let made = rcgen::generate_simple_self_signed(["pontoon".to_owned()]).unwrap();
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        Identity::new(vec![made.cert.der().clone()], key.into()).unwrap()
    }

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (near, listener.accept().unwrap().0)
    }

    fn plain(socket: Socket) -> UnixStream {
        match socket {
            Socket::Carried(stream, _) => stream,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn bytes_pass_in_both_directions_at_once_and_the_end_arrives() {
        let identity = identity();
        let (near, far) = pair();
        let wanted = identity.fingerprint();
        let host = std::thread::spawn(move || plain(identity.accept(far, Duration::from_secs(5)).unwrap()));
        let guest = plain(connect(near, wanted, Duration::from_secs(5)).unwrap());
        let host = host.join().unwrap();
        let data: Vec<u8> =
            (0..8 << 20).map(|at: u32| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        std::thread::scope(|scope| {
            for (from, to) in [(&guest, &host), (&host, &guest)] {
                let data = &data;
                scope.spawn(move || (&mut &*from).write_all(data).unwrap());
                scope.spawn(move || {
                    let mut got = vec![0; data.len()];
                    (&mut &*to).read_exact(&mut got).unwrap();
                    assert!(got == *data);
                });
            }
        });
        (&mut &guest).write_all(b"last words").unwrap();
        drop(guest);
        let mut rest = String::new();
        (&mut &host).read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "last words");
    }

    #[test]
    fn words_in_one_piece_with_the_handshake_arrive() {
        let identity = identity();
        for _ in 0..50 {
            let (near, far) = pair();
            let guest = plain(
                std::thread::scope(|scope| {
                    let guest = scope.spawn(|| {
                        let guest = connect(near, identity.fingerprint(), Duration::from_secs(5)).unwrap();
                        let Socket::Carried(stream, _) = &guest else { panic!("carried") };
                        (&mut &*stream).write_all(b"hello").unwrap();
                        guest
                    });
                    // The host looks late: the guest's last flight and its first words are both here.
                    let host = scope.spawn(|| {
                        std::thread::sleep(Duration::from_millis(1));
                        let host = plain(identity.accept(far, Duration::from_secs(5)).unwrap());
                        host.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
                        let mut words = [0; 5];
                        (&mut &host).read_exact(&mut words).unwrap();
                        assert_eq!(&words, b"hello");
                    });
                    host.join().unwrap();
                    guest.join()
                })
                .unwrap(),
            );
            drop(guest);
        }
    }

    #[test]
    fn another_host_is_noticed_before_a_word_is_said() {
        let (near, far) = pair();
        let (other, ours) = (identity(), identity().fingerprint());
        let host = std::thread::spawn(move || other.accept(far, Duration::from_secs(5)).err());
        let error = connect(near, ours, Duration::from_secs(5)).unwrap_err();
        assert!(matches!(error, TlsError::WrongHost), "{error}");
        assert!(host.join().unwrap().is_some());
    }

    #[test]
    fn who_says_nothing_or_nonsense_is_not_waited_for() {
        let identity = identity();
        let (near, far) = pair();
        let begun = Instant::now();
        let error = identity.accept(far, Duration::from_millis(200)).unwrap_err();
        assert!(
            error.to_string().contains("too long") && begun.elapsed() < Duration::from_secs(2),
            "{error}"
        );
        drop(near);
        let (near, far) = pair();
        (&mut &near).write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        assert!(matches!(identity.accept(far, Duration::from_secs(5)), Err(TlsError::Protocol(_))));
    }

    /// Processor time of this process so far, in seconds.
    fn cpu() -> f64 {
        let times = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        times.tv_sec as f64 + times.tv_nsec as f64 / 1e9
    }

    fn established(identity: &Identity) -> (Socket, Socket) {
        let (near, far) = pair();
        std::thread::scope(|scope| {
            let host = scope.spawn(|| identity.accept(far, Duration::from_secs(5)).unwrap());
            let guest = connect(near, identity.fingerprint(), Duration::from_secs(5)).unwrap();
            (guest, host.join().unwrap())
        })
    }

    fn await_end(socket: &Socket) -> String {
        let begun = Instant::now();
        loop {
            if let Some(reason) = socket.ended_because() {
                return reason;
            }
            assert!(begun.elapsed() < Duration::from_secs(8), "it is still carried");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Writes until nothing more is taken for a while.
    fn fill(end: &UnixStream) {
        end.set_nonblocking(true).unwrap();
        let chunk = vec![7; 1 << 20];
        let mut idle = 0;
        while idle < 50 {
            match (&mut &*end).write(&chunk) {
                Ok(len) if len > 0 => idle = 0,
                _ => {
                    idle += 1;
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
        }
    }

    #[test]
    fn a_guest_that_stops_reading_costs_nothing_once_its_session_is_over() {
        let (guest, host) = established(&identity());
        let Socket::Carried(worker, _) = &host else { panic!("carried") };
        // The guest's plain end is not read: everything on the way fills up.
        fill(worker);
        let Socket::Carried(worker, reason) = host else { panic!("carried") };
        drop(worker);
        let before = cpu();
        assert!(await_end(&Socket::Carried(UnixStream::pair().unwrap().0, reason)).contains("ended"));
        assert!(cpu() - before < 1.0, "{} s of processor time", cpu() - before);
        drop(guest);
    }

    #[test]
    fn a_guest_that_goes_while_its_worker_is_stuck_ends_the_session() {
        let (guest, host) = established(&identity());
        let (Socket::Carried(near, _), Socket::Carried(worker, _)) = (&guest, &host) else {
            panic!("carried")
        };
        // Neither end reads: both directions fill up.
        for end in [near, worker] {
            fill(end);
        }
        drop(guest);
        await_end(&host);
        // The worker, and who watches over it, see that it is over.
        let mut set = [PollFd::new(worker, PollFlags::RDHUP)];
        rustix::event::poll(&mut set, Some(&Timespec { tv_sec: 5, tv_nsec: 0 })).unwrap();
        assert!(!set[0].revents().is_empty());
    }

    #[test]
    fn a_connection_that_breaks_says_so() {
        let identity = identity();
        let (near, far) = pair();
        let cut = far.try_clone().unwrap();
        let wanted = identity.fingerprint();
        let host = std::thread::spawn(move || identity.accept(far, Duration::from_secs(5)).unwrap());
        let guest = connect(near, wanted, Duration::from_secs(5)).unwrap();
        let _host = host.join().unwrap();
        cut.shutdown(std::net::Shutdown::Both).unwrap();
        let deadline = Instant::now() + Duration::from_secs(5);
        while guest.ended_because().is_none() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        let reason = guest.ended_because().unwrap();
        assert!(reason.contains("without a word") || reason.contains("broke"), "{reason}");
    }
}
