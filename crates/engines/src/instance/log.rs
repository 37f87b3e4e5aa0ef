//! Owns an engine's log: its last lines, in memory, of bounded length.
//!
//! Engines are started so that they do not log prompts or answers; what a broken one writes all the same
//! is for the operator only.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use serde::Serialize;
use tokio::sync::broadcast;

const MAX_LINE: usize = 2000;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LogLine {
    #[serde(serialize_with = "seconds")]
    pub at: SystemTime,
    pub text: String,
}

fn seconds<S: serde::Serializer>(at: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    to.serialize_f64(since.as_secs_f64())
}

/// The last lines of all runs of one model. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Log {
    lines: Arc<Mutex<VecDeque<LogLine>>>,
    most: usize,
    news: broadcast::Sender<LogLine>,
}

impl Log {
    /// Keeps `most` lines.
    pub fn new(most: usize) -> Log {
        let (news, _) = broadcast::channel(256);
        Log { lines: Arc::default(), most: most.max(80), news }
    }

    /// Adds a line, shortened if it is too long.
    pub fn push(&self, text: &str) {
        let text = text.trim_end_matches(['\n', '\r']);
        let plain = text.len() <= MAX_LINE && text.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\t'));
        let text = match plain {
            true => text.to_owned(),
            false => text.chars().filter(|c| !c.is_control() || *c == '\t').take(MAX_LINE).collect(),
        };
        let line = LogLine { at: SystemTime::now(), text };
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        while lines.len() >= self.most {
            lines.pop_front();
        }
        if self.news.receiver_count() > 0 {
            // The last listener may go in this moment.
            let _ = self.news.send(line.clone());
        }
        lines.push_back(line);
    }

    /// The last `count` lines.
    pub fn tail(&self, count: usize) -> Vec<LogLine> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().skip(lines.len().saturating_sub(count)).cloned().collect()
    }

    /// Lines as they come.
    pub fn follow(&self) -> broadcast::Receiver<LogLine> {
        self.news.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_keeps_the_last_lines_and_no_escapes() {
        let log = Log::new(100);
        for number in 0..250 {
            log.push(&format!("\x1b[31mline {number}\r"));
        }
        let tail = log.tail(1000);
        assert_eq!((tail.len(), tail[99].text.as_str()), (100, "[31mline 249"));
        log.push(&"x".repeat(100_000));
        assert_eq!(log.tail(1)[0].text.len(), MAX_LINE);
    }
}
