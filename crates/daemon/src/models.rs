//! The model runner within the daemon: event loops of its own beside the bridge's threads, the folders it
//! uses, and its orderly end.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pontoon_api::{Api, LogTail, MoreMetrics, Server};
use pontoon_callers::Directory;
use pontoon_engines::engine::{Catalog, EngineConfig};
use pontoon_engines::instance::Launcher;
use pontoon_engines::launcher::User;
use pontoon_engines::{Options, Runner};
use pontoon_models::Store;
use tokio::runtime::Runtime;

use crate::forward::Forwards;
use crate::{Config, Error, paths};

/// How long answers under way may take once the daemon is told to end.
const GRACE: Duration = Duration::from_secs(3);

/// A running model runner.
pub struct Models {
    runtime: Runtime,
    runner: Runner,
    server: Server,
}

impl Models {
    /// Opens the store and the listeners. Engines start when somebody asks for a model.
    ///
    /// # Errors
    /// [`Error::Models`], one sentence; nothing is left behind then.
    pub fn start(
        config: &Config,
        socket: &Path,
        directory: &Arc<Directory>,
        log: LogTail,
        more_metrics: MoreMetrics,
    ) -> Result<Self, Error> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("models")
            .enable_all()
            .build()
            .map_err(Error::io("starting the model runner's threads"))?;
        let (runner, server) =
            runtime.block_on(begin(config, socket, directory, log, more_metrics)).map_err(Error::Models)?;
        Ok(Self { runtime, runner, server })
    }

    /// Where it listens, for people.
    pub fn addresses(&self) -> &[String] {
        self.server.addresses()
    }

    /// Serves listeners in containers' networks, those of an earlier daemon beside this admin socket first.
    pub fn forwards(&self, admin_socket: &Path) -> Forwards {
        Forwards::new(self.server.forwarder(), self.runtime.handle().clone(), admin_socket)
    }

    /// Lets answers end, within limits, saves what engines can save, and ends them.
    pub fn end(self) {
        let Self { runtime, runner, server } = self;
        runtime.block_on(async {
            server.shutdown(GRACE).await;
            runner.drain().await;
        });
        runtime.shutdown_timeout(Duration::from_secs(1));
    }
}

async fn begin(
    config: &Config,
    socket: &Path,
    directory: &Arc<Directory>,
    log: LogTail,
    more_metrics: MoreMetrics,
) -> Result<(Runner, Server), String> {
    let folder = config.models.folder.clone().unwrap_or_else(paths::models_folder);
    let store = Store::open(&folder).map_err(|error| {
        format!(
            "the store of models in {}: {error} (models.folder or PONTOON_DATA names another)",
            folder.display()
        )
    })?;
    let engines = Catalog::open(paths::engines_folder(), config.engines.clone());
    let launcher = Launcher::this_program().map_err(|error| format!("no path of this program: {error}"))?;
    let mut options = Options::new(store.clone(), engines, paths::data_folder(), launcher);
    let EngineConfig { uid, gid, .. } = config.engines;
    if uid != 0 && rustix::process::geteuid().is_root() {
        // Another user cannot pass through the operator's folder.
        options.run = options.state.join("run");
        options.user = Some(User { uid, gid: if gid == 0 { uid } else { gid } });
    } else {
        options.run = paths::admin_socket(socket).with_file_name("engines");
    }
    config.models.apply(&mut options);
    let runner = Runner::start(options).await.map_err(|error| error.to_string())?;
    let mut http = config.http.clone();
    http.socket.get_or_insert_with(|| paths::models_socket(socket));
    let mut devices = Vec::new();
    for policy in config.policies.iter().filter(|policy| policy.device) {
        let socket = paths::models_socket(&paths::device_socket(socket, &policy.name));
        devices.push((policy.name.as_str().into(), socket));
    }
    http.admin.get_or_insert_with(|| paths::models_admin_socket(socket));
    let api = |http: pontoon_api::Config| -> Result<Api, String> {
        Ok(Api {
            config: http,
            runner: runner.clone(),
            store: store.clone(),
            registry: config.models.registry(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            log: log.clone(),
            directory: directory.clone(),
            devices: devices.clone(),
            more_metrics: Some(more_metrics.clone()),
        })
    };
    let usual = pontoon_api::Config::default().listen;
    let server = match pontoon_api::start(api(http.clone())?).await {
        // The usual port may belong to Docker's runner: containers have the socket all the same.
        Err(error @ pontoon_api::Error::Listen { .. }) if in_use(&error) && http.listen == usual => {
            log::warn!("{error}; the model runner goes on without TCP: http.listen names another port");
            http.listen.clear();
            pontoon_api::start(api(http)?).await
        }
        other => other,
    };
    Ok((runner, server.map_err(|error| error.to_string())?))
}

fn in_use(error: &pontoon_api::Error) -> bool {
    matches!(error, pontoon_api::Error::Listen { source, .. } if source.kind() == std::io::ErrorKind::AddrInUse)
}
