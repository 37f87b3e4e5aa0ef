//! Owns our own small requests to an engine: health, slots, properties.

use std::path::Path;
use std::time::Duration;

use crate::http::{Connection, Failure};

/// No answer to a question of ours is longer.
const MAX_ANSWER: usize = 16 << 20;

/// What an engine answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
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
    within(patience, async {
        let mut connection = Connection::open(socket).await?;
        let status = connection.get(path).await?;
        Ok(Answer { status, body: connection.whole(MAX_ANSWER).await? })
    })
    .await
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
    within(patience, async {
        let mut connection = Connection::open(socket).await?;
        let status = connection.post(path, body.to_string().as_bytes()).await?;
        Ok(Answer { status, body: connection.whole(MAX_ANSWER).await? })
    })
    .await
}

async fn within(
    patience: Duration,
    exchange: impl Future<Output = Result<Answer, Failure>>,
) -> Result<Answer, String> {
    let answer = tokio::time::timeout(patience, exchange).await;
    answer.map_err(|_| "no answer in time".to_owned())?.map_err(|failure| failure.to_string())
}
