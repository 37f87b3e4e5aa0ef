// What every network kernel is given. The order is that of `Params` in nn/params.rs.

struct Params {
    rows: u32,
    columns: u32,
    depth: u32,
    flags: u32,
    a_start: u32,
    a_row: u32,
    a_batch: u32,
    b_start: u32,
    b_row: u32,
    b_batch: u32,
    out_row: u32,
    out_batch: u32,
    scale: f32,
    in_height: u32,
    in_width: u32,
    channels: u32,
    out_height: u32,
    out_width: u32,
    kernel: u32,
    stride: u32,
    padding: u32,
}

const TRANSPOSED = 1u;
const BIAS = 2u;
const RESIDUAL = 4u;
const RELU = 8u;
const GELU = 16u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> a: array<f32>;
@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read> residual: array<f32>;
@group(0) @binding(5) var<storage, read_write> out: array<f32>;

fn has(flag: u32) -> bool {
    return (params.flags & flag) != 0u;
}
