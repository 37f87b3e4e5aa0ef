// The left operand of tile.wgsl as the patches of an NHWC picture (im2col, never stored): a row is an
// output pixel, and k runs over kernel rows, kernel columns and channels.

fn load_a(batch: u32, row: u32, k: u32) -> f32 {
    if row >= params.rows || k >= params.depth {
        return 0.0;
    }
    let line = row / params.out_width;
    let picture = line / params.out_height;
    let tap = k / params.channels;
    // Above or left of the picture wraps around to a large number, which is outside as well.
    let y = (line % params.out_height) * params.stride + tap / params.kernel - params.padding;
    let x = (row % params.out_width) * params.stride + tap % params.kernel - params.padding;
    if y >= params.in_height || x >= params.in_width {
        return 0.0;
    }
    let pixel = (picture * params.in_height + y) * params.in_width + x;
    return a[pixel * params.channels + k % params.channels];
}
