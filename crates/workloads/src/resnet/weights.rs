//! Owns the weights of the network: random, from the seed, with batch norm folded into them.

use super::{Config, shape};
use crate::{nn::Conv, rng::Rng};

/// A convolution (or the last layer) with its batch norm folded in.
pub(super) struct Folded {
    /// One row per value that goes in (kernel row, kernel column, channel), one column per output.
    pub matrix: Vec<f32>,
    pub bias: Vec<f32>,
}

/// Makes the weights in the order of [`shape::convs`]; the last layer comes last.
pub(super) struct Weights {
    config: Config,
    rng: Rng,
}

impl Weights {
    /// The weights that belong to `config.seed`, and the input that goes with them.
    pub(super) fn new(config: &Config) -> (Self, Vec<f32>) {
        let mut rng = Rng::new(config.seed);
        let pixels = config.batch * config.image * config.image;
        let input = rng.spreads(pixels as usize * 3, 1.0);
        let config = *config;
        (Self { config, rng }, input)
    }

    /// A convolution followed by a batch norm whose gains are around `gain`.
    pub(super) fn conv(&mut self, conv: Conv, gain: f32) -> Folded {
        let mut matrix = self.matrix(conv.depth(), conv.outputs);
        let mut bias = Vec::with_capacity(conv.outputs as usize);
        for column in 0..conv.outputs as usize {
            let gamma = gain * (1.0 + self.rng.spread(0.2));
            let beta = self.rng.spread(0.1);
            let mean = self.rng.spread(0.1);
            let variance = 1.0 + self.rng.spread(0.2);
            let scale = gamma / (variance + 1e-5).sqrt();
            for row in matrix.chunks_exact_mut(conv.outputs as usize) {
                row[column] *= scale;
            }
            bias.push(beta - mean * scale);
        }
        Folded { matrix, bias }
    }

    /// The fully connected layer.
    pub(super) fn last(&mut self) -> Folded {
        let (features, classes) = (shape::features(&self.config), self.config.classes);
        Folded { matrix: self.matrix(features, classes), bias: self.rng.spreads(classes as usize, 0.1) }
    }

    /// Keeps the size of what passes through, ReLU included.
    fn matrix(&mut self, depth: u32, outputs: u32) -> Vec<f32> {
        let scale = (6.0 / depth as f32).sqrt();
        self.rng.spreads((depth * outputs) as usize, scale)
    }
}

/// The gain of a block's last convolution: small, so that 16 residual sums do not grow out of hand.
pub(super) const LAST_GAIN: f32 = 0.4;
