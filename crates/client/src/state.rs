//! What a session knows of the host's answers: replies, mappings, finished work, errors, losses.
//!
//! Callbacks of the program are never called from in here: they are collected in `ready` and run by
//! whoever holds no lock.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use pontoon_wire::event::{ErrorKind, Event, MappedAt, Reply};
use pontoon_wire::hello;

use crate::mapped::BufferState;
use crate::scopes::Scopes;

/// Something to run once no lock is held.
pub(crate) type Callback = Box<dyn FnOnce() + Send>;

/// The source of every `wgpu::Error` that comes from the host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct RemoteError {
    /// Number of the rejected command in its session, from 1 on; 0 where it was rejected here.
    pub sequence: u64,
    /// What was wrong, in `wgpu`'s words.
    pub message: String,
}

impl RemoteError {
    pub(crate) fn into_wgpu(self, kind: ErrorKind) -> wgpu::Error {
        let description = self.message.clone();
        let source = Box::new(self);
        match kind {
            ErrorKind::Validation => wgpu::Error::Validation { source, description },
            ErrorKind::Internal => wgpu::Error::Internal { source, description },
            ErrorKind::OutOfMemory => wgpu::Error::OutOfMemory { source },
        }
    }
}

/// A mapping that the host has not answered.
pub(crate) struct PendingMap {
    pub buffer: Arc<BufferState>,
    pub callback: wgpu::custom::BufferMapCallback,
    /// Bytes that came inline.
    pub bytes: Vec<u8>,
    pub len: usize,
}

/// One device.
#[derive(Default)]
pub(crate) struct DeviceState {
    /// Last submission sent, last one known to be finished, last one asked about.
    pub submitted: u64,
    pub done: u64,
    pub asked: u64,
    pub work_done: Vec<(u64, wgpu::custom::BoxSubmittedWorkDoneCallback)>,
    pub handler: Option<Arc<dyn wgpu::UncapturedErrorHandler>>,
    pub lost_callback: Option<wgpu::custom::BoxDeviceLostCallback>,
    pub lost: Option<(wgpu::DeviceLostReason, String)>,
}

/// Everything.
#[derive(Default)]
pub(crate) struct State {
    /// Why the session is over.
    pub dead: Option<String>,
    /// Whether a thread reads from the host now.
    pub reading: bool,
    pub next_call: u32,
    pub next_map: u64,
    pub replies: HashMap<u32, Option<Reply>>,
    pub maps: HashMap<u64, PendingMap>,
    pub devices: HashMap<u64, DeviceState>,
    pub scopes: Scopes,
    pub ready: VecDeque<Callback>,
}

/// What arrived, decoded.
pub(crate) enum Arrival {
    Event(Event),
    Bytes { map: u64, at: u64, bytes: Vec<u8> },
}

impl State {
    /// Takes in one arrival; `download` gives access to mapped ranges in the arena.
    pub fn take_in(
        &mut self,
        arrival: Arrival,
        place: &dyn Fn(u64, usize) -> Option<crate::mapped::Storage>,
    ) {
        match arrival {
            Arrival::Bytes { map, at, bytes } => {
                if let Some(pending) = self.maps.get_mut(&map)
                    && at == pending.bytes.len() as u64
                    && pending.bytes.len() + bytes.len() <= pending.len
                {
                    pending.bytes.extend_from_slice(&bytes);
                }
            }
            Arrival::Event(Event::Reply { call, reply }) => {
                if let Some(slot) = self.replies.get_mut(&call) {
                    *slot = Some(reply);
                }
            }
            Arrival::Event(Event::Mapped { map, bytes }) => self.mapped(map, bytes, place),
            Arrival::Event(Event::Done { device, index, call }) => {
                if let Some(device) = self.devices.get_mut(&device.to_bits()) {
                    device.done = device.done.max(index);
                    device.fire_work_done(&mut self.ready);
                }
                if let Some(slot) = self.replies.get_mut(&call) {
                    *slot = Some(Reply::Barrier);
                }
            }
            Arrival::Event(Event::Error { device, sequence, kind, message }) => {
                let error = RemoteError { sequence, message: message.into_string() }.into_wgpu(kind);
                let device = device.to_bits();
                if let Some(error) = self.scopes.catch(device, sequence, kind, error) {
                    self.uncaptured(device, error);
                }
            }
            Arrival::Event(Event::DeviceLost { device, destroyed, message }) => {
                let reason = match destroyed {
                    true => wgpu::DeviceLostReason::Destroyed,
                    false => wgpu::DeviceLostReason::Unknown,
                };
                if let Some(device) = self.devices.get_mut(&device.to_bits()) {
                    device.lose(reason, message.into_string(), &mut self.ready);
                }
            }
            Arrival::Event(Event::End { message }) => self.die(&message),
        }
    }

    fn mapped(
        &mut self,
        map: u64,
        at: Option<MappedAt>,
        place: &dyn Fn(u64, usize) -> Option<crate::mapped::Storage>,
    ) {
        let Some(pending) = self.maps.remove(&map) else { return };
        let storage = match at {
            None => None,
            Some(MappedAt::Arena(at)) => place(at, pending.len),
            Some(MappedAt::Sent) => {
                (pending.bytes.len() == pending.len).then(|| crate::mapped::Storage::heap(pending.bytes))
            }
        };
        let result = match storage {
            Some(storage) => pending.buffer.come_through(map, storage),
            None => Err(wgpu::BufferAsyncError),
        };
        let callback = pending.callback;
        self.ready.push_back(Box::new(move || callback(result)));
    }

    /// Has the device's handler told of an error that no scope caught.
    pub fn uncaptured(&mut self, device: u64, error: wgpu::Error) {
        let handler = self.devices.get(&device).and_then(|device| device.handler.clone());
        self.ready.push_back(Box::new(move || match handler {
            Some(handler) => handler(error),
            // What `wgpu` does where the program set no handler.
            None => panic!("wgpu error: {error}\n"),
        }));
    }

    /// Ends the session: every device is lost, every wait is over.
    pub fn die(&mut self, reason: &str) {
        if self.dead.is_some() {
            return;
        }
        self.dead = Some(reason.to_owned());
        // The reason first: a failed mapping says nothing of it.
        for device in self.devices.values_mut() {
            device.lose(wgpu::DeviceLostReason::Unknown, reason.to_owned(), &mut self.ready);
        }
        for (_, pending) in self.maps.drain() {
            self.ready.push_back(Box::new(move || (pending.callback)(Err(wgpu::BufferAsyncError))));
        }
        for device in self.devices.values_mut() {
            device.done = u64::MAX;
            device.fire_work_done(&mut self.ready);
        }
    }
}

impl DeviceState {
    pub fn fire_work_done(&mut self, ready: &mut VecDeque<Callback>) {
        let done = self.done;
        for (_, callback) in self.work_done.extract_if(.., |(index, _)| *index <= done) {
            ready.push_back(callback);
        }
    }

    fn lose(&mut self, reason: wgpu::DeviceLostReason, message: String, ready: &mut VecDeque<Callback>) {
        if self.lost.is_none() {
            self.lost = Some((reason, message.clone()));
            if let Some(callback) = self.lost_callback.take() {
                ready.push_back(Box::new(move || callback(reason, message)));
            }
        }
    }
}

impl From<&hello::Adapter> for crate::adapter::Offer {
    fn from(adapter: &hello::Adapter) -> Self {
        let mut info = adapter.info.clone();
        info.name = format!("{} via Pontoon", info.name);
        Self {
            info,
            features: adapter.features,
            limits: adapter.limits.clone(),
            downlevel: adapter.downlevel.clone(),
        }
    }
}
