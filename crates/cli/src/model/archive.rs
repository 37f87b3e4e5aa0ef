//! `pontoon model export` and `pontoon model load`.

use std::fs::File;
use std::io::{BufReader, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use pontoon_daemon::Config;

use super::store;

/// Write a model as a tar file (an OCI layout), for machines without a registry
#[derive(clap::Args)]
pub struct Export {
    /// Name or id of the model
    #[arg(value_name = "MODEL")]
    name: String,
    /// The file; standard output unless given
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Take models out of a tar file: of `pontoon model export`, `docker model export`, or any OCI layout
#[derive(clap::Args)]
pub struct Load {
    /// The file; standard input unless given
    #[arg(long, short, value_name = "FILE")]
    input: Option<PathBuf>,
}

pub fn export(config: &Config, arguments: &Export) -> Result<ExitCode, String> {
    let store = store(config)?;
    let wrong = |path: &Path, error: std::io::Error| format!("{}: {error}", path.display());
    match &arguments.output {
        None if std::io::stdout().is_terminal() => {
            return Err("a tar file does not belong on a terminal: name a file with -o".into());
        }
        None => store.export(&arguments.name, std::io::stdout().lock()).map_err(|error| error.to_string())?,
        // A device or a pipe is written to as it is.
        Some(path) if std::fs::metadata(path).is_ok_and(|there| !there.is_file()) => {
            let mut file = File::options().write(true).open(path).map_err(|error| wrong(path, error))?;
            store.export(&arguments.name, &mut file).map_err(|error| error.to_string())?;
        }
        Some(path) => {
            // The file appears whole or not at all; a link to it stays a link.
            let path = &std::fs::canonicalize(path).unwrap_or_else(|_| path.clone());
            let mut unfinished = path.clone().into_os_string();
            unfinished.push(".unfinished");
            let unfinished = PathBuf::from(unfinished);
            let mut file =
                BufWriter::new(File::create(&unfinished).map_err(|error| wrong(&unfinished, error))?);
            let written = store.export(&arguments.name, &mut file).map_err(|error| error.to_string());
            let written = written.and_then(|()| file.flush().map_err(|error| wrong(path, error)));
            let written =
                written.and_then(|()| std::fs::rename(&unfinished, path).map_err(|error| wrong(path, error)));
            if written.is_err() {
                let _ = std::fs::remove_file(&unfinished);
            }
            written?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub fn load(config: &Config, arguments: &Load) -> Result<ExitCode, String> {
    let store = store(config)?;
    let loaded = match &arguments.input {
        None => store.load(std::io::stdin().lock()),
        Some(path) => {
            let file = File::open(path).map_err(|error| format!("{}: {error}", path.display()))?;
            store.load(BufReader::new(file))
        }
    };
    for model in loaded.map_err(|error| error.to_string())? {
        println!("{}  {}", super::short(&model.digest), model.names.join(" "));
    }
    Ok(ExitCode::SUCCESS)
}
