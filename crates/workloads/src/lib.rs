//! Real GPU programs on plain wgpu, written against `&wgpu::Device` and `&wgpu::Queue` only.
//!
//! They do not know whether the device is the host's own or stands at the far end of a bridge: the
//! examples, the tests and the benchmarks run the same code on both and compare what comes out.
//!
//! | module | what it does | what it exercises |
//! |---|---|---|
//! | [`digits`] | trains a network on handwritten digits | many small submissions, no read-back |
//! | [`scene`] | draws a lit 3D scene offscreen | render passes, textures, bundles, shadow map |
//! | [`photo`] | removes noise from a photograph | texture upload, compute, read-back |
//! | [`encoder`] | runs a transformer encoder | one submission of many dispatches |
//! | [`resnet`] | runs a ResNet-50-shaped network | the same, with convolutions |
//!
//! Every workload is deterministic: seeds are explicit, sums have a fixed order, and no float is ever
//! added atomically. The same adapter gives the same bits, bridged or not.

#![forbid(unsafe_code)]

pub mod digits;
pub mod encoder;
mod error;
mod gpu;
mod nn;
pub mod photo;
pub mod report;
pub mod resnet;
mod rng;
pub mod scene;

pub use error::Error;
