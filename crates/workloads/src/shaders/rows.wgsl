// Kernels that work on whole rows, one row per workgroup of 64 invocations. Sums are made as a tree of
// fixed shape, so they do not depend on scheduling.

const LANES = 64u;

var<workgroup> partial: array<f32, LANES>;

fn row_sum(lane: u32, value: f32) -> f32 {
    partial[lane] = value;
    workgroupBarrier();
    for (var half = LANES / 2u; half > 0u; half /= 2u) {
        if lane < half {
            partial[lane] += partial[lane + half];
        }
        workgroupBarrier();
    }
    let sum = partial[0];
    workgroupBarrier();
    return sum;
}

fn row_max(lane: u32, value: f32) -> f32 {
    partial[lane] = value;
    workgroupBarrier();
    for (var half = LANES / 2u; half > 0u; half /= 2u) {
        if lane < half {
            partial[lane] = max(partial[lane], partial[lane + half]);
        }
        workgroupBarrier();
    }
    let top = partial[0];
    workgroupBarrier();
    return top;
}

@compute @workgroup_size(LANES)
fn softmax(@builtin(workgroup_id) row: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let start = row.x * params.columns;
    var top = -1e30;
    for (var i = lane; i < params.columns; i += LANES) {
        top = max(top, a[start + i]);
    }
    top = row_max(lane, top);
    var sum = 0.0;
    for (var i = lane; i < params.columns; i += LANES) {
        sum += exp(a[start + i] - top);
    }
    sum = row_sum(lane, sum);
    for (var i = lane; i < params.columns; i += LANES) {
        out[start + i] = exp(a[start + i] - top) / sum;
    }
}

// `b` holds the gains, `bias` the shifts.
@compute @workgroup_size(LANES)
fn layer_norm(@builtin(workgroup_id) row: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let start = row.x * params.columns;
    var sum = 0.0;
    for (var i = lane; i < params.columns; i += LANES) {
        sum += a[start + i];
    }
    let mean = row_sum(lane, sum) / f32(params.columns);
    var squares = 0.0;
    for (var i = lane; i < params.columns; i += LANES) {
        let d = a[start + i] - mean;
        squares += d * d;
    }
    let variance = row_sum(lane, squares) / f32(params.columns);
    let spread = inverseSqrt(variance + 1e-5);
    for (var i = lane; i < params.columns; i += LANES) {
        out[start + i] = (a[start + i] - mean) * spread * b[i] + bias[i];
    }
}
