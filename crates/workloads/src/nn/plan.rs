//! Owns plans: fixed sequences of dispatches, prepared once and submitted as often as wanted.

use wgpu::{BindGroup, Buffer, BufferUsages, ComputePipeline, Device, Queue};

use super::kernels::{BUFFERS, Kernels};
use super::params::{Conv, Matmul, Params};
use crate::{Error, gpu};

struct Step {
    pipeline: ComputePipeline,
    group: BindGroup,
    workgroups: [u32; 3],
}

/// What a step reads; `None` where its kernel does not look.
#[derive(Clone, Copy, Default)]
struct Inputs<'a> {
    a: Option<&'a Buffer>,
    b: Option<&'a Buffer>,
    bias: Option<&'a Buffer>,
    residual: Option<&'a Buffer>,
}

/// Dispatches in order, with the buffers they work on.
pub(crate) struct Plan {
    device: Device,
    queue: Queue,
    kernels: Kernels,
    nothing: Buffer,
    steps: Vec<Step>,
}

impl Plan {
    /// Fails when the device cannot bind what the kernels need, `largest` bytes in one buffer included.
    pub(crate) fn new(device: &Device, queue: &Queue, largest: u64) -> Result<Self, Error> {
        let limits = device.limits();
        gpu::require(
            "max_storage_buffers_per_shader_stage",
            limits.max_storage_buffers_per_shader_stage.into(),
            BUFFERS,
        )?;
        gpu::require("max_storage_buffer_binding_size", limits.max_storage_buffer_binding_size, largest)?;
        gpu::require("max_buffer_size", limits.max_buffer_size, largest)?;
        Ok(Self {
            device: device.clone(),
            queue: queue.clone(),
            kernels: Kernels::new(device),
            nothing: gpu::storage(device, "nothing", 16),
            steps: Vec::new(),
        })
    }

    /// A buffer of `floats` floats.
    pub(crate) fn floats(&self, label: &str, floats: u32) -> Buffer {
        gpu::storage(&self.device, label, u64::from(floats) * 4)
    }

    /// A buffer with `values` in it.
    pub(crate) fn constant(&self, label: &str, values: &[f32]) -> Buffer {
        let usage = BufferUsages::STORAGE;
        gpu::filled(&self.device, &self.queue, label, usage, values)
    }

    /// Replaces the contents of a buffer from the next submission on.
    pub(crate) fn write(&self, buffer: &Buffer, values: &[f32]) {
        self.queue.write_buffer(buffer, 0, bytemuck::cast_slice(values));
    }

    /// Waits for the device and brings the contents of a buffer back.
    pub(crate) fn read(&self, buffer: &Buffer) -> Result<Vec<f32>, Error> {
        gpu::read_buffer(&self.device, &self.queue, buffer, buffer.size())
    }

    pub(crate) fn matmul(&mut self, op: Matmul<'_>) {
        let (pipeline, workgroups) = self.kernels.matmul.pick(op.rows, op.columns, op.batches);
        self.product(pipeline.clone(), workgroups, op, op.params());
    }

    /// `op` gives the buffers and what is added; its sizes and distances come from `conv`.
    pub(crate) fn conv(&mut self, conv: Conv, op: Matmul<'_>) {
        if conv.pointwise() {
            return self.matmul(op);
        }
        let (pipeline, workgroups) = self.kernels.conv.pick(conv.rows(), conv.outputs, 1);
        self.product(pipeline.clone(), workgroups, op, conv.params(op.params()));
    }

    pub(crate) fn softmax(&mut self, a: &Buffer, out: &Buffer, rows: u32, columns: u32) {
        let params = Params { rows, columns, ..Params::default() };
        let inputs = Inputs { a: Some(a), ..Inputs::default() };
        let pipeline = self.kernels.softmax.clone();
        self.push(pipeline, [rows, 1, 1], params, inputs, out);
    }

    /// Normalises each row, then applies a gain and a shift per column.
    pub(crate) fn layer_norm(
        &mut self,
        a: &Buffer,
        [gain, shift]: [&Buffer; 2],
        out: &Buffer,
        [rows, columns]: [u32; 2],
    ) {
        let params = Params { rows, columns, ..Params::default() };
        let inputs = Inputs { a: Some(a), b: Some(gain), bias: Some(shift), residual: None };
        let pipeline = self.kernels.layer_norm.clone();
        self.push(pipeline, [rows, 1, 1], params, inputs, out);
    }

    pub(crate) fn max_pool(&mut self, shape: Conv, a: &Buffer, out: &Buffer) {
        let pipeline = self.kernels.max_pool.clone();
        self.pool(pipeline, shape.params(Params::default()), a, out);
    }

    /// The mean over all `pixels` of each of `rows` pictures.
    pub(crate) fn mean_pool(&mut self, [rows, columns, pixels]: [u32; 3], a: &Buffer, out: &Buffer) {
        let params = Params { rows, columns, depth: pixels, ..Params::default() };
        self.pool(self.kernels.mean_pool.clone(), params, a, out);
    }

    /// How many dispatches one submission makes.
    pub(crate) fn dispatches(&self) -> usize {
        self.steps.len()
    }

    /// Records every step into one compute pass and submits it; reads nothing back.
    pub(crate) fn submit(&self) {
        let mut encoder = self.device.create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        for step in &self.steps {
            let [x, y, z] = step.workgroups;
            pass.set_pipeline(&step.pipeline);
            pass.set_bind_group(0, &step.group, &[]);
            pass.dispatch_workgroups(x, y, z);
        }
        drop(pass);
        self.queue.submit([encoder.finish()]);
    }

    fn pool(&mut self, pipeline: ComputePipeline, params: Params, a: &Buffer, out: &Buffer) {
        let inputs = Inputs { a: Some(a), ..Inputs::default() };
        let workgroups = (params.rows * params.columns).div_ceil(64);
        self.push(pipeline, [workgroups, 1, 1], params, inputs, out);
    }

    fn product(&mut self, pipeline: ComputePipeline, workgroups: [u32; 3], op: Matmul<'_>, params: Params) {
        let inputs =
            Inputs { a: Some(op.a.buffer), b: Some(op.b.buffer), bias: op.bias, residual: op.residual };
        self.push(pipeline, workgroups, params, inputs, op.out.buffer);
    }

    fn push(
        &mut self,
        pipeline: ComputePipeline,
        workgroups: [u32; 3],
        params: Params,
        inputs: Inputs<'_>,
        out: &Buffer,
    ) {
        let uniform = gpu::filled(&self.device, &self.queue, "params", BufferUsages::UNIFORM, &[params]);
        let or_nothing = |input: Option<&Buffer>| input.unwrap_or(&self.nothing).clone();
        let buffers = [
            uniform,
            or_nothing(inputs.a),
            or_nothing(inputs.b),
            or_nothing(inputs.bias),
            or_nothing(inputs.residual),
            out.clone(),
        ];
        let bindings: Vec<_> = buffers.iter().map(|b| b.as_entire_binding()).collect();
        let group = gpu::bind(&self.device, "step", &self.kernels.layout, &bindings);
        self.steps.push(Step { pipeline, group, workgroups });
    }
}
