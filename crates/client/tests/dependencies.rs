//! Guests carry no GPU driver and no host back end: what the library pulls in says so.

use std::process::Command;

#[test]
fn no_back_end_is_in_the_tree() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["tree", "--offline", "--package", "pontoon-client", "--edges", "normal", "--prefix", "none"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tree = String::from_utf8_lossy(&output.stdout);
    assert!(tree.contains("wgpu v30"), "{tree}");
    for name in [
        "ash ",
        "gpu-allocator ",
        "glow ",
        "khronos-egl ",
        "metal ",
        "objc2-metal ",
        "windows ",
        "pontoon-executor ",
    ] {
        assert!(!tree.lines().any(|line| line.starts_with(name)), "{name}is in the tree:\n{tree}");
    }
}
