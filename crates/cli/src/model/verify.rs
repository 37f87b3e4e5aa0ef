//! `pontoon model verify`.

use std::process::ExitCode;

use pontoon_daemon::Config;

use super::store;
use crate::table;

/// Read whole models again: that every file has its digest, its headers are right and its weights are numbers
#[derive(clap::Args)]
pub struct Arguments {
    /// Names or ids of models; all of them where none is named
    #[arg(value_name = "MODEL")]
    names: Vec<String>,
}

/// Says of each model whether it is whole; fails if one is not.
pub fn run(config: &Config, arguments: &Arguments) -> Result<ExitCode, String> {
    let store = store(config)?;
    let names = match arguments.names.as_slice() {
        [] => store.names().map_err(|error| error.to_string())?,
        names => names.to_vec(),
    };
    let mut damaged = 0;
    for name in &names {
        let whole = store.verify(name).and_then(|_| store.resolve(name));
        match whole {
            Ok(model) => {
                let bytes: u64 = model.manifest.blobs().map(|blob| blob.size).sum();
                println!("{name}: whole ({})", table::bytes(bytes));
            }
            Err(error) => {
                damaged += 1;
                println!("{name}: {error}");
            }
        }
    }
    match damaged {
        0 => Ok(ExitCode::SUCCESS),
        count => {
            Err(format!("{count} of {} models: remove with `pontoon model rm` and pull again", names.len()))
        }
    }
}
