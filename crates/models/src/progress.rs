//! Owns how far a pull or push has come, told while it runs: to a bar in a terminal, or line by
//! line to clients of the model runner's HTTP interface.

use std::sync::Arc;

use serde::Serialize;
use tokio::sync::mpsc;

/// Which way the bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Transfer {
    Pull,
    Push,
}

/// How far one blob has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Layer {
    /// Its digest.
    pub id: String,
    /// Bytes of the whole.
    pub size: u64,
    /// Bytes that are done.
    pub current: u64,
}

/// Something that happened on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// `total` is the size of all layers together, in bytes.
    Progress { layer: Layer, total: u64, transfer: Transfer },
    /// What is done now, for people.
    Status(String),
    /// Something that does not stop it.
    Warning(String),
    /// It is done; always the last event of a success.
    Success(String),
}

impl Event {
    /// One line of Docker's progress stream of such a transfer, without the line's end.
    pub fn to_line(&self, mode: Transfer) -> String {
        let plain = |kind: &str, message: &str| serde_json::json!({"type": kind, "message": message, "total": 0, "layer": {"size": 0, "current": 0}, "mode": mode});
        let value = match self {
            Self::Progress { layer, total, transfer } => {
                let verb = if *transfer == Transfer::Pull { "Downloaded" } else { "Uploaded" };
                let message = format!("{verb}: {:.2} MB", layer.current as f64 / f64::from(1 << 20));
                serde_json::json!({"type": "progress", "message": message, "total": total, "layer": layer, "mode": transfer})
            }
            Self::Status(message) => plain("progress", message),
            Self::Warning(message) => plain("warning", message),
            Self::Success(message) => plain("success", message),
        };
        value.to_string()
    }

    /// The line of a stream that ends with an error.
    pub fn error_line(message: &str, mode: Transfer) -> String {
        serde_json::json!({"type": "error", "message": message, "total": 0, "layer": {"size": 0, "current": 0}, "mode": mode})
            .to_string()
    }
}

/// Who listens to the events. Clones tell the same listener.
#[derive(Clone, Default)]
pub struct Progress(Option<Arc<dyn Fn(Event) + Send + Sync>>);

impl Progress {
    /// Calls `listener` for each event; it must not block for long.
    pub fn new(listener: impl Fn(Event) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(listener)))
    }

    /// Nobody listens.
    pub fn none() -> Self {
        Self(None)
    }

    /// The events come out of a channel. It is closed when the work is over. Progress is told at
    /// most every 100 ms or 8 MiB for each layer, so the channel stays short.
    pub fn channel() -> (Self, mpsc::UnboundedReceiver<Event>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self::new(move |event| drop(sender.send(event))), receiver)
    }

    pub(crate) fn tell(&self, event: Event) {
        if let Some(listener) = &self.0 {
            listener(event);
        }
    }

    pub(crate) fn status(&self, message: impl Into<String>) {
        self.tell(Event::Status(message.into()));
    }
}

/// Tells of one layer, not too often.
#[derive(Clone)]
pub(crate) struct Meter {
    progress: Progress,
    layer: Layer,
    total: u64,
    transfer: Transfer,
    told: Option<(std::time::Instant, u64)>,
}

impl Meter {
    pub(crate) fn new(progress: &Progress, id: String, size: u64, total: u64, transfer: Transfer) -> Self {
        let layer = Layer { id, size, current: 0 };
        Self { progress: progress.clone(), layer, total, transfer, told: None }
    }

    /// So many bytes are done.
    pub(crate) fn set(&mut self, current: u64) {
        const PAUSE: std::time::Duration = std::time::Duration::from_millis(100);
        const BYTES: u64 = 8 << 20;
        let now = std::time::Instant::now();
        let due = match self.told {
            None => true,
            Some((when, bytes)) => {
                now - when >= PAUSE || current.abs_diff(bytes) >= BYTES || current == self.layer.size
            }
        };
        self.layer.current = current;
        if due {
            self.told = Some((now, current));
            self.progress.tell(Event::Progress {
                layer: self.layer.clone(),
                total: self.total,
                transfer: self.transfer,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_dockers() {
        let layer = Layer { id: "sha256:ab".into(), size: 10, current: 5 };
        let event = Event::Progress { layer, total: 30, transfer: Transfer::Push };
        let value: serde_json::Value = serde_json::from_str(&event.to_line(Transfer::Push)).unwrap();
        assert_eq!(value["type"], "progress");
        assert_eq!(value["layer"], serde_json::json!({"id": "sha256:ab", "size": 10, "current": 5}));
        assert_eq!((&value["total"], &value["mode"]), (&30.into(), &"push".into()));
    }

    #[test]
    fn a_meter_tells_the_first_and_the_last() {
        let (progress, mut events) = Progress::channel();
        let mut meter = Meter::new(&progress, "x".into(), 1000, 1000, Transfer::Pull);
        (0..=1000).for_each(|at| meter.set(at));
        drop((meter, progress));
        let mut told = Vec::new();
        while let Ok(Event::Progress { layer, .. }) = events.try_recv() {
            told.push(layer.current);
        }
        assert_eq!((told.first(), told.last()), (Some(&0), Some(&1000)));
        assert!(told.len() < 10, "{told:?}");
    }
}
