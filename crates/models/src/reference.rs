//! Owns model references: how a name that a person types becomes registry, repository and tag.
//!
//! The rules are those of Docker's references with the model runner's defaults: registry
//! `docker.io`, organisation `ai`, tag `latest`. `hf.co` (alias `huggingface.co`) is the hub, whose
//! repositories are `org/repo`, in any case, and whose tags name a quantisation.

use std::{cmp::Ordering, fmt, hash, str::FromStr};

use crate::{Digest, Error, Result};

/// Where a reference without a registry points.
pub const DEFAULT_REGISTRY: &str = "docker.io";
/// Which organisation a reference without one means.
pub const DEFAULT_ORG: &str = "ai";
/// Which tag a reference without one means.
pub const DEFAULT_TAG: &str = "latest";
/// The hub's short name.
pub const HUB: &str = "hf.co";

const MAX_LEN: usize = 512;
const MAX_REPOSITORY: usize = 255;
const MAX_TAG: usize = 128;

/// The full name of a model: registry, repository, and a tag, a digest or both.
///
/// Hub names compare without regard to case, as the hub itself does.
#[derive(Clone, Debug)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Reads what a person typed.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = |reason: String| Error::Reference { value: shorten(text), reason };
        if text.is_empty() || text.len() > MAX_LEN {
            return Err(wrong(format!("it has {} bytes; 1 to {MAX_LEN} are allowed", text.len())));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse::<Digest>()?)),
            None => (text, None),
        };
        let (registry, rest) = split_registry(rest);
        let (repository, tag) = match rest.rsplit_once(':') {
            Some((repository, tag)) if !tag.contains('/') => (repository, Some(tag)),
            _ => (rest, None),
        };
        let registry = canonical_registry(registry).map_err(&wrong)?;
        let repository = canonical_repository(&registry, repository).map_err(&wrong)?;
        if let Some(tag) = tag {
            check_tag(tag).map_err(&wrong)?;
        }
        let tag = match (tag, digest) {
            (None, None) => Some(DEFAULT_TAG.to_owned()),
            (tag, _) => tag.map(str::to_owned),
        };
        Ok(Self { registry, repository, tag, digest })
    }

    /// `docker.io`, `localhost:5000`, `hf.co`.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// `ai/smollm2`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag, unless only a digest was given.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest that the manifest must have, if one was given.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// True for models of the hub, which speaks its own protocol.
    pub fn is_hub(&self) -> bool {
        self.registry == HUB
    }

    /// The name as people write it: Docker's registry is left out, everything else is there.
    pub fn familiar(&self) -> String {
        let full = self.to_string();
        match full.strip_prefix(DEFAULT_REGISTRY) {
            Some(rest) => rest.trim_start_matches('/').to_owned(),
            None => full,
        }
    }

    /// The same repository with a tag and no digest: the name under which a store keeps it.
    #[must_use]
    pub fn with_tag(&self, tag: &str) -> Self {
        Self { tag: Some(tag.to_owned()), digest: None, ..self.clone() }
    }

    /// What two names that mean the same have in common.
    fn key(&self) -> (String, String, Option<String>, Option<Digest>) {
        let fold = |text: &String| if self.is_hub() { text.to_ascii_lowercase() } else { text.clone() };
        (self.registry.clone(), fold(&self.repository), self.tag.as_ref().map(fold), self.digest)
    }
}

fn shorten(text: &str) -> String {
    text.chars().take(120).collect()
}

/// The first component names a registry if it could not be an organisation.
fn split_registry(text: &str) -> (&str, &str) {
    match text.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':', '[']) || first == "localhost" => (first, rest),
        _ => (DEFAULT_REGISTRY, text),
    }
}

fn canonical_registry(text: &str) -> std::result::Result<String, String> {
    let lower = text.to_ascii_lowercase();
    let (host, port) = match lower.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (lower.as_str(), None),
    };
    let inner = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let host_ok = match inner {
        Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            !host.is_empty()
                && !host.starts_with(['.', '-'])
                && host.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-'))
        }
    };
    if !host_ok || port.is_some_and(|port| port.parse::<u16>().is_err()) {
        return Err(format!("`{text}` is not a registry's host name, with a port or without"));
    }
    Ok(match lower.as_str() {
        "index.docker.io" | "registry-1.docker.io" | "registry.hub.docker.com" => DEFAULT_REGISTRY.to_owned(),
        "huggingface.co" | "www.huggingface.co" => HUB.to_owned(),
        _ => lower,
    })
}

fn canonical_repository(registry: &str, text: &str) -> std::result::Result<String, String> {
    let repository = match registry {
        DEFAULT_REGISTRY if !text.contains('/') => format!("{DEFAULT_ORG}/{text}"),
        _ => text.to_owned(),
    };
    if repository.len() > MAX_REPOSITORY {
        return Err(format!("the repository has {} bytes; {MAX_REPOSITORY} are allowed", repository.len()));
    }
    let hub = registry == HUB;
    if hub && repository.split('/').count() != 2 {
        return Err("a model of the hub is `hf.co/ORGANISATION/REPOSITORY`".to_owned());
    }
    for part in repository.split('/') {
        let ok = if hub { is_hub_part(part) } else { is_repository_part(part) };
        if !ok {
            return Err(format!(
                "`{part}` is not allowed in a repository's name: {}",
                if hub {
                    "letters, digits and `.`, `_`, `-`"
                } else {
                    "lower-case letters and digits, with single `.`, `_`, `__` or dashes between"
                }
            ));
        }
    }
    Ok(repository)
}

