//! Progress of a transfer in a terminal: one bar for all layers; lines where standard error is no terminal.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::sync::Mutex;

use indicatif::{ProgressBar, ProgressStyle};
use pontoon_models::{Event, Progress, Transfer};

const BAR: &str = "{bar:32} {binary_bytes}/{binary_total_bytes}  {binary_bytes_per_sec}  {eta}";

/// Shows events on standard error, or prints them as JSON lines of such a transfer on standard output.
pub fn progress(json: Option<Transfer>) -> Progress {
    if let Some(transfer) = json {
        return Progress::new(move |event| println!("{}", event.to_line(transfer)));
    }
    let bar = match std::io::stderr().is_terminal() {
        true => ProgressBar::no_length()
            .with_style(ProgressStyle::with_template(BAR).unwrap_or_else(|_| ProgressStyle::default_bar())),
        false => ProgressBar::hidden(),
    };
    let done = Mutex::new(HashMap::new());
    Progress::new(move |event| match event {
        Event::Progress { layer, total, .. } => {
            let mut done = done.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            done.insert(layer.id, layer.current);
            bar.set_length(total);
            bar.set_position(done.values().sum());
        }
        Event::Status(message) => say(&bar, &message),
        Event::Warning(message) => say(&bar, &format!("warning: {message}")),
        Event::Success(_) => bar.finish_and_clear(),
    })
}

fn say(bar: &ProgressBar, message: &str) {
    bar.suspend(|| eprintln!("{message}"));
}
