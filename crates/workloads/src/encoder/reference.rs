//! Owns the encoder on the CPU, written to be obviously right: what the device's output is held against.

use super::{Config, LayerWeights, Weights};

/// The output for the weights and the input of `config.seed`: `sequence` x `width` numbers.
pub fn forward(config: &Config) -> Vec<f32> {
    let mut weights = Weights::new(config);
    let mut x = weights.input().to_vec();
    for _ in 0..config.layers {
        x = layer(config, &weights.next_layer(), &x);
    }
    x
}

fn layer(config: &Config, w: &LayerWeights, x: &[f32]) -> Vec<f32> {
    let width = config.width as usize;
    let context = attention(config, &linear(x, &w.qkv, &w.qkv_bias));
    let attended = add(&linear(&context, &w.project, &w.project_bias), x);
    let attended = norm(&attended, &w.norm_attention, width);
    let inner = linear(&attended, &w.expand, &w.expand_bias);
    let inner: Vec<f32> = inner.into_iter().map(gelu).collect();
    let sum = add(&linear(&inner, &w.contract, &w.contract_bias), &attended);
    norm(&sum, &w.norm_inner, width)
}

/// `x * matrix + bias`; the length of `bias` is the number of columns.
fn linear(x: &[f32], matrix: &[f32], bias: &[f32]) -> Vec<f32> {
    let depth = matrix.len() / bias.len();
    let mut out = Vec::with_capacity(x.len() / depth * bias.len());
    for row in x.chunks_exact(depth) {
        let mut sums = bias.to_vec();
        for (value, line) in row.iter().zip(matrix.chunks_exact(bias.len())) {
            for (sum, weight) in sums.iter_mut().zip(line) {
                *sum += value * weight;
            }
        }
        out.extend(sums);
    }
    out
}

fn attention(config: &Config, qkv: &[f32]) -> Vec<f32> {
    let [rows, width, head] = [config.sequence, config.width, config.head()].map(|n| n as usize);
    // `part`: 0 for queries, 1 for keys, 2 for values.
    let slice = |row: usize, part: usize, first: usize| {
        let start = row * 3 * width + part * width + first;
        &qkv[start..start + head]
    };
    let mut context = vec![0.0; rows * width];
    for first in (0..width).step_by(head) {
        for row in 0..rows {
            let query = slice(row, 0, first);
            let scores = (0..rows).map(|other| dot(query, slice(other, 1, first)));
            let shares = softmax(scores.map(|s| s / (head as f32).sqrt()).collect());
            for (other, share) in shares.iter().enumerate() {
                for (i, value) in slice(other, 2, first).iter().enumerate() {
                    context[row * width + first + i] += share * value;
                }
            }
        }
    }
    context
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

fn add(a: &[f32], b: &[f32]) -> Vec<f32> {
    a.iter().zip(b).map(|(x, y)| x + y).collect()
}

fn softmax(mut row: Vec<f32>) -> Vec<f32> {
    let top = row.iter().copied().fold(f32::MIN, f32::max);
    row.iter_mut().for_each(|x| *x = (*x - top).exp());
    let sum: f32 = row.iter().sum();
    row.iter_mut().for_each(|x| *x /= sum);
    row
}

fn norm(x: &[f32], [gain, shift]: &[Vec<f32>; 2], width: usize) -> Vec<f32> {
    let row = |row: &[f32]| {
        let mean = row.iter().sum::<f32>() / width as f32;
        let variance = row.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / width as f32;
        let spread = 1.0 / (variance + 1e-5).sqrt();
        let scaled = row.iter().map(move |v| (v - mean) * spread);
        let shifted = scaled.zip(gain).zip(shift).map(|((v, g), s)| v * g + s);
        shifted.collect::<Vec<_>>()
    };
    x.chunks_exact(width).flat_map(row).collect()
}

fn gelu(x: f32) -> f32 {
    let inner = (2.0 / std::f32::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3));
    0.5 * x * (1.0 + inner.tanh())
}
