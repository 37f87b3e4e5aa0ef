//! `wgpu::Queue`: uploads, submissions, and waiting for them.

use std::sync::Arc;
use std::time::Instant;

use pontoon_wire::command::TextureLocation;
use pontoon_wire::event::ErrorKind;
use pontoon_wire::frame::{self, Payload, Submit, WriteBuffer, code};
use pontoon_wire::{Command, Id, handle as kind};
use wgpu::custom::*;

use crate::buffer::{self, ClientBuffer};
use crate::device::ClientDevice;
use crate::encoder::ClientCommandBuffer;
use crate::objects;
use crate::session::Session;

#[derive(Debug)]
pub(crate) struct ClientQueue {
    pub device: Arc<ClientDevice>,
}

/// Whether `wgpu` accepts a write of `len` bytes at `offset`: the same rule as on the host.
fn fits(buffer: &ClientBuffer, offset: u64, len: u64) -> bool {
    buffer.usage.contains(wgpu::BufferUsages::COPY_DST)
        && offset.is_multiple_of(wgpu::COPY_BUFFER_ALIGNMENT)
        && len.is_multiple_of(wgpu::COPY_BUFFER_ALIGNMENT)
        && offset.checked_add(len).is_some_and(|end| end <= buffer.size)
}

impl ClientQueue {
    /// Has the host reject a write that does not fit, in `wgpu`'s words and in its turn.
    fn reject(&self, code: u8, target: &ClientBuffer, offset: u64, total: u64) {
        let write =
            WriteBuffer { buffer: target.object.id, offset, total, at: 0, payload: Payload::Inline(&[]) };
        self.device.session().send(|out| write.put(out, code));
    }

    fn write(&self, target: &ClientBuffer, offset: u64, data: &[u8]) {
        let total = data.len() as u64;
        if data.is_empty() || !fits(target, offset, total) {
            return self.reject(code::WRITE_BUFFER, target, offset, total);
        }
        let session = self.device.session();
        let mut out = session.outgoing();
        let buffer = target.object.id;
        session.send_payload(&mut out, data, |frame, at, payload| {
            WriteBuffer { buffer, offset, total, at, payload }.put(frame, code::WRITE_BUFFER);
        });
    }
}

impl QueueInterface for ClientQueue {
    fn write_buffer(&self, buffer: &DispatchBuffer, offset: u64, data: &[u8]) {
        self.write(buffer::dispatched(buffer), offset, data);
    }

    fn create_staging_buffer(&self, size: wgpu::BufferSize) -> Option<DispatchQueueWriteBuffer> {
        Some(DispatchQueueWriteBuffer::custom(Staging(vec![0; size.get() as usize])))
    }

    fn validate_write_buffer(
        &self,
        buffer: &DispatchBuffer,
        offset: u64,
        size: wgpu::BufferSize,
    ) -> Option<()> {
        let target = buffer::dispatched(buffer);
        if fits(target, offset, size.get()) {
            return Some(());
        }
        self.reject(code::REJECT_WRITE_WITH, target, offset, size.get());
        None
    }

    fn write_staging_buffer(&self, buffer: &DispatchBuffer, offset: u64, staging: &DispatchQueueWriteBuffer) {
        if let Some(Staging(bytes)) = staging.as_custom() {
            self.write(buffer::dispatched(buffer), offset, bytes);
        }
    }

    fn write_texture(
        &self,
        texture: wgpu::TexelCopyTextureInfo<'_>,
        data: &[u8],
        layout: wgpu::TexelCopyBufferLayout,
        size: wgpu::Extent3d,
    ) {
        let destination = location(&texture);
        let session = self.device.session();
        if data.len() as u64 > session.bytes_in_flight {
            let message = format!(
                "Queue::write_texture of {} bytes; the host takes {} at once (limits.bytes_in_flight): write in parts",
                data.len(),
                session.bytes_in_flight
            );
            return session.local_error(self.device.id().to_bits(), ErrorKind::OutOfMemory, message);
        }
        let mut out = session.outgoing();
        session.send_payload(&mut out, data, |frame, _, payload| {
            frame::put(frame, code::STAGE, |out| payload.put(out));
        });
        let (device, staged) = (self.device.id(), data.len() as u64);
        let command = Command::WriteTexture { device, destination, layout, size, staged };
        session.send_locked(&mut out, |frame| frame::put_encoded(frame, code::COMMAND, &command));
    }

    fn submit(&self, command_buffers: &mut dyn Iterator<Item = DispatchCommandBuffer>) -> u64 {
        let session = self.device.session();
        let buffers: Vec<_> = command_buffers.collect();
        let objects: Vec<_> =
            buffers.iter().filter_map(|buffer| buffer.as_custom::<ClientCommandBuffer>()).collect();
        let device = self.device.id();
        let mut out = session.outgoing();
        let index = {
            let mut state = session.state();
            let entry = state.devices.entry(device.to_bits()).or_default();
            entry.submitted += 1;
            if session.is_dead() {
                entry.done = entry.submitted;
            }
            entry.submitted
        };
        let ids: Vec<_> =
            objects.iter().filter(|buffer| buffer.object.use_up()).map(|buffer| buffer.object.id).collect();
        session.send_locked(&mut out, |frame| Submit::put(frame, device, index, &ids));
        session.flush_locked(&mut out);
        drop(out);
        session.read_now();
        session.run_callbacks();
        index
    }

