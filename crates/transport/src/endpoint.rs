//! Addresses of a host, as people write them in `PONTOON_HOST`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::ticket::Ticket;

/// Where a host listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// A unix socket.
    Unix(PathBuf),
    /// A TCP address, `host:port`, in clear text.
    Tcp(String),
    /// TLS over TCP, with what a ticket says.
    Tls(Ticket),
    /// The vsock of a virtual machine: context id and port. The host is context id 2.
    Vsock {
        /// Context id.
        cid: u32,
        /// Port.
        port: u32,
    },
}

/// Port where hosts are looked for when no other is named.
pub const DEFAULT_PORT: u16 = 7300;

/// An address that is not one.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is no Pontoon address: write unix:/path/to/socket, tcp:host:port, vsock:2:port, or the whole text that \
     `pontoon token create` printed"
)]
pub struct EndpointError(String);

impl EndpointError {
    /// Whatever comes before an `@` may be a secret, however wrong the rest is.
    fn of(text: &str) -> Self {
        Self(text.rsplit_once('@').map_or_else(|| text.to_owned(), |(_, rest)| format!("…@{rest}")))
    }
}

impl fmt::Debug for EndpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // Blanks and quotes around it come from files of variables.
        let text = text.trim().trim_matches(['"', '\'']);
        let wrong = || EndpointError::of(text);
        let strip = |scheme| text.strip_prefix(scheme);
        if let Some(path) = strip("unix://").or_else(|| strip("unix:")) {
            return (!path.is_empty()).then(|| Self::Unix(path.into())).ok_or_else(wrong);
        }
        if let Some(address) = strip("tcp://").or_else(|| strip("tcp:")) {
            let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
            return match (host.is_empty(), port.parse::<u16>()) {
                (false, Ok(_)) => Ok(Self::Tcp(address.to_owned())),
                _ => Err(wrong()),
            };
        }
        if text.starts_with(Ticket::SCHEME) {
            // Without an `@` it may be nothing but a secret.
            let torn = || match text.contains('@') {
                true => wrong(),
                false => EndpointError(format!("{}…", Ticket::SCHEME)),
            };
            return Ticket::parse(text).map(Self::Tls).ok_or_else(torn);
        }
        if let Some(address) = strip("vsock://").or_else(|| strip("vsock:")) {
            let (cid, port) = address.split_once(':').unwrap_or((address, ""));
            let port = if port.is_empty() { Ok(u32::from(DEFAULT_PORT)) } else { port.parse() };
            let (Ok(cid), Ok(port)) = (cid.parse(), port) else { return Err(wrong()) };
            return Ok(Self::Vsock { cid, port });
        }
        match text.starts_with('/') {
            true => Ok(Self::Unix(text.into())),
            false => Err(wrong()),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp:{address}"),
            Self::Tls(ticket) => write!(f, "{ticket}"),
            Self::Vsock { cid, port } => write!(f, "vsock:{cid}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_as_they_are_written() {
        for text in ["unix:/run/pontoon/pontoon.sock", "tcp:127.0.0.1:7300", "tcp:[::1]:7300", "vsock:2:7300"]
        {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
        assert_eq!("/a".parse(), Ok(Endpoint::Unix("/a".into())));
        assert_eq!("tcp://h:1".parse(), Ok(Endpoint::Tcp("h:1".into())));
        assert_eq!("vsock:2".parse(), Ok(Endpoint::Vsock { cid: 2, port: 7300 }));
    }

    #[test]
    fn a_ticket_is_read_whole_and_shown_without_its_secret() {
        let text = "pontoon://1f.abc@gpu.example.org:7301#000102030405060708090a0b0c0d0e0f";
        let Endpoint::Tls(ticket) = text.parse().unwrap() else { panic!("a ticket is TLS") };
        assert_eq!((ticket.secret.as_str(), ticket.address.as_str()), ("1f.abc", "gpu.example.org:7301"));
        assert_eq!(ticket.text(), text);
        let shown = format!("{0} {0:?} {1} {1:?}", ticket, Endpoint::Tls(ticket.clone()));
        assert!(!shown.contains("abc@") && shown.contains("gpu.example.org:7301"), "{shown}");
        assert_eq!(format!(" '{text}' ").parse(), Ok(Endpoint::Tls(ticket)), "quotes of a file of variables");
        for wrong in [
            "Pontoon://s3cret@h:1#00",
            "tcp:s3cret@h:x",
            "s3cret@h:1",
            "pontoon://s3cret@host:1",
            "pontoon://s3cret@host#00",
            "pontoon://@h:1#00",
            "pontoon://s3cret",
        ] {
            let error = wrong.parse::<Endpoint>().unwrap_err().to_string();
            assert!(error.contains("pontoon token create") && !error.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn wrong_addresses_are_named() {
        for text in [
            "",
            "unix:",
            "tcp:",
            "tcp:host",
            "tcp::1",
            "tcp:host:70000",
            "http://x",
            "a b",
            "vsock:",
            "vsock:x",
            "vsock:2:y",
        ] {
            let error = text.parse::<Endpoint>().unwrap_err().to_string();
            assert!(error.contains(&format!("'{text}'")), "{error}");
        }
    }
}
