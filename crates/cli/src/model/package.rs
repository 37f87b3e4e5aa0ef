//! `pontoon model package`.

use std::path::PathBuf;
use std::process::ExitCode;

use pontoon_daemon::Config;
use pontoon_models::Flavour;
use pontoon_models::package::Builder;

use super::{bars, reference, short, store};
use crate::config::block_on;

/// Make a model of files on this machine
///
/// Checks the files, copies them into the store and gives the result a name. Of a sharded GGUF name the first
/// shard. The same files and licence make the same layers, so variants of a model share what they share.
#[derive(clap::Args)]
#[command(group = clap::ArgGroup::new("source").required(true))]
pub struct Arguments {
    /// GGUF file, or the first of its shards
    #[arg(long, value_name = "FILE", group = "source")]
    gguf: Option<PathBuf>,
    /// Folder with safetensors files, configuration and tokenizer
    #[arg(long, value_name = "FOLDER", group = "source")]
    safetensors_dir: Option<PathBuf>,
    /// DDUF file
    #[arg(long, value_name = "FILE", group = "source")]
    dduf: Option<PathBuf>,
    /// A model in the store, to add to
    #[arg(long, value_name = "MODEL", group = "source")]
    from: Option<String>,
    /// Text of a licence; may be given several times
    #[arg(long, value_name = "FILE")]
    license: Vec<PathBuf>,
    /// A licence by its SPDX expression
    #[arg(long, value_name = "SPDX")]
    license_name: Vec<String>,
    /// Projector of a vision or audio model
    #[arg(long, value_name = "FILE")]
    mmproj: Option<PathBuf>,
    /// Jinja chat template instead of the one in the weights
    #[arg(long, value_name = "FILE")]
    chat_template: Option<PathBuf>,
    /// LoRA adapter in GGUF; may be given several times
    #[arg(long, value_name = "FILE")]
    adapter: Vec<PathBuf>,
    /// Small GGUF model that drafts tokens for the large one
    #[arg(long, value_name = "FILE")]
    draft: Option<PathBuf>,
    /// Context to load the model with, in tokens
    #[arg(long, value_name = "TOKENS")]
    context_size: Option<u32>,
    /// Artifact format
    #[arg(long, value_name = "FORMAT", value_enum)]
    format: Option<Format>,
    /// Send it to its registry afterwards
    #[arg(long)]
    push: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Name of the result
    #[arg(value_name = "MODEL")]
    name: String,
}

/// What the artifact looks like.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Format {
    /// Docker's, version 0.1
    DockerV01,
    /// Docker's, version 0.2
    DockerV02,
    /// CNCF ModelPack
    Modelpack,
}

impl From<Format> for Flavour {
    fn from(format: Format) -> Self {
        match format {
            Format::DockerV01 => Self::DockerV01,
            Format::DockerV02 => Self::DockerV02,
            Format::Modelpack => Self::Modelpack,
        }
    }
}

pub fn run(config: &Config, arguments: Arguments) -> Result<ExitCode, String> {
    let (name, store) = (reference(&arguments.name)?, store(config)?);
    let mut builder = match (&arguments.gguf, &arguments.safetensors_dir, &arguments.dduf, &arguments.from) {
        (Some(file), ..) => Builder::gguf(file),
        (_, Some(folder), ..) => Builder::safetensors(folder),
        (_, _, Some(file), _) => Builder::dduf(file),
        (.., Some(model)) => Builder::from(&store, model).map_err(|error| error.to_string())?,
        _ => return Err("name what to package: --gguf, --safetensors-dir, --dduf or --from".into()),
    };
    builder = arguments.license.iter().fold(builder, Builder::license);
    builder = arguments.license_name.iter().fold(builder, |builder, name| builder.spdx(name.as_str()));
    builder = arguments.adapter.iter().fold(builder, Builder::adapter);
    builder = arguments.mmproj.iter().fold(builder, Builder::mmproj);
    builder = arguments.chat_template.iter().fold(builder, Builder::chat_template);
    builder = arguments.draft.iter().fold(builder, Builder::draft);
    builder = arguments.context_size.into_iter().fold(builder, Builder::context_size);
    builder = arguments.format.into_iter().fold(builder, |builder, format| builder.flavour(format.into()));
    let progress = bars::progress(None);
    let model =
        builder.build(&store, &name, &config.models.policy, &progress).map_err(|error| error.to_string())?;
    if arguments.push {
        let client = super::client(config)?;
        block_on(async {
            client.push(&store, &arguments.name, &name, progress).await.map_err(|error| error.to_string())
        })?;
    }
    match arguments.json {
        true => crate::print_json(&serde_json::json!({ "id": model.digest, "name": name.familiar() }))?,
        false => println!("{}  {}", short(&model.digest), name.familiar()),
    }
    Ok(ExitCode::SUCCESS)
}
