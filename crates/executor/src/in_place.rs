//! Payload that the GPU takes straight out of shared memory, and read-back that it puts straight there.
//!
//! A write whose payload lies in the arena becomes a copy command from the arena to the buffer, in an
//! encoder of the session's own that goes to the queue ahead of the guest's next submission: where `wgpu`
//! would do the same from staging memory of its own. The guest has its place in the arena back when the
//! GPU is done with it. A buffer for reading back lies in the arena itself.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::{Rc, Weak};
use std::time::Instant;

use pontoon_wire::{Id, handle as kind};

use crate::End;
use crate::import::{Importer, Purpose};
use crate::session::{BufferEntry, DeviceEntry, InFlight, Session};

/// Smallest buffer for reading back that lies in the arena, in bytes: smaller ones are cheaper to copy, and
/// drivers allow some thousand imports only.
const MIN_READ_BACK: u64 = 64 * 1024;

/// Most copies that wait for a submission, and most places in the arena whose readers are under way: a guest
/// names many small payloads as cheaply as few large ones.
const MAX_COPIES: usize = 4096;
const MAX_PLACES: usize = 65_536;

/// One copy out of the arena.
#[derive(Debug)]
struct Copy {
    buffer: Id<kind::Buffer>,
    from: u64,
    to: u64,
    len: u64,
}

/// What one device takes in place.
#[derive(Default)]
pub(crate) struct InPlace {
    /// Looked for once, at the first payload.
    importer: Option<Option<Importer>>,
    /// The arena's uploads as a buffer of this device.
    arena: Option<Option<wgpu::Buffer>>,
    encoder: Option<wgpu::CommandEncoder>,
    /// The copy that the next piece may continue.
    last: Option<Copy>,
    /// Held by everything that the copies in `encoder` read.
    batch: Option<Rc<()>>,
    /// Buffers that `encoder` writes to.
    targets: Vec<Id<kind::Buffer>>,
}

impl std::fmt::Debug for InPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InPlace").field("targets", &self.targets).finish_non_exhaustive()
    }
}

impl InPlace {
    fn importer(&mut self, device: &wgpu::Device) -> Option<&Importer> {
        self.importer.get_or_insert_with(|| Importer::new(device)).as_ref()
    }
}

/// Places in the arena that are being read, oldest first: the guest has them back in order.
#[derive(Debug, Default)]
pub(crate) struct Releases {
    waiting: VecDeque<Place>,
    /// Bytes whose copies no queue has yet, and how many payloads they are.
    unsubmitted: u64,
    copies: usize,
    /// Up to where the guest has its places back.
    released: u64,
}

/// A payload that is read, or will be when `batch` is gone.
#[derive(Debug)]
struct Place {
    end: u64,
    batch: Weak<()>,
}

impl Releases {
    fn push(&mut self, end: u64, batch: Weak<()>) {
        self.waiting.push_back(Place { end, batch });
    }

    /// How much of the arena the guest does not have back, places that it skipped included.
    fn held(&self) -> u64 {
        self.waiting.back().map_or(0, |newest| newest.end.saturating_sub(self.released))
    }

    /// Up to where everything has been read, where that is news.
    fn advance(&mut self) -> Option<u64> {
        let mut news = None;
        while let Some(place) = self.waiting.pop_front_if(|place| place.batch.strong_count() == 0) {
            self.released = place.end;
            news = Some(place.end);
        }
        news
    }
}

/// The arena pages of one buffer for reading back: they are free once nothing on the host can write there.
#[derive(Debug)]
pub(crate) struct Pages {
    device: Id<kind::Device>,
    at: u64,
    freed: Freed,
}

/// Pages of buffers that are gone, and the device that may still write there.
pub(crate) type Freed = Rc<RefCell<Vec<(Id<kind::Device>, u64)>>>;

impl Drop for Pages {
    fn drop(&mut self) {
        self.freed.borrow_mut().push((self.device, self.at));
    }
}

