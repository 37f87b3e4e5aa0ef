//! Owns the handwritten-digits training run: its data set, its network and its trainer.

mod data;
mod trainer;

pub use data::{CLASSES, DataSet, PIXELS, TEST_IMAGES, TRAIN_IMAGES};
pub use trainer::{Accuracy, BATCH, Trainer};
