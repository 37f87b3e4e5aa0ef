//! `pontoon doctor`.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::SystemTime;

use pontoon_daemon::admin::{self, Answer, Question};
use pontoon_daemon::tokens::{Issued, Tokens};
use pontoon_daemon::worker::Options;
use pontoon_daemon::{Config, cdi, paths};
use pontoon_doctor::{Finding, State, Wanted, guest, text, worst};
use pontoon_engines::engine::Catalog;

use pontoon_passthrough::{Way, ways};

use crate::config::{ConfigFile, store};

/// Find out what works, and what is missing
///
/// On the host: is there a GPU, does the daemon run, can workers be confined, is there an engine for models, do
/// container engines know the devices; and by which other ways a GPU could reach a guest here (VFIO, SR-IOV, mdev, Venus,
/// GPU-PV), each with what was looked at. With --guest: everything that a guest needs, tried from where this is run; for
/// containers there is the static program `pontoon-doctor`, which does the same.
///
/// Exit codes: 0 where nothing failed, 1 otherwise.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Arguments {
    #[command(flatten)]
    config: ConfigFile,
    /// Try what a guest would: reach a host, compute on it, list its models
    #[arg(long)]
    guest: bool,
    /// With --guest: do not look at the bridge
    #[arg(long, requires = "guest")]
    no_gpu: bool,
    /// With --guest: do not look at the model runner
    #[arg(long, requires = "guest", conflicts_with = "no_gpu")]
    no_models: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Arguments) -> Result<ExitCode, String> {
    let findings = match arguments.guest {
        true => guest(Wanted { gpu: !arguments.no_gpu, models: !arguments.no_models }),
        false => host(&arguments.config)?,
    };
    match arguments.json {
        true => crate::print_json(&findings)?,
        false => print!("{}", text(&findings)),
    }
    Ok(if worst(&findings) == State::Failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn host(file: &ConfigFile) -> Result<Vec<Finding>, String> {
    let config = match file.read() {
        Ok(config) => config,
        Err(message) => {
            let advice = "docs/configuration.md explains every key; the daemon does not start with this file";
            return Ok(vec![Finding::failed("configuration", message, advice)]);
        }
    };
    let mut findings = Vec::new();
    let named = std::env::var_os("PONTOON_HOST").filter(|host| !host.is_empty());
    let socket = match named.map(|_| crate::local_socket()) {
        Some(Ok(socket)) => socket,
        Some(Err(message)) => {
            let advice = "the host that the configuration describes is looked at";
            findings.push(Finding::warning("PONTOON_HOST", message, advice));
            config.socket()
        }
        None => config.socket(),
    };
    findings.extend([daemon(&socket), adapters(&config, &socket), sandbox()]);
    if config.http.enabled {
        findings.extend([engine(&config), models(&config)]);
    }
    findings.extend([containers(), devices(&config, &socket)]);
    findings.extend(remote(&config));
    findings.extend(other_ways()?);
    Ok(findings)
}

fn daemon(socket: &Path) -> Finding {
    match admin::ask(&paths::admin_socket(socket), &Question::Sessions) {
        Ok(Answer::Sessions(_)) if UnixStream::connect(socket).is_err() => Finding::failed(
            "daemon",
            format!("runs, but the guests' socket {} is gone", socket.display()),
            "start the daemon again",
        ),
        Ok(Answer::Sessions(rows)) => {
            Finding::ok("daemon", format!("runs on {}, {} sessions", socket.display(), rows.len()))
        }
        Ok(other) => Finding::failed(
            "daemon",
            format!("answers something else: {other:?}"),
            "is it of another release?",
        ),
        Err(error) => {
            let advice = match UnixStream::connect(socket) {
                Ok(_) => "it runs, as another user: ask as that user, or as root",
                Err(_) => "start it: `pontoon serve`",
            };
            Finding::failed("daemon", error.to_string(), advice)
        }
    }
}

fn adapters(config: &Config, socket: &Path) -> Finding {
    let rows = match admin::ask(&paths::admin_socket(socket), &Question::Adapters) {
        Ok(Answer::Adapters(rows)) if !rows.is_empty() => rows,
        _ => {
            let adapter = config.gpu.adapter.clone();
            pontoon_daemon::worker::open_host(&Options { adapter, ..Options::default() }).1
        }
    };
    let usable = || rows.iter().filter(|row| row.usable);
    let install = "install the GPU's Vulkan driver, and check with `pontoon gpu list`";
    match (usable().find(|row| row.kind != "cpu"), usable().next()) {
        (Some(gpu), _) => Finding::ok("adapter", format!("{} ({}, {})", gpu.name, gpu.kind, gpu.driver)),
        (None, Some(cpu)) if config.gpu.require_gpu => Finding::failed(
            "adapter",
            format!("{}: software on the CPU, and gpu.require_gpu is set: nobody is served", cpu.name),
            install,
        ),
        (None, Some(cpu)) => {
            Finding::warning("adapter", format!("{}: software on the CPU, no GPU", cpu.name), install)
        }
        (None, None) if !rows.is_empty() => {
            let names: Vec<&str> = rows.iter().map(|row| row.name.as_str()).collect();
            let wanted = config.gpu.adapter.as_deref().unwrap_or_default();
            let seen =
                format!("no adapter's name contains gpu.adapter, '{wanted}': there are {}", names.join(", "));
            Finding::failed("adapter", seen, "correct gpu.adapter in pontoon.toml")
        }
        (None, None) => Finding::failed("adapter", "no driver works here", install),
    }
}

/// The ways to a GPU beside the bridge and the model runner.
fn other_ways() -> Result<Vec<Finding>, String> {
    let root = Path::new("/");
    let (inventory, _) = crate::vfio::look()?;
    let ask = |words: &[&str]| {
        let output = Command::new(words[0]).args(&words[1..]).stdin(Stdio::null()).output().ok()?;
        let text = [output.stdout, output.stderr].concat();
        output.status.success().then(|| String::from_utf8_lossy(&text).into_owned())
    };
    let finding = |way: Way| match way.works {
        true => Finding { advice: Some(way.advice), ..Finding::ok(way.name, way.seen) },
        false => Finding::absent(way.name, way.seen, &way.advice),
    };
    Ok(ways(root, &inventory, &ask).into_iter().map(finding).collect())
}

/// Workers refuse to serve without Landlock.
fn sandbox() -> Finding {
    let advice =
        "use Linux 5.13 or later with Landlock among its security modules (the kernel's option `lsm=`)";
    match std::fs::read_to_string("/sys/kernel/security/lsm") {
        Ok(modules) if modules.split(',').any(|name| name.trim() == "landlock") => {
            Finding::ok("sandbox", "the kernel has Landlock")
        }
        Ok(modules) => Finding::failed(
            "sandbox",
            format!("the kernel's security modules are {}", modules.trim()),
            advice,
        ),
        Err(error) => Finding::warning(
            "sandbox",
            format!("the kernel does not say which security modules it has ({error})"),
            "the daemon's log says at start what of the sandbox is missing",
        ),
    }
}

fn engine(config: &Config) -> Finding {
    let catalog = Catalog::open(paths::engines_folder(), config.engines.clone());
    match catalog.list().iter().find(|engine| engine.name == "llama.cpp") {
        Some(found) => {
            Finding::ok("engine", format!("llama.cpp {} at {}", found.version, found.path.display()))
        }
        None => Finding::warning(
            "engine",
            "there is no llama-server for GGUF models",
            "`pontoon engine install` builds one",
        ),
    }
}

fn models(config: &Config) -> Finding {
    match store(config).and_then(|store| store.list().map_err(|error| error.to_string())) {
        Ok(models) if models.is_empty() => Finding::warning(
            "models",
            "there are none",
            "`pontoon model pull NAME`, or `pontoon model package`",
        ),
        Ok(models) => Finding::ok("models", format!("{} in the store", models.len())),
        Err(message) => Finding::failed(
            "models",
            message,
            "another user's store? models.folder or PONTOON_DATA names one",
        ),
    }
}

fn containers() -> Finding {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let there = |name: &str| std::env::split_paths(&path).any(|folder| folder.join(name).is_file());
    let found: Vec<&str> =
        ["podman", "docker", "nerdctl", "bwrap"].into_iter().filter(|name| there(name)).collect();
    match found.is_empty() {
        true => Finding::warning(
            "containers",
            "no container engine is in PATH",
            "install podman or docker, if containers are wanted here",
        ),
        false => Finding::ok("containers", found.join(", ")),
    }
}

/// Whether container engines know the devices that the configuration offers.
fn devices(config: &Config, socket: &Path) -> Finding {
    let written = |path: &PathBuf| std::fs::read_to_string(path).ok().filter(|text| cdi::is_of(text, socket));
    let Some((path, there)) =
        cdi::places().into_iter().find_map(|path| written(&path).map(|text| (path, text)))
    else {
        return Finding::warning(
            "devices",
            "container engines do not know pontoon.dev/gpu",
            "`pontoon cdi generate`",
        );
    };
    let program = std::env::current_exe().unwrap_or_default();
    match cdi::text(config, &program) {
        Ok(wanted) if wanted == there => Finding::ok("devices", format!("{} is up to date", path.display())),
        Ok(_) => Finding::warning(
            "devices",
            format!("{} is not what the configuration says", path.display()),
            "`pontoon cdi refresh`",
        ),
        Err(error) => Finding::failed("devices", error.to_string(), "choose another listen.socket"),
    }
}

fn remote(config: &Config) -> Vec<Finding> {
    let listen = &config.listen;
    let mut findings = Vec::new();
    if let Some(address) = &listen.tcp {
        let near =
            address.starts_with("127.") || address.starts_with("[::1]") || address.starts_with("localhost:");
        if !near {
            let seen = format!("listen.tcp is {address}: tokens and data travel in clear text");
            findings.push(Finding::warning("remote", seen, "use listen.tls and `pontoon token create`"));
        }
    }
    if let Some(address) = &listen.tls {
        let now = SystemTime::now();
        let valid = |tokens: &[Issued]| tokens.iter().filter(|token| !token.expired(now)).count();
        findings.push(match Tokens::in_folder(&paths::data_folder()).list() {
            Ok(tokens) if valid(&tokens) + listen.tokens.len() == 0 => Finding::warning(
                "remote",
                format!("TLS on {address}, and nobody has a token that holds"),
                "`pontoon token create` makes one",
            ),
            Ok(tokens) => Finding::ok(
                "remote",
                format!("TLS on {address}, {} tokens hold", valid(&tokens) + listen.tokens.len()),
            ),
            Err(error) => Finding::failed(
                "remote",
                error.to_string(),
                "ask as the user who runs the daemon; a damaged file can only be removed, with its tokens",
            ),
        });
    }
    findings
}