impl Session {
    /// A buffer for reading back, in the arena; and where.
    pub(crate) fn create_in_arena(
        &mut self,
        device: Id<kind::Device>,
        desc: &wgpu::BufferDescriptor<'_>,
    ) -> Option<(wgpu::Buffer, u64, Pages)> {
        self.tidy_arena();
        let read_back = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        let entry = self.tables.devices.get_mut(device).ok()?;
        let fits = (MIN_READ_BACK..=entry.device.limits().max_buffer_size).contains(&desc.size);
        if desc.usage != read_back || desc.mapped_at_creation || !fits || !desc.size.is_multiple_of(4) {
            return None;
        }
        let importer = entry.in_place.importer(&entry.device)?;
        let (at, memory) = self.arena.reserve(desc.size)?;
        let pages = Pages { device, at, freed: self.freed_pages.clone() };
        let buffer = importer.import(&entry.device, memory, Purpose::ReadBack, desc)?;
        Some((buffer, at, pages))
    }

    /// Encodes one piece of a write as a copy out of the arena; whether that was possible.
    pub(crate) fn write_in_place(
        &mut self,
        id: Id<kind::Buffer>,
        offset: u64,
        at: u64,
        len: u32,
    ) -> Result<bool, End> {
        let entry = self.tables.buffers.get(id)?;
        let from = self.arena.offset(at, len).map_err(End::Violation)?;
        let len = u64::from(len);
        let words = [from, offset, len].iter().all(|n| n.is_multiple_of(wgpu::COPY_BUFFER_ALIGNMENT));
        if !entry.takes_copies || !words || len == 0 {
            return Ok(false);
        }
        let device = self.tables.devices.get_mut(entry.device)?;
        if !open_arena(device, &*self.arena) {
            return Ok(false);
        }
        let in_place = &mut device.in_place;
        let batch = in_place.batch.get_or_insert_default();
        self.releases.push(at.saturating_add(len), Rc::downgrade(batch));
        self.releases.unsubmitted += len;
        self.releases.copies += 1;
        if !in_place.targets.contains(&id) {
            in_place.targets.push(id);
        }
        if let Some(last) = &mut in_place.last
            && (last.buffer, last.from + last.len, last.to + last.len) == (id, from, offset)
        {
            last.len += len;
        } else {
            let finished = in_place.last.replace(Copy { buffer: id, from, to: offset, len });
            if let Some(copy) = finished {
                encode(device, &self.tables.buffers.get(copy.buffer)?.buffer, &copy);
            }
        }
        Ok(true)
    }

    /// The guest has a place in the arena back, as soon as everything before it was read.
    pub(crate) fn release(&mut self, end: u64) {
        self.releases.push(end, Weak::new());
        self.release_read();
    }

    fn release_read(&mut self) {
        if let Some(end) = self.releases.advance() {
            self.arena.release(end);
        }
    }

    /// Gives back what the GPU is done with: places of uploads, pages of buffers that are gone.
    pub(crate) fn tidy_arena(&mut self) {
        self.release_read();
        let freed = std::mem::take(&mut *self.freed_pages.borrow_mut());
        for (device, at) in freed {
            let work = self.tables.devices.get_mut(device).ok().and_then(|entry| entry.in_flight.back_mut());
            match work {
                // It may still write there.
                Some(work) => work.pages.push(at),
                None => self.arena.unreserve(at),
            }
        }
    }

    /// The copies of `device` that no queue has yet, as a command buffer, and what they read.
    pub(crate) fn take_copies(
        &mut self,
        device: Id<kind::Device>,
    ) -> Result<Option<(wgpu::CommandBuffer, Rc<()>)>, End> {
        let entry = self.tables.devices.get_mut(device)?;
        if let Some(copy) = entry.in_place.last.take() {
            encode(entry, &self.tables.buffers.get(copy.buffer)?.buffer, &copy);
        }
        entry.in_place.targets.clear();
        let copies = entry.in_place.encoder.take().map(wgpu::CommandEncoder::finish);
        Ok(copies.zip(entry.in_place.batch.take()))
    }

