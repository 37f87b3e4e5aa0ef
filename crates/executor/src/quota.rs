//! What a session may use, and what it uses.

use crate::End;

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

    /// Whether `bytes` more fit; if so, they are counted.
    pub fn add_memory(&mut self, bytes: u64, limits: &Limits) -> bool {
        match self.memory_bytes.checked_add(bytes) {
            Some(total) if total <= limits.memory_bytes => {
                self.memory_bytes = total;
                true
            }
            _ => false,
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
        let depth = if is_3d { along(desc.size.depth_or_array_layers, 1) } else { desc.size.depth_or_array_layers.into() };
        [along(desc.size.width, block_width), along(desc.size.height, block_height), depth, desc.sample_count.into()]
            .into_iter()
            .fold(block, u64::saturating_mul)
            .saturating_add(sum)
    })
}
