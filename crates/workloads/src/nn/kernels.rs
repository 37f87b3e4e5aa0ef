//! Owns the compute pipelines of the networks; all share one bind group layout.

use wgpu::{BindGroupLayout, ComputePipeline, Device};

use crate::gpu::{self, Slot};

const PARAMS: &str = include_str!("../shaders/params.wgsl");
const TILE: &str = include_str!("../shaders/tile.wgsl");
const LOAD_MATRIX: &str = include_str!("../shaders/load_matrix.wgsl");
const LOAD_PATCH: &str = include_str!("../shaders/load_patch.wgsl");
const ROWS: &str = include_str!("../shaders/rows.wgsl");
const POOL: &str = include_str!("../shaders/pool.wgsl");

/// Storage buffers in the bind group.
pub(super) const BUFFERS: u64 = 5;
/// Blocks below which a product is cut into smaller tiles, so that a large GPU is not left idle.
const FEW: u32 = 96;

/// A tiled product in its two tile sizes.
pub(super) struct Tiled {
    large: ComputePipeline,
    small: ComputePipeline,
}

impl Tiled {
    /// The pipeline for an output of `rows` x `columns`, and the workgroups it takes.
    pub(super) fn pick(&self, rows: u32, columns: u32, batches: u32) -> (&ComputePipeline, [u32; 3]) {
        let blocks = |tile: u32| [columns.div_ceil(tile), rows.div_ceil(tile), batches];
        if blocks(64).iter().product::<u32>() < FEW {
            return (&self.small, blocks(32));
        }
        (&self.large, blocks(64))
    }
}

/// The pipelines.
pub(super) struct Kernels {
    pub layout: BindGroupLayout,
    pub matmul: Tiled,
    pub conv: Tiled,
    pub softmax: ComputePipeline,
    pub layer_norm: ComputePipeline,
    pub max_pool: ComputePipeline,
    pub mean_pool: ComputePipeline,
}

impl Kernels {
    pub(super) fn new(device: &Device) -> Self {
        use Slot::{ReadOnly, ReadWrite, Uniform};
        let slots = [Uniform, ReadOnly, ReadOnly, ReadOnly, ReadOnly, ReadWrite];
        let (layout, pipeline_layout) = gpu::buffer_layout(device, "network", &slots);
        let pipeline = |name: &str, parts: &[&str]| {
            let module = gpu::shader(device, name, &[&[PARAMS], parts].concat().join("\n"));
            gpu::compute_pipeline(device, &module, &pipeline_layout, name)
        };
        let tiled = |loader: &str| Tiled {
            large: pipeline("tile", &["const TILE = 64u;", loader, TILE]),
            small: pipeline("tile", &["const TILE = 32u;", loader, TILE]),
        };
        Self {
            matmul: tiled(LOAD_MATRIX),
            conv: tiled(LOAD_PATCH),
            softmax: pipeline("softmax", &[ROWS]),
            layer_norm: pipeline("layer_norm", &[ROWS]),
            max_pool: pipeline("max_pool", &[POOL]),
            mean_pool: pipeline("mean_pool", &[POOL]),
            layout,
        }
    }
}
