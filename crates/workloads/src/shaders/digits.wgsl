// One training step of a 64-128-10 network, and its evaluation. Every sum runs in index order in a
// single invocation: no atomics, so the result does not depend on scheduling.

const INPUTS = 64u;
const HIDDEN = 128u;
const CLASSES = 10u;
const BATCH = 64u;

// Where things lie in `weights` (and in `moments`).
const W1 = 0u;
const B1 = W1 + INPUTS * HIDDEN;
const W2 = B1 + HIDDEN;
const B2 = W2 + HIDDEN * CLASSES;

// Where things lie in `work`.
const ACT = 0u;                       // hidden activations, BATCH x HIDDEN
const DACT = ACT + BATCH * HIDDEN;    // their gradients
const DLOGIT = DACT + BATCH * HIDDEN; // gradients of the logits, BATCH x CLASSES

const BETA1 = 0.9;
const BETA2 = 0.999;
const EPSILON = 1e-8;

struct Step {
    rate: f32,               // learning rate with Adam's bias correction in it
    rows: array<vec4<u32>, 16>, // which images make up this minibatch
}

@group(0) @binding(0) var<uniform> minibatch: Step;
@group(0) @binding(1) var<storage, read> images: array<f32>;
@group(0) @binding(2) var<storage, read> labels: array<u32>;
@group(0) @binding(3) var<storage, read_write> weights: array<f32>;
@group(0) @binding(4) var<storage, read_write> moments: array<vec2<f32>>;
@group(0) @binding(5) var<storage, read_write> work: array<f32>;
@group(0) @binding(6) var<storage, read_write> losses: array<f32>;
@group(0) @binding(7) var<storage, read_write> predictions: array<u32>;

fn row(sample: u32) -> u32 {
    return minibatch.rows[sample / 4u][sample % 4u];
}

fn hidden_unit(image: u32, unit: u32) -> f32 {
    var sum = weights[B1 + unit];
    for (var i = 0u; i < INPUTS; i++) {
        sum += images[image * INPUTS + i] * weights[W1 + i * HIDDEN + unit];
    }
    return max(sum, 0.0);
}

@compute @workgroup_size(64)
fn forward_hidden(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= BATCH * HIDDEN {
        return;
    }
    work[ACT + id.x] = hidden_unit(row(id.x / HIDDEN), id.x % HIDDEN);
}

// Logits, softmax, cross-entropy and the gradient of the logits.
@compute @workgroup_size(64)
fn forward_output(@builtin(global_invocation_id) id: vec3<u32>) {
    let sample = id.x;
    if sample >= BATCH {
        return;
    }
    var logits: array<f32, CLASSES>;
    var top = -1e30;
    for (var k = 0u; k < CLASSES; k++) {
        var sum = weights[B2 + k];
        for (var j = 0u; j < HIDDEN; j++) {
            sum += work[ACT + sample * HIDDEN + j] * weights[W2 + j * CLASSES + k];
        }
        logits[k] = sum;
        top = max(top, sum);
    }
    var total = 0.0;
    for (var k = 0u; k < CLASSES; k++) {
        total += exp(logits[k] - top);
    }
    let label = labels[row(sample)];
    losses[sample] = log(total) + top - logits[label];
    for (var k = 0u; k < CLASSES; k++) {
        let wanted = select(0.0, 1.0, k == label);
        work[DLOGIT + sample * CLASSES + k] = (exp(logits[k] - top) / total - wanted) / f32(BATCH);
    }
}

@compute @workgroup_size(64)
fn backward_hidden(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= BATCH * HIDDEN {
        return;
    }
    let sample = id.x / HIDDEN;
    let unit = id.x % HIDDEN;
    var sum = 0.0;
    for (var k = 0u; k < CLASSES; k++) {
        sum += work[DLOGIT + sample * CLASSES + k] * weights[W2 + unit * CLASSES + k];
    }
    work[DACT + id.x] = select(0.0, sum, work[ACT + id.x] > 0.0);
}

fn adam(at: u32, gradient: f32) {
    let old = moments[at];
    let mean = BETA1 * old.x + (1.0 - BETA1) * gradient;
    let square = BETA2 * old.y + (1.0 - BETA2) * gradient * gradient;
    moments[at] = vec2(mean, square);
    weights[at] -= minibatch.rate * mean / (sqrt(square) + EPSILON);
}

// One invocation per weight (and bias) of the first layer; the bias acts as input number 64.
@compute @workgroup_size(64)
fn update_first(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= (INPUTS + 1u) * HIDDEN {
        return;
    }
    let input = id.x / HIDDEN;
    let unit = id.x % HIDDEN;
    var gradient = 0.0;
    for (var s = 0u; s < BATCH; s++) {
        let d = work[DACT + s * HIDDEN + unit];
        if input == INPUTS {
            gradient += d;
        } else {
            gradient += d * images[row(s) * INPUTS + input];
        }
    }
    adam(W1 + id.x, gradient);
}

// The same for the second layer.
@compute @workgroup_size(64)
fn update_second(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= (HIDDEN + 1u) * CLASSES {
        return;
    }
    let unit = id.x / CLASSES;
    let digit = id.x % CLASSES;
    var gradient = 0.0;
    for (var s = 0u; s < BATCH; s++) {
        let d = work[DLOGIT + s * CLASSES + digit];
        if unit == HIDDEN {
            gradient += d;
        } else {
            gradient += d * work[ACT + s * HIDDEN + unit];
        }
    }
    adam(W2 + id.x, gradient);
}

// The most likely digit of every image.
@compute @workgroup_size(64)
fn classify(@builtin(global_invocation_id) id: vec3<u32>) {
    let image = id.x;
    if image >= arrayLength(&labels) {
        return;
    }
    var logits: array<f32, CLASSES>;
    for (var k = 0u; k < CLASSES; k++) {
        logits[k] = weights[B2 + k];
    }
    for (var j = 0u; j < HIDDEN; j++) {
        let activation = hidden_unit(image, j);
        for (var k = 0u; k < CLASSES; k++) {
            logits[k] += activation * weights[W2 + j * CLASSES + k];
        }
    }
    var best = 0u;
    for (var k = 1u; k < CLASSES; k++) {
        if logits[k] > logits[best] {
            best = k;
        }
    }
    predictions[image] = best;
}