    /// Has the queue do the copies now, if there are any.
    pub(crate) fn submit_copies(&mut self, device: Id<kind::Device>) -> Result<(), End> {
        let entry = self.tables.devices.get(device)?;
        if entry.in_place.batch.is_some() { self.submit_writes(device) } else { Ok(()) }
    }

    /// Sees that the GPU no longer reads the arena for `device`.
    pub(crate) fn finish_copies(&mut self, device: Id<kind::Device>) -> Result<(), End> {
        let entry = self.tables.devices.get(device)?;
        let reads = entry.in_place.batch.is_some() || entry.in_flight.iter().any(|work| work.reads.is_some());
        if reads { self.drain(device) } else { Ok(()) }
    }

    /// Before something happens to a buffer that its copies must precede.
    pub(crate) fn settle_buffer(&mut self, id: Id<kind::Buffer>) -> Result<(), End> {
        let device = self.tables.buffers.get(id)?.device;
        match self.tables.devices.get(device) {
            Ok(entry) if entry.in_place.targets.contains(&id) => self.submit_copies(device),
            _ => Ok(()),
        }
    }

    /// Submits copies before they hold so much of the arena that the guest could wait for its place for ever.
    pub(crate) fn bound_copies(&mut self) -> Result<(), End> {
        let size = self.arena.uploads().map_or(0, |memory| memory.len() as u64);
        let few = self.releases.unsubmitted < size / 4 && self.releases.copies < MAX_COPIES;
        let crowded = self.releases.waiting.len() >= MAX_PLACES;
        if few && !crowded && self.releases.held() < size / 2 {
            return Ok(());
        }
        (self.releases.unsubmitted, self.releases.copies) = (0, 0);
        let devices: Vec<_> = self.tables.devices.iter_mut().map(|(id, _)| id).collect();
        for device in devices {
            self.submit_copies(device)?;
            if crowded {
                self.finish_copies(device)?;
            }
        }
        Ok(())
    }

    /// Whether the guest may be waiting for room in the arena.
    pub(crate) fn arena_is_short(&self) -> bool {
        self.arena.uploads().is_some_and(|memory| self.releases.held() >= memory.len() as u64 / 2)
    }
}

impl BufferEntry {
    /// Whether writes to a new buffer may become copies: not where `wgpu` maps it, which it then tells from
    /// a write, and not where it could not be created.
    pub(crate) fn may_take_copies(desc: &wgpu::BufferDescriptor<'_>, created: bool) -> bool {
        let mappable = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::MAP_WRITE;
        created && !desc.mapped_at_creation && !desc.usage.intersects(mappable)
    }
}

/// Makes the arena a buffer of this device, once; whether it is one.
fn open_arena(entry: &mut DeviceEntry, arena: &dyn crate::Arena) -> bool {
    if entry.in_place.arena.is_none() {
        let imported = arena.uploads().and_then(|memory| {
            let desc = wgpu::BufferDescriptor {
                label: Some("uploads"),
                size: memory.len() as u64,
                usage: wgpu::BufferUsages::COPY_SRC,
                mapped_at_creation: false,
            };
            entry.in_place.importer(&entry.device)?.import(&entry.device, memory, Purpose::Upload, &desc)
        });
        log::debug!("uploads are {}", if imported.is_some() { "read in place" } else { "copied" });
        entry.in_place.arena = Some(imported);
    }
    matches!(entry.in_place.arena, Some(Some(_)))
}

fn encode(entry: &mut DeviceEntry, target: &wgpu::Buffer, copy: &Copy) {
    let DeviceEntry { device, in_place, .. } = entry;
    let Some(Some(arena)) = &in_place.arena else { return };
    let encoder = in_place.encoder.get_or_insert_with(|| device.create_command_encoder(&Default::default()));
    encoder.copy_buffer_to_buffer(arena, copy.from, target, copy.to, copy.len);
}

impl InFlight {
    /// Work that the queue was just given, and what of the arena it reads.
    pub(crate) fn new(index: u64, token: wgpu::SubmissionIndex, reads: Option<Rc<()>>) -> Self {
        Self { index, token, since: Instant::now(), reads, pages: Vec::new() }
    }
}
