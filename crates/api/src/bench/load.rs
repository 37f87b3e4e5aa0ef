//! Loads: many streams at once, callers of different appetite, and connections that do nothing.

use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use super::client::Stream;
use super::report::Idle;
use super::{Error, Side, Target, quantile};

/// Greedy callers, their requests all at once, and modest ones with theirs one after another: 100 in all.
const GREEDY: (usize, usize) = (2, 38);
const MODEST: (usize, usize) = (6, 4);

/// Latencies of a group of requests, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Stretch {
    /// Half were faster.
    pub p50: f64,
    /// 19 of 20 were faster.
    pub p95: f64,
}

/// What the mixed load took.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Mixed {
    /// The callers that send one request at a time.
    pub modest: Stretch,
    /// Those that send all at once.
    pub greedy: Stretch,
    /// Seconds for all of it.
    pub seconds: f64,
}

/// Tokens a second of so many streams together, on connections that are there already.
pub async fn together(side: &Side<'_>, count: usize, tokens: u32) -> Result<f64, Error> {
    let mut clients = Vec::new();
    for number in 0..count {
        let mut client = side.caller(&format!("stream{number}"));
        let prompt = format!("Tell me story number {number}");
        client.ask(&prompt, 1, true).await?;
        clients.push((client, prompt));
    }
    let mut streams = JoinSet::new();
    let started = Instant::now();
    for (mut client, prompt) in clients {
        streams.spawn(async move { client.ask(&prompt, tokens, true).await });
    }
    let mut sum = 0;
    while let Some(ended) = streams.join_next().await {
        sum += ended.map_err(Error::http)??.tokens;
    }
    Ok(sum as f64 / started.elapsed().as_secs_f64())
}

/// 100 requests by 8 callers.
pub async fn mixed(side: &Side<'_>) -> Result<Mixed, Error> {
    let started = Instant::now();
    let mut greedy = JoinSet::new();
    for caller in 0..GREEDY.0 {
        for _ in 0..GREEDY.1 {
            let mut client = side.caller(&format!("greedy{caller}"));
            greedy.spawn(async move { timed(&mut client, "Tell me everything", 64).await });
        }
    }
    let mut modest = JoinSet::new();
    for caller in 0..MODEST.0 {
        let mut client = side.caller(&format!("modest{caller}"));
        modest.spawn(async move {
            // They come when the greedy are there already.
            tokio::time::sleep(Duration::from_millis(20 + 5 * caller as u64)).await;
            let mut times = Vec::new();
            for _ in 0..MODEST.1 {
                times.push(timed(&mut client, "Hello", 16).await?);
            }
            Ok::<_, Error>(times)
        });
    }
    let (mut modest_times, mut greedy_times) = (Vec::new(), Vec::new());
    while let Some(ended) = modest.join_next().await {
        modest_times.extend(ended.map_err(Error::http)??);
    }
    while let Some(ended) = greedy.join_next().await {
        greedy_times.push(ended.map_err(Error::http)??);
    }
    let seconds = started.elapsed().as_secs_f64();
    Ok(Mixed { modest: stretch(&modest_times), greedy: stretch(&greedy_times), seconds })
}

async fn timed(client: &mut super::Client, prompt: &str, tokens: u32) -> Result<f64, Error> {
    let started = Instant::now();
    client.ask(prompt, tokens, false).await?;
    Ok(started.elapsed().as_secs_f64())
}

fn stretch(times: &[f64]) -> Stretch {
    Stretch { p50: quantile(times.iter().copied(), 0.5), p95: quantile(times.iter().copied(), 0.95) }
}

/// Memory of the server before and with so many connections that have each asked something once. `None`
/// where the server's process cannot be told from the socket.
pub async fn idle(target: &Target, count: usize) -> Result<Option<Idle>, Error> {
    let Some(pid) = target.open().await?.server() else { return Ok(None) };
    let Some(before) = resident(pid) else { return Ok(None) };
    let mut open = Vec::with_capacity(count);
    for _ in 0..count {
        let mut stream = target.open().await?;
        match &mut stream {
            Stream::Tcp(stream) => ask(stream).await?,
            Stream::Unix(stream) => ask(stream).await?,
        }
        open.push(stream);
    }
    let with = resident(pid).unwrap_or(before);
    Ok(Some(Idle { connections: count, bytes: with.saturating_sub(before) }))
}

async fn ask(stream: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin)) -> Result<(), Error> {
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").await.map_err(Error::http)?;
    let mut piece = [0; 1024];
    match stream.read(&mut piece).await.map_err(Error::http)? {
        0 => Err(Error::Http("the server closed an idle connection".into())),
        _ => Ok(()),
    }
}

/// Bytes of a process that are in memory.
fn resident(pid: i32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib * 1024)
}
