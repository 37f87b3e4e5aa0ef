//! Owns the training: Adam over batches of the images, and the test at the end.

use burn::nn::loss::{CrossEntropyLoss, CrossEntropyLossConfig};
use burn::optim::{AdamConfig, GradientsParams, ModuleOptimizer};
use burn::prelude::*;
use burn::tensor::TensorReadError;

use crate::data::{Images, Shuffle, TEST_IMAGES};
use crate::model::Reader;

const BATCH: usize = 48;
const LEARNING_RATE: f64 = 2e-3;

/// A network on its way.
pub struct Trainer {
    device: Device,
    model: Reader,
    optimizer: ModuleOptimizer,
    loss: CrossEntropyLoss,
    train: Images,
    test: Images,
    shuffle: Shuffle,
    steps: usize,
}

impl Trainer {
    /// A new network on `device`.
    pub fn new(device: Device, seed: u64) -> Result<Self, pontoon_workloads::Error> {
        let device = device.autodiff();
        device.seed(seed);
        // Validation runs without gradients, on the same device.
        let [train, _] = Images::load(&device)?;
        let [_, test] = Images::load(&device.clone().inner())?;
        Ok(Self {
            model: Reader::new(&device),
            optimizer: AdamConfig::new().init(),
            loss: CrossEntropyLossConfig::new().init(&device),
            train,
            test,
            shuffle: Shuffle::new(seed),
            steps: 0,
            device,
        })
    }

    /// One pass over the training images; gives back the loss of its last batch. Nothing but that
    /// number is read back, so nothing before it waits for the GPU.
    pub fn epoch(&mut self) -> Result<f32, TensorReadError> {
        let order = self.shuffle.next();
        let mut last = None;
        for indices in order.chunks_exact(BATCH) {
            last = Some(self.step(indices));
        }
        last.expect("an epoch has batches").try_into_scalar()
    }

    fn step(&mut self, indices: &[i32]) -> Tensor<1> {
        let batch = self.train.pick(indices, &self.device);
        let loss = self.loss.forward(self.model.forward(batch.pixels), batch.labels);
        let gradients = GradientsParams::from_grads(loss.backward(), &self.model);
        self.model = self.optimizer.step(LEARNING_RATE, self.model.clone(), gradients);
        self.steps += 1;
        loss.inner()
    }

    /// Steps taken so far.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// The share of the test images that the network reads correctly.
    pub fn test_accuracy(&self) -> Result<f64, TensorReadError> {
        let scores = self.model.valid().forward(self.test.pixels.clone());
        let read = scores.argmax(1).flatten::<1>(0, 1);
        let correct = read.equal(self.test.labels.clone()).int().sum();
        Ok(f64::from(correct.try_into_scalar::<i32>()?) / TEST_IMAGES as f64)
    }
}
