//! A client that measures: one keep-alive connection, one request at a time, a time for each token.

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::{TcpStream, UnixStream};

use super::Error;

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    place: Place,
    /// Goes before `/v1/…`.
    base: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Tcp(String),
    Unix(PathBuf),
}

impl Target {
    /// Reads `http://host:port[/base]` or `unix:/path`.
    ///
    /// # Errors
    /// A sentence.
    pub fn parse(text: &str) -> Result<Self, Error> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Self {
                place: Place::Unix(path.strip_prefix("//").unwrap_or(path).into()),
                base: String::new(),
            });
        }
        let rest = text.strip_prefix("http://").ok_or_else(|| Error::Target(text.into()))?;
        let (host, base) = rest.split_once('/').unwrap_or((rest, ""));
        let base = base.trim_end_matches('/').trim_end_matches("v1").trim_end_matches('/');
        let host = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
        let base = if base.is_empty() { String::new() } else { format!("/{base}") };
        Ok(Self { place: Place::Tcp(host), base })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Tcp(host) => write!(f, "http://{host}{}", self.base),
            Place::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// An open connection to either kind of place, for idling.
pub enum Stream {
    /// TCP.
    Tcp(TcpStream),
    /// A unix socket.
    Unix(UnixStream),
}

impl Target {
    /// Opens a connection.
    ///
    /// # Errors
    /// [`Error::Connect`].
    pub async fn open(&self) -> Result<Stream, Error> {
        let failed = |source| Error::Connect { target: self.to_string(), source };
        match &self.place {
            Place::Tcp(host) => {
                let stream = TcpStream::connect(host).await.map_err(failed)?;
                let _ = stream.set_nodelay(true);
                Ok(Stream::Tcp(stream))
            }
            Place::Unix(path) => UnixStream::connect(path).await.map(Stream::Unix).map_err(failed),
        }
    }
}

impl Stream {
    /// The process at the other end, where the socket tells.
    pub fn server(&self) -> Option<i32> {
        match self {
            Self::Tcp(_) => None,
            Self::Unix(stream) => stream.peer_cred().ok()?.pid(),
        }
    }
}

/// What one request took.
#[derive(Debug, Clone, Default)]
pub struct Sample {
    /// To the first token, or to the answer where it is not streamed.
    pub first: Duration,
    /// To the last token.
    pub last: Duration,
    /// Tokens of the answer.
    pub tokens: u64,
    /// Tokens of the prompt that were computed, not found in a cache.
    pub prompt_tokens: u64,
    /// Between tokens, the median.
    pub gap: Duration,
}

/// A caller with its connection.
pub struct Client {
    target: Target,
    model: String,
    caller: Option<String>,
    sender: Option<SendRequest<Full<Bytes>>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Answer {
    usage: Option<Counts>,
    timings: Option<Timings>,
    error: Option<Value>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Counts {
    prompt_tokens: u64,
    completion_tokens: u64,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Timings {
    prompt_n: u64,
}

impl Client {
    /// A caller of `model` at a target. `caller` is what it is called there, if that is Pontoon.
    pub fn new(target: &Target, model: &str, caller: Option<&str>) -> Self {
        Self { target: target.clone(), model: model.into(), caller: caller.map(Into::into), sender: None }
    }

    /// Asks for an answer of at most `tokens` tokens to `prompt`, streamed or whole.
    ///
    /// # Errors
    /// Whatever kept it from being answered.
    pub async fn ask(&mut self, prompt: &str, tokens: u32, stream: bool) -> Result<Sample, Error> {
        let body = json!({
            "model": self.model,
            "messages": [{ "role": "user", "content": prompt }],
            "max_tokens": tokens,
            "temperature": 0,
            "ignore_eos": true,
            "stream": stream,
            "stream_options": if stream { json!({ "include_usage": true }) } else { Value::Null },
        });
        self.post("chat/completions", &body, stream).await
    }

    /// Asks for the next `tokens` tokens of a text, whole.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub async fn complete(&mut self, prompt: &str, tokens: u32) -> Result<Sample, Error> {
        let model = self.model.as_str();
        let body = json!({ "model": model, "prompt": prompt, "max_tokens": tokens, "temperature": 0 });
        self.post("completions", &body, false).await
    }

    async fn post(&mut self, path: &str, body: &Value, stream: bool) -> Result<Sample, Error> {
        let mut request = Request::post(format!("{}/v1/{path}", self.target.base))
            .header("host", "localhost")
            .header("content-type", "application/json");
        if let Some(caller) = &self.caller {
            request = request.header("x-pontoon-caller", caller);
        }
        let request = request.body(Full::new(Bytes::from(body.to_string()))).map_err(Error::http)?;
        let (answer, started) = self.send(request).await?;
        let status = answer.status();
        let mut reading = Reading::new(started);
        let mut body = answer.into_body();
        let mut whole = Vec::new();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(Error::http)?.into_data() else { continue };
            if stream && status.is_success() {
                reading.take(&data)?;
            } else {
                whole.extend_from_slice(&data);
            }
        }
        if !status.is_success() {
            let text = String::from_utf8_lossy(&whole).into_owned();
            return Err(Error::Refused { target: self.target.to_string(), status: status.as_u16(), text });
        }
        if stream { reading.finish() } else { self::whole(&whole, started) }
    }

    /// Sends a request. Servers close kept connections unasked; then it is sent again on a new one, and the
    /// clock starts anew.
    async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<(Response<Incoming>, Instant), Error> {
        let kept = self.sender.is_some();
        self.ready().await?;
        let started = Instant::now();
        match self.ready().await?.send_request(request.clone()).await {
            Ok(answer) => Ok((answer, started)),
            Err(_) if kept => {
                self.sender = None;
                let sender = self.ready().await?;
                let started = Instant::now();
                Ok((sender.send_request(request).await.map_err(Error::http)?, started))
            }
            Err(error) => Err(Error::Http(format!("{}: {error}", self.target))),
        }
    }

    /// An open connection. Servers close them after some number of requests; that is not measured.
    async fn ready(&mut self) -> Result<&mut SendRequest<Full<Bytes>>, Error> {
        let usable = match &mut self.sender {
            Some(sender) => sender.ready().await.is_ok(),
            None => false,
        };
        if !usable {
            self.sender = None;
        }
        if self.sender.is_none() {
            let sender = match self.target.open().await? {
                Stream::Tcp(stream) => talk(stream).await?,
                Stream::Unix(stream) => talk(stream).await?,
            };
            self.sender = Some(sender);
        }
        self.sender.as_mut().ok_or_else(|| Error::Http("no connection".into()))
    }
}

async fn talk<S>(stream: S) -> Result<SendRequest<Full<Bytes>>, Error>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(Error::http)?;
    tokio::spawn(connection);
    sender.ready().await.map_err(Error::http)?;
    Ok(sender)
}

