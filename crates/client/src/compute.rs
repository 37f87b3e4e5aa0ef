//! `wgpu::ComputePass`.

use std::sync::Arc;

use pontoon_wire::Op;
use pontoon_wire::ops::Words;
use wgpu::custom::*;

use crate::buffer::dispatched;
use crate::encoder::{EncoderCore, Recording, marker};
use crate::objects::*;

/// A pass records by itself, without a lock; its encoder takes the recording over when it ends.
#[derive(Debug)]
pub(crate) struct ClientComputePass {
    core: Arc<EncoderCore>,
    recording: Recording,
}

impl ClientComputePass {
    pub fn new(core: &Arc<EncoderCore>) -> Self {
        Self { core: core.clone(), recording: Recording::default() }
    }
}

impl ClientComputePass {
    /// Hands a long recording over in time: a frame has a largest size.
    #[inline]
    fn drawn(&mut self) {
        if self.recording.is_long() {
            self.core.append(&mut self.recording, "ComputePass::end");
        }
    }
}

impl Drop for ClientComputePass {
    fn drop(&mut self) {
        self.recording.op(&Op::EndPass {});
        self.core.append(&mut self.recording, "ComputePass::end");
    }
}

impl ComputePassInterface for ClientComputePass {
    fn set_pipeline(&mut self, pipeline: &DispatchComputePipeline) {
        let object = dispatched_compute_pipeline(pipeline);
        self.recording.keep(object);
        self.recording.op(&Op::SetComputePipeline { pipeline: object.id });
    }

    fn set_bind_group(&mut self, index: u32, group: Option<&DispatchBindGroup>, offsets: &[u32]) {
        let object = group.map(dispatched_bind_group);
        if let Some(object) = object {
            self.recording.keep(object);
        }
        let group = object.map(|object| object.id);
        self.recording.op(&Op::SetBindGroup { index, group, offsets: Words::Native(offsets) });
        self.drawn();
    }

    fn set_immediates(&mut self, offset: u32, data: &[u8]) {
        self.recording.op(&Op::SetImmediates { offset, data });
    }

    fn insert_debug_marker(&mut self, label: &str) {
        self.recording.op(&Op::InsertDebugMarker { label: marker(label) });
    }

    fn push_debug_group(&mut self, label: &str) {
        self.recording.op(&Op::PushDebugGroup { label: marker(label) });
    }

    fn pop_debug_group(&mut self) {
        self.recording.op(&Op::PopDebugGroup {});
    }

    fn write_timestamp(&mut self, set: &DispatchQuerySet, index: u32) {
        let object = dispatched_query_set(set);
        self.recording.keep(object);
        self.recording.op(&Op::WriteTimestamp { query_set: object.id, index });
    }

    fn begin_pipeline_statistics_query(&mut self, set: &DispatchQuerySet, index: u32) {
        let object = dispatched_query_set(set);
        self.recording.keep(object);
        self.recording.op(&Op::BeginPipelineStatisticsQuery { query_set: object.id, index });
    }

    fn end_pipeline_statistics_query(&mut self) {
        self.recording.op(&Op::EndPipelineStatisticsQuery {});
    }

    fn dispatch_workgroups(&mut self, x: u32, y: u32, z: u32) {
        self.recording.op(&Op::Dispatch { x, y, z });
        self.drawn();
    }

    fn dispatch_workgroups_indirect(&mut self, buffer: &DispatchBuffer, offset: u64) {
        let object = &dispatched(buffer).object;
        self.recording.keep(object);
        self.recording.op(&Op::DispatchIndirect { buffer: object.id, offset });
        self.drawn();
    }

    fn transition_resources<'a>(
        &mut self,
        buffers: &mut dyn Iterator<Item = wgpu::BufferTransition<&'a DispatchBuffer>>,
        textures: &mut dyn Iterator<Item = wgpu::TextureTransition<&'a DispatchTextureView>>,
    ) {
        // Hints only: the host's `wgpu` finds out by itself what a pass uses.
        buffers.for_each(drop);
        textures.for_each(drop);
    }
}
