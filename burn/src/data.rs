//! Owns the images as tensors, and the order they are shown in.

use burn::prelude::*;
use pontoon_workloads::digits::DataSet;

pub use pontoon_workloads::digits::{TEST_IMAGES, TRAIN_IMAGES};

/// Pixels along each side of an image.
const SIDE: usize = 8;

/// Images of shape `[n, 1, 8, 8]` and the digits they show.
#[derive(Clone)]
pub struct Images {
    /// Values from 0 to 1.
    pub pixels: Tensor<4>,
    /// Values from 0 to 9.
    pub labels: Tensor<1, Int>,
}

impl Images {
    /// The images to train on, and those to test with, on `device`.
    pub fn load(device: &Device) -> Result<[Self; 2], pontoon_workloads::Error> {
        let DataSet { pixels, labels } = DataSet::load()?;
        let count = labels.len();
        let labels: Vec<i32> = labels.into_iter().map(|digit| digit as i32).collect();
        let pixels = Tensor::from_data(TensorData::new(pixels, [count, 1, SIDE, SIDE]), device);
        let labels = Tensor::from_data(TensorData::new(labels, [count]), device);
        let all = Self { pixels, labels };
        Ok([all.range(0, TRAIN_IMAGES), all.range(TRAIN_IMAGES, count)])
    }

    fn range(&self, from: usize, to: usize) -> Self {
        Self {
            pixels: self.pixels.clone().slice(s![from..to]),
            labels: self.labels.clone().slice(s![from..to]),
        }
    }

    /// The images at `indices`.
    pub fn pick(&self, indices: &[i32], device: &Device) -> Self {
        let indices = Tensor::<1, Int>::from_data(TensorData::from(indices), device);
        Self {
            pixels: self.pixels.clone().select(0, indices.clone()),
            labels: self.labels.clone().select(0, indices),
        }
    }
}

/// Random orders of the training images, the same ones for the same seed.
pub struct Shuffle(u64);

impl Shuffle {
    /// Orders that follow from `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next order.
    pub fn next(&mut self) -> Vec<i32> {
        let mut order: Vec<i32> = (0..TRAIN_IMAGES as i32).collect();
        for last in (1..order.len()).rev() {
            order.swap(last, self.below(last + 1));
        }
        order
    }

    /// SplitMix64, reduced by multiplication.
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        ((u128::from(z) * end as u128) >> 64) as usize
    }
}
