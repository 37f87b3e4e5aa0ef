//! `pontoon serve`: the supervisor.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};

use crate::listen::{self, Door};
use crate::models::Models;
use crate::pool::Pool;
use crate::session::Registry;
use crate::{Config, Error, admin, logging, paths};

/// Runs the supervisor until it is told to end (`SIGINT`, `SIGTERM`).
///
/// # Errors
/// [`Error`] where it cannot start; nothing is left behind then.
pub fn run(config: &Config) -> Result<(), Error> {
    config.check().map_err(|message| Error::Config { path: "configuration".into(), message })?;
    if config.listen.tcp.is_some() && config.listen.tokens.is_empty() {
        return Err(Error::NoToken);
    }
    let tcp = config.listen.tcp.as_ref().map(|address| {
        TcpListener::bind(address).map_err(|source| Error::Listen { what: format!("tcp:{address}"), source })
    });
    let tcp = tcp.transpose()?;
    let socket = config.socket();
    let listener = listen::unix(&socket)?;
    let admin_path = paths::admin_socket(&socket);
    let admin_listener = admin::listen(&admin_path)?;

    let pool = Pool::start(config.gpu.clone()).map_err(Error::io("starting the pool"))?;
    let registry = Arc::new(Registry::new(pool, config.limits.clone()));
    let door = Arc::new(Door {
        registry: registry.clone(),
        tokens: config.listen.tokens.clone(),
        patience: Duration::from_secs(config.limits.handshake_seconds),
        greetings: AtomicUsize::new(0),
    });
    let thread = |name: &str, work: Box<dyn FnOnce() + Send>| {
        std::thread::Builder::new().name(name.into()).spawn(work).map_err(Error::io("starting a thread"))
    };
    thread("admin", Box::new(move || admin::serve(admin_listener, &registry)))?;
    log::info!("listening on unix:{}", socket.display());
    let unix_door = door.clone();
    thread("unix", Box::new(move || unix_door.unix(&listener)))?;
    if let Some(tcp) = tcp {
        log::info!("listening on tcp:{}", tcp.local_addr().map_err(Error::io("reading the TCP address"))?);
        thread("tcp", Box::new(move || door.tcp(&tcp)))?;
    }
    let models = match config.http.enabled {
        true => Some(Models::start(config, &socket, logging::tail())?),
        false => None,
    };
    for address in models.iter().flat_map(Models::addresses) {
        log::info!("models on {address}");
    }
    let signal = wait_for_a_signal()?;
    log::info!("ending on signal {signal}");
    for path in [&socket, &admin_path] {
        let _ = std::fs::remove_file(path);
    }
    if let Some(models) = models {
        models.end();
    }
    Ok(())
}

fn wait_for_a_signal() -> Result<i32, Error> {
    let mut signals =
        signal_hook::iterator::Signals::new([SIGINT, SIGTERM]).map_err(Error::io("watching for signals"))?;
    Ok(signals.forever().next().unwrap_or_default())
}
