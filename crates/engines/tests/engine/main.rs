//! The runner with real engines: `llama-server` on the toy model, and mlx-lm where it is installed.
//!
//! Needs `PONTOON_LLAMA_SERVER` (or one in `PATH`), and for mlx-lm `PONTOON_MLX_PYTHON`; where they are
//! missing the tests are shown as ignored, or fail if `PONTOON_TEST_REQUIRE=1`. This program is its own
//! launcher: started as `worker engine` it confines itself and becomes the engine.

mod breakout;
mod cold;
mod confined;
mod install;
mod life;
mod mlx;
mod scene;
mod share;

use libtest_mimic::{Arguments, Trial};

fn main() {
    let mut words = std::env::args().skip(1);
    if words.next().as_deref() == Some("worker") && words.next().as_deref() == Some("engine") {
        std::process::exit(pontoon_engines::launcher::run());
    }
    if std::env::args().nth(1).as_deref() == Some(life::SUPERVISE) {
        life::supervise();
    }
    if std::env::args().any(|word| word == breakout::WORD) {
        breakout::attempt();
    }
    let mut trials: Vec<Trial> = Vec::new();
    trials.extend(life::trials());
    trials.extend(share::trials());
    trials.extend(cold::trials());
    trials.extend(confined::trials());
    trials.extend(mlx::trials());
    trials.extend(install::trials());
    let mut arguments = Arguments::from_args();
    // Engines of several tests at once would measure each other's load.
    arguments.test_threads = arguments.test_threads.or(Some(1));
    libtest_mimic::run(&arguments, trials).exit();
}
