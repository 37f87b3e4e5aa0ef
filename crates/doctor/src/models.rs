//! The model runner: where it is, and what this guest may use of it.

use std::path::Path;

use pontoon_client::{Endpoint, places};
use serde_json::Value;

use crate::Finding;
use crate::http::{Server, get};

/// Where programs without any setting look, since Docker Model Runner is there.
const USUAL: &str = "http://127.0.0.1:12434/v1";

pub fn examine() -> Vec<Finding> {
    let named = std::env::var("OPENAI_BASE_URL").ok().filter(|url| !url.is_empty());
    let key = std::env::var("OPENAI_API_KEY").ok();
    let mut tried = Vec::new();
    for server in servers(named.as_deref()) {
        match get(&server, "/models", key.as_deref()) {
            Ok((status, body)) => return vec![answered(&server, status, &body, named.is_some())],
            Err(error) => tried.push(format!("{server} ({error})")),
        }
    }
    if let Some(url) = named.as_deref().filter(|url| Server::parse(url).is_none()) {
        return vec![Finding::warning(
            "models",
            format!("OPENAI_BASE_URL is {}, which is not looked at", shown(url)),
            "only http:// is; try it with its own client",
        )];
    }
    // A ticket is for the bridge alone.
    if named.is_none() && std::env::var("PONTOON_HOST").is_ok_and(|host| host.starts_with("pontoon://")) {
        let advice = "for the host's models set OPENAI_BASE_URL to its `http.remote`, and OPENAI_API_KEY to a key of its";
        return vec![Finding::warning(
            "models",
            "PONTOON_HOST is a ticket, which leads to the GPU alone",
            advice,
        )];
    }
    let advice = "give the container the device pontoon.dev/gpu=all, or mount the host's folder of sockets, and check that `pontoon serve` runs on the host";
    vec![Finding::failed("models", format!("no model runner answers: {}", tried.join(", ")), advice)]
}

/// A URL without a password in it.
fn shown(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, rest))) => format!("{scheme}://…@{rest}"),
        _ => url.to_owned(),
    }
}

/// Where to look, best first: what is set, the usual port, the socket beside the bridge's.
fn servers(named: Option<&str>) -> Vec<Server> {
    if let Some(url) = named {
        return Server::parse(url).into_iter().collect();
    }
    let mut sockets: Vec<_> = places::all();
    if let Some(host) = std::env::var("PONTOON_HOST").ok().and_then(|host| host.parse().ok()) {
        sockets.insert(0, host);
    }
    let beside = sockets.into_iter().filter_map(|place| match place {
        Endpoint::Unix(path) => Some(path.with_file_name("models.sock")),
        _ => None,
    });
    let there: Vec<Server> = beside.filter(|path| Path::new(path).exists()).map(Server::Unix).collect();
    Server::parse(USUAL).into_iter().chain(there).collect()
}

fn answered(server: &Server, status: u16, body: &[u8], named: bool) -> Finding {
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    let said = answer["error"]["message"].as_str().map(str::to_owned);
    match status {
        200 if !answer["data"].is_array() => Finding::failed(
            "models",
            format!("{server} answers, but with no list of models"),
            "OPENAI_BASE_URL ends in /v1: http://HOST:PORT/v1",
        ),
        200 => {
            let names: Vec<&str> = answer["data"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|model| model["id"].as_str())
                .collect();
            let shown = names.iter().take(5).copied().collect::<Vec<_>>().join(", ");
            match names.len() {
                0 => Finding::warning(
                    "models",
                    format!("{server} answers and has none for this guest"),
                    "`pontoon model pull NAME` on the host gets one; a policy there may keep models from this guest",
                ),
                count => {
                    let more = if count > 5 { ", …" } else { "" };
                    let hint = if named { "" } else { "; OPENAI_BASE_URL is not set" };
                    Finding::ok("models", format!("{server} offers {count}: {shown}{more}{hint}"))
                }
            }
        }
        401 | 403 => Finding::failed(
            "models",
            format!("{server} says {status}: {}", said.unwrap_or_default()),
            "the host's policies and keys decide: ask its operator, and set OPENAI_API_KEY if it wants a key",
        ),
        status => Finding::failed(
            "models",
            format!("{server} says {status}: {}", said.unwrap_or_default()),
            "something else than Pontoon may listen there",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::State;

    #[test]
    fn answers_are_put_into_words() {
        let server = Server::Unix("/run/pontoon/models.sock".into());
        let found = answered(&server, 200, br#"{"data":[{"id":"a"},{"id":"b"}]}"#, true);
        assert_eq!(
            (found.state, found.seen.as_str()),
            (State::Ok, "unix:/run/pontoon/models.sock offers 2: a, b")
        );
        assert_eq!(answered(&server, 200, br#"{"data":[]}"#, true).state, State::Warning);
        assert!(answered(&server, 200, b"[]", true).advice.unwrap().contains("/v1"));
        let refused = answered(&server, 403, br#"{"error":{"message":"not for you"}}"#, true);
        assert!(refused.state == State::Failed && refused.seen.contains("not for you"));
    }
}
