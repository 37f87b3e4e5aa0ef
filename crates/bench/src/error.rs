//! Owns the one error type of the benchmarks.

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is nothing to measure on.
    #[error("no target to measure")]
    NoTarget,
    /// The filter leaves nothing.
    #[error("no benchmark's name contains \"{filter}\"; there are: {}", crate::names().collect::<Vec<_>>().join(", "))]
    NoBenchmark {
        /// What was asked for.
        filter: String,
    },
    /// A target gives no device.
    #[error("cannot open target {target}: {problem}")]
    Open {
        /// The target's name.
        target: String,
        /// What it said.
        problem: String,
    },
    /// The targets stand before different GPUs.
    #[error(
        "target {first} is on {first_adapter} but target {other} is on {other_adapter}: \
         there is nothing to compare"
    )]
    Adapters {
        /// The first target's name.
        first: String,
        /// Its adapter.
        first_adapter: String,
        /// The name of the target that differs.
        other: String,
        /// Its adapter.
        other_adapter: String,
    },
    /// A benchmark failed.
    #[error("benchmark {benchmark} failed on target {target}: {problem}")]
    Benchmark {
        /// The target's name.
        target: String,
        /// The benchmark's name.
        benchmark: &'static str,
        /// What went wrong.
        problem: String,
    },
}
