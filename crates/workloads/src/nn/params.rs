//! Owns the descriptions of operations and their translation into what the shaders are given.

use wgpu::Buffer;

/// What a kernel finds in its uniform; the order is that of shaders/params.wgsl.
#[repr(C)]
#[derive(Clone, Copy, Default, bytemuck::Pod, bytemuck::Zeroable)]
pub(super) struct Params {
    pub rows: u32,
    pub columns: u32,
    pub depth: u32,
    pub flags: u32,
    pub a_start: u32,
    pub a_row: u32,
    pub a_batch: u32,
    pub b_start: u32,
    pub b_row: u32,
    pub b_batch: u32,
    pub out_row: u32,
    pub out_batch: u32,
    pub scale: f32,
    pub in_height: u32,
    pub in_width: u32,
    pub channels: u32,
    pub out_height: u32,
    pub out_width: u32,
    pub kernel: u32,
    pub stride: u32,
    pub padding: u32,
}

const TRANSPOSED: u32 = 1;
const BIAS: u32 = 2;
const RESIDUAL: u32 = 4;
const RELU: u32 = 8;
const GELU: u32 = 16;

/// What is done to each output value last.
#[derive(Clone, Copy, Default)]
pub(crate) enum Activation {
    #[default]
    None,
    Relu,
    Gelu,
}

/// A stack of matrices in a buffer; all distances count floats.
#[derive(Clone, Copy)]
pub(crate) struct Operand<'a> {
    pub buffer: &'a Buffer,
    /// Where the first matrix begins.
    pub start: u32,
    /// From a row to the next.
    pub row: u32,
    /// From a matrix to the next.
    pub batch: u32,
}

impl<'a> Operand<'a> {
    /// A single matrix with rows of `row` floats.
    pub(crate) fn matrix(buffer: &'a Buffer, row: u32) -> Self {
        Self { buffer, start: 0, row, batch: 0 }
    }
}

/// `out = activation(scale * a * b + bias + residual)`, for a stack of matrices at once.
#[derive(Clone, Copy)]
pub(crate) struct Matmul<'a> {
    pub a: Operand<'a>,
    pub b: Operand<'a>,
    /// Take `b` as its transpose.
    pub transposed: bool,
    /// `start` must be 0.
    pub out: Operand<'a>,
    pub rows: u32,
    pub columns: u32,
    pub depth: u32,
    pub batches: u32,
    pub scale: f32,
    pub bias: Option<&'a Buffer>,
    /// Laid out as `out`.
    pub residual: Option<&'a Buffer>,
    pub activation: Activation,
}

impl<'a> Matmul<'a> {
    /// `out = a * b` for dense matrices of `rows` x `depth` and `depth` x `columns`.
    pub(crate) fn dense(
        a: &'a Buffer,
        b: &'a Buffer,
        out: &'a Buffer,
        [rows, columns, depth]: [u32; 3],
    ) -> Self {
        Self {
            a: Operand::matrix(a, depth),
            b: Operand::matrix(b, columns),
            transposed: false,
            out: Operand::matrix(out, columns),
            rows,
            columns,
            depth,
            batches: 1,
            scale: 1.0,
            bias: None,
            residual: None,
            activation: Activation::None,
        }
    }

    pub(super) fn params(&self) -> Params {
        let mut flags = match self.activation {
            Activation::None => 0,
            Activation::Relu => RELU,
            Activation::Gelu => GELU,
        };
        flags |= if self.transposed { TRANSPOSED } else { 0 };
        flags |= self.bias.map_or(0, |_| BIAS);
        flags |= self.residual.map_or(0, |_| RESIDUAL);
        Params {
            rows: self.rows,
            columns: self.columns,
            depth: self.depth,
            flags,
            a_start: self.a.start,
            a_row: self.a.row,
            a_batch: self.a.batch,
            b_start: self.b.start,
            b_row: self.b.row,
            b_batch: self.b.batch,
            out_row: self.out.row,
            out_batch: self.out.batch,
            scale: self.scale,
            ..Params::default()
        }
    }
}

/// The shape of a convolution (or pooling) over square NHWC pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Conv {
    pub batch: u32,
    /// Side of the input pictures.
    pub side: u32,
    pub channels: u32,
    pub outputs: u32,
    pub kernel: u32,
    pub stride: u32,
}

impl Conv {
    pub(crate) fn padding(self) -> u32 {
        self.kernel / 2
    }

    /// Side of the output pictures.
    pub(crate) fn out_side(self) -> u32 {
        (self.side + 2 * self.padding() - self.kernel) / self.stride + 1
    }

    /// Output pixels of all pictures.
    pub(crate) fn rows(self) -> u32 {
        self.batch * self.out_side() * self.out_side()
    }

    /// Values that go into one output value.
    pub(crate) fn depth(self) -> u32 {
        self.kernel * self.kernel * self.channels
    }

    /// Is this nothing but a matrix product?
    pub(crate) fn pointwise(self) -> bool {
        self.kernel == 1 && self.stride == 1
    }

    pub(super) fn params(self, base: Params) -> Params {
        Params {
            rows: self.rows(),
            columns: self.outputs,
            in_height: self.side,
            in_width: self.side,
            channels: self.channels,
            out_height: self.out_side(),
            out_width: self.out_side(),
            kernel: self.kernel,
            stride: self.stride,
            padding: self.padding(),
            ..base
        }
    }
}
