// The left operand of tile.wgsl as a plain matrix.

fn load_a(batch: u32, row: u32, k: u32) -> f32 {
    if row >= params.rows || k >= params.depth {
        return 0.0;
    }
    return a[params.a_start + batch * params.a_batch + row * params.a_row + k];
}
