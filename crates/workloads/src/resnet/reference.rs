//! Owns the network on the CPU, written to be obviously right: what the device's output is held against.

use super::weights::{Folded, LAST_GAIN, Weights};
use super::{Config, shape};
use crate::nn::Conv;

/// The logits for the weights and the input of `config.seed`: `batch` x `classes` numbers.
pub fn forward(config: &Config) -> Vec<f32> {
    let (mut weights, input) = Weights::new(config);
    let stem = shape::stem(config);
    let x = relu(conv(stem, &weights.conv(stem, 1.0), &input));
    let mut x = max_pool(shape::pool(config), &x);
    for block in shape::blocks(config) {
        let reduce = weights.conv(block.reduce, 1.0);
        let spatial = weights.conv(block.spatial, 1.0);
        let expand = weights.conv(block.expand, LAST_GAIN);
        let inside = relu(conv(block.reduce, &reduce, &x));
        let inside = relu(conv(block.spatial, &spatial, &inside));
        let inside = conv(block.expand, &expand, &inside);
        let around = match block.shortcut {
            None => x,
            Some(shape) => conv(shape, &weights.conv(shape, 1.0), &x),
        };
        x = relu(inside.iter().zip(&around).map(|(a, b)| a + b).collect());
    }
    last(config, &weights.last(), &x)
}

fn relu(x: Vec<f32>) -> Vec<f32> {
    x.into_iter().map(|v| v.max(0.0)).collect()
}

/// Where tap (`ky`, `kx`) of output pixel (`y`, `x`) of a picture lies in the input, if inside.
fn tap(shape: Conv, picture: u32, [y, x]: [u32; 2], [ky, kx]: [u32; 2]) -> Option<usize> {
    let y = (y * shape.stride + ky).checked_sub(shape.padding())?;
    let x = (x * shape.stride + kx).checked_sub(shape.padding())?;
    let inside = y < shape.side && x < shape.side;
    inside.then_some(((picture * shape.side + y) * shape.side + x) as usize)
}

/// Every output pixel as (picture, [y, x]).
fn pixels(shape: Conv) -> impl Iterator<Item = (u32, [u32; 2])> {
    let side = shape.out_side();
    (0..shape.rows()).map(move |i| (i / (side * side), [i / side % side, i % side]))
}

fn taps(shape: Conv) -> impl Iterator<Item = [u32; 2]> {
    (0..shape.kernel * shape.kernel).map(move |i| [i / shape.kernel, i % shape.kernel])
}

fn conv(shape: Conv, folded: &Folded, input: &[f32]) -> Vec<f32> {
    let channels = shape.channels as usize;
    let outputs = shape.outputs as usize;
    let mut out = Vec::with_capacity(shape.rows() as usize * outputs);
    for (picture, at) in pixels(shape) {
        let mut sums = folded.bias.clone();
        let tables = folded.matrix.chunks_exact(channels * outputs);
        for (offset, table) in taps(shape).zip(tables) {
            let Some(pixel) = tap(shape, picture, at, offset) else {
                continue;
            };
            let values = &input[pixel * channels..][..channels];
            for (value, row) in values.iter().zip(table.chunks_exact(outputs)) {
                for (sum, weight) in sums.iter_mut().zip(row) {
                    *sum += value * weight;
                }
            }
        }
        out.extend(sums);
    }
    out
}

fn max_pool(shape: Conv, input: &[f32]) -> Vec<f32> {
    let channels = shape.channels as usize;
    let mut out = Vec::with_capacity(shape.rows() as usize * channels);
    for (picture, at) in pixels(shape) {
        for channel in 0..channels {
            let seen = taps(shape).filter_map(|offset| tap(shape, picture, at, offset));
            let values = seen.map(|pixel| input[pixel * channels + channel]);
            out.push(values.fold(f32::MIN, f32::max));
        }
    }
    out
}

fn last(config: &Config, folded: &Folded, x: &[f32]) -> Vec<f32> {
    let features = shape::features(config) as usize;
    let per_picture = x.len() / config.batch as usize;
    let mut out = Vec::new();
    for picture in x.chunks_exact(per_picture) {
        let mut sums = folded.bias.clone();
        for (feature, row) in folded.matrix.chunks_exact(sums.len()).enumerate() {
            let values = picture.iter().skip(feature).step_by(features);
            let mean = values.sum::<f32>() / (per_picture / features) as f32;
            for (sum, weight) in sums.iter_mut().zip(row) {
                *sum += mean * weight;
            }
        }
        out.extend(sums);
    }
    out
}
