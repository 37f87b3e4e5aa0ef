//! Bearer keys: whose they are.

use hyper::HeaderMap;
use hyper::header::AUTHORIZATION;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use crate::config::Key;
use crate::reply::names;

/// The keys of the configuration, as their SHA-256, so that comparing takes the same time for all.
#[derive(Debug)]
pub struct Keys {
    entries: Vec<([u8; 32], String)>,
}

/// What a request says of itself.
#[derive(Debug, PartialEq, Eq)]
pub enum Presented<'a> {
    /// No key.
    Nothing,
    /// A key that we gave to this tenant.
    Tenant(&'a str),
    /// A key that we do not know; clients of local servers often must send one.
    Unknown,
}

impl Keys {
    /// Takes the keys of the configuration.
    pub fn new(keys: &[Key]) -> Self {
        let entry = |key: &Key| (Sha256::digest(key.key.as_bytes()).into(), key.tenant.clone());
        Self { entries: keys.iter().map(entry).collect() }
    }

    /// Looks for `Authorization: Bearer` or `x-api-key`.
    pub fn presented(&self, headers: &HeaderMap) -> Presented<'_> {
        let Some(key) = key(headers) else { return Presented::Nothing };
        let digest: [u8; 32] = Sha256::digest(key).into();
        // Every entry is compared, and which one fits is chosen without a branch.
        let mut found = u32::MAX;
        for (at, (known, _)) in self.entries.iter().enumerate() {
            let equal: Choice = known[..].ct_eq(&digest[..]);
            found = u32::conditional_select(&found, &(at as u32), equal);
        }
        match self.entries.get(found as usize) {
            Some((_, tenant)) => Presented::Tenant(tenant),
            None => Presented::Unknown,
        }
    }
}

fn key(headers: &HeaderMap) -> Option<&[u8]> {
    if let Some(value) = headers.get(AUTHORIZATION) {
        let value = value.as_bytes();
        return match value.split_at_checked(7) {
            Some((scheme, key)) if scheme.eq_ignore_ascii_case(b"bearer ") => Some(key.trim_ascii()),
            _ => Some(value),
        };
    }
    headers.get(&names::API_KEY).map(|value| value.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_in_either_header_and_nowhere_else() {
        let key = |tenant: &str, key: &str| Key { tenant: tenant.into(), key: key.into(), allowance: None };
        let keys = Keys::new(&[key("a", "sk-aaaaaaaaaaaaaaaa"), key("b", "sk-bbbbbbbbbbbbbbbb")]);
        let presented = |name: &'static str, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            match keys.presented(&headers) {
                Presented::Tenant(tenant) => tenant.to_owned(),
                other => format!("{other:?}"),
            }
        };
        assert_eq!(presented("authorization", "Bearer sk-aaaaaaaaaaaaaaaa"), "a");
        assert_eq!(presented("authorization", "bearer  sk-bbbbbbbbbbbbbbbb"), "b");
        assert_eq!(presented("x-api-key", "sk-bbbbbbbbbbbbbbbb"), "b");
        assert_eq!(presented("authorization", "Bearer sk-aaaaaaaaaaaaaaab"), "Unknown");
        assert_eq!(presented("authorization", "Basic eDp5"), "Unknown");
        assert_eq!(presented("cookie", "sk-aaaaaaaaaaaaaaaa"), "Nothing");
    }
}
