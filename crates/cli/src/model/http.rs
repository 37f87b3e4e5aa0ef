//! Asking the daemon over the model runner's admin socket: HTTP on a unix socket.

use std::path::{Path, PathBuf};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use pontoon_daemon::{Config, paths};
use serde_json::Value;

/// The daemon of this machine.
pub struct Daemon {
    socket: PathBuf,
}

impl Daemon {
    /// That of `PONTOON_HOST`, else the one that the configuration file describes, else the usual one.
    pub fn here(config: &Config) -> Result<Self, String> {
        let by_name = std::env::var_os("PONTOON_HOST").is_some();
        let socket = match (&config.http.admin, &config.listen.socket) {
            (Some(admin), _) if !by_name => admin.clone(),
            (None, Some(guests)) if !by_name => paths::models_admin_socket(guests),
            _ => paths::models_admin_socket(&crate::local_socket()?),
        };
        Ok(Self { socket })
    }

    /// Where it is asked.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Sends one request; an answer that is no success becomes its own sentence.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Response<Incoming>, String> {
        let stream = tokio::net::UnixStream::connect(&self.socket).await.map_err(|error| {
            format!(
                "no model runner answers on {}: {error}; start one with `pontoon serve`",
                self.socket.display()
            )
        })?;
        let gone = |error: hyper::Error| format!("the daemon broke off: {error}");
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(gone)?;
        tokio::spawn(connection);
        let bytes = body.map_or_else(Vec::new, |value| value.to_string().into_bytes());
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost")
            .header("content-type", "application/json")
            .header("accept", "application/json")
            .body(Full::new(Bytes::from(bytes)))
            .map_err(|error| error.to_string())?;
        let response = sender.send_request(request).await.map_err(gone)?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let text = response.into_body().collect().await.map_err(gone)?.to_bytes();
        Err(sentence(&text).unwrap_or_else(|| format!("the daemon answered {status}")))
    }

    /// The answer as JSON; null where it is empty.
    pub async fn json(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, String> {
        let response = self.send(method, path, body).await?;
        let bytes = response.into_body().collect().await.map_err(|error| error.to_string())?.to_bytes();
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&bytes).map_err(|error| format!("the daemon answered no JSON: {error}"))
    }

    /// What a path answers to a question without a body.
    pub fn get(&self, path: &str) -> Result<Value, String> {
        crate::config::block_on(self.json(Method::GET, path, None))
    }

    /// What a path answers to an order.
    pub fn post(&self, path: &str, body: &Value) -> Result<Value, String> {
        crate::config::block_on(self.json(Method::POST, path, Some(body)))
    }
}

/// The sentence of an error body, whichever dialect it is in.
fn sentence(body: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(body);
    let Ok(value) = serde_json::from_str::<Value>(&text) else {
        return Some(text.trim().to_owned()).filter(|text| !text.is_empty());
    };
    let error = &value["error"];
    let message = error["message"].as_str().or(error.as_str()).or(value["message"].as_str());
    message.map(str::to_owned)
}

/// A model's name in a query.
pub fn query(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/:".contains(&byte);
    name.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn errors_of_every_dialect_are_one_sentence() {
        for body in [r#"{"error":{"message":"no"}}"#, r#"{"error":"no"}"#, r#"{"message":"no"}"#, "no\n"] {
            assert_eq!(super::sentence(body.as_bytes()).as_deref(), Some("no"), "{body}");
        }
        assert_eq!(super::query("a/b:c d"), "a/b:c%20d");
    }
}
