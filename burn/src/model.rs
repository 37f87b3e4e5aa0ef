//! Owns the network: plain Burn, with nothing in it about where the GPU is.

use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::pool::{MaxPool2d, MaxPool2dConfig};
use burn::nn::{Linear, LinearConfig, PaddingConfig2d, Relu};
use burn::prelude::*;

/// Two convolutions, a pooling, and two linear layers: `[n, 1, 8, 8]` to `[n, 10]`.
#[derive(Module, Debug)]
pub struct Reader {
    first: Conv2d,
    second: Conv2d,
    pool: MaxPool2d,
    hidden: Linear,
    output: Linear,
    relu: Relu,
}

impl Reader {
    /// A network with random weights.
    pub fn new(device: &Device) -> Self {
        let conv = |from, to| {
            Conv2dConfig::new([from, to], [3, 3])
                .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
                .init(device)
        };
        Self {
            first: conv(1, 16),
            second: conv(16, 32),
            pool: MaxPool2dConfig::new([2, 2]).with_strides([2, 2]).init(),
            hidden: LinearConfig::new(32 * 4 * 4, 64).init(device),
            output: LinearConfig::new(64, 10).init(device),
            relu: Relu::new(),
        }
    }

    /// A score for each digit.
    pub fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let x = self.relu.forward(self.first.forward(images));
        let x = self.relu.forward(self.second.forward(x));
        let x = self.pool.forward(x).flatten(1, 3);
        let x = self.relu.forward(self.hidden.forward(x));
        self.output.forward(x)
    }
}
