//! Owns the transformer encoder: its sizes, its weights and its forward pass (BERT's, norm after).

mod forward;
pub mod reference;
mod weights;

pub use forward::Encoder;
pub use weights::{LayerWeights, Weights};

use crate::{Error, gpu};

/// Sizes of an encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Positions in the input sequence.
    pub sequence: u32,
    /// Numbers per position.
    pub width: u32,
    /// Attention heads; `width` must divide by it.
    pub heads: u32,
    /// Layers.
    pub layers: u32,
    /// Numbers per position inside the feed-forward part.
    pub inner: u32,
    /// Seed of the weights and the first input.
    pub seed: u64,
}

impl Config {
    /// For an adapter that is a CPU.
    pub fn small() -> Self {
        Self { sequence: 64, width: 128, heads: 4, layers: 2, inner: 512, seed: 1 }
    }

    /// The shape of BERT-base at its full length.
    pub fn full() -> Self {
        Self { sequence: 512, width: 768, heads: 12, layers: 12, inner: 3072, seed: 1 }
    }

    /// Floating-point operations of one forward pass, products only (a multiply and an add count two).
    pub fn flops(&self) -> u64 {
        let [s, w, i] = [self.sequence, self.width, self.inner].map(u64::from);
        u64::from(self.layers) * 2 * (4 * s * w * w + 2 * s * s * w + 2 * s * w * i)
    }

    /// Numbers per position in one head.
    pub(crate) fn head(&self) -> u32 {
        self.width / self.heads
    }

    /// Fails when the sizes make no network.
    pub fn check(&self) -> Result<(), Error> {
        let range = |what, got: u32, top: u32, rule| gpu::check((1..=top).contains(&got), what, got, rule);
        range("sequence", self.sequence, 4096, "from 1 to 4096")?;
        range("width", self.width, 8192, "from 1 to 8192")?;
        range("inner", self.inner, 32_768, "from 1 to 32768")?;
        range("layers", self.layers, 256, "from 1 to 256")?;
        range("heads", self.heads, 256, "from 1 to 256")?;
        let even = self.width.is_multiple_of(self.heads);
        gpu::check(even, "width", self.width, "a multiple of the heads")
    }
}
