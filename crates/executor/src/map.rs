//! Mapped buffers: their bytes go to the guest when the mapping comes through, and back before it ends.

use std::ops::Range;

use pontoon_wire::event::{Event, MappedAt};
use pontoon_wire::frame::{MappedBytes, WriteBuffer};
use pontoon_wire::limits::MAX_INLINE_PAYLOAD;
use pontoon_wire::{Id, handle as kind};

use crate::End;
use crate::errors::Report;
use crate::session::Session;

/// A mapping that the guest asked for.
#[derive(Debug)]
pub(crate) struct Mapping {
    pub map: u64,
    pub range: Range<u64>,
    /// Where in the arena its bytes are.
    pub placed: Option<u64>,
}

impl Session {
    pub(crate) fn map(
        &mut self,
        id: Id<kind::Buffer>,
        map: u64,
        write: bool,
        range: Range<u64>,
    ) -> Result<(), End> {
        // `wgpu` submits writes to the buffer by itself before it maps it, a submission that the guest's
        // waits do not know of: this one they do.
        let device = self.tables.buffers.get(id)?.device;
        if self.tables.devices.get(device).is_ok_and(|entry| entry.unsubmitted) {
            self.submit_writes(device)?;
        }
        let entry = self.tables.buffers.get_mut(id)?;
        if range.start > range.end || range.end > entry.size || entry.mapping.is_some() {
            return Err(End::Violation(format!(
                "mapping {range:?} of buffer {id:?} which is mapped or shorter"
            )));
        }
        let mode = if write { wgpu::MapMode::Write } else { wgpu::MapMode::Read };
        let aligned = range.start.is_multiple_of(wgpu::MAP_ALIGNMENT)
            && (range.end - range.start).is_multiple_of(wgpu::COPY_BUFFER_ALIGNMENT);
        // The bytes of a buffer in the arena are with the guest already: `wgpu` is asked for the state alone,
        // since its back end maps no imported memory. It judges a range that it would reject all the same.
        let asked = if entry.in_arena.is_some() && !write && aligned { 0..0 } else { range.clone() };
        entry.mapping = Some(Mapping { map, range: range.clone(), placed: None });
        let reports = self.reports.clone();
        entry.buffer.map_async(mode, asked, move |result| {
            reports.push(Report::Mapped { map, ok: result.is_ok() });
        });
        self.waiting.push_back((map, id));
        Ok(())
    }

    /// `wgpu` has answered a mapping.
    pub(crate) fn mapped(&mut self, map: u64, ok: bool) {
        let Some(place) = self.waiting.iter().position(|(waiting, _)| *waiting == map) else { return };
        let Some((_, id)) = self.waiting.remove(place) else { return };
        let bytes = if ok { self.send_mapped(id, map) } else { None };
        if bytes.is_none()
            && let Ok(entry) = self.tables.buffers.get_mut(id)
            && entry.mapping.as_ref().is_some_and(|mapping| mapping.map == map)
        {
            entry.mapping = None;
        }
        self.send(&Event::Mapped { map, bytes });
    }

    fn send_mapped(&mut self, id: Id<kind::Buffer>, map: u64) -> Option<MappedAt> {
        let entry = self.tables.buffers.get_mut(id).ok()?;
        let mapping = entry.mapping.as_mut().filter(|mapping| mapping.map == map)?;
        if let Some(at) = entry.in_arena {
            return Some(MappedAt::Arena(at + mapping.range.start));
        }
        let view = entry.buffer.get_mapped_range(mapping.range.clone()).ok()?;
        mapping.placed = self.arena.place(&view);
        if let Some(at) = mapping.placed {
            return Some(MappedAt::Arena(at));
        }
        for (index, bytes) in view.chunks(MAX_INLINE_PAYLOAD).enumerate() {
            let at = (index * MAX_INLINE_PAYLOAD) as u64;
            MappedBytes { map, at, bytes }.put(&mut self.out);
        }
        Some(MappedAt::Sent)
    }

    /// A piece of what the guest wrote to a mapped buffer.
    pub(crate) fn write_mapped(&mut self, write: WriteBuffer<'_>) -> Result<(), End> {
        let mut bytes = std::mem::take(&mut self.scratch);
        let copied = self.copy_payload(write.payload, &mut bytes);
        let entry = self.tables.buffers.get(write.buffer)?;
        copied?;
        let start = write.offset.saturating_add(write.at);
        let end = start.saturating_add(bytes.len() as u64);
        if end > entry.size {
            return Err(End::Violation(format!("bytes {start}..{end} of buffer {:?}", write.buffer)));
        }
        // A buffer whose creation or mapping failed has no range: its bytes go nowhere, as they would locally.
        if !bytes.is_empty()
            && entry.in_arena.is_none()
            && let Ok(mut view) = entry.buffer.get_mapped_range_mut(start..end)
        {
            view.copy_from_slice(&bytes);
        }
        self.scratch = bytes;
        Ok(())
    }

    pub(crate) fn unmap(&mut self, id: Id<kind::Buffer>) -> Result<(), End> {
        let entry = self.tables.buffers.get_mut(id)?;
        entry.buffer.unmap();
        // What was written at creation waits for a submission.
        if let Ok(device) = self.tables.devices.get_mut(entry.device) {
            device.unsubmitted = true;
        }
        if let Some(at) = entry.mapping.take().and_then(|mapping| mapping.placed) {
            self.arena.free(at);
        }
        Ok(())
    }
}
