//! `wgpu::Instance` over a session, and a fresh session where the old one is over.

use std::future::ready;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use wgpu::custom::{
    DispatchAdapter, DispatchSurface, EnumerateAdapterFuture, InstanceInterface, RequestAdapterFuture,
};

use crate::adapter::ClientAdapter;
use crate::session::Session;
use crate::{Error, Options};

/// An instance: the way to a host, and the session that is open now.
#[derive(Debug)]
pub(crate) struct ClientInstance {
    options: Options,
    session: Mutex<Arc<Session>>,
}

impl ClientInstance {
    pub fn connect(options: Options) -> Result<Self, Error> {
        let session = Mutex::new(open(&options)?);
        Ok(Self { options, session })
    }

    pub fn session(&self) -> Arc<Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The open session; a new one where the old one is over, so that a program that asks for an adapter
    /// again after losing its device gets one at once.
    fn fresh_session(&self) -> Result<Arc<Session>, Error> {
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        session.read_now();
        if session.is_dead() {
            *session = open(&self.options)?;
        }
        Ok(session.clone())
    }

    fn adapters(&self) -> Vec<ClientAdapter> {
        match self.fresh_session() {
            Ok(session) => {
                (0..session.offers.len()).map(|index| ClientAdapter::new(&session, index)).collect()
            }
            Err(error) => {
                log::error!("{error}");
                Vec::new()
            }
        }
    }
}

fn open(options: &Options) -> Result<Arc<Session>, Error> {
    let connection = crate::connect::connect(options)?;
    Session::new(connection)
        .map_err(|error| Error::Broken { endpoint: options.endpoint.clone(), message: error.to_string() })
}

/// How much an adapter suits what the program prefers; less is better.
fn rank(device_type: wgpu::DeviceType, preference: wgpu::PowerPreference) -> u8 {
    use wgpu::DeviceType as T;
    match (device_type, preference) {
        (T::IntegratedGpu, wgpu::PowerPreference::LowPower) => 0,
        (T::DiscreteGpu, _) => 1,
        (T::IntegratedGpu, _) => 2,
        (T::VirtualGpu, _) => 3,
        (T::Other, _) => 4,
        (T::Cpu, _) => 5,
    }
}

impl InstanceInterface for ClientInstance {
    fn new(_: wgpu::InstanceDescriptor) -> Self {
        panic!("use pontoon_client::instance(), which can say why there is no host");
    }

    // SAFETY: `wgpu`'s signature; the handles are not looked at.
    unsafe fn create_surface(
        &self,
        _: wgpu::SurfaceTargetUnsafe,
    ) -> Result<DispatchSurface, wgpu::CreateSurfaceError> {
        let error = wgpu::wgc::instance::CreateSurfaceError::BackendNotEnabled(wgpu::Backend::Noop);
        log::error!("surfaces are not supported through Pontoon: render to a texture");
        Err(error.into())
    }

    fn request_adapter(
        &self,
        options: &wgpu::RequestAdapterOptions<'_, '_>,
    ) -> Pin<Box<dyn RequestAdapterFuture>> {
        let usable = |adapter: &ClientAdapter| {
            !options.force_fallback_adapter || adapter.offer().info.device_type == wgpu::DeviceType::Cpu
        };
        let best = self
            .adapters()
            .into_iter()
            .filter(usable)
            .min_by_key(|adapter| rank(adapter.offer().info.device_type, options.power_preference));
        let none = wgpu::RequestAdapterError::NotFound {
            active_backends: wgpu::Backends::all(),
            requested_backends: wgpu::Backends::all(),
            supported_backends: wgpu::Backends::all(),
            no_fallback_backends: wgpu::Backends::empty(),
            no_adapter_backends: wgpu::Backends::all(),
            incompatible_surface_backends: wgpu::Backends::empty(),
        };
        Box::pin(ready(best.map(DispatchAdapter::custom).ok_or(none)))
    }

    fn poll_all_devices(&self, force_wait: bool) -> bool {
        let session = self.session();
        let devices: Vec<u64> = session.state().devices.keys().copied().collect();
        devices.into_iter().fold(true, |empty, device| {
            let poll = match force_wait {
                true => wgpu::wgt::PollType::Wait { submission_index: None, timeout: None },
                false => wgpu::wgt::PollType::Poll,
            };
            let status = crate::queue::poll(&session, pontoon_wire::Id::from_bits(device), poll);
            empty & matches!(status, Ok(wgpu::PollStatus::QueueEmpty))
        })
    }

    fn wgsl_language_features(&self) -> wgpu::WgslLanguageFeatures {
        wgpu::WgslLanguageFeatures::all()
    }

    fn enumerate_adapters(&self, backends: wgpu::Backends) -> Pin<Box<dyn EnumerateAdapterFuture>> {
        let wanted = |adapter: &ClientAdapter| backends.contains(adapter.offer().info.backend.into());
        Box::pin(ready(
            self.adapters().into_iter().filter(wanted).map(DispatchAdapter::custom).collect::<Vec<_>>(),
        ))
    }
}
