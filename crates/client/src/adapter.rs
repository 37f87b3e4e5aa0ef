//! `wgpu::Adapter`: one of the host's GPUs, described when the session began.

use std::collections::HashMap;
use std::future::ready;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use pontoon_wire::command::DeviceRequest;
use pontoon_wire::event::Reply;
use pontoon_wire::frame::Forget;
use pontoon_wire::{Command, Kind, bounded};
use wgpu::custom::{AdapterInterface, DispatchDevice, DispatchQueue, DispatchSurface, RequestDeviceFuture};

use crate::device::ClientDevice;
use crate::ids::Object;
use crate::queue::ClientQueue;
use crate::session::Session;
use crate::state::DeviceState;

/// What the host said of an adapter.
#[derive(Debug, Clone)]
pub(crate) struct Offer {
    pub info: wgpu::AdapterInfo,
    pub features: wgpu::Features,
    pub limits: wgpu::Limits,
    pub downlevel: wgpu::DownlevelCapabilities,
}

#[derive(Debug)]
pub(crate) struct ClientAdapter {
    session: Arc<Session>,
    index: usize,
    formats: Mutex<HashMap<wgpu::TextureFormat, wgpu::TextureFormatFeatures>>,
}

impl ClientAdapter {
    pub fn new(session: &Arc<Session>, index: usize) -> Self {
        Self { session: session.clone(), index, formats: Mutex::default() }
    }

    pub fn offer(&self) -> &Offer {
        &self.session.offers[self.index]
    }

    fn open(&self, desc: &wgpu::DeviceDescriptor<'_>) -> Result<(DispatchDevice, DispatchQueue), String> {
        let request = Box::new(DeviceRequest {
            label: bounded::label(desc.label),
            features: desc.required_features,
            limits: desc.required_limits.clone(),
            low_memory: matches!(desc.memory_hints, wgpu::MemoryHints::MemoryUsage),
        });
        let adapter = self.index as u32;
        let (id, reply) = self.session.ask_for::<pontoon_wire::handle::Device>(|call, id| {
            // Losses and errors may come before the reply is taken.
            self.session.state().devices.insert(id.to_bits(), DeviceState::default());
            Command::RequestDevice { call, adapter, id, desc: request }
        });
        let refused = |message: String| {
            self.session.state().devices.remove(&id.to_bits());
            Err(message)
        };
        match reply {
            Some(Reply::Device(Ok(reply))) => {
                let object = Object::new(&self.session, id);
                let device = Arc::new(ClientDevice {
                    object,
                    info: self.offer().info.clone(),
                    features: reply.features,
                    limits: reply.limits,
                    timestamp_period: reply.timestamp_period,
                });
                let queue = ClientQueue { device: device.clone() };
                Ok((
                    DispatchDevice::custom(crate::device::SharedDevice(device)),
                    DispatchQueue::custom(queue),
                ))
            }
            Some(Reply::Device(Err(message))) => {
                // The host has used the name up: it needs no telling.
                let forget = Forget { kind: <pontoon_wire::handle::Device as Kind>::CODE, id: id.to_bits() };
                self.session.forget(forget, false);
                refused(message.into_string())
            }
            _ => {
                let reason = self.session.state().dead.clone();
                refused(reason.unwrap_or_else(|| "the host gave no device".into()))
            }
        }
    }
}

impl AdapterInterface for ClientAdapter {
    fn request_device(&self, desc: &wgpu::DeviceDescriptor<'_>) -> Pin<Box<dyn RequestDeviceFuture>> {
        Box::pin(ready(self.open(desc).map_err(wgpu::RequestDeviceError::from_message)))
    }

    fn is_surface_supported(&self, _: &DispatchSurface) -> bool {
        false
    }

    fn features(&self) -> wgpu::Features {
        self.offer().features
    }

    fn limits(&self) -> wgpu::Limits {
        self.offer().limits.clone()
    }

    fn downlevel_capabilities(&self) -> wgpu::DownlevelCapabilities {
        self.offer().downlevel.clone()
    }

    fn get_info(&self) -> wgpu::AdapterInfo {
        self.offer().info.clone()
    }

    fn get_texture_format_features(&self, format: wgpu::TextureFormat) -> wgpu::TextureFormatFeatures {
        let mut formats = self.formats.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(features) = formats.get(&format) {
            return *features;
        }
        let adapter = self.index as u32;
        match self.session.ask(|call| Command::FormatFeatures { call, adapter, format }) {
            Some(Reply::FormatFeatures(features)) => *formats.entry(format).or_insert(features),
            // The session is over: nothing can be done with any format.
            _ => wgpu::TextureFormatFeatures {
                allowed_usages: wgpu::TextureUsages::empty(),
                flags: wgpu::TextureFormatFeatureFlags::empty(),
            },
        }
    }

    fn get_presentation_timestamp(&self) -> wgpu::PresentationTimestamp {
        wgpu::PresentationTimestamp::INVALID_TIMESTAMP
    }

    fn cooperative_matrix_properties(&self) -> Vec<wgpu::wgt::CooperativeMatrixProperties> {
        Vec::new()
    }
}
