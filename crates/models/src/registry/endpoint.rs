//! Owns where a registry is asked: its own address and its mirrors, with TLS or without.

use std::net::IpAddr;

use reqwest::Url;

use super::Options;
use crate::{Error, Reference, Result, reference::DEFAULT_REGISTRY};

/// Where Docker's registry really answers.
const DOCKER_HOST: &str = "registry-1.docker.io";

/// One place that has a repository.
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    /// For messages and credentials: `localhost:5000`, `docker.io`.
    pub(super) registry: String,
    pub(super) repository: String,
    /// Ends with a slash.
    base: Url,
}

impl Endpoint {
    /// A URL below the repository: `manifests/latest`.
    pub(super) fn url(&self, rest: &str) -> Result<Url> {
        let path = format!("v2/{}/{rest}", self.repository);
        self.base.join(&path).map_err(|error| network(&self.registry, error.to_string()))
    }

    /// True if this URL is served by the same host, so that it may see our credentials.
    pub(super) fn is_ours(&self, url: &Url) -> bool {
        url.origin() == self.base.origin()
    }

    /// True if TLS protects what is sent here.
    pub(super) fn is_secure(&self) -> bool {
        self.base.scheme() == "https"
    }
}

pub(super) fn network(registry: &str, detail: impl Into<String>) -> Error {
    Error::Network { registry: registry.to_owned(), detail: detail.into() }
}

/// Where to push: the registry itself.
pub(super) fn origin(options: &Options, name: &Reference) -> Result<Endpoint> {
    let host = match name.registry() {
        DEFAULT_REGISTRY => DOCKER_HOST,
        other => other,
    };
    let scheme = if is_plain(options, name.registry()) { "http" } else { "https" };
    endpoint(name.registry(), name.repository(), &format!("{scheme}://{host}"))
}

/// Where to pull: the mirrors in their order, then the registry itself.
pub(super) fn all(options: &Options, name: &Reference) -> Result<Vec<Endpoint>> {
    let mut found = Vec::new();
    for mirror in options.mirrors.get(name.registry()).into_iter().flatten() {
        let host = mirror.split("://").last().unwrap_or(mirror).split('/').next().unwrap_or(mirror);
        let address = match mirror.contains("://") {
            true => mirror.clone(),
            false => format!("{}://{mirror}", if is_plain(options, host) { "http" } else { "https" }),
        };
        found.push(endpoint(host, name.repository(), &address)?);
    }
    found.push(origin(options, name)?);
    Ok(found)
}

fn endpoint(registry: &str, repository: &str, address: &str) -> Result<Endpoint> {
    let address = format!("{}/", address.trim_end_matches('/'));
    let base = Url::parse(&address)
        .map_err(|error| network(registry, format!("{address} is no address: {error}")))?;
    Ok(Endpoint { registry: registry.to_owned(), repository: repository.to_owned(), base })
}

/// Loopback needs no TLS, others only by the operator's word.
fn is_plain(options: &Options, registry: &str) -> bool {
    let host = match registry.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => registry.split(':').next().unwrap_or(registry),
    };
    let loopback = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    loopback || options.insecure.iter().any(|it| it == registry)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bases(options: &Options, name: &str) -> Vec<String> {
        let name = Reference::parse(name).unwrap();
        all(options, &name).unwrap().iter().map(|it| it.url("tags/list").unwrap().to_string()).collect()
    }

    #[test]
    fn tls_unless_on_loopback_or_told_otherwise() {
        let mut options = Options::default();
        assert_eq!(bases(&options, "x"), ["https://registry-1.docker.io/v2/ai/x/tags/list"]);
        assert_eq!(bases(&options, "localhost:5000/x"), ["http://localhost:5000/v2/x/tags/list"]);
        assert_eq!(bases(&options, "[::1]:5000/x"), ["http://[::1]:5000/v2/x/tags/list"]);
        assert_eq!(bases(&options, "127.0.0.1.evil.org/x"), ["https://127.0.0.1.evil.org/v2/x/tags/list"]);
        options.insecure.push("reg.lan:5000".into());
        assert_eq!(bases(&options, "reg.lan:5000/x"), ["http://reg.lan:5000/v2/x/tags/list"]);
    }

    #[test]
    fn mirrors_go_first() {
        let mirrors = vec!["http://cache.lan/docker".to_owned(), "localhost:6000".to_owned()];
        let options = Options { mirrors: [("docker.io".to_owned(), mirrors)].into(), ..Options::default() };
        let expected = [
            "http://cache.lan/docker/v2/ai/x/tags/list",
            "http://localhost:6000/v2/ai/x/tags/list",
            "https://registry-1.docker.io/v2/ai/x/tags/list",
        ];
        assert_eq!(bases(&options, "x"), expected);
    }
}
