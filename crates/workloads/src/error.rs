//! Owns the one error type of the workloads.

/// Why a workload could not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The caller's configuration makes no sense.
    #[error("{what} is {got}, but it must be {rule}")]
    Config {
        /// The field at fault.
        what: &'static str,
        /// What it was.
        got: u64,
        /// What it has to be.
        rule: &'static str,
    },
    /// The device was opened with limits too low for this configuration.
    #[error("this workload needs {limit} of at least {need}, but the device allows {have}")]
    Limit {
        /// The field of `wgpu::Limits`.
        limit: &'static str,
        /// What the workload needs.
        need: u64,
        /// What the device was opened with.
        have: u64,
    },
    /// Results could not be brought back from the device (it was lost, or the bridge went away).
    #[error("could not read the results back from the GPU: {0}")]
    ReadBack(String),
    /// A data file does not have the shape it should have.
    #[error("{file}, line {line}: {problem}")]
    Data {
        /// Which file.
        file: &'static str,
        /// Line number, from 1.
        line: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// A picture could not be decoded or encoded.
    #[error("cannot {action} PNG picture: {problem}")]
    Png {
        /// `"read"` or `"write"`.
        action: &'static str,
        /// What the coder said.
        problem: String,
    },
    /// Two pictures that should have the same size do not.
    #[error("picture is {got_width}x{got_height} pixels, expected {width}x{height}")]
    Size {
        /// Expected width.
        width: u32,
        /// Expected height.
        height: u32,
        /// Width found.
        got_width: u32,
        /// Height found.
        got_height: u32,
    },
}
