// Pooling over NHWC pictures, one invocation per output value.

@compute @workgroup_size(64)
fn max_pool(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= params.rows * params.columns {
        return;
    }
    let row = id.x / params.columns;
    let channel = id.x % params.columns;
    let line = row / params.out_width;
    let picture = line / params.out_height;
    var top = -1e30;
    for (var ky = 0u; ky < params.kernel; ky++) {
        for (var kx = 0u; kx < params.kernel; kx++) {
            let y = (line % params.out_height) * params.stride + ky - params.padding;
            let x = (row % params.out_width) * params.stride + kx - params.padding;
            if y < params.in_height && x < params.in_width {
                let pixel = (picture * params.in_height + y) * params.in_width + x;
                top = max(top, a[pixel * params.columns + channel]);
            }
        }
    }
    out[id.x] = top;
}

// `depth` pixels of each picture become one.
@compute @workgroup_size(64)
fn mean_pool(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= params.rows * params.columns {
        return;
    }
    let picture = id.x / params.columns;
    let channel = id.x % params.columns;
    var sum = 0.0;
    for (var i = 0u; i < params.depth; i++) {
        sum += a[(picture * params.depth + i) * params.columns + channel];
    }
    out[id.x] = sum / f32(params.depth);
}
