//! Owns the reasons for which the program stops.

use burn::tensor::TensorReadError;
use burn::tensor::wgpu::WgpuInitError;

/// Why the program stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `--native` asks for what was not compiled in.
    #[cfg(not(feature = "native"))]
    #[error("this program was built without this machine's own GPU; build it with `--features native`")]
    NotBuiltIn,
    /// Pontoon's client could not reach a GPU.
    #[error(transparent)]
    Bridge(#[from] pontoon_client::Error),
    /// There is no adapter.
    #[error("no GPU found: {0}")]
    Adapter(#[from] wgpu::RequestAdapterError),
    /// The adapter gives no device.
    #[error("the GPU could not be opened: {0}")]
    Device(#[from] wgpu::RequestDeviceError),
    /// Burn does not take the device.
    #[error("Burn does not take the GPU: {0}")]
    Burn(#[from] WgpuInitError),
    /// The images could not be read.
    #[error(transparent)]
    Data(#[from] pontoon_workloads::Error),
    /// The GPU failed underneath Burn.
    #[error("the GPU failed: {0}")]
    Read(#[from] TensorReadError),
}
