//! What a guest on another machine is given: one text with the host's address, what its certificate must be, and a
//! secret. `pontoon://SECRET@HOST:PORT#FINGERPRINT`.

use std::fmt;
use std::str::FromStr;

/// The first 16 bytes of the SHA-256 of a host's certificate (DER), by which a guest knows the host.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(pub [u8; 16]);

/// A way to a host over TLS.
#[derive(Clone, PartialEq, Eq)]
pub struct Ticket {
    /// `host:port`.
    pub address: String,
    /// What the guest says to be let in.
    pub secret: String,
    /// The host's certificate.
    pub fingerprint: Fingerprint,
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for Fingerprint {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut bytes = [0; 16];
        if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(());
        }
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).map_err(drop)?;
        }
        Ok(Self(bytes))
    }
}

impl Ticket {
    /// The scheme of a ticket's text.
    pub const SCHEME: &'static str = "pontoon://";

    /// The text that a guest sets `PONTOON_HOST` to. It is a secret; [`fmt::Display`] leaves the secret out.
    pub fn text(&self) -> String {
        format!("{}{}@{}#{}", Self::SCHEME, self.secret, self.address, self.fingerprint)
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (secret, rest) = text.strip_prefix(Self::SCHEME)?.split_once('@')?;
        let (address, fingerprint) = rest.split_once('#')?;
        let (host, port) = address.rsplit_once(':')?;
        let plain = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        let whole = plain(secret) && plain(host) && port.parse::<u16>().is_ok();
        let fingerprint = fingerprint.trim_end_matches('/').parse().ok()?;
        whole.then(|| Self { address: address.to_owned(), secret: secret.to_owned(), fingerprint })
    }
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}#{}", Self::SCHEME, self.address, self.fingerprint)
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
