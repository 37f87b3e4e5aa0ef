//! Owns single requests: repeated while that helps, with credentials where they are asked for, and
//! turned into one clear error where it does not.

use std::time::{Duration, SystemTime};

use reqwest::{Method, RequestBuilder, Response, StatusCode, Url, header::RETRY_AFTER};

use super::{
    Options,
    auth::Proofs,
    endpoint::{Endpoint, network},
};
use crate::{Error, Result};

/// The longest explanation of an error that is read, in bytes.
const MAX_EXPLANATION: usize = 16 << 10;

pub(super) struct Http {
    pub(super) options: Options,
    pub(super) client: reqwest::Client,
    pub(super) proofs: Proofs,
}

impl Http {
    pub(super) fn new(options: Options) -> Result<Self> {
        // One provider serves the whole process; that another part has installed one is fine.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut trusted = Vec::new();
        for path in &options.certificates {
            let pem = std::fs::read(path).map_err(Error::io("cannot read the certificates in", path))?;
            let read = reqwest::Certificate::from_pem_bundle(&pem).unwrap_or_default();
            if read.is_empty() {
                return Err(Error::malformed(path.display().to_string(), "it has no certificate in PEM"));
            }
            trusted.extend(read);
        }
        let client = reqwest::Client::builder()
            .tls_certs_merge(trusted)
            .user_agent(concat!("pontoon/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_secs(15))
            .read_timeout(options.silence)
            .build()
            .map_err(|error| network("the network", explain(&error)))?;
        Ok(Self { options, client, proofs: Proofs::default() })
    }

    /// Sends a request to a registry, with the proof it wants. `change` completes the request.
    pub(super) async fn send(
        &self,
        endpoint: &Endpoint,
        action: &str,
        method: Method,
        url: Url,
        change: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<Response> {
        let ours = endpoint.is_ours(&url);
        let mut proof = if ours { self.proofs.get(endpoint, action).await } else { None };
        for last in [false, true] {
            let build = |_| {
                let request = change(self.client.request(method.clone(), url.clone()));
                Some(proof.iter().fold(request, |request, proof| proof.add(request)))
            };
            let response = self.retry(&endpoint.registry, build).await?;
            if response.status() != StatusCode::UNAUTHORIZED || last || !ours {
                return Ok(response);
            }
            proof = Some(self.prove(endpoint, action, &response).await?);
        }
        unreachable!("the second round returns")
    }

    /// Sends a request until there is an answer that repetition would not change.
    pub(super) async fn retry(
        &self,
        registry: &str,
        build: impl Fn(u32) -> Option<RequestBuilder>,
    ) -> Result<Response> {
        let mut tried = 0;
        loop {
            let request = build(tried).ok_or_else(|| network(registry, "the request cannot be repeated"))?;
            let failure = match request.send().await {
                Ok(response) if !is_passing(response.status()) => return Ok(response),
                Ok(response) => Failure::Busy(response),
                Err(error) => Failure::Broken(explain(&error)),
            };
            let pause = self.pause(tried, failure.retry_after());
            if tried >= self.options.retries || pause.is_none() {
                return failure.settle(registry).await;
            }
            tokio::time::sleep(pause.unwrap_or_default()).await;
            tried += 1;
        }
    }

    /// How long to wait before trying again; `None` if that would try our patience.
    pub(super) fn pause(&self, tried: u32, wish: Option<Duration>) -> Option<Duration> {
        let own = self.options.backoff.saturating_mul(1 << tried.min(6)).min(Duration::from_secs(10));
        // Clients that failed together must not come back together.
        let nanos =
            SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().subsec_nanos();
        let jitter = own.mul_f64(f64::from(nanos % 1000) / 4000.0);
        match wish {
            Some(wish) if wish > self.options.patience => None,
            Some(wish) => Some(wish.max(own)),
            None => Some(own + jitter),
        }
    }

    /// The body of an answer that must be small.
    pub(super) async fn small_body(
        &self,
        registry: &str,
        mut response: Response,
        limit: usize,
    ) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(|error| network(registry, explain(&error)))? {
            bytes.extend_from_slice(&piece);
            if bytes.len() > limit {
                return Err(Error::malformed(
                    format!("an answer of {registry}"),
                    format!("it has more than {limit} bytes"),
                ));
            }
        }
        Ok(bytes)
    }
}

enum Failure {
    Busy(Response),
    Broken(String),
}

impl Failure {
    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Busy(response) => retry_after(response),
            Self::Broken(_) => None,
        }
    }

    /// The answer to give up with.
    async fn settle(self, registry: &str) -> Result<Response> {
        match self {
            Self::Broken(detail) => Err(network(registry, detail)),
            Self::Busy(response) if response.status() == StatusCode::TOO_MANY_REQUESTS => {
                Err(Error::RateLimited {
                    registry: registry.to_owned(),
                    retry_after: retry_after(&response).unwrap_or(Duration::from_secs(60)),
                })
            }
            Self::Busy(response) => {
                let status = response.status();
                let detail = explanation(response).await;
                Err(Error::Remote { registry: registry.to_owned(), status: status.as_u16(), detail })
            }
        }
    }
}

fn is_passing(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504)
}

/// In seconds, or as a date.
fn retry_after(response: &Response) -> Option<Duration> {
    let text = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim();
    match text.parse::<u64>() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => {
            let at = httpdate::parse_http_date(text).ok()?;
            Some(at.duration_since(SystemTime::now()).unwrap_or_default())
        }
    }
}

/// An error with all its causes: the last one says what happened.
pub(super) fn explain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    text
}

/// What a registry says about an error: the messages of its JSON, or the beginning of its text.
async fn explanation(mut response: Response) -> String {
    let reason = response.status().canonical_reason().unwrap_or("no reason given").to_owned();
    let mut bytes = Vec::new();
    while let Ok(Some(piece)) = response.chunk().await {
        bytes.extend_from_slice(&piece);
        if bytes.len() > MAX_EXPLANATION {
            break;
        }
    }
    let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let errors = value["errors"].as_array().cloned().unwrap_or_default();
    let messages: Vec<String> = errors
        .iter()
        .map(|error| {
            format!(
                "{} {}",
                error["code"].as_str().unwrap_or_default(),
                error["message"].as_str().unwrap_or_default()
            )
        })
        .collect();
    let said = match value["error"].as_str() {
        Some(error) => error.to_owned(),
        None => messages.join("; "),
    };
    if said.trim().is_empty() { reason } else { said.trim().chars().take(300).collect() }
}

/// The answer if it is a success, else what went wrong; `what` is what was asked for.
pub(super) async fn expect_success(endpoint: &Endpoint, response: Response, what: &str) -> Result<Response> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let registry = endpoint.registry.clone();
    let detail = explanation(response).await;
    Err(match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            Error::Unauthorized { registry, repository: endpoint.repository.clone(), detail }
        }
        StatusCode::NOT_FOUND => {
            Error::RemoteNotFound { registry, what: format!("{} ({what})", endpoint.repository) }
        }
        _ => Error::Remote { registry, status: status.as_u16(), detail },
    })
}