fn whole(bytes: &[u8], started: Instant) -> Result<Sample, Error> {
    let took = started.elapsed();
    let answer: Answer = serde_json::from_slice(bytes).map_err(Error::http)?;
    let usage = answer.usage.unwrap_or_default();
    let prompt_tokens = answer.timings.map_or(usage.prompt_tokens, |timings| timings.prompt_n);
    Ok(Sample {
        first: took,
        last: took,
        tokens: usage.completion_tokens,
        prompt_tokens,
        gap: Duration::ZERO,
    })
}

/// A stream as it comes: the time of each event, its contents looked at only when it is over.
struct Reading {
    started: Instant,
    events: Vec<(Duration, Vec<u8>)>,
    open: Vec<u8>,
}

impl Reading {
    fn new(started: Instant) -> Self {
        Self { started, events: Vec::with_capacity(1024), open: Vec::new() }
    }

    fn take(&mut self, data: &[u8]) -> Result<(), Error> {
        let at = self.started.elapsed();
        self.open.extend_from_slice(data);
        while let Some(end) = memchr::memmem::find(&self.open, b"\n\n") {
            let rest = self.open.split_off(end + 2);
            let event = std::mem::replace(&mut self.open, rest);
            self.events.push((at, event));
        }
        Ok(())
    }

    fn finish(self) -> Result<Sample, Error> {
        let mut sample = Sample::default();
        let mut times = Vec::with_capacity(self.events.len());
        for (at, event) in &self.events {
            let Some(data) = event.trim_ascii().strip_prefix(b"data: ") else { continue };
            if data == b"[DONE]" {
                continue;
            }
            let answer: Answer = serde_json::from_slice(data).map_err(Error::http)?;
            if let Some(error) = answer.error {
                return Err(Error::Http(error.to_string()));
            }
            if let Some(usage) = answer.usage {
                sample.tokens = usage.completion_tokens;
                sample.prompt_tokens = usage.prompt_tokens;
            }
            if let Some(timings) = answer.timings {
                sample.prompt_tokens = timings.prompt_n;
            }
            if memchr::memmem::find(data, b"\"content\":\"").is_some() {
                times.push(*at);
            }
        }
        let (Some(first), Some(last)) = (times.first(), times.last()) else {
            return Err(Error::Http("a stream came without a token".into()));
        };
        (sample.first, sample.last) = (*first, *last);
        sample.tokens = sample.tokens.max(times.len() as u64);
        sample.gap = (*last - *first).div_f64((times.len().max(2) - 1) as f64);
        Ok(sample)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read_in_their_forms() {
        for (text, shown) in [
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("http://127.0.0.1:8080/v1/", "http://127.0.0.1:8080"),
            ("http://host/engines/v1", "http://host:80/engines"),
            ("unix:/run/a.sock", "unix:/run/a.sock"),
            ("unix:///run/a.sock", "unix:/run/a.sock"),
        ] {
            assert_eq!(Target::parse(text).unwrap().to_string(), shown);
        }
        assert!(Target::parse("https://x").is_err());
    }
}
