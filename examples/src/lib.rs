//! Owns what the three programs share: opening the GPU, their common flags, and how they end.

#![forbid(unsafe_code)]

mod open;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

pub use open::{Gpu, open};
use pontoon_workloads::report::Image;

/// The flags that every program takes.
#[derive(Clone, Debug, clap::Args)]
pub struct Common {
    /// Use this machine's own GPU and not the one behind Pontoon
    #[arg(long)]
    pub native: bool,
    /// Print nothing but one line of JSON
    #[arg(long)]
    pub json: bool,
}

impl Common {
    /// Prints a line for people; programs that asked for JSON do not get it.
    pub fn say(&self, line: impl std::fmt::Display) {
        if !self.json {
            println!("{line}");
        }
    }
}

/// Why a program stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The flag asks for what was not compiled in.
    #[error("this program was built without {what}; build it with `--features {feature}`")]
    NotBuiltIn {
        /// What is missing.
        what: &'static str,
        /// The feature that has it.
        feature: &'static str,
    },
    /// Pontoon's client could not reach a GPU.
    #[cfg(feature = "bridge")]
    #[error(transparent)]
    Bridge(#[from] pontoon_client::Error),
    /// There is no adapter.
    #[error("no GPU found: {0}")]
    Adapter(#[from] wgpu::RequestAdapterError),
    /// The adapter gives no device.
    #[error("the GPU could not be opened: {0}")]
    Device(#[from] wgpu::RequestDeviceError),
    /// The workload failed.
    #[error(transparent)]
    Workload(#[from] pontoon_workloads::Error),
    /// A file could not be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// Runs a program; a failure becomes one sentence on standard error and exit code 1.
pub fn finish(result: Result<(), Error>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

/// Prints `problem` on one line of standard error.
fn complain(problem: &dyn std::fmt::Display) {
    let text = problem.to_string();
    let words: Vec<&str> = text.split_whitespace().collect();
    eprintln!("error: {}", words.join(" "));
}

/// Writes `image` to `path` as PNG.
pub fn write_png(image: &Image, path: &Path) -> Result<(), Error> {
    let png = image.to_png()?;
    std::fs::write(path, png).map_err(|source| Error::Write { path: path.to_owned(), source })
}