    fn get_timestamp_period(&self) -> f32 {
        self.device.timestamp_period
    }

    fn on_submitted_work_done(&self, callback: BoxSubmittedWorkDoneCallback) {
        let mut state = self.device.session().state();
        let Some(device) = state.devices.get_mut(&self.device.id().to_bits()) else { return };
        let submitted = device.submitted;
        match device.done >= submitted {
            true => state.ready.push_back(callback),
            false => device.work_done.push((submitted, callback)),
        }
    }

    fn compact_blas(&self, _: &DispatchBlas) -> (Option<u64>, DispatchBlas) {
        self.device.invalid("Queue::compact_blas", None, crate::unsupported::RAY_TRACING);
        (None, DispatchBlas::custom(crate::unsupported::NoBlas))
    }

    fn present(&self, _: &DispatchSurfaceOutputDetail) {}
}

/// Where in a texture a copy goes.
pub(crate) fn location(place: &wgpu::TexelCopyTextureInfo<'_>) -> TextureLocation {
    TextureLocation {
        texture: objects::texture(place.texture).id,
        mip_level: place.mip_level,
        origin: place.origin,
        aspect: place.aspect,
    }
}

/// Memory that the program fills for [`QueueInterface::write_staging_buffer`].
#[derive(Debug)]
struct Staging(Vec<u8>);

impl QueueWriteBufferInterface for Staging {
    fn len(&self) -> usize {
        self.0.len()
    }

    // SAFETY: `wgpu`'s signature; the memory is this side's own, borrowed for as long as the answer.
    unsafe fn write_slice(&mut self) -> wgpu::WriteOnly<'_, [u8]> {
        wgpu::WriteOnly::from_mut(&mut self.0[..])
    }
}

/// `wgpu::Device::poll`: runs callbacks whose time has come, and waits if asked.
pub(crate) fn poll(
    session: &Arc<Session>,
    device: Id<kind::Device>,
    poll_type: wgpu::wgt::PollType<u64>,
) -> Result<wgpu::PollStatus, wgpu::PollError> {
    let status = match poll_type {
        wgpu::wgt::PollType::Poll => Ok(look(session, device)),
        wgpu::wgt::PollType::Wait { submission_index, timeout } => {
            let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
            wait(session, device, submission_index, deadline)
        }
    };
    session.run_callbacks();
    status
}

fn look(session: &Session, device: Id<kind::Device>) -> wgpu::PollStatus {
    session.flush();
    session.look();
    let ask = {
        let mut state = session.state();
        let awaited = !state.maps.is_empty();
        let Some(entry) = state.devices.get_mut(&device.to_bits()) else {
            return wgpu::PollStatus::QueueEmpty;
        };
        let (submitted, done) = (entry.submitted, entry.done);
        if done >= submitted && !awaited {
            return wgpu::PollStatus::QueueEmpty;
        }
        let ask = submitted > entry.asked;
        entry.asked = entry.asked.max(submitted);
        (ask && done < submitted).then_some(submitted)
    };
    if let Some(index) = ask {
        session.send_question(&Command::NotifyDone { device, index, call: 0 });
    }
    wgpu::PollStatus::Poll
}

fn wait(
    session: &Session,
    device: Id<kind::Device>,
    index: Option<u64>,
    deadline: Option<Instant>,
) -> Result<wgpu::PollStatus, wgpu::PollError> {
    let (target, submitted, idle) = {
        let state = session.state();
        let Some(entry) = state.devices.get(&device.to_bits()) else {
            return Ok(wgpu::PollStatus::QueueEmpty);
        };
        let target = index.unwrap_or(entry.submitted);
        if target > entry.submitted {
            return Err(wgpu::PollError::WrongSubmissionIndex(target, entry.submitted));
        }
        (target, entry.submitted, entry.done >= target && state.maps.is_empty())
    };
    if !idle || !session.is_settled() {
        // The answer comes after all mappings that came through before it, and all errors.
        let answer = session.ask_until(deadline, |call| Command::NotifyDone { device, index: target, call });
        if answer.is_none() {
            return if session.is_dead() {
                Ok(wgpu::PollStatus::QueueEmpty)
            } else {
                Err(wgpu::PollError::Timeout)
            };
        }
    }
    let empty = session.state().devices.get(&device.to_bits()).is_none_or(|entry| entry.done >= submitted);
    Ok(if empty { wgpu::PollStatus::QueueEmpty } else { wgpu::PollStatus::WaitSucceeded })
}
