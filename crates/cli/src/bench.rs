//! `pontoon bench`.

use std::io::{BufRead, BufReader, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};

use pontoon_bench::{Connect, Options, Target};
use pontoon_client::Endpoint;

#[derive(clap::Subcommand)]
pub enum Verb {
    /// Measure wgpu natively and through Pontoon, interleaved, and print both and their ratio
    ///
    /// Starts a daemon of its own, or with --over uses one that runs, over the line that leads there. Ratios above 1
    /// are better than native.
    Gpu {
        /// End within 40 s: fewer rounds, same benchmarks
        #[arg(long)]
        quick: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
        /// Run only benchmarks whose name contains TEXT; may be repeated
        #[arg(long, value_name = "TEXT")]
        only: Vec<String>,
        /// Measure over the line to a host with the same GPU, an address or a ticket of `pontoon token create`, under a
        /// name; may be repeated
        #[arg(long, value_name = "[NAME=]HOST", value_parser = line)]
        over: Vec<(String, Endpoint)>,
    },
}

pub fn run(verb: &Verb) -> Result<ExitCode, String> {
    let Verb::Gpu { quick, json, only, over } = verb;
    let host = if over.is_empty() { Some(Host::start()?) } else { None };
    let connect = |endpoint: Endpoint| -> Connect<'_> {
        let token =
            host.as_ref().map(|host| host.token.clone()).or_else(|| std::env::var("PONTOON_TOKEN").ok());
        Box::new(move || {
            let mut options = pontoon_client::Options::new(endpoint.clone());
            if let Some(token) = &token {
                options.token = token.clone();
            }
            pontoon_client::connect(options).map_err(|error| error.to_string())
        })
    };
    let mut targets = vec![Target { name: "native".into(), connect: Box::new(|| Ok(native())) }];
    targets.extend(
        over.iter().map(|(name, host)| Target { name: name.clone(), connect: connect(host.clone()) }),
    );
    if let Some(host) = &host {
        targets.push(Target { name: "unix".into(), connect: connect(Endpoint::Unix(host.socket.clone())) });
        targets.push(Target { name: "tcp".into(), connect: connect(Endpoint::Tcp(host.address.clone())) });
    }
    let shows_progress = std::io::stderr().is_terminal();
    let mut progress = |text: &str| {
        if shows_progress {
            eprint!("\r\x1b[K{text}");
        }
    };
    let report = pontoon_bench::run(&targets, &Options { quick: *quick, only: only.clone() }, &mut progress);
    if shows_progress {
        eprint!("\r\x1b[K");
    }
    let report = report.map_err(|error| error.to_string())?;
    let text = if *json { report.to_json() } else { report.to_table() };
    println!("{}", text.trim_end());
    Ok(ExitCode::SUCCESS)
}

/// A line: what it is called, and the host at its end.
fn line(text: &str) -> Result<(String, Endpoint), String> {
    let (name, host) = match text.split_once('=') {
        Some((name, host)) if !name.contains(':') => (name, host),
        _ => ("over", text),
    };
    Ok((name.to_owned(), host.parse::<Endpoint>().map_err(|error| error.to_string())?))
}

fn native() -> wgpu::Instance {
    let mut desc = wgpu::InstanceDescriptor::new_without_display_handle();
    desc.backends = wgpu::Backends::VULKAN | wgpu::Backends::METAL;
    // What the host's workers use.
    desc.flags = wgpu::InstanceFlags::VALIDATION_INDIRECT_CALL;
    wgpu::Instance::new(desc)
}

/// A daemon for the time of the measurement.
struct Host {
    child: Child,
    folder: PathBuf,
    socket: PathBuf,
    address: String,
    token: String,
}

impl Host {
    fn start() -> Result<Self, String> {
        let failed =
            |what: &str, error: std::io::Error| format!("starting a daemon to measure: {what}: {error}");
        let folder = std::env::temp_dir().join(format!("pontoon-bench-{}", std::process::id()));
        std::fs::create_dir(&folder).map_err(|error| failed("folder", error))?;
        let socket = folder.join("guest/pontoon.sock");
        let token = random_token().map_err(|error| failed("token", error))?;
        let token_file = folder.join("token");
        write_private(&token_file, &token).map_err(|error| failed("token", error))?;
        let program = std::env::current_exe().map_err(|error| failed("this program's path", error))?;
        let child = Command::new(program)
            .args(["serve", "--until-stdin-closes", "--tcp", "127.0.0.1:0", "--config", "/dev/null"])
            .arg("--socket")
            .arg(&socket)
            .arg("--token-file")
            .arg(&token_file)
            .env_remove("PONTOON_LOG")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        let mut host = Self {
            child: child.map_err(|error| failed("process", error))?,
            folder,
            socket,
            address: String::new(),
            token,
        };
        host.address = host.listening()?;
        Ok(host)
    }

    /// Reads the daemon's log up to its TCP address; a thread reads on, so that the daemon never waits.
    fn listening(&mut self) -> Result<String, String> {
        let stderr = self.child.stderr.take().ok_or("the daemon has no log")?;
        let mut lines = BufReader::new(stderr).lines();
        let mut seen = String::new();
        for line in lines.by_ref().map_while(Result::ok) {
            if let Some((_, address)) = line.split_once("listening on tcp:") {
                let address = address.to_owned();
                std::thread::spawn(move || lines.for_each(drop));
                return Ok(address);
            }
            seen = line;
        }
        Err(format!("the daemon to measure did not start: {seen}"))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn random_token() -> std::io::Result<String> {
    let mut bytes = [0; 32];
    std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?
        .write_all(text.as_bytes())
}
