//! `pontoon worker`: what the supervisor starts.

use std::process::ExitCode;

use pontoon_daemon::worker::{self, Options};

#[derive(clap::Subcommand)]
pub enum Verb {
    /// Serve one session's GPU commands; standard input is the supervisor's socket
    Gpu {
        /// Execute nothing
        #[arg(long)]
        noop: bool,
        /// Offer only adapters whose name contains TEXT
        #[arg(long)]
        adapter: Option<String>,
        /// Serve nobody where there is only software
        #[arg(long)]
        require_gpu: bool,
        /// Become this user
        #[arg(long, requires = "gid")]
        uid: Option<u32>,
        /// Become this group
        #[arg(long, requires = "uid")]
        gid: Option<u32>,
        /// Process id of the supervisor
        #[arg(long)]
        parent: Option<u32>,
    },
    /// Check a model, confine this process, and become the engine; standard input is the order
    Engine,
}

pub fn run(verb: Verb) -> Result<ExitCode, String> {
    let Verb::Gpu { noop, adapter, require_gpu, uid, gid, parent } = verb else {
        // Before any thread and any logger: what becomes the engine inherits nothing of this program.
        std::process::exit(pontoon_engines::launcher::run());
    };
    pontoon_daemon::logging::start(format!("worker {}: ", std::process::id()));
    worker::run(&Options { noop, adapter, require_gpu, identity: uid.zip(gid), parent })?;
    Ok(ExitCode::SUCCESS)
}
