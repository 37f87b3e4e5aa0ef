//! Writes to buffers and textures, whose payload arrives in pieces, inline or in the arena.

use std::num::NonZeroU64;

use pontoon_wire::command::TextureLocation;
use pontoon_wire::frame::{Payload, WriteBuffer};
use pontoon_wire::limits::MAX_ARENA_PAYLOAD;
use pontoon_wire::{Id, Reader, handle as kind};
use wgpu::wgt;

use crate::End;
use crate::session::Session;

/// Said of a name that the session does not know, whether or not anybody else has sent such bytes.
const UNFOUND: &str = "it named bytes that it has not sent";

/// A buffer write whose pieces are arriving.
#[derive(Debug)]
pub(crate) struct Write {
    buffer: Id<kind::Buffer>,
    offset: u64,
    total: u64,
    /// How much has arrived.
    at: u64,
    /// The whole was rejected: its other pieces are read and dropped.
    rejected: bool,
}

impl Session {
    /// The write in a frame's body, its payload received.
    pub(crate) fn received_write<'a>(
        &mut self,
        body: &'a [u8],
        room: &'a mut Vec<u8>,
    ) -> Result<WriteBuffer<'a>, End> {
        let write = WriteBuffer::decode(body)?;
        Ok(WriteBuffer { payload: self.received(write.payload, room)?, ..write })
    }

    /// A payload as it arrived: kept where it is new, or found by its name and put into `room`.
    fn received<'a>(&mut self, payload: Payload<'a>, room: &'a mut Vec<u8>) -> Result<Payload<'a>, End> {
        let host = |error: pontoon_uploads::Error| End::Host(error.to_string());
        match (payload, &mut self.kept) {
            (Payload::Named { digest, len }, kept) => {
                let found = kept.as_mut().map(|kept| kept.find(&digest, len, room)).transpose();
                if !found.map_err(host)?.unwrap_or(false) {
                    return Err(End::Violation(UNFOUND.into()));
                }
                self.usage.named_bytes += u64::from(len);
                return Ok(Payload::Inline(room));
            }
            (Payload::Inline(bytes), Some(kept)) => kept.keep(bytes).map_err(host)?,
            (Payload::Packed { len, block }, kept) => {
                room.clear();
                room.resize(len as usize, 0);
                if lz4_flex::block::decompress_into(block, room).ok() != Some(len as usize) {
                    return Err(End::Violation(format!("a payload does not unpack to {len} bytes")));
                }
                if let Some(kept) = kept {
                    kept.keep(room).map_err(host)?;
                }
                self.usage.uploaded_bytes += block.len() as u64;
                return Ok(Payload::Inline(room));
            }
            _ => {}
        }
        self.usage.uploaded_bytes += payload.len() as u64;
        Ok(payload)
    }

    /// Copies a payload into private memory and gives its place in the arena back.
    pub(crate) fn copy_payload(&mut self, payload: Payload<'_>, out: &mut Vec<u8>) -> Result<(), End> {
        out.clear();
        match payload {
            Payload::Inline(bytes) => out.extend_from_slice(bytes),
            Payload::Arena { at, len } => {
                out.resize(len as usize, 0);
                self.arena.read(at, out).map_err(End::Violation)?;
                self.release(at.saturating_add(len.into()));
            }
            Payload::Named { .. } | Payload::Packed { .. } => return Err(End::Violation(UNFOUND.into())),
        }
        Ok(())
    }

    /// One piece of a buffer write.
    pub(crate) fn write_buffer(&mut self, piece: WriteBuffer<'_>) -> Result<(), End> {
        let WriteBuffer { buffer, offset, total, at, payload } = piece;
        let write = match self.write.take() {
            None if at == 0 => Write { buffer, offset, total, at, rejected: false },
            Some(write)
                if (write.buffer, write.offset, write.total, write.at) == (buffer, offset, total, at) =>
            {
                write
            }
            _ => return Err(End::Violation("pieces of buffer writes are out of order".into())),
        };
        let mut in_place = false;
        let rejected = match payload {
            _ if write.rejected => true,
            // Judge the whole by its first piece: `wgpu` rejects a write that does not fit before it copies.
            _ if at == 0 && (total == 0 || self.is_out_of_range(buffer, offset, total)?) => {
                self.reject_write(buffer, offset, total)?;
                true
            }
            Payload::Inline(bytes) => self.write_inline(buffer, offset + at, bytes)?,
            Payload::Arena { at: place, len } => {
                in_place = self.write_in_place(buffer, offset + at, place, len)?;
                !in_place && self.write_from_arena(buffer, offset + at, place, len)?
            }
            Payload::Named { .. } | Payload::Packed { .. } => return Err(End::Violation(UNFOUND.into())),
        };
        if let Payload::Arena { at: place, len } = payload
            && !in_place
        {
            self.release(place.saturating_add(len.into()));
        }
        let arrived = at + payload.len() as u64;
        // A guest that knows that its write does not fit sends one empty piece, to have it rejected.
        if arrived < total && !(rejected && payload.is_empty()) {
            if payload.is_empty() {
                return Err(End::Violation("an empty piece of a buffer write".into()));
            }
            self.write = Some(Write { at: arrived, rejected, ..write });
        }
        if in_place {
            return self.bound_copies();
        }
        let device = self.tables.buffers.get(buffer)?.device;
        self.count_upload(payload.len() as u64, device)
    }

    /// A `write_buffer_with` that does not fit.
    pub(crate) fn reject_write_with(&mut self, write: WriteBuffer<'_>) -> Result<(), End> {
        match NonZeroU64::new(write.total) {
            Some(_) if self.is_out_of_range(write.buffer, write.offset, write.total)? => {
                self.reject_write(write.buffer, write.offset, write.total)
            }
            _ => Err(End::Violation("a write that fits, to be rejected".into())),
        }
    }

    fn is_out_of_range(&self, id: Id<kind::Buffer>, offset: u64, total: u64) -> Result<bool, End> {
        let entry = self.tables.buffers.get(id)?;
        let aligned = offset.is_multiple_of(wgpu::COPY_BUFFER_ALIGNMENT)
            && total.is_multiple_of(wgpu::COPY_BUFFER_ALIGNMENT);
        let fits = offset.checked_add(total).is_some_and(|end| end <= entry.size);
        Ok(!aligned || !fits || !entry.usage.contains(wgpu::BufferUsages::COPY_DST))
    }

    /// Has `wgpu` itself reject a write, in its own words.
    fn reject_write(&self, id: Id<kind::Buffer>, offset: u64, total: u64) -> Result<(), End> {
        let entry = self.tables.buffers.get(id)?;
        let queue = &self.tables.devices.get(entry.device)?.queue;
        match NonZeroU64::new(total) {
            Some(total) => drop(queue.write_buffer_with(&entry.buffer, offset, total)),
            None => queue.write_buffer(&entry.buffer, offset, &[]),
        }
        Ok(())
    }

    fn write_inline(&mut self, id: Id<kind::Buffer>, offset: u64, bytes: &[u8]) -> Result<bool, End> {
        self.settle_buffer(id)?;
        let entry = self.tables.buffers.get(id)?;
        let queue = &self.tables.devices.get(entry.device)?.queue;
        let before = self.reports.len();
        queue.write_buffer(&entry.buffer, offset, bytes);
        Ok(self.reports.len() > before)
    }

    /// Copies straight from shared memory to `wgpu`'s staging memory, through a window that stays in the
    /// nearest cache: no reference ever points into memory that the guest can write.
    fn write_from_arena(
        &mut self,
        id: Id<kind::Buffer>,
        offset: u64,
        at: u64,
        len: u32,
    ) -> Result<bool, End> {
        self.settle_buffer(id)?;
        let entry = self.tables.buffers.get(id)?;
        let queue = &self.tables.devices.get(entry.device)?.queue;
        let Some(size) = NonZeroU64::new(len.into()) else { return Ok(false) };
        let Some(mut view) = queue.write_buffer_with(&entry.buffer, offset, size) else { return Ok(true) };
        let mut window = [0; 16 * 1024];
        for start in (0..len as usize).step_by(window.len()) {
            let window = &mut window[..(len as usize - start).min(16 * 1024)];
            self.arena.read(at.saturating_add(start as u64), window).map_err(End::Violation)?;
            view.slice(start..start + window.len()).copy_from_slice(window);
        }
        Ok(false)
    }

    /// Uploads wait in `wgpu`'s staging memory until the queue has done with them. Before they grow past
    /// the guest's limit they are submitted for it, and waited for.
    fn count_upload(&mut self, bytes: u64, device: Id<kind::Device>) -> Result<(), End> {
        let entry = self.tables.devices.get_mut(device)?;
        entry.unsubmitted = true;
        entry.staged += bytes;
        if entry.staged > self.limits.bytes_in_flight { self.drain(device) } else { Ok(()) }
    }

    /// Keeps payload for the next command.
    pub(crate) fn stage(&mut self, body: &[u8], room: &mut Vec<u8>) -> Result<(), End> {
        let mut reader = Reader::new(body);
        let payload = Payload::take(&mut reader)?;
        reader.finish()?;
        let payload = self.received(payload, room)?;
        let len = self.staged.len() + payload.len();
        let limit = self.limits.bytes_in_flight.max(MAX_ARENA_PAYLOAD as u64);
        if len as u64 > limit {
            return Err(End::Limit(format!(
                "{len} bytes are staged for one command, the limit is {limit} (limits.bytes_in_flight): write in parts or raise the limit"
            )));
        }
        let mut bytes = std::mem::take(&mut self.scratch);
        self.copy_payload(payload, &mut bytes)?;
        self.staged.extend_from_slice(&bytes);
        self.scratch = bytes;
        Ok(())
    }

    pub(crate) fn write_texture(
        &mut self,
        device: Id<kind::Device>,
        destination: TextureLocation,
        layout: wgt::TexelCopyBufferLayout,
        size: wgt::Extent3d,
        staged: u64,
    ) -> Result<(), End> {
        if self.staged.len() as u64 != staged {
            return Err(End::Violation(format!("{} bytes are staged, not {staged}", self.staged.len())));
        }
        let location = self.tables.texture_location(&destination)?;
        self.tables.devices.get(device)?.queue.write_texture(location, &self.staged, layout, size);
        self.staged.clear();
        self.staged.shrink_to(MAX_ARENA_PAYLOAD);
        self.count_upload(staged, device)
    }
}
