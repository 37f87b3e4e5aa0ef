//! `pontoon serve`: the supervisor.

use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use pontoon_callers::Directory;
use pontoon_transport::tls::Identity;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::consts::{SIGINT, SIGTERM};
use vsock::VsockListener;

use crate::config::Vm;
use crate::greetings::Greetings;
use crate::listen::{self, Door};
use crate::models::Models;
use crate::pool::Pool;
use crate::session::Registry;
use crate::tokens::Tokens;
use crate::{Config, Error, admin, cdi, identity, logging, paths, taken};

/// Runs the supervisor until it is told to end (`SIGINT`, `SIGTERM`).
///
/// # Errors
/// [`Error`] where it cannot start; nothing is left behind then.
pub fn run(config: &Config) -> Result<(), Error> {
    config.check().map_err(|message| Error::Config { path: "configuration".into(), message })?;
    if config.listen.tcp.is_some() && config.listen.tokens.is_empty() {
        return Err(Error::NoToken);
    }
    raise_open_files();
    let tcp = config.listen.tcp.as_ref().map(|address| {
        TcpListener::bind(address).map_err(|source| Error::Listen { what: format!("tcp:{address}"), source })
    });
    let tcp = tcp.transpose()?;
    let socket = config.socket();
    let listener = listen::unix(&socket)?;
    let devices = devices(config, &socket)?;
    let remote = Remote::bind(config)?;
    let admin_path = paths::admin_socket(&socket);
    let admin_listener = admin::listen(&admin_path)?;

    let pool = Pool::start(config.gpu.clone()).map_err(Error::io("starting the pool"))?;
    let directory = Arc::new(Directory::new(&config.callers, config.policies.clone()));
    let registry = Arc::new(Registry::new(pool, config.limits.clone(), &config.policies));
    let door = Arc::new(Door {
        registry: registry.clone(),
        directory: directory.clone(),
        tokens: config.listen.tokens.clone(),
        issued: Tokens::in_folder(&paths::data_folder()),
        patience: Duration::from_secs(config.limits.handshake_seconds),
        greetings: Greetings::default(),
    });
    let thread = |name: &str, work: Box<dyn FnOnce() + Send>| {
        std::thread::Builder::new().name(name.into()).spawn(work).map_err(Error::io("starting a thread"))
    };
    let counted = registry.clone();
    let bridge_metrics: pontoon_api::MoreMetrics = Arc::new(move || counted.metrics());
    let desk = Arc::new(admin::Desk {
        registry,
        door: door.clone(),
        models: config.http.enabled,
        forwards: OnceLock::new(),
        machines: Mutex::default(),
    });
    let answering = desk.clone();
    thread("admin", Box::new(move || admin::serve(admin_listener, &answering)))?;
    if let Some(other) = socket.parent().and_then(paths::other_file) {
        log::warn!(
            "{} lies beside the guests' socket: containers that are given the folder see it",
            other.display()
        );
    }
    log::info!("listening on unix:{}", socket.display());
    let unix_door = door.clone();
    thread("unix", Box::new(move || unix_door.unix(&listener, None)))?;
    let mut files = vec![socket.clone(), admin_path.clone()];
    for (name, path, listener) in devices {
        log::info!("listening on unix:{} for the device '{name}'", path.display());
        files.push(path);
        let device_door = door.clone();
        thread("device", Box::new(move || device_door.unix(&listener, Some(name))))?;
    }
    if let Some(tcp) = tcp {
        log::info!("listening on tcp:{}", tcp.local_addr().map_err(Error::io("reading the TCP address"))?);
        let tcp_door = door.clone();
        thread("tcp", Box::new(move || tcp_door.tcp(&tcp)))?;
    }
    remote.serve(&door, &mut files, &thread)?;
    let models = match config.http.enabled {
        true => Some(Models::start(config, &socket, &directory, logging::tail(), bridge_metrics)?),
        false => None,
    };
    if let Some(models) = &models {
        let _ = desk.forwards.set(models.forwards(&admin_path));
    }
    refresh_cdi(config);
    // A driver that hangs keeps nobody waiting.
    thread("taken", Box::new(taken::look_after))?;
    for address in models.iter().flat_map(Models::addresses) {
        log::info!("models on {address}");
    }
    let signal = wait_for_a_signal()?;
    log::info!("ending on signal {signal}");
    for path in &files {
        let _ = std::fs::remove_file(path);
    }
    if let Some(models) = models {
        models.end();
    }
    Ok(())
}

