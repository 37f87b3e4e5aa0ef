//! Owns the trainer: the network's buffers, the step that trains it, and what is read back from it.

use wgpu::{BindGroup, Buffer, BufferUsages, ComputePipeline, Device, Queue};

use super::data::{CLASSES, DataSet, PIXELS, TEST_IMAGES, TRAIN_IMAGES};
use crate::gpu::{self, Slot};
use crate::{Error, rng::Rng};

/// Images in a minibatch.
pub const BATCH: usize = 64;

const HIDDEN: usize = 128;
const WEIGHTS: usize = (PIXELS + 1) * HIDDEN + (HIDDEN + 1) * CLASSES;
const WORK: usize = 2 * BATCH * HIDDEN + BATCH * CLASSES;
const RATE: f64 = 2e-3;
const STEPS_PER_EPOCH: u32 = (TRAIN_IMAGES / BATCH) as u32;

/// How many of the test images the network reads correctly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accuracy {
    /// Images read correctly.
    pub correct: usize,
    /// Images looked at.
    pub total: usize,
}

impl Accuracy {
    /// From 0 to 1.
    pub fn fraction(self) -> f64 {
        self.correct as f64 / self.total as f64
    }
}

/// What the host sends for one step; laid out as `Step` in the shader.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Step {
    rate: f32,
    _pad: [u32; 3],
    rows: [u32; BATCH],
}

/// Trains a 64-128-10 network with Adam, entirely on the device.
pub struct Trainer {
    device: Device,
    queue: Queue,
    group: BindGroup,
    training: Vec<(ComputePipeline, u32)>,
    classify: ComputePipeline,
    step: Buffer,
    losses: Buffer,
    predictions: Buffer,
    labels: Vec<u32>,
    order: Vec<u32>,
    rng: Rng,
    steps: u32,
}

impl Trainer {
    /// Uploads the data set and fresh weights; the same `seed` gives the same training run.
    pub fn new(device: &Device, queue: &Queue, seed: u64) -> Result<Self, Error> {
        let have = device.limits().max_storage_buffers_per_shader_stage;
        gpu::require("max_storage_buffers_per_shader_stage", u64::from(have), 7)?;
        let data = DataSet::load()?;
        let mut rng = Rng::new(seed);
        let filled =
            |label: &str, bytes: &[u8]| gpu::filled(device, queue, label, BufferUsages::STORAGE, bytes);
        let step = gpu::filled(device, queue, "step", BufferUsages::UNIFORM, &[Step::idle()]);
        let images = filled("images", bytemuck::cast_slice(&data.pixels));
        let labels = filled("labels", bytemuck::cast_slice(&data.labels));
        let weights = filled("weights", bytemuck::cast_slice(&initial_weights(&mut rng)));
        let moments = gpu::storage(device, "moments", WEIGHTS as u64 * 8);
        let work = gpu::storage(device, "work", WORK as u64 * 4);
        let losses = gpu::storage(device, "losses", BATCH as u64 * 4);
        let predictions = gpu::storage(device, "predictions", data.labels.len() as u64 * 4);

        let (layout, pipeline_layout) = gpu::buffer_layout(device, "digits", &slots());
        let group = gpu::bind(
            device,
            "digits",
            &layout,
            &[&step, &images, &labels, &weights, &moments, &work, &losses, &predictions]
                .map(|buffer| buffer.as_entire_binding()),
        );
        let module = gpu::shader(device, "digits", include_str!("../shaders/digits.wgsl"));
        let pipeline = |entry| gpu::compute_pipeline(device, &module, &pipeline_layout, entry);
        Ok(Self {
            device: device.clone(),
            queue: queue.clone(),
            group,
            training: training_kernels()
                .map(|(entry, invocations)| (pipeline(entry), invocations.div_ceil(64) as u32))
                .into(),
            classify: pipeline("classify"),
            step,
            losses,
            predictions,
            labels: data.labels,
            order: (0..TRAIN_IMAGES as u32).collect(),
            rng,
            steps: 0,
        })
    }

