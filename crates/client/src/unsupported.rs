//! What Pontoon does not offer: calling it is a validation error, as it is in local `wgpu` without the
//! feature that it needs. These are the objects that such calls give back.

use wgpu::custom::*;

pub(crate) const RAY_TRACING: &str = "Features(EXPERIMENTAL_RAY_QUERY) are required but not enabled on the device; Pontoon does not offer them";
pub(crate) const MESH_SHADERS: &str = "Features(EXPERIMENTAL_MESH_SHADER) are required but not enabled on the device; Pontoon does not offer them";
pub(crate) const PIPELINE_CACHE: &str = "Features(PIPELINE_CACHE) are required but not enabled on the device; Pontoon does not offer them, since drivers trust a cache's bytes";

#[derive(Debug)]
pub(crate) struct NoPipelineCache;

impl PipelineCacheInterface for NoPipelineCache {
    fn get_data(&self) -> Option<Vec<u8>> {
        None
    }
}

#[derive(Debug)]
pub(crate) struct NoBlas;

impl BlasInterface for NoBlas {
    fn prepare_compact_async(&self, callback: BlasCompactCallback) {
        callback(Err(wgpu::BlasAsyncError));
    }

    fn ready_for_compaction(&self) -> bool {
        false
    }
}

#[derive(Debug)]
pub(crate) struct NoTlas;

impl TlasInterface for NoTlas {}
