//! Bytes into a session, as a worker would have them from a socket.
#![no_main]

#[path = "../src/harness.rs"]
mod harness;

libfuzzer_sys::fuzz_target!(
    // The fuzzer's own hook ends the process at every panic, also at those that a session survives.
    init: std::panic::set_hook(Box::new(|panic| eprintln!("{panic}"))),
    |data: &[u8]| harness::session(data)
);