    /// Trains on one minibatch: one upload of 272 bytes, one submission, and nothing read back.
    pub fn step(&mut self) {
        let position = self.steps % STEPS_PER_EPOCH;
        if position == 0 {
            self.rng.shuffle(&mut self.order);
        }
        let first = position as usize * BATCH;
        self.steps += 1;
        let step = Step {
            rate: corrected_rate(self.steps),
            _pad: [0; 3],
            rows: std::array::from_fn(|i| self.order[first + i]),
        };
        self.queue.write_buffer(&self.step, 0, bytemuck::bytes_of(&step));
        self.submit(self.training.iter().map(|(kernel, size)| (kernel, *size)));
    }

    /// Steps taken so far.
    pub fn steps(&self) -> u32 {
        self.steps
    }

    /// Steps that make up one pass over the training images.
    pub fn steps_per_epoch(&self) -> u32 {
        STEPS_PER_EPOCH
    }

    /// The mean loss over the last minibatch. Waits for the device.
    pub fn loss(&self) -> Result<f32, Error> {
        let bytes = BATCH as u64 * 4;
        let losses: Vec<f32> = gpu::read_buffer(&self.device, &self.queue, &self.losses, bytes)?;
        Ok(losses.iter().sum::<f32>() / BATCH as f32)
    }

    /// How well the network does on images it was not trained on. Waits for the device.
    pub fn test_accuracy(&self) -> Result<Accuracy, Error> {
        let groups = self.labels.len().div_ceil(64) as u32;
        self.submit([(&self.classify, groups)]);
        let bytes = self.labels.len() as u64 * 4;
        let predictions: Vec<u32> = gpu::read_buffer(&self.device, &self.queue, &self.predictions, bytes)?;
        let test = predictions.iter().zip(&self.labels).skip(TRAIN_IMAGES);
        Ok(Accuracy { correct: test.filter(|(guess, label)| guess == label).count(), total: TEST_IMAGES })
    }

    fn submit<'a>(&self, kernels: impl IntoIterator<Item = (&'a ComputePipeline, u32)>) {
        let mut encoder = self.device.create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        pass.set_bind_group(0, &self.group, &[]);
        for (kernel, groups) in kernels {
            pass.set_pipeline(kernel);
            pass.dispatch_workgroups(groups, 1, 1);
        }
        drop(pass);
        self.queue.submit([encoder.finish()]);
    }
}

impl Step {
    fn idle() -> Self {
        bytemuck::Zeroable::zeroed()
    }
}

/// The kernels of one step in order, each with the invocations it needs.
fn training_kernels() -> [(&'static str, usize); 5] {
    [
        ("forward_hidden", BATCH * HIDDEN),
        ("forward_output", BATCH),
        ("backward_hidden", BATCH * HIDDEN),
        ("update_first", (PIXELS + 1) * HIDDEN),
        ("update_second", (HIDDEN + 1) * CLASSES),
    ]
}

fn slots() -> [Slot; 8] {
    let mut slots = [Slot::ReadWrite; 8];
    slots[0] = Slot::Uniform;
    slots[1] = Slot::ReadOnly;
    slots[2] = Slot::ReadOnly;
    slots
}

/// He's initialisation for both layers, and biases of zero.
fn initial_weights(rng: &mut Rng) -> Vec<f32> {
    let first = rng.spreads(PIXELS * HIDDEN, (6.0 / PIXELS as f32).sqrt());
    let second = rng.spreads(HIDDEN * CLASSES, (6.0 / HIDDEN as f32).sqrt());
    [first, vec![0.0; HIDDEN], second, vec![0.0; CLASSES]].concat()
}

/// Adam's learning rate with both bias corrections folded in.
fn corrected_rate(step: u32) -> f32 {
    let step = step as i32;
    (RATE * (1.0 - 0.999_f64.powi(step)).sqrt() / (1.0 - 0.9_f64.powi(step))) as f32
}
