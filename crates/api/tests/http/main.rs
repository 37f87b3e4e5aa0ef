//! The server with a real runner and a real `llama-server`, over real sockets.
//!
//! Needs `PONTOON_LLAMA_SERVER` (or one in `PATH`) and a small model in `PONTOON_TEST_GGUF` (else the toy model of
//! `assets`); where they are missing the tests are shown as ignored, or fail if `PONTOON_TEST_REQUIRE=1`. This
//! program is its own launcher: started as `worker engine` it confines itself and becomes the engine.
//! Started as `serve ADDRESS` it serves the toy model until it is killed, for SDKs and schemathesis; as
//! `bench OURS AGAINST` it measures such a server beside another one.

mod bench;
mod chat;
mod hostile;
mod manage;
mod peers;
mod scene;
mod secure;
mod shed;

use libtest_mimic::{Arguments, Trial};

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["worker", "engine"] => std::process::exit(pontoon_engines::launcher::run()),
        ["serve", address] => return scene::serve(address),
        ["bench", ours, against] => return bench::by_hand(ours, against),
        _ => {}
    }
    let mut trials: Vec<Trial> = Vec::new();
    for group in [
        chat::trials(),
        hostile::trials(),
        manage::trials(),
        peers::trials(),
        secure::trials(),
        shed::trials(),
        bench::trials(),
    ] {
        trials.extend(group);
    }
    let mut arguments = Arguments::from_args();
    // Tests that count connections, slots and milliseconds would see each other's.
    arguments.test_threads = arguments.test_threads.or(Some(1));
    libtest_mimic::run(&arguments, trials).exit();
}
