//! Owns one device on one target, waiting for it, and the record of what went wrong on it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::Target;

/// A device that has not answered by then never will; better an error than a run that hangs.
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) struct Session {
    pub device: wgpu::Device,
    pub queue: wgpu::Queue,
    pub info: wgpu::AdapterInfo,
    fault: Arc<Mutex<Option<String>>>,
}

impl Session {
    /// Connects and opens a device with default limits.
    pub fn open(target: &Target<'_>) -> Result<Self, String> {
        let instance = (target.connect)()?;
        // `HighPerformance` makes native wgpu and the bridge rank several adapters alike.
        let options = wgpu::RequestAdapterOptions {
            power_preference: wgpu::PowerPreference::HighPerformance,
            ..Default::default()
        };
        let adapter = pollster::block_on(instance.request_adapter(&options)).map_err(|e| e.to_string())?;
        let (device, queue) =
            pollster::block_on(adapter.request_device(&Default::default())).map_err(|e| e.to_string())?;
        let fault = record_faults(&device);
        Ok(Self { device, queue, info: adapter.get_info(), fault })
    }

    /// Waits for everything submitted so far; fails with the first error the device reported.
    pub fn wait(&self) -> Result<(), String> {
        let poll = wgpu::PollType::Wait { submission_index: None, timeout: Some(PATIENCE) };
        self.device.poll(poll).map_err(|e| e.to_string())?;
        match self.fault.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(problem) => Err(problem),
            None => Ok(()),
        }
    }

    /// Waits for everything asked for so far, submitted or not.
    pub fn drain(&self) -> Result<(), String> {
        self.queue.submit([]);
        self.wait()
    }
}

/// Keeps the first error that no scope captured, or the loss of the device; wgpu would panic.
fn record_faults(device: &wgpu::Device) -> Arc<Mutex<Option<String>>> {
    let fault = Arc::new(Mutex::new(None));
    let recorder = |fault: &Arc<Mutex<Option<String>>>| {
        let fault = fault.clone();
        move |problem: String| {
            fault.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(problem);
        }
    };
    let error = recorder(&fault);
    device.on_uncaptured_error(Arc::new(move |problem: wgpu::Error| error(problem.to_string())));
    let lost = recorder(&fault);
    device.set_device_lost_callback(move |_, message| lost(format!("the device was lost: {message}")));
    fault
}