fn is_hub_part(part: &str) -> bool {
    !part.is_empty()
        && !part.starts_with(['.', '-'])
        && !part.contains("..")
        && part.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-'))
}

/// Lower-case letters and digits, with `.`, `_`, `__` or any number of `-` between them.
fn is_repository_part(part: &str) -> bool {
    let alphanumeric = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let bytes = part.as_bytes();
    let ends_ok = |c: Option<&u8>| c.is_some_and(|c| alphanumeric(*c));
    ends_ok(bytes.first())
        && ends_ok(bytes.last())
        && bytes
            .split(|c| alphanumeric(*c))
            .all(|gap| matches!(gap, b"" | b"." | b"_" | b"__") || gap.iter().all(|c| *c == b'-'))
}

fn check_tag(tag: &str) -> std::result::Result<(), String> {
    let first = tag.bytes().next().is_some_and(|c| c.is_ascii_alphanumeric() || c == b'_');
    let rest = tag.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'.' | b'-'));
    match first && rest && tag.len() <= MAX_TAG {
        true => Ok(()),
        false => {
            Err(format!("`{}` is not a tag: up to {MAX_TAG} letters, digits, `_`, `.`, `-`", shorten(tag)))
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text)
    }
}

impl PartialEq for Reference {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Reference {}

impl PartialOrd for Reference {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Reference {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl hash::Hash for Reference {
    fn hash<H: hash::Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn full(text: &str) -> String {
        Reference::parse(text).unwrap().to_string()
    }

    #[test]
    fn fills_in_the_defaults() {
        assert_eq!(full("smollm2"), "docker.io/ai/smollm2:latest");
        assert_eq!(full("smollm2:360m"), "docker.io/ai/smollm2:360m");
        assert_eq!(full("me/smollm2"), "docker.io/me/smollm2:latest");
        assert_eq!(full("docker.io/smollm2"), "docker.io/ai/smollm2:latest");
        assert_eq!(full("index.docker.io/ai/x:1"), "docker.io/ai/x:1");
        assert_eq!(full("localhost:5000/x"), "localhost:5000/x:latest");
        assert_eq!(full("localhost/a/b/c:t"), "localhost/a/b/c:t");
        assert_eq!(full("[::1]:5000/a/b"), "[::1]:5000/a/b:latest");
        assert_eq!(full("huggingface.co/Org/Repo-GGUF:Q8_0"), "hf.co/Org/Repo-GGUF:Q8_0");
        assert_eq!(Reference::parse("smollm2").unwrap().familiar(), "ai/smollm2:latest");
    }

    #[test]
    fn digests_stand_in_for_tags() {
        let digest = Digest::of(b"x");
        let plain = Reference::parse(&format!("ai/x@{digest}")).unwrap();
        assert_eq!((plain.tag(), plain.digest()), (None, Some(&digest)));
        assert_eq!(full(&format!("ai/x:t@{digest}")), format!("docker.io/ai/x:t@{digest}"));
    }

    #[test]
    fn the_hub_does_not_mind_case() {
        let a = Reference::parse("hf.co/Org/Repo:q4_k_m").unwrap();
        assert_eq!(a, Reference::parse("HF.co/org/repo:Q4_K_M").unwrap());
        assert_ne!(Reference::parse("ai/x:A").unwrap(), Reference::parse("ai/x:a").unwrap());
    }

    #[test]
    fn refuses_what_is_no_name() {
        for bad in [
            "",
            ":",
            "/",
            "a//b",
            "A/b",
            "../x",
            "ai/..",
            "ai/x:",
            "ai/x:a b",
            "ai/x@sha256:12",
            "ai/x:../t",
            "x\0",
            "-a/b",
            "a._b/c",
            "hf.co/x",
            "hf.co/a/b/c",
            "hf.co/a/..",
            "ho st:5/x",
            "localhost:99999/x",
            "ä/b",
            "ai/x:-t",
        ] {
            assert!(Reference::parse(bad).is_err(), "{bad:?} was accepted");
        }
        assert!(Reference::parse(&"a".repeat(600)).is_err());
    }

    proptest! {
        #[test]
        fn never_panics_and_reads_what_it_writes(text in "\\PC{0,80}|[a-z0-9./:@_-]{0,60}") {
            if let Ok(reference) = Reference::parse(&text) {
                prop_assert_eq!(&Reference::parse(&reference.to_string()).unwrap(), &reference);
                prop_assert_eq!(&Reference::parse(&reference.familiar()).unwrap(), &reference);
            }
        }
    }
}
