//! Which tools the machine has, and what a test does without one.

use std::{
    env,
    io::{self, Write as _},
    path::PathBuf,
};

/// Set to `1` by `cargo xtask test` once it has installed the packages: from then on a missing
/// tool fails the test instead of skipping it.
pub const REQUIRE: &str = "PONTOON_TEST_REQUIRE";

/// The path of a program on `PATH` or in the folders of system programs, which `PATH` lacks for
/// ordinary users on Debian.
pub fn find_tool(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// True when the test can go on. Otherwise it says `SKIPPED: reason` past the test harness's
/// capture, or fails the test where nothing may be skipped.
pub fn ready(available: anyhow::Result<()>) -> bool {
    let Err(reason) = available else { return true };
    assert!(
        env::var_os(REQUIRE).is_none_or(|value| value != "1"),
        "{reason:#} (and {REQUIRE}=1 forbids to skip this test)"
    );
    // Straight to the stream: `eprintln!` would be captured.
    let _ = writeln!(io::stderr(), "SKIPPED: {reason:#}");
    false
}
