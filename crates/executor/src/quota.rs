//! What a session may use, and what it uses.

use std::cell::Cell;
use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;

use crate::End;
use crate::in_place::Pages;

/// A session's limits. The configuration sets them; `docs/configuration.md` explains each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of GPU memory in buffers and textures.
    pub memory_bytes: u64,
    /// Objects of all kinds together.
    pub objects: u64,
    /// Bytes of upload that wait for a submission.
    pub bytes_in_flight: u64,
    /// Seconds that one submission may take.
    pub submission_seconds: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { memory_bytes: 4 << 30, objects: 200_000, bytes_in_flight: 256 << 20, submission_seconds: 30 }
    }
}

/// What a session uses and has used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes in buffers and textures now.
    pub memory_bytes: u64,
    /// Objects now.
    pub objects: u64,
    /// Commands so far.
    pub commands: u64,
    /// Questions that the guest waited for, so far.
    pub round_trips: u64,
    /// Submissions so far.
    pub submissions: u64,
    /// Nanoseconds during which the queue had work.
    pub gpu_nanoseconds: u64,
    /// Commands that were rejected.
    pub errors: u64,
    /// Bytes of payload that the guest sent, in frames or shared memory.
    pub uploaded_bytes: u64,
    /// Bytes of payload that it named instead.
    pub named_bytes: u64,
}

impl Usage {
    /// Counts one more object.
    ///
    /// # Errors
    /// [`End::Limit`] at the limit: a guest that leaks objects is ended before it costs the host more.
    pub fn add_object(&mut self, limits: &Limits) -> Result<(), End> {
        if self.objects == limits.objects {
            return Err(End::Limit(format!(
                "the session has {} objects, the limit (limits.objects): drop what is no longer needed or raise the limit",
                limits.objects
            )));
        }
        self.objects += 1;
        Ok(())
    }
}

/// Bytes that are counted for a buffer or texture, for as long as anything on the host keeps it alive: its
/// name, a view, a bind group, a bundle. (`wgpu` keeps the memory as long.)
pub(crate) struct Charge {
    bytes: Cell<u64>,
    total: Rc<Cell<u64>>,
    /// Pages of the arena that the buffer lies in.
    pages: Cell<Option<Pages>>,
}

impl Charge {
    /// Counts `bytes`, if they fit into `limit`.
    pub fn new(bytes: u64, total: &Rc<Cell<u64>>, limit: u64) -> Option<Rc<Self>> {
        let sum = total.get().checked_add(bytes).filter(|sum| *sum <= limit)?;
        total.set(sum);
        Some(Rc::new(Self { bytes: Cell::new(bytes), total: total.clone(), pages: Cell::default() }))
    }

    /// A charge for what has no memory.
    pub fn nothing(total: &Rc<Cell<u64>>) -> Rc<Self> {
        Rc::new(Self { bytes: Cell::new(0), total: total.clone(), pages: Cell::default() })
    }

    /// Keeps the buffer's pages in the arena, too.
    pub fn keep(&self, pages: Pages) {
        self.pages.set(Some(pages));
    }

    /// The memory was destroyed: nothing can keep it.
    pub fn release(&self) {
        self.pages.take();
        self.total.set(self.total.get() - self.bytes.take());
    }
}

impl std::fmt::Debug for Charge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.bytes.get())
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.release();
    }
}

/// The charges that an object keeps up.
pub(crate) type Charges = Vec<Rc<Charge>>;

/// One recording's place among the others, and its size.
#[derive(Debug)]
pub(crate) struct Ticket {
    number: u64,
    bytes: u64,
}

/// Most bytes of recordings that are neither submitted nor dropped.
const MAX_RECORDED: u64 = 64 << 20;

/// Recordings that are open or wait for a submission. What they use lives as long as they do, also where
/// the guest has dropped it.
#[derive(Debug, Default)]
pub(crate) struct Recordings {
    next: u64,
    live: BTreeSet<u64>,
    bytes: u64,
    /// Charges of dropped objects, with the number of the first recording that cannot use them.
    outliving: VecDeque<(u64, Rc<Charge>)>,
}

impl Recordings {
    /// A recording begins.
    pub fn begin(&mut self) -> Ticket {
        self.next += 1;
        self.live.insert(self.next);
        Ticket { number: self.next, bytes: 0 }
    }

    /// A recording has grown.
    ///
    /// # Errors
    /// [`End::Limit`] where all of them together are too large.
    pub fn grow(&mut self, ticket: &mut Ticket, bytes: u64) -> Result<(), End> {
        ticket.bytes += bytes;
        self.bytes += bytes;
        match self.bytes > MAX_RECORDED {
            true => Err(End::Limit(format!(
                "recordings of {} bytes wait for their submission, the maximum is {MAX_RECORDED}: submit or drop some",
                self.bytes
            ))),
            false => Ok(()),
        }
    }

    /// A recording was submitted or dropped.
    pub fn end(&mut self, ticket: &Ticket) {
        self.live.remove(&ticket.number);
        self.bytes -= ticket.bytes;
        self.settle();
    }

    /// Objects were dropped that recordings may use.
    pub fn outlive(&mut self, charges: impl IntoIterator<Item = Rc<Charge>>) {
        let first = self.next + 1;
        self.outliving.extend(charges.into_iter().map(|charge| (first, charge)));
        self.settle();
    }

    fn settle(&mut self) {
        let oldest = self.live.first().copied().unwrap_or(u64::MAX);
        while self.outliving.front().is_some_and(|(first, _)| *first <= oldest) {
            self.outliving.pop_front();
        }
    }
}

/// Bytes that a texture takes at least: all mip levels, layers and samples.
pub fn texture_bytes<L, V>(desc: &wgpu::wgt::TextureDescriptor<L, V>) -> u64 {
    let (block_width, block_height) = desc.format.block_dimensions();
    // Formats without a copy size (depth24plus, planar video) take at most eight bytes a texel.
    let block = u64::from(desc.format.block_copy_size(None).unwrap_or(8));
    let is_3d = desc.dimension == wgpu::TextureDimension::D3;
    (0..desc.mip_level_count.min(32)).fold(0u64, |sum, level| {
        let along = |size: u32, block: u32| u64::from((size >> level).max(1).div_ceil(block));
        let depth = if is_3d {
            along(desc.size.depth_or_array_layers, 1)
        } else {
            desc.size.depth_or_array_layers.into()
        };
        [
            along(desc.size.width, block_width),
            along(desc.size.height, block_height),
            depth,
            desc.sample_count.into(),
        ]
        .into_iter()
        .fold(block, u64::saturating_mul)
        .saturating_add(sum)
    })
}
