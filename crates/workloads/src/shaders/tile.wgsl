// out = activation(scale * A * B + bias + residual), one TILE x TILE block of it per workgroup. Each
// invocation owns 4x4 of the block; DEPTH columns of A and rows of B at a time are held in workgroup
// memory. TILE and `load_a` are put in front of this text.

const DEPTH = 16u;
const SIDE = TILE / 4u;

var<workgroup> a_tile: array<vec4<f32>, DEPTH * SIDE>;
var<workgroup> b_tile: array<vec4<f32>, DEPTH * SIDE>;

fn load_b(batch: u32, k: u32, column: u32) -> f32 {
    if k >= params.depth || column >= params.columns {
        return 0.0;
    }
    let start = params.b_start + batch * params.b_batch;
    if has(TRANSPOSED) {
        return b[start + column * params.b_row + k];
    }
    return b[start + k * params.b_row + column];
}

fn load_tiles(batch: u32, first_row: u32, first_column: u32, first_k: u32, lane: u32) {
    for (var i = lane; i < DEPTH * SIDE; i += SIDE * SIDE) {
        // Neighbouring lanes read neighbouring memory: along k in A, along the columns in B.
        let k = first_k + i % DEPTH;
        let row = first_row + i / DEPTH * 4u;
        a_tile[i % DEPTH * SIDE + i / DEPTH] = vec4(
            load_a(batch, row, k),
            load_a(batch, row + 1u, k),
            load_a(batch, row + 2u, k),
            load_a(batch, row + 3u, k),
        );
        let depth = first_k + i / SIDE;
        let column = first_column + i % SIDE * 4u;
        b_tile[i] = vec4(
            load_b(batch, depth, column),
            load_b(batch, depth, column + 1u),
            load_b(batch, depth, column + 2u),
            load_b(batch, depth, column + 3u),
        );
    }
}

fn activation(x: f32) -> f32 {
    if has(RELU) {
        return max(x, 0.0);
    }
    if has(GELU) {
        let inner = 0.7978845608 * (x + 0.044715 * x * x * x);
        return 0.5 * x * (1.0 + tanh(clamp(inner, -10.0, 10.0)));
    }
    return x;
}

fn store(batch: u32, row: u32, first_column: u32, sums: vec4<f32>) {
    if row >= params.rows {
        return;
    }
    for (var i = 0u; i < 4u; i++) {
        let column = first_column + i;
        if column >= params.columns {
            return;
        }
        let at = batch * params.out_batch + row * params.out_row + column;
        var value = sums[i] * params.scale;
        if has(BIAS) {
            value += bias[column];
        }
        if has(RESIDUAL) {
            value += residual[at];
        }
        out[at] = activation(value);
    }
}

@compute @workgroup_size(SIDE, SIDE)
fn tile(
    @builtin(workgroup_id) block: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let first_row = block.y * TILE;
    let first_column = block.x * TILE;
    var row0 = vec4(0.0);
    var row1 = vec4(0.0);
    var row2 = vec4(0.0);
    var row3 = vec4(0.0);
    for (var k = 0u; k < params.depth; k += DEPTH) {
        load_tiles(block.z, first_row, first_column, k, lane);
        workgroupBarrier();
        for (var i = 0u; i < DEPTH; i++) {
            let left = a_tile[i * SIDE + local.y];
            let right = b_tile[i * SIDE + local.x];
            row0 += left.x * right;
            row1 += left.y * right;
            row2 += left.z * right;
            row3 += left.w * right;
        }
        workgroupBarrier();
    }
    let row = first_row + local.y * 4u;
    let column = first_column + local.x * 4u;
    store(block.z, row, column, row0);
    store(block.z, row + 1u, column, row1);
    store(block.z, row + 2u, column, row2);
    store(block.z, row + 3u, column, row3);
}
