//! Finds out which wgpu the workspace is locked to; reports name it, and wgpu itself does not say.

use std::path::Path;

fn main() {
    let crate_folder = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    let lock = Path::new(&crate_folder).ancestors().map(|folder| folder.join("Cargo.lock"));
    let version = lock.filter(|path| path.exists()).find_map(|path| {
        println!("cargo::rerun-if-changed={}", path.display());
        locked(&std::fs::read_to_string(path).ok()?)
    });
    println!("cargo::rustc-env=PONTOON_WGPU_VERSION={}", version.as_deref().unwrap_or("30"));
}

/// The version of `wgpu` in the text of a lock file.
fn locked(lock: &str) -> Option<String> {
    let rest = lock.split("name = \"wgpu\"\nversion = \"").nth(1)?;
    Some(rest.split('"').next()?.to_owned())
}