/// What listens for other machines, virtual and real.
struct Remote {
    tls: Option<(TcpListener, Identity)>,
    vsock: Option<(VsockListener, u32)>,
    monitors: Vec<(UnixListener, PathBuf, Vm)>,
}

/// Starts a named thread.
type Start<'a> = &'a dyn Fn(&str, Box<dyn FnOnce() + Send>) -> Result<std::thread::JoinHandle<()>, Error>;

impl Remote {
    fn bind(config: &Config) -> Result<Self, Error> {
        let listen = &config.listen;
        let tls = listen.tls.as_ref().map(|address| {
            let what = format!("tls:{address}");
            let listener = TcpListener::bind(address).map_err(|source| Error::Listen { what, source })?;
            Ok((listener, identity::of_host(listen, &paths::data_folder())?))
        });
        let vsock = listen.vsock.map(|port| {
            let what = format!("vsock port {port}");
            let listener = VsockListener::bind_with_cid_port(vsock::VMADDR_CID_ANY, port);
            listener.map(|listener| (listener, port)).map_err(|source| Error::Listen { what, source })
        });
        let monitors = listen.vms.iter().map(|vm| Ok((listen::unix(&vm.socket())?, vm.socket(), vm.clone())));
        Ok(Self {
            tls: tls.transpose()?,
            vsock: vsock.transpose()?,
            monitors: monitors.collect::<Result<_, _>>()?,
        })
    }

    fn serve(self, door: &Arc<Door>, files: &mut Vec<PathBuf>, thread: Start<'_>) -> Result<(), Error> {
        if let Some((listener, identity)) = self.tls {
            let address = listener.local_addr().map_err(Error::io("reading the TLS address"))?;
            log::info!("listening on tls:{address}, certificate {}", identity.fingerprint());
            let door = door.clone();
            thread("tls", Box::new(move || door.tls(&listener, &identity)))?;
        }
        if let Some((listener, port)) = self.vsock {
            log::info!("listening on vsock port {port}");
            let door = door.clone();
            thread("vsock", Box::new(move || door.vsock(&listener)))?;
        }
        for (listener, path, vm) in self.monitors {
            log::info!("listening on unix:{} for the virtual machine {}", path.display(), vm.cid);
            files.push(path);
            let door = door.clone();
            thread("monitor", Box::new(move || door.monitor(&listener, vm.cid, vm.memory.as_deref())))?;
        }
        Ok(())
    }
}

/// CDI specifications of this daemon that lie on the host follow its configuration.
fn refresh_cdi(config: &Config) {
    let refreshed = std::env::current_exe()
        .map_err(Error::io("no path of this program"))
        .and_then(|program| cdi::refresh(config, &program, &cdi::places()));
    match refreshed {
        Ok(written) => {
            for (path, _) in written.iter().filter(|(_, written)| *written == cdi::Written::Replaced) {
                log::info!("{} follows the configuration", path.display());
            }
        }
        Err(error) => log::warn!("{error}; run `pontoon cdi refresh`"),
    }
}

/// As many open files as this user may have: what a shell gives to start with is less than the connections that
/// the configuration permits. Workers and engines have limits of their own.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, ..limit };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        log::warn!("no more than {:?} files may be open: {error}", limit.current);
    }
}

/// The sockets of policies that are CDI devices.
fn devices(config: &Config, socket: &Path) -> Result<Vec<(Arc<str>, PathBuf, UnixListener)>, Error> {
    let policies = config.policies.iter().filter(|policy| policy.device);
    policies
        .map(|policy| {
            let path = paths::device_socket(socket, &policy.name);
            let listener = listen::unix(&path)?;
            Ok((policy.name.as_str().into(), path, listener))
        })
        .collect()
}

fn wait_for_a_signal() -> Result<i32, Error> {
    let mut signals =
        signal_hook::iterator::Signals::new([SIGINT, SIGTERM]).map_err(Error::io("watching for signals"))?;
    Ok(signals.forever().next().unwrap_or_default())
}
