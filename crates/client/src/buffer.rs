//! `wgpu::Buffer` and its mapping.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use pontoon_wire::frame::{WriteBuffer, code};
use pontoon_wire::{Command, bounded::label, handle as kind};
use wgpu::custom::*;

use crate::device::{ClientDevice, SharedDevice};
use crate::ids::Object;
use crate::mapped::{BufferState, View};
use crate::state::PendingMap;

#[derive(Debug)]
pub(crate) struct ClientBuffer {
    pub object: Arc<Object<kind::Buffer>>,
    pub size: u64,
    pub usage: wgpu::BufferUsages,
    state: Arc<BufferState>,
}

/// The object behind a buffer.
///
/// # Panics
/// Where it belongs to another implementation of `wgpu`, as local `wgpu` does.
pub(crate) fn buffer(buffer: &wgpu::Buffer) -> &Arc<Object<kind::Buffer>> {
    match buffer.as_custom::<ClientBuffer>() {
        Some(buffer) => &buffer.object,
        None => panic!("Buffer is not from this Pontoon device"),
    }
}

/// The buffer behind one of `wgpu`'s dispatch types.
///
/// # Panics
/// Where it belongs to another implementation of `wgpu`.
#[inline]
pub(crate) fn dispatched(buffer: &DispatchBuffer) -> &ClientBuffer {
    match buffer.as_custom::<ClientBuffer>() {
        Some(buffer) => buffer,
        None => panic!("Buffer is not from this Pontoon device"),
    }
}

impl ClientBuffer {
    pub fn new(device: &Arc<ClientDevice>, desc: &wgpu::BufferDescriptor<'_>) -> Self {
        let (id, wire) = (device.id(), desc.map_label(|name| label(*name)));
        let object =
            device.session().create(|buffer| Command::CreateBuffer { device: id, id: buffer, desc: wire });
        // Memory for the mapping only where the host can have made the buffer.
        let mappable = desc.mapped_at_creation && desc.size <= device.limits.max_buffer_size;
        let state = match mappable {
            true => BufferState::mapped_at_creation(desc.size),
            false => BufferState::default(),
        };
        Self { object, size: desc.size, usage: desc.usage, state: Arc::new(state) }
    }

    /// Sends what the program wrote to the mapping and ends it.
    fn end_mapping(&self) -> bool {
        let Some(written) = self.state.end() else { return false };
        let session = &self.object.session;
        let mut out = session.outgoing();
        for (offset, bytes) in &written {
            let (buffer, total) = (self.object.id, bytes.len() as u64);
            session.send_payload(&mut out, bytes, |frame, at, payload| {
                WriteBuffer { buffer, offset: *offset, total, at, payload }.put(frame, code::WRITE_MAPPED);
            });
        }
        true
    }
}

impl BufferInterface for ClientBuffer {
    fn map_async(&self, mode: wgpu::MapMode, range: Range<u64>, callback: BufferMapCallback) {
        let session = &self.object.session;
        let write = mode == wgpu::MapMode::Write;
        let map = {
            let mut state = session.state();
            if state.dead.is_some() {
                state.ready.push_back(Box::new(move || callback(Err(wgpu::BufferAsyncError))));
                return;
            }
            state.next_map += 1;
            let map = state.next_map;
            self.state.ask(map, range.clone(), write);
            let len = (range.end - range.start) as usize;
            let pending = PendingMap { buffer: self.state.clone(), callback, bytes: Vec::new(), len };
            state.maps.insert(map, pending);
            map
        };
        let size = range.end - range.start;
        session.command(&Command::MapBuffer {
            buffer: self.object.id,
            map,
            write,
            offset: range.start,
            size,
        });
    }

    fn get_mapped_range(&self, range: Range<u64>) -> Result<DispatchBufferMappedRange, wgpu::MapRangeError> {
        match self.state.view(range) {
            Some(view) => Ok(DispatchBufferMappedRange::custom(view)),
            // The buffer behind `not_mapped`: the front end rejects the range itself.
            None if self.object.session.never_was() => {
                Ok(DispatchBufferMappedRange::custom(View::detached()))
            }
            None => Err(not_mapped()),
        }
    }

    fn unmap(&self) {
        // Also where nothing is mapped here: the host knows whether that is an error.
        self.end_mapping();
        self.object.session.command(&Command::UnmapBuffer { buffer: self.object.id });
        self.object.session.flush();
    }

    fn destroy(&self) {
        self.state.end();
        self.object.session.command(&Command::DestroyBuffer { buffer: self.object.id });
        self.object.session.flush();
    }
}

/// `wgpu`'s own error for a range that is not mapped. Only its front end can make one: it does so for an
/// unmapped buffer of a device whose session is over, whose [`ClientBuffer`] says yes to any range.
fn not_mapped() -> wgpu::MapRangeError {
    static UNMAPPED: OnceLock<wgpu::Buffer> = OnceLock::new();
    let buffer = UNMAPPED.get_or_init(|| {
        let device = wgpu::Device::from_custom(SharedDevice(ClientDevice::lost()));
        let usage = wgpu::BufferUsages::MAP_READ;
        device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: 4,
            usage,
            mapped_at_creation: false,
        })
    });
    match buffer.get_mapped_range(..) {
        Err(error) => error,
        Ok(_) => unreachable!("wgpu lends no range of an unmapped buffer"),
    }
}
