//! Owns our own small requests to an engine: health, slots, properties.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::Request;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

/// No answer to a question of ours is longer.
const MAX_ANSWER: usize = 16 << 20;

/// What an engine answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Bytes,
}

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> Option<serde_json::Value> {
        serde_json::from_slice(&self.body).ok()
    }
}

/// Asks with GET.
///
/// # Errors
/// A sentence fragment.
pub async fn get(socket: &Path, path: &str, patience: Duration) -> Result<Answer, String> {
    ask(socket, "GET", path, Vec::new(), patience).await
}

/// Asks with POST and a JSON body.
///
/// # Errors
/// A sentence fragment.
pub async fn post(
    socket: &Path,
    path: &str,
    body: &serde_json::Value,
    patience: Duration,
) -> Result<Answer, String> {
    ask(socket, "POST", path, body.to_string().into_bytes(), patience).await
}

async fn ask(
    socket: &Path,
    method: &str,
    path: &str,
    body: Vec<u8>,
    patience: Duration,
) -> Result<Answer, String> {
    let exchange = async {
        let stream = UnixStream::connect(socket).await.map_err(|e| e.to_string())?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
        let connection = tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost")
            .header("connection", "close")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|e| e.to_string())?;
        let answer = sender.send_request(request).await.map_err(|e| e.to_string())?;
        let status = answer.status().as_u16();
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await.map_err(|e| e.to_string())?;
        connection.abort();
        Ok(Answer { status, body: body.to_bytes() })
    };
    tokio::time::timeout(patience, exchange).await.unwrap_or_else(|_| Err("no answer in time".to_owned()))
}
