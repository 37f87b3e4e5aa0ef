//! TLS 1.3 under the protocol. A connection's plain bytes come out of a socket pair, whose other end a thread carries
//! to and from TLS: so whoever serves the plain end (a worker, which must not know the host's key) needs no TLS.
//!
//! A guest knows its host by the certificate's fingerprint and by nothing else: no names, no authorities, no dates. The
//! guest itself proves who it is by the secret in its first words, within TLS.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, ClientConnection, Connection, DigitallySignedStruct, ServerConfig,
    ServerConnection, SignatureScheme,
};
use sha2::{Digest, Sha256};

use crate::{Fingerprint, Socket};

/// Plain bytes that are taken from one side before the other has got rid of them.
const CHUNK: usize = 256 * 1024;

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
        let ended = Carrier { socket: &socket, plain: &ours, connection, inward: Vec::new(), at: 0 }.run();
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

/// Carries bytes between TLS and the plain end, in one thread.
struct Carrier<'a> {
    socket: &'a TcpStream,
    plain: &'a UnixStream,
    connection: Connection,
    /// Plain bytes on their way inward, from `at` on.
    inward: Vec<u8>,
    at: usize,
}

impl Carrier<'_> {
    /// Carries until one side ends; why it did.
    fn run(mut self) -> String {
        let mut chunk = vec![0; CHUNK];
        // The first words may have come in one piece with the end of the handshake.
        if let Err(error) = self.decrypt(&mut chunk) {
            return format!("the connection broke: {error}");
        }
        loop {
            match self.step(&mut chunk) {
                Ok(None) => {}
                Ok(Some(ended)) => return ended,
                Err(error) => return format!("the connection broke: {error}"),
            }
        }
    }

    fn step(&mut self, chunk: &mut [u8]) -> std::io::Result<Option<String>> {
        let (inward, outward) = (self.at < self.inward.len(), self.connection.wants_write());
        let when = |wanted: bool, flag: PollFlags| if wanted { flag } else { PollFlags::empty() };
        let mut set = [
            PollFd::new(self.socket, when(!inward, PollFlags::IN) | when(outward, PollFlags::OUT)),
            PollFd::new(self.plain, when(!outward, PollFlags::IN) | when(inward, PollFlags::OUT)),
        ];
        match rustix::event::poll(&mut set, None) {
            Err(rustix::io::Errno::INTR) => return Ok(None),
            other => other?,
        };
        let (outside, inside) = (set[0].revents(), set[1].revents());
        if outward && outside.contains(PollFlags::OUT) {
            would_block(self.connection.write_tls(&mut &*self.socket))?;
        }
        if !inward
            && outside.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR)
            && let Some(ended) = self.take_in(chunk)?
        {
            return Ok(Some(ended));
        }
        if self.at < self.inward.len() {
            self.hand_in()?;
        }
        if !outward && inside.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            match would_block((&mut &*self.plain).read(chunk))? {
                Some(0) => return self.farewell().map(Some),
                Some(len) => self.send(&chunk[..len])?,
                None => {}
            }
        }
        Ok(None)
    }

    /// Appends what is decrypted to what goes inward; whether the other side has said goodbye.
    fn decrypt(&mut self, chunk: &mut [u8]) -> std::io::Result<bool> {
        let state = self.connection.process_new_packets().map_err(std::io::Error::other)?;
        let mut left = state.plaintext_bytes_to_read();
        while left > 0 {
            let len = self.connection.reader().read(chunk)?;
            self.inward.extend_from_slice(&chunk[..len]);
            left -= len;
        }
        Ok(state.peer_has_closed())
    }

    /// Reads what has come over TLS.
    fn take_in(&mut self, chunk: &mut [u8]) -> std::io::Result<Option<String>> {
        self.inward.clear();
        self.at = 0;
        let (mut read, mut closed) = (Some(1), false);
        while self.inward.len() < CHUNK && !closed {
            read = would_block(self.connection.read_tls(&mut &*self.socket))?;
            closed = self.decrypt(chunk)?;
            if matches!(read, None | Some(0)) {
                break;
            }
        }
        if closed || read == Some(0) {
            while self.at < self.inward.len() {
                self.plain.set_nonblocking(false)?;
                self.hand_in()?;
            }
            let how = if closed { "" } else { ", without a word" };
            return Ok(Some(format!("the other side closed the connection{how}")));
        }
        Ok(None)
    }

    fn hand_in(&mut self) -> std::io::Result<()> {
        if let Some(len) = would_block((&mut &*self.plain).write(&self.inward[self.at..]))? {
            self.at += len;
        }
        Ok(())
    }

    /// Takes at most [`CHUNK`] bytes, when nothing else is on its way out: there is room.
    fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.connection.writer().write_all(bytes)?;
        while self.connection.wants_write()
            && would_block(self.connection.write_tls(&mut &*self.socket))?.is_some()
        {}
        Ok(())
    }

    /// The plain end is closed: says goodbye over TLS, without waiting long for who does not listen.
    fn farewell(&mut self) -> std::io::Result<String> {
        self.connection.send_close_notify();
        self.socket.set_nonblocking(false)?;
        self.socket.set_write_timeout(Some(Duration::from_secs(1)))?;
        while self.connection.wants_write() {
            self.connection.write_tls(&mut &*self.socket)?;
        }
        Ok("the session ended".into())
    }
}

fn would_block(result: std::io::Result<usize>) -> std::io::Result<Option<usize>> {
    match result {
        Ok(len) => Ok(Some(len)),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

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
