//! Who gets in: browsers' pages and rebound names do not, keys are looked up, and whether the caller may
//! manage models is found out where that matters.

use hyper::header::{HOST, ORIGIN};
use hyper::{HeaderMap, Uri};

use pontoon_callers::Facts;

use super::Shared;
use crate::caller::{Caller, GONE, Origin, Peer};
use crate::dialect::{DialectError, ErrorKind};
use crate::keys::Presented;
use crate::reply::names;

/// Names that a loopback address goes by, on the host and in containers.
const HOSTS: [&str; 7] = [
    "localhost",
    "127.0.0.1",
    "::1",
    "model-runner.docker.internal",
    "host.docker.internal",
    "host.containers.internal",
    "gateway.docker.internal",
];

/// Refuses what a browser sends on behalf of a page that nobody has allowed, and requests for a name that is
/// not this host's: a page whose name was pointed at 127.0.0.1 can send anything but another name.
///
/// # Errors
/// [`ErrorKind::Forbidden`] with a sentence.
pub fn check_source(
    shared: &Shared,
    peer: &Peer,
    headers: &HeaderMap,
    uri: &Uri,
) -> Result<(), DialectError> {
    let forbidden = |message: String| Err(DialectError::new(ErrorKind::Forbidden, message));
    if matches!(peer.origin(), Origin::Loopback(..) | Origin::Forwarded) {
        let header = headers.get(HOST).map(|host| host.to_str().unwrap_or("?"));
        for host in [header, uri.authority().map(|authority| authority.as_str())].into_iter().flatten() {
            let name = without_port(host).to_ascii_lowercase();
            let known = HOSTS.contains(&name.as_str())
                || shared.config.hosts.iter().any(|host| host.eq_ignore_ascii_case(&name));
            if !known {
                let name: String = name.chars().take(80).collect();
                return forbidden(format!(
                    "this is a local server and not '{name}'; call it as localhost, or add the name to http.hosts"
                ));
            }
        }
    }
    if let Some(origin) = headers.get(ORIGIN) {
        let origin = origin.to_str().unwrap_or("?");
        if !shared.config.origins.iter().any(|allowed| allowed == origin) {
            let origin: String = origin.chars().take(80).collect();
            return forbidden(format!(
                "the web page '{origin}' may not call this server; add it to http.origins if it should"
            ));
        }
    } else if headers.get(&names::FETCH_SITE).is_some_and(|site| site != "none" && site != "same-origin") {
        return forbidden(
            "web pages may not call this server; add theirs to http.origins if they should".into(),
        );
    }
    Ok(())
}

/// The caller of a request: its key's, else its connection's.
///
/// # Errors
/// [`ErrorKind::Unauthorized`] where a key is needed, [`ErrorKind::Forbidden`] where a policy keeps the caller out.
pub async fn identify(shared: &Shared, peer: &Peer, headers: &HeaderMap) -> Result<Caller, DialectError> {
    let presented = shared.keys.presented(headers);
    let needed = match peer.origin() {
        Origin::Remote(_) => true,
        Origin::Admin => false,
        Origin::Guest | Origin::Forwarded | Origin::Loopback(..) => shared.config.require_keys,
    };
    match presented {
        // Policies are not about the operator.
        Presented::Tenant(tenant) if peer.origin() == Origin::Admin => Ok(Caller::named(tenant)),
        Presented::Tenant(tenant) => {
            let facts = peer.facts(&shared.directory).await.ok_or_else(|| closed(GONE.to_owned()))?.clone();
            Caller::of(&Facts { token: Some(tenant.to_owned()), ..facts }, &shared.directory).map_err(closed)
        }
        Presented::Nothing if needed => {
            let message = "this server wants a key: send 'Authorization: Bearer KEY' or 'x-api-key: KEY'";
            Err(DialectError::new(ErrorKind::Unauthorized, message))
        }
        Presented::Unknown if needed => Err(DialectError::new(
            ErrorKind::Unauthorized,
            "this key is not known here; ask the operator for one",
        )),
        // Clients of local servers must often send some key; theirs means nothing.
        Presented::Nothing | Presented::Unknown => peer.caller(&shared.directory).await.map_err(closed),
    }
}

fn closed(message: String) -> DialectError {
    DialectError::new(ErrorKind::Forbidden, message)
}

/// Whether a request may manage models. Pages in a browser may not, whoever runs the browser.
///
/// # Errors
/// The sentence for the caller.
pub async fn may_manage(peer: &Peer, headers: &HeaderMap) -> Result<(), String> {
    if headers.contains_key(ORIGIN) {
        return Err("web pages do not manage models; use `pontoon model` on the host".into());
    }
    peer.may_manage().await
}

/// The caller for whom an operator's program speaks: a proxy in front of several, or a benchmark.
///
/// # Errors
/// [`ErrorKind::InvalidRequest`] for a name that is none.
pub fn on_behalf(headers: &HeaderMap) -> Result<Option<Caller>, DialectError> {
    let Some(name) = headers.get(&names::ON_BEHALF) else { return Ok(None) };
    let name = name.to_str().unwrap_or_default();
    if name.is_empty() || name.len() > 64 || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
        let message = "x-pontoon-caller needs 1 to 64 visible ASCII characters";
        return Err(DialectError::new(ErrorKind::InvalidRequest, message));
    }
    Ok(Some(Caller::named(&format!("for:{name}"))))
}

fn without_port(host: &str) -> &str {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split(']').next().unwrap_or_default();
    }
    host.rsplit_once(':').map_or(host, |(name, _)| name).trim_end_matches('.')
}

#[cfg(test)]
mod tests {
    use super::without_port;

    #[test]
    fn hosts_lose_their_ports() {
        for (host, name) in [
            ("localhost:12434", "localhost"),
            ("localhost", "localhost"),
            ("[::1]:80", "::1"),
            ("127.0.0.1.:80", "127.0.0.1"),
            ("evil.example:12434", "evil.example"),
        ] {
            assert_eq!(without_port(host), name);
        }
    }
}
