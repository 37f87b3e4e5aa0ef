//! The log: lines on standard error. A log that cannot be written (a full disk) costs nobody a session.

use std::io::Write;
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use pontoon_api::LogTail;

/// Lines that the admin interface shows.
const TAIL_LINES: usize = 2000;

static TAIL: OnceLock<LogTail> = OnceLock::new();

/// The last lines of this process's log, kept from the first call on.
pub fn tail() -> LogTail {
    TAIL.get_or_init(|| LogTail::new(TAIL_LINES)).clone()
}

struct Stderr {
    prefix: String,
}

impl log::Log for Stderr {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        // Libraries below warn of what is not the operator's business.
        if !record.target().starts_with("pontoon") && record.level() > log::Level::Error {
            return;
        }
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let line = format!("{seconds:.3} {:5} {}{}\n", record.level(), self.prefix, record.args());
        let _ = std::io::stderr().write_all(line.as_bytes());
        if let Some(tail) = TAIL.get() {
            tail.push(line.trim_end());
        }
    }

    fn flush(&self) {}
}

/// Starts logging; `PONTOON_LOG` (`error`, `warn`, `info`, `debug`, `trace`) says how much.
pub fn start(prefix: impl Into<String>) {
    let level = std::env::var("PONTOON_LOG").ok().and_then(|text| text.parse().ok());
    if log::set_boxed_logger(Box::new(Stderr { prefix: prefix.into() })).is_ok() {
        log::set_max_level(level.unwrap_or(log::LevelFilter::Info));
    }
}
