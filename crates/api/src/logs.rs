//! `/logs`: the daemon's last lines, and those of the engines that are loaded.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;
use hyper::StatusCode;
use tokio::sync::{broadcast, mpsc};

use crate::body::AnswerBody;
use crate::manage::flag;
use crate::reply::{self, Answer};
use crate::server::Ask;

/// Bytes of one line that are kept.
const MAX_LINE: usize = 4096;

/// The last lines of a log, which the daemon's logger feeds.
#[derive(Debug, Clone)]
pub struct LogTail(Arc<Tail>);

#[derive(Debug)]
struct Tail {
    keep: usize,
    lines: Mutex<VecDeque<Arc<str>>>,
    listeners: broadcast::Sender<Arc<str>>,
}

impl LogTail {
    /// Keeps so many lines.
    pub fn new(keep: usize) -> Self {
        Self(Arc::new(Tail { keep, lines: Mutex::default(), listeners: broadcast::channel(256).0 }))
    }

    /// Adds a line, without its end.
    pub fn push(&self, line: &str) {
        let mut line = line.replace('\n', " ");
        let mut end = line.len().min(MAX_LINE);
        while !line.is_char_boundary(end) {
            end -= 1;
        }
        line.truncate(end);
        let line: Arc<str> = line.into();
        let mut lines = self.0.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.push_back(line.clone());
        while lines.len() > self.0.keep {
            lines.pop_front();
        }
        drop(lines);
        let _ = self.0.listeners.send(line);
    }

    fn lines(&self) -> Vec<Arc<str>> {
        self.0.lines.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

/// A line of an engine, as `/logs` shows it.
pub fn engine_line(line: &pontoon_engines::instance::LogLine) -> String {
    format!("{} {}\n", stamp(line.at), line.text)
}

fn stamp(at: SystemTime) -> String {
    humantime::format_rfc3339_millis(at).to_string()
}

/// Answers: `?follow`, `?no-engines`.
pub async fn answer(ask: &Ask) -> Answer {
    let shared = &ask.shared;
    let mut following = shared.log.0.listeners.subscribe();
    let mut text: String = shared.log.lines().iter().map(|line| format!("{line}\n")).collect();
    if !flag(&ask.query, "no-engines")? {
        for running in shared.runner.ps().await {
            let lines = shared.runner.logs(&running.model).await.ok().flatten().unwrap_or_default();
            let name = &running.model;
            text.extend(lines.iter().map(|line| format!("{} {name}: {}\n", stamp(line.at), line.text)));
        }
    }
    if !flag(&ask.query, "follow")? {
        return Ok(reply::bytes(StatusCode::OK, "text/plain; charset=utf-8", text));
    }
    let (lines, body) = mpsc::channel(64);
    tokio::spawn(async move {
        if lines.send(Ok(Bytes::from(text))).await.is_err() {
            return;
        }
        loop {
            let line = tokio::select! {
                line = following.recv() => line,
                () = lines.closed() => return,
            };
            let text = match line {
                Ok(line) => format!("{line}\n"),
                Err(broadcast::error::RecvError::Lagged(lines)) => format!("({lines} lines left out)\n"),
                Err(broadcast::error::RecvError::Closed) => return,
            };
            if lines.send(Ok(text.into())).await.is_err() {
                return;
            }
        }
    });
    let mut answer = reply::bytes(StatusCode::OK, "text/plain; charset=utf-8", Bytes::new());
    *answer.body_mut() = AnswerBody::channel(body);
    Ok(answer)
}
