//! Owns the last step of a plan: the command line, the environment and the launcher's job.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use pontoon_models::Bundle;

use super::plan::Plan;
use super::types::Options;
use crate::Error;
use crate::engine::{Engine, Kind};
use crate::launcher::Job;
use crate::settings::{self, Files, Settings};

impl Plan {
    /// The files of the model, and those of its draft.
    fn bundles(&self) -> impl Iterator<Item = &Bundle> {
        std::iter::once(&self.bundle).chain(self.draft.as_ref().map(|draft| &draft.bundle))
    }

    /// The engine's arguments.
    ///
    /// # Errors
    /// [`Error::Setting`] if the engine lacks an option.
    pub fn arguments(&self, socket: &Path, slots: Option<&Path>) -> Result<Vec<OsString>, Error> {
        let chosen = &self.effective.settings;
        let own = match self.engine.kind {
            Kind::LlamaServer => {
                let draft = self.draft.as_ref().and_then(|draft| draft.bundle.main().map(Path::to_owned));
                let draft =
                    draft.or_else(|| self.bundle.draft.clone()).filter(|_| chosen.draft != Some(false));
                let files = Files {
                    model: self.bundle.main().unwrap_or(&self.bundle.dir).to_owned(),
                    mmproj: self.bundle.mmproj.clone(),
                    chat_template: self.bundle.chat_template.clone(),
                    adapters: self.bundle.adapters.clone(),
                    draft,
                    socket: socket.to_owned(),
                    slots: slots.map(Path::to_owned),
                    alias: self.alias(),
                };
                settings::argv(chosen, &files, &self.engine.flags)?
            }
            Kind::MlxLm => mlx_arguments(chosen, &self.bundle, socket)?,
            Kind::Vllm => vllm_arguments(chosen, &self.bundle, socket, &self.alias()),
            Kind::Custom => return Ok(self.custom_arguments(socket)),
        };
        Ok(self.engine.prefix.iter().map(OsString::from).chain(own).collect())
    }

    fn custom_arguments(&self, socket: &Path) -> Vec<OsString> {
        let model = self.bundle.main().unwrap_or(&self.bundle.dir).display().to_string();
        let fill = |word: &String| {
            word.replace("{model}", &model)
                .replace("{folder}", &self.bundle.dir.display().to_string())
                .replace("{socket}", &socket.display().to_string())
                .replace("{context}", &self.context_size().to_string())
                .replace("{name}", &self.alias())
        };
        self.engine.prefix.iter().map(|word| fill(word).into()).collect()
    }

    /// The launcher's job.
    ///
    /// # Errors
    /// As [`Plan::arguments`].
    pub fn job(&self, options: &Options, socket: &Path, slots: Option<&Path>) -> Result<Job, Error> {
        let mut read: Vec<PathBuf> = self.engine.read.clone();
        for bundle in self.bundles() {
            read.push(bundle.dir.clone());
            // Where the file system has no hard links the bundle holds symbolic ones.
            let files =
                bundle.weights.iter().chain(&bundle.mmproj).chain(&bundle.adapters).chain(&bundle.draft);
            let files = files.chain(&bundle.chat_template);
            read.extend(files.filter_map(|file| std::fs::canonicalize(file).ok()));
        }
        let mut write: Vec<PathBuf> = socket.parent().map(Path::to_owned).into_iter().collect();
        write.extend(slots.map(Path::to_owned));
        Ok(Job {
            program: self.engine.program.clone(),
            arguments: self.arguments(socket, slots)?,
            environment: environment(&self.engine),
            // A draft from another artifact is as little trusted as the model.
            check: self.bundles().cloned().collect(),
            read,
            write,
            limits: options.limits,
            user: options.user,
            parent: Some(std::process::id()),
            landlock_required: options.landlock_required,
        })
    }
}

/// Bytes of one argument of a program, its end included (`MAX_ARG_STRLEN`, see execve(2)).
const MAX_ARGUMENT: usize = 128 << 10;

fn mlx_arguments(chosen: &Settings, bundle: &Bundle, socket: &Path) -> Result<Vec<OsString>, Error> {
    let mut words: Vec<OsString> = vec![socket.into(), "--model".into(), bundle.dir.clone().into()];
    let mut add = |flag: &str, value: Option<String>| {
        if let Some(value) = value {
            words.extend([flag.into(), value.into()]);
        }
    };
    let slots = chosen.parallel.map(|slots| slots.to_string());
    add("--decode-concurrency", slots.clone());
    add("--prompt-concurrency", slots);
    add("--temp", chosen.temperature.map(|value| value.to_string()));
    add("--top-p", chosen.top_p.map(|value| value.to_string()));
    add("--top-k", chosen.top_k.map(|value| value.to_string()));
    add("--min-p", chosen.min_p.map(|value| value.to_string()));
    add("--max-tokens", chosen.max_tokens.map(|value| value.to_string()));
    // Its log of requests is of no use here, and more detailed levels show prompts.
    add("--log-level", Some("WARNING".to_owned()));
    let template = bundle.chat_template.as_deref().and_then(|path| std::fs::read_to_string(path).ok());
    if let Some(length) = template
        .as_ref()
        .map(String::len)
        .filter(|length| cfg!(target_os = "linux") && *length >= MAX_ARGUMENT)
    {
        let reason = format!(
            "the chat template has {length} bytes; mlx-lm takes one of at most {} beside the model's own",
            MAX_ARGUMENT - 1
        );
        return Err(Error::Setting { reason });
    }
    add("--chat-template", template);
    Ok(words)
}

fn vllm_arguments(chosen: &Settings, bundle: &Bundle, socket: &Path, alias: &str) -> Vec<OsString> {
    let mut words: Vec<OsString> = vec![bundle.dir.clone().into(), "--uds".into(), socket.into()];
    words.extend(["--served-model-name".into(), alias.into()]);
    if let Some(context) = chosen.context_size {
        words.extend(["--max-model-len".into(), context.to_string().into()]);
    }
    if let Some(slots) = chosen.parallel {
        words.extend(["--max-num-seqs".into(), slots.to_string().into()]);
    }
    words
}

/// Which GPU, which driver: what an operator sets for engines. Everything else is ours.
const PASSED_ON: &[&str] = &[
    "CUDA_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES",
    "ROCR_VISIBLE_DEVICES",
    "HSA_OVERRIDE_GFX_VERSION",
    "GGML_VK_VISIBLE_DEVICES",
    "VK_DRIVER_FILES",
    "VK_ICD_FILENAMES",
    "LD_LIBRARY_PATH",
];

fn environment(engine: &Engine) -> Vec<(OsString, OsString)> {
    // Threads that wait must sleep: spinning costs a multiple where cores are shared.
    let ours = [
        ("OMP_WAIT_POLICY", "passive"),
        ("LANG", "C.UTF-8"),
        ("HOME", "/nonexistent"),
        ("TMPDIR", "/nonexistent"),
    ];
    let mut all: Vec<(OsString, OsString)> = Vec::new();
    for (key, value) in ours.into_iter().chain(pontoon_sandbox::QUIET_DRIVER_ENV.iter().copied()) {
        all.push((key.into(), value.into()));
    }
    for name in PASSED_ON {
        all.extend(std::env::var_os(name).map(|value| (OsString::from(name), value)));
    }
    all.extend(engine.environment.iter().cloned());
    all
}
