//! Owns the encoder on the device: uploads its weights and plans its forward pass.

use wgpu::{Buffer, Device, Queue};

use super::{Config, LayerWeights, Weights};
use crate::nn::{Activation, Matmul, Operand, Plan};
use crate::{Error, gpu};

/// A transformer encoder whose weights lie on the device.
pub struct Encoder {
    config: Config,
    plan: Plan,
    stream: Buffer,
    input: Buffer,
}

/// What every layer writes into, one after the other.
struct Scratch {
    qkv: Buffer,
    scores: Buffer,
    shares: Buffer,
    context: Buffer,
    sum: Buffer,
    attended: Buffer,
    inner: Buffer,
}

impl Encoder {
    /// Makes the weights of `config` and uploads them (340 MB for [`Config::full`]).
    pub fn new(device: &Device, queue: &Queue, config: Config) -> Result<Self, Error> {
        config.check()?;
        let mut plan = Plan::new(device, queue, largest_buffer(&config))?;
        let mut weights = Weights::new(&config);
        let scratch = Scratch::new(&plan, &config);
        let input = plan.constant("input", weights.input());
        let stream = plan.floats("stream", config.sequence * config.width);
        for layer in 0..config.layers {
            let from = if layer == 0 { &input } else { &stream };
            let weights = Uploaded::new(&plan, &weights.next_layer());
            attention(&mut plan, &config, &scratch, &weights, from);
            feed_forward(&mut plan, &config, &scratch, &weights, &stream);
            // Uploads of one layer at a time leave with a submission, so that they do not pile up.
            queue.submit([]);
        }
        Ok(Self { config, plan, stream, input })
    }

    /// The sizes.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Dispatches in one forward pass.
    pub fn dispatches(&self) -> usize {
        self.plan.dispatches()
    }

    /// Replaces the input (`sequence` x `width` numbers); it goes up with the next forward pass.
    pub fn set_input(&self, values: &[f32]) -> Result<(), Error> {
        let fits = values.len() as u64 * 4 == self.input.size();
        gpu::check(fits, "length of the input", values.len() as u64, "sequence x width")?;
        self.plan.write(&self.input, values);
        Ok(())
    }

    /// Records one forward pass and submits it once; reads nothing back.
    pub fn forward(&self) {
        self.plan.submit();
    }

    /// Waits for the device; `sequence` x `width` numbers.
    pub fn read_output(&self) -> Result<Vec<f32>, Error> {
        self.plan.read(&self.stream)
    }
}

fn largest_buffer(config: &Config) -> u64 {
    let [s, w, i, h] = [config.sequence, config.width, config.inner, config.heads].map(u64::from);
    let floats = [3 * w * w, w * i, h * s * s, s * i, 3 * s * w];
    4 * floats.into_iter().max().unwrap_or(0)
}

impl Scratch {
    fn new(plan: &Plan, config: &Config) -> Self {
        let rows = config.sequence;
        let square = config.heads * rows * rows;
        Self {
            qkv: plan.floats("queries, keys, values", rows * 3 * config.width),
            scores: plan.floats("scores", square),
            shares: plan.floats("shares", square),
            context: plan.floats("context", rows * config.width),
            sum: plan.floats("sum", rows * config.width),
            attended: plan.floats("attended", rows * config.width),
            inner: plan.floats("inner", rows * config.inner),
        }
    }
}

/// [`LayerWeights`] on the device.
struct Uploaded {
    qkv: [Buffer; 2],
    project: [Buffer; 2],
    norm_attention: [Buffer; 2],
    expand: [Buffer; 2],
    contract: [Buffer; 2],
    norm_inner: [Buffer; 2],
}

impl Uploaded {
    fn new(plan: &Plan, layer: &LayerWeights) -> Self {
        let pair =
            |label, matrix: &[f32], bias: &[f32]| [matrix, bias].map(|values| plan.constant(label, values));
        let norm = |label, [gain, shift]: &[Vec<f32>; 2]| pair(label, gain, shift);
        Self {
            qkv: pair("qkv", &layer.qkv, &layer.qkv_bias),
            project: pair("project", &layer.project, &layer.project_bias),
            norm_attention: norm("norm after attention", &layer.norm_attention),
            expand: pair("expand", &layer.expand, &layer.expand_bias),
            contract: pair("contract", &layer.contract, &layer.contract_bias),
            norm_inner: norm("norm after inner", &layer.norm_inner),
        }
    }
}

/// Everything up to the first norm: `scratch.attended` out of `from`.
fn attention(plan: &mut Plan, config: &Config, scratch: &Scratch, w: &Uploaded, from: &Buffer) {
    let [rows, width, head] = [config.sequence, config.width, config.head()];
    plan.matmul(Matmul {
        bias: Some(&w.qkv[1]),
        ..Matmul::dense(from, &w.qkv[0], &scratch.qkv, [rows, 3 * width, width])
    });
    // Part 0, 1 or 2 of each row of `qkv` holds queries, keys or values, one head after the other.
    let part =
        |index: u32| Operand { buffer: &scratch.qkv, start: index * width, row: 3 * width, batch: head };
    let squares = |buffer| Operand { batch: rows * rows, ..Operand::matrix(buffer, rows) };
    plan.matmul(Matmul {
        a: part(0),
        b: part(1),
        transposed: true,
        out: squares(&scratch.scores),
        batches: config.heads,
        scale: 1.0 / (head as f32).sqrt(),
        ..Matmul::dense(from, from, &scratch.scores, [rows, rows, head])
    });
    plan.softmax(&scratch.scores, &scratch.shares, config.heads * rows, rows);
    plan.matmul(Matmul {
        a: squares(&scratch.shares),
        b: part(2),
        out: Operand { batch: head, ..Operand::matrix(&scratch.context, width) },
        batches: config.heads,
        ..Matmul::dense(from, from, &scratch.context, [rows, head, rows])
    });
    plan.matmul(Matmul {
        bias: Some(&w.project[1]),
        residual: Some(from),
        ..Matmul::dense(&scratch.context, &w.project[0], &scratch.sum, [rows, width, width])
    });
    let norm = w.norm_attention.each_ref();
    plan.layer_norm(&scratch.sum, norm, &scratch.attended, [rows, width]);
}

/// Everything from the first norm on: `to` out of `scratch.attended`.
fn feed_forward(plan: &mut Plan, config: &Config, scratch: &Scratch, w: &Uploaded, to: &Buffer) {
    let [rows, width, inner] = [config.sequence, config.width, config.inner];
    plan.matmul(Matmul {
        bias: Some(&w.expand[1]),
        activation: Activation::Gelu,
        ..Matmul::dense(&scratch.attended, &w.expand[0], &scratch.inner, [rows, inner, width])
    });
    plan.matmul(Matmul {
        bias: Some(&w.contract[1]),
        residual: Some(&scratch.attended),
        ..Matmul::dense(&scratch.inner, &w.contract[0], &scratch.sum, [rows, width, inner])
    });
    let norm = w.norm_inner.each_ref();
    plan.layer_norm(&scratch.sum, norm, to, [rows, width]);
}
