//! Owns the ResNet-50-shaped network: its sizes, its weights and its forward pass (version 1.5).

mod forward;
pub mod reference;
mod shape;
mod weights;

pub use forward::ResNet;

use crate::{Error, gpu};

/// Sizes of a ResNet-50.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Side of the square input pictures, in pixels.
    pub image: u32,
    /// Pictures in one forward pass.
    pub batch: u32,
    /// What the number of channels is divided by: 1 for the real network.
    pub width_divisor: u32,
    /// Classes told apart.
    pub classes: u32,
    /// Seed of the weights and the first input.
    pub seed: u64,
}

impl Config {
    /// The network as published: one picture of 224x224, 1,000 classes.
    pub fn full() -> Self {
        Self { image: 224, batch: 1, width_divisor: 1, classes: 1000, seed: 1 }
    }

    /// For an adapter that is a CPU: all the layers, but of 32x32 pixels and an eighth of the channels.
    pub fn reduced() -> Self {
        Self { image: 32, width_divisor: 8, classes: 100, ..Self::full() }
    }

    /// Floating-point operations of one forward pass, products only (a multiply and an add count two).
    pub fn flops(&self) -> u64 {
        let convs = shape::convs(self).into_iter();
        let conv = |c: crate::nn::Conv| [c.rows(), c.depth(), c.outputs].map(u64::from);
        let products = convs.map(conv).map(|[rows, depth, out]| rows * depth * out);
        let [batch, features, classes] = [self.batch, shape::features(self), self.classes].map(u64::from);
        2 * (products.sum::<u64>() + batch * features * classes)
    }

    /// Fails when the sizes make no network.
    pub fn check(&self) -> Result<(), Error> {
        let range = |what, got: u32, from, to, rule| gpu::check((from..=to).contains(&got), what, got, rule);
        range("image", self.image, 32, 1024, "from 32 to 1024")?;
        range("batch", self.batch, 1, 64, "from 1 to 64")?;
        range("classes", self.classes, 1, 100_000, "from 1 to 100000")?;
        let divides = matches!(self.width_divisor, 1 | 2 | 4 | 8 | 16);
        gpu::check(divides, "width_divisor", self.width_divisor, "1, 2, 4, 8 or 16")
    }
}
