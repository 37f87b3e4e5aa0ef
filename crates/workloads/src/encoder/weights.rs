//! Owns the weights of the encoder: random, from the seed, in the scale of a trained network.

use super::Config;
use crate::rng::Rng;

/// The weights of one layer; matrices have one row per input.
#[derive(Clone, Debug)]
pub struct LayerWeights {
    /// `width` x 3 `width`: queries, keys and values side by side.
    pub qkv: Vec<f32>,
    /// Added to queries, keys and values.
    pub qkv_bias: Vec<f32>,
    /// `width` x `width`, after the heads.
    pub project: Vec<f32>,
    /// Added after the heads.
    pub project_bias: Vec<f32>,
    /// Gain and shift of the norm after attention.
    pub norm_attention: [Vec<f32>; 2],
    /// `width` x `inner`.
    pub expand: Vec<f32>,
    /// Added before GELU.
    pub expand_bias: Vec<f32>,
    /// `inner` x `width`.
    pub contract: Vec<f32>,
    /// Added after GELU.
    pub contract_bias: Vec<f32>,
    /// Gain and shift of the norm after the feed-forward part.
    pub norm_inner: [Vec<f32>; 2],
}

/// A sequence of layers' weights. They are made as they are asked for: BERT-base has 340 MB of them.
pub struct Weights {
    config: Config,
    rng: Rng,
    input: Vec<f32>,
}

impl Weights {
    /// The weights that belong to `config.seed`.
    pub fn new(config: &Config) -> Self {
        let mut rng = Rng::new(config.seed);
        let input = rng.spreads((config.sequence * config.width) as usize, 1.0);
        Self { config: *config, rng, input }
    }

    /// The input that goes with them: `sequence` x `width`.
    pub fn input(&self) -> &[f32] {
        &self.input
    }

    /// The weights of the next layer.
    pub fn next_layer(&mut self) -> LayerWeights {
        let width = self.config.width as usize;
        let inner = self.config.inner as usize;
        LayerWeights {
            qkv: self.matrix(width, 3 * width),
            qkv_bias: self.rng.spreads(3 * width, 0.1),
            project: self.matrix(width, width),
            project_bias: self.rng.spreads(width, 0.1),
            norm_attention: self.norm(width),
            expand: self.matrix(width, inner),
            expand_bias: self.rng.spreads(inner, 0.1),
            contract: self.matrix(inner, width),
            contract_bias: self.rng.spreads(width, 0.1),
            norm_inner: self.norm(width),
        }
    }

    fn matrix(&mut self, rows: usize, columns: usize) -> Vec<f32> {
        let scale = (3.0 / rows as f32).sqrt();
        self.rng.spreads(rows * columns, scale)
    }

    fn norm(&mut self, width: usize) -> [Vec<f32>; 2] {
        let gain = (0..width).map(|_| 1.0 + self.rng.spread(0.1)).collect();
        [gain, self.rng.spreads(width, 0.1)]
    }
}
