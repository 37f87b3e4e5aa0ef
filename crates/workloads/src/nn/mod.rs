//! Owns what the two networks share: their kernels, and plans of dispatches made from them.

mod kernels;
mod params;
mod plan;

pub(crate) use params::{Activation, Conv, Matmul, Operand};
pub(crate) use plan::Plan;
