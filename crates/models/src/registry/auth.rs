//! Owns proving to a registry who we are: what it challenges us for, and the tokens we hold.

use std::collections::HashMap;

use reqwest::{
    RequestBuilder, Response, StatusCode, Url,
    header::{HeaderMap, WWW_AUTHENTICATE},
};
use serde::Deserialize;
use tokio::sync::Mutex;

use super::{credentials::Login, endpoint::Endpoint, http::Http};
use crate::{Error, Result};

/// The longest answer of a token server that is read, in bytes.
const MAX_TOKEN: usize = 1 << 20;

/// What is sent with each request.
#[derive(Clone, Debug)]
pub(super) enum Proof {
    Bearer(String),
    Basic { user: String, password: String },
}

impl Proof {
    pub(super) fn add(&self, request: RequestBuilder) -> RequestBuilder {
        match self {
            Self::Bearer(token) => request.bearer_auth(token),
            Self::Basic { user, password } => request.basic_auth(user, Some(password)),
        }
    }
}

/// What we have proved so far, by place, repository and action.
#[derive(Default)]
pub(super) struct Proofs(Mutex<HashMap<String, Proof>>);

/// What a registry asks for.
#[derive(Debug, PartialEq, Eq)]
enum Challenge {
    Basic,
    Bearer { realm: String, service: String, scope: Option<String> },
}

#[derive(Deserialize)]
struct Token {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
}

impl Proofs {
    pub(super) async fn get(&self, endpoint: &Endpoint, action: &str) -> Option<Proof> {
        self.0.lock().await.get(&key(endpoint, action)).cloned()
    }

    async fn put(&self, endpoint: &Endpoint, action: &str, proof: Proof) {
        self.0.lock().await.insert(key(endpoint, action), proof);
    }
}

fn key(endpoint: &Endpoint, action: &str) -> String {
    format!("{} {} {action}", endpoint.registry, endpoint.repository)
}

impl Http {
    /// Answers the challenge of a refused request: the proof to repeat it with.
    pub(super) async fn prove(&self, endpoint: &Endpoint, action: &str, refusal: &Response) -> Result<Proof> {
        let refused = |detail: &str| Error::Unauthorized {
            registry: endpoint.registry.clone(),
            repository: endpoint.repository.clone(),
            detail: detail.to_owned(),
        };
        let login = self.options.credentials.find(&endpoint.registry).await?;
        let proof = match challenge(refusal.headers()) {
            Some(Challenge::Basic) => match login {
                Some(Login::Password { user, password }) => Proof::Basic { user, password },
                _ => return Err(refused("it wants a user and a password")),
            },
            Some(Challenge::Bearer { realm, service, scope }) => {
                let scope = scope.unwrap_or_else(|| format!("repository:{}:{action}", endpoint.repository));
                let realm =
                    Url::parse(&realm).map_err(|_| refused("its token server has no valid address"))?;
                // A secure registry must not make us send a password in the clear.
                if endpoint.is_secure() && realm.scheme() != "https" {
                    return Err(refused("its token server is not protected by TLS"));
                }
                Proof::Bearer(self.token(endpoint, realm, &service, &scope, login).await?)
            }
            None => return Err(refused("it does not say how to log in")),
        };
        self.proofs.put(endpoint, action, proof.clone()).await;
        Ok(proof)
    }

    async fn token(
        &self,
        endpoint: &Endpoint,
        realm: Url,
        service: &str,
        scope: &str,
        login: Option<Login>,
    ) -> Result<String> {
        let mut url = realm.clone();
        url.query_pairs_mut().append_pair("service", service).append_pair("scope", scope);
        let request = match &login {
            None => self.client.get(url),
            Some(Login::Password { user, password }) => self.client.get(url).basic_auth(user, Some(password)),
            Some(Login::Identity(token)) => {
                let mut form = realm.clone();
                form.query_pairs_mut().clear().extend_pairs([
                    ("grant_type", "refresh_token"),
                    ("service", service),
                    ("scope", scope),
                    ("client_id", "pontoon"),
                    ("refresh_token", token),
                ]);
                let body = form.query().unwrap_or_default().to_owned();
                self.client.post(realm).header("content-type", "application/x-www-form-urlencoded").body(body)
            }
        };
        let response = self.retry(&endpoint.registry, |_| request.try_clone()).await?;
        if matches!(response.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return Err(Error::Unauthorized {
                registry: endpoint.registry.clone(),
                repository: endpoint.repository.clone(),
                detail: "the login is not accepted".to_owned(),
            });
        }
        let bytes = self
            .small_body(
                &endpoint.registry,
                super::http::expect_success(endpoint, response, "token").await?,
                MAX_TOKEN,
            )
            .await?;
        let token: Token = serde_json::from_slice(&bytes).map_err(|error| Error::Remote {
            registry: endpoint.registry.clone(),
            status: 200,
            detail: format!("its token is not readable: {error}"),
        })?;
        Ok(if token.token.is_empty() { token.access_token } else { token.token })
    }
}

/// The challenge that we can answer, the better one first.
fn challenge(headers: &HeaderMap) -> Option<Challenge> {
    let all = || headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
    all()
        .find_map(bearer)
        .or_else(|| all().any(|text| scheme(text, "basic").is_some()).then_some(Challenge::Basic))
}

fn scheme<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (scheme, rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
    scheme.eq_ignore_ascii_case(name).then_some(rest)
}

fn bearer(text: &str) -> Option<Challenge> {
    let parameters = parameters(scheme(text, "bearer")?);
    let get = |name: &str| {
        parameters.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.clone())
    };
    Some(Challenge::Bearer {
        realm: get("realm")?,
        service: get("service").unwrap_or_default(),
        scope: get("scope"),
    })
}

/// `key="value",key=value`: commas inside quotes belong to the value.
fn parameters(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((key, after)) = rest.split_once('=') {
        let (value, left) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => after.split_once(',').unwrap_or((after, "")),
        };
        found.push((key.trim().trim_start_matches(',').trim().to_owned(), value.trim().to_owned()));
        rest = left;
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(text: &str) -> Option<Challenge> {
        challenge(&HeaderMap::from_iter([(WWW_AUTHENTICATE, text.parse().unwrap())]))
    }

    #[test]
    fn reads_challenges() {
        let text = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:ai/x:pull,push""#;
        assert_eq!(
            of(text),
            Some(Challenge::Bearer {
                realm: "https://auth.docker.io/token".into(),
                service: "registry.docker.io".into(),
                scope: Some("repository:ai/x:pull,push".into()),
            })
        );
        assert_eq!(of("basic realm=\"x\""), Some(Challenge::Basic));
        assert_eq!(of("Negotiate"), None);
        assert_eq!(of("Bearer service=x"), None);
    }

    proptest! {
        #[test]
        fn no_challenge_panics(text in "[ -~]{0,60}") {
            let _ = of(&text);
            let _ = of(&format!("Bearer {text}"));
        }
    }
}
