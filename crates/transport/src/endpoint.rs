//! Addresses of a host, as people write them in `PONTOON_HOST`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Where a host listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// A unix socket.
    Unix(PathBuf),
    /// A TCP address, `host:port`.
    Tcp(String),
}

/// An address that is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no Pontoon address: write unix:/path/to/socket or tcp:host:port")]
pub struct EndpointError(String);

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || EndpointError(text.to_owned());
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
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_as_they_are_written() {
        for text in ["unix:/run/pontoon/pontoon.sock", "tcp:127.0.0.1:7300", "tcp:[::1]:7300"] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
        assert_eq!("/a".parse(), Ok(Endpoint::Unix("/a".into())));
        assert_eq!("tcp://h:1".parse(), Ok(Endpoint::Tcp("h:1".into())));
    }

    #[test]
    fn wrong_addresses_are_named() {
        for text in ["", "unix:", "tcp:", "tcp:host", "tcp::1", "tcp:host:70000", "http://x", "a b"] {
            let error = text.parse::<Endpoint>().unwrap_err().to_string();
            assert!(error.contains(&format!("'{text}'")), "{error}");
        }
    }
}
