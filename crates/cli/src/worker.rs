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
    /// Take or put back devices; standard input is the order
    Passthrough,
    /// Read this host's PCI devices; named ones are stuck
    Look {
        /// Their addresses
        stuck: Vec<pontoon_passthrough::Address>,
    },
    /// One step of that
    Step {
        /// The step, as JSON
        order: String,
    },
}

pub fn run(verb: Verb) -> Result<ExitCode, String> {
    let (noop, adapter, require_gpu, uid, gid, parent) = match verb {
        Verb::Gpu { noop, adapter, require_gpu, uid, gid, parent } => {
            (noop, adapter, require_gpu, uid, gid, parent)
        }
        // Before any thread and any logger: what becomes the engine inherits nothing of this program.
        Verb::Engine => std::process::exit(pontoon_engines::launcher::run()),
        Verb::Step { order } => std::process::exit(pontoon_passthrough::step::run(&order)),
        Verb::Look { stuck } => {
            pontoon_passthrough::run_look(&stuck);
            return Ok(ExitCode::SUCCESS);
        }
        Verb::Passthrough => {
            let ended = pontoon_passthrough::helper::run(std::io::stdin().lock(), std::io::stdout().lock());
            return ended.map(|()| ExitCode::SUCCESS).map_err(|error| error.to_string());
        }
    };
    pontoon_daemon::logging::start(format!("worker {}: ", std::process::id()));
    worker::run(&Options { noop, adapter, require_gpu, identity: uid.zip(gid), parent })?;
    Ok(ExitCode::SUCCESS)
}
