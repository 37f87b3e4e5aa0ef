//! Errors and losses that `wgpu` reports while a command executes, on their way to the guest.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pontoon_wire::Id;
use pontoon_wire::event::{ErrorKind, Event, Message};
use pontoon_wire::handle::Device;

/// One report of `wgpu`'s.
#[derive(Debug)]
pub enum Report {
    /// The command being executed was rejected.
    Error { device: Id<Device>, kind: ErrorKind, message: String },
    /// A device is lost.
    Lost { device: Id<Device>, destroyed: bool, message: String },
    /// A mapping came through or not.
    Mapped { map: u64, ok: bool },
}

/// Where `wgpu`'s callbacks leave their reports; the session collects them after each command.
#[derive(Debug, Clone, Default)]
pub struct Reports(Arc<Mutex<Vec<Report>>>);

impl Reports {
    fn lock(&self) -> MutexGuard<'_, Vec<Report>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a report.
    pub fn push(&self, report: Report) {
        self.lock().push(report);
    }

    /// Takes all reports.
    pub fn take(&self) -> Vec<Report> {
        std::mem::take(&mut *self.lock())
    }

    /// How many reports wait.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Puts another name into the errors that wait.
    pub fn rename(&self, from: &str, to: &str) {
        for report in self.lock().iter_mut() {
            if let Report::Error { message, .. } = report {
                *message = message.replace(from, to);
            }
        }
    }

    /// Runs `make`, whose errors are expected and not the guest's: they are dropped.
    pub fn quietly<T>(&self, make: impl FnOnce() -> T) -> T {
        let before = self.lock().len();
        let made = make();
        self.lock().truncate(before);
        made
    }

    /// Has all errors and the loss of `device` reported here.
    pub fn watch(&self, id: Id<Device>, device: &wgpu::Device) {
        let reports = self.clone();
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            let (kind, message) = match error {
                wgpu::Error::Validation { description, .. } => (ErrorKind::Validation, description),
                wgpu::Error::Internal { description, .. } => (ErrorKind::Internal, description),
                wgpu::Error::OutOfMemory { source } => (ErrorKind::OutOfMemory, source.to_string()),
            };
            reports.push(Report::Error { device: id, kind, message });
        }));
        let reports = self.clone();
        device.set_device_lost_callback(move |reason, message| {
            let destroyed = reason == wgpu::DeviceLostReason::Destroyed;
            reports.push(Report::Lost { device: id, destroyed, message });
        });
    }
}

/// The event for a rejected command.
pub fn error_event(device: Id<Device>, sequence: u64, kind: ErrorKind, message: String) -> Event {
    Event::Error { device, sequence, kind, message: Message::cut(message) }
}

/// What a panic said.
pub fn panic_message(panic: &(dyn std::any::Any + Send)) -> &str {
    match (panic.downcast_ref::<String>(), panic.downcast_ref::<&str>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text,
        _ => "no message",
    }
}
