//! Owns the network on the device: uploads its weights and plans its forward pass.

use wgpu::{Buffer, Device, Queue};

use super::weights::{Folded, LAST_GAIN, Weights};
use super::{Config, shape};
use crate::nn::{Activation, Conv, Matmul, Plan};
use crate::{Error, gpu};

/// A ResNet-50 whose weights lie on the device.
pub struct ResNet {
    config: Config,
    plan: Plan,
    input: Buffer,
    logits: Buffer,
}

/// What the blocks write into, one after the other.
struct Scratch {
    stream: [Buffer; 2],
    reduced: Buffer,
    spatial: Buffer,
    shortcut: Buffer,
}

impl ResNet {
    /// Makes the weights of `config` and uploads them (102 MB for [`Config::full`]).
    pub fn new(device: &Device, queue: &Queue, config: Config) -> Result<Self, Error> {
        config.check()?;
        let mut plan = Plan::new(device, queue, largest_buffer(&config))?;
        let (mut weights, values) = Weights::new(&config);
        let input = plan.constant("input", &values);
        let scratch = Scratch::new(&plan, &config);
        stem(&mut plan, &mut weights, &config, &scratch, &input);
        for (index, shape) in shape::blocks(&config).iter().enumerate() {
            let from = index % 2;
            let way = [&scratch.stream[from], &scratch.stream[1 - from]];
            block(&mut plan, &mut weights, shape, &scratch, way);
            // Uploads of one block at a time leave with a submission, so that they do not pile up.
            queue.submit([]);
        }
        let logits = plan.floats("logits", config.batch * config.classes);
        // Sixteen blocks: the stream ends where it began.
        head(&mut plan, &mut weights, &config, &scratch.stream[0], &logits);
        Ok(Self { config, plan, input, logits })
    }

    /// The sizes.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Dispatches in one forward pass.
    pub fn dispatches(&self) -> usize {
        self.plan.dispatches()
    }

    /// Replaces the input (`batch` x `image` x `image` x 3 numbers); it goes up with the next forward pass.
    pub fn set_input(&self, values: &[f32]) -> Result<(), Error> {
        let fits = values.len() as u64 * 4 == self.input.size();
        gpu::check(fits, "length of the input", values.len() as u64, "batch x image x image x 3")?;
        self.plan.write(&self.input, values);
        Ok(())
    }

    /// Records one forward pass and submits it once; reads nothing back.
    pub fn forward(&self) {
        self.plan.submit();
    }

    /// Waits for the device; `batch` x `classes` logits.
    pub fn read_output(&self) -> Result<Vec<f32>, Error> {
        self.plan.read(&self.logits)
    }
}

/// Floats in the largest output of any convolution.
fn largest_output(config: &Config) -> u32 {
    let sizes = shape::convs(config).into_iter().map(|c| c.rows() * c.outputs);
    sizes.max().unwrap_or(0)
}

fn largest_buffer(config: &Config) -> u64 {
    let weights = shape::convs(config).into_iter().map(|c| c.depth() * c.outputs);
    let last = shape::features(config) * config.classes;
    let floats = weights.chain([last, largest_output(config)]).max();
    u64::from(floats.unwrap_or(0)) * 4
}

impl Scratch {
    fn new(plan: &Plan, config: &Config) -> Self {
        let floats = largest_output(config);
        Self {
            stream: ["stream, even", "stream, odd"].map(|label| plan.floats(label, floats)),
            reduced: plan.floats("reduced", floats),
            spatial: plan.floats("spatial", floats),
            shortcut: plan.floats("shortcut", floats),
        }
    }
}

/// Plans `out = activation(conv(a) + bias + residual)` with fresh weights.
fn conv(
    plan: &mut Plan,
    shape: Conv,
    folded: &Folded,
    [a, out]: [&Buffer; 2],
    residual: Option<&Buffer>,
    activation: Activation,
) {
    let matrix = plan.constant("conv", &folded.matrix);
    let bias = plan.constant("bias", &folded.bias);
    let sizes = [shape.rows(), shape.outputs, shape.depth()];
    let op = Matmul { bias: Some(&bias), residual, activation, ..Matmul::dense(a, &matrix, out, sizes) };
    plan.conv(shape, op);
}

fn stem(plan: &mut Plan, weights: &mut Weights, config: &Config, s: &Scratch, input: &Buffer) {
    let shape = shape::stem(config);
    let folded = weights.conv(shape, 1.0);
    let way = [input, &s.spatial];
    conv(plan, shape, &folded, way, None, Activation::Relu);
    plan.max_pool(shape::pool(config), &s.spatial, &s.stream[0]);
}

fn block(
    plan: &mut Plan,
    weights: &mut Weights,
    shape: &shape::Block,
    s: &Scratch,
    [from, to]: [&Buffer; 2],
) {
    let reduce = weights.conv(shape.reduce, 1.0);
    let spatial = weights.conv(shape.spatial, 1.0);
    let expand = weights.conv(shape.expand, LAST_GAIN);
    let relu = Activation::Relu;
    conv(plan, shape.reduce, &reduce, [from, &s.reduced], None, relu);
    let way = [&s.reduced, &s.spatial];
    conv(plan, shape.spatial, &spatial, way, None, relu);
    let around = match shape.shortcut {
        None => from,
        Some(shortcut) => {
            let folded = weights.conv(shortcut, 1.0);
            let way = [from, &s.shortcut];
            conv(plan, shortcut, &folded, way, None, Activation::None);
            &s.shortcut
        }
    };
    conv(plan, shape.expand, &expand, [&s.spatial, to], Some(around), relu);
}

fn head(plan: &mut Plan, weights: &mut Weights, config: &Config, stream: &Buffer, logits: &Buffer) {
    let features = shape::features(config);
    let side = shape::blocks(config).last().map_or(1, |b| b.expand.side);
    let pooled = plan.floats("pooled", config.batch * features);
    plan.mean_pool([config.batch, features, side * side], stream, &pooled);
    let last = weights.last();
    let matrix = plan.constant("last", &last.matrix);
    let bias = plan.constant("last bias", &last.bias);
    plan.matmul(Matmul {
        bias: Some(&bias),
        ..Matmul::dense(&pooled, &matrix, logits, [config.batch, config.classes, features])
    });
}
