//! Owns the command line of `llama-server`: an allow-list of typed options, and nothing else.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::{Loading, Settings};
use crate::Error;

/// The files that a process works with; all paths are absolute and ours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    pub model: PathBuf,
    pub mmproj: Option<PathBuf>,
    pub chat_template: Option<PathBuf>,
    pub adapters: Vec<PathBuf>,
    pub draft: Option<PathBuf>,
    /// The socket to listen on; its name ends in `.sock`.
    pub socket: PathBuf,
    /// Folder for saved slots.
    pub slots: Option<PathBuf>,
    /// What the engine calls its model in its answers.
    pub alias: String,
}

/// The arguments (without the program's name) of a `llama-server` that knows `flags`. Versions spell
/// some options differently; the first spelling that this one knows is taken.
///
/// # Errors
/// [`Error::Setting`] if a setting in force needs an option that this version lacks.
pub fn argv(settings: &Settings, files: &Files, flags: &BTreeSet<String>) -> Result<Vec<OsString>, Error> {
    let mut line = Line { words: Vec::new(), flags };
    line.must(&["--model"], &files.model)?;
    line.must(&["--host"], &files.socket)?;
    line.must(&["--alias"], &files.alias)?;
    for quiet in [&["--no-ui", "--no-webui"][..], &["--offline"]] {
        line.may(quiet);
    }
    paths(&mut line, settings, files)?;
    sizes(&mut line, settings)?;
    devices(&mut line, settings)?;
    drafting(&mut line, settings, files)?;
    answers(&mut line, settings)?;
    caches(&mut line, settings)?;
    sampling(&mut line, settings)?;
    Ok(line.words)
}

struct Line<'a> {
    words: Vec<OsString>,
    flags: &'a BTreeSet<String>,
}

impl Line<'_> {
    fn spelling(&self, spellings: &'static [&'static str]) -> Option<&'static str> {
        spellings.iter().copied().find(|flag| self.flags.contains(*flag))
    }

    fn known(&self, spellings: &'static [&'static str]) -> Result<&'static str, Error> {
        self.spelling(spellings).ok_or_else(|| Error::Setting {
            reason: format!(
                "this llama-server does not know {}; install a newer one with `pontoon engine install \
                 llama.cpp` or leave the setting out",
                spellings[0]
            ),
        })
    }

    /// A bare flag that is left out where it is not known.
    fn may(&mut self, spellings: &'static [&'static str]) {
        if let Some(flag) = self.spelling(spellings) {
            self.words.push(flag.into());
        }
    }

    fn must(
        &mut self,
        spellings: &'static [&'static str],
        value: impl AsRef<std::ffi::OsStr>,
    ) -> Result<(), Error> {
        let flag = self.known(spellings)?;
        self.words.push(flag.into());
        self.words.push(value.as_ref().into());
        Ok(())
    }

    fn set<T: ToString>(
        &mut self,
        spellings: &'static [&'static str],
        value: Option<T>,
    ) -> Result<(), Error> {
        match value {
            Some(value) => self.must(spellings, value.to_string()),
            None => Ok(()),
        }
    }

    fn file(&mut self, spellings: &'static [&'static str], path: Option<&Path>) -> Result<(), Error> {
        path.map_or(Ok(()), |path| self.must(spellings, path))
    }

    fn switch(
        &mut self,
        on: &'static [&'static str],
        off: &'static [&'static str],
        value: Option<bool>,
    ) -> Result<(), Error> {
        let Some(value) = value else { return Ok(()) };
        let flag = self.known(if value { on } else { off })?;
        self.words.push(flag.into());
        Ok(())
    }
}

fn paths(line: &mut Line, settings: &Settings, files: &Files) -> Result<(), Error> {
    line.file(&["--mmproj"], files.mmproj.as_deref())?;
    line.file(&["--chat-template-file"], files.chat_template.as_deref())?;
    if settings.save_slots != Some(false)
        && let Some(folder) = &files.slots
        && line.spelling(&["--slot-save-path"]).is_some()
    {
        // The engine puts a file's name right behind it.
        let mut folder = folder.clone().into_os_string();
        folder.push("/");
        line.must(&["--slot-save-path"], folder)?;
    }
    let scales = settings.lora_scale.as_deref().unwrap_or_default();
    for (at, adapter) in files.adapters.iter().enumerate() {
        // Requests name an adapter and its scale; one that nobody names does nothing unless the
        // configuration gives it a scale.
        let scale = scales.get(at).copied().unwrap_or(0.0);
        let mut word = adapter.clone().into_os_string();
        word.push(format!(":{scale}"));
        line.must(&["--lora-scaled"], word)?;
    }
    Ok(())
}

fn sizes(line: &mut Line, settings: &Settings) -> Result<(), Error> {
    let slots = settings.parallel.unwrap_or(1);
    // The engine divides its context among the slots unless they share it.
    let shared = settings.kv_unified == Some(true);
    let total = settings.context_size.map(|each| if shared { each } else { each.saturating_mul(slots) });
    line.set(&["--ctx-size"], total)?;
    line.set(&["--parallel"], Some(slots))?;
    line.set(&["--batch-size"], settings.batch)?;
    line.set(&["--ubatch-size"], settings.ubatch)?;
    line.set(&["--threads"], settings.threads)?;
    line.set(&["--threads-batch"], settings.threads_batch)?;
    if line.spelling(&["--threads-http"]).is_some() {
        // One for each connection that may be open: those of the slots, those that a pool keeps, ours.
        line.set(&["--threads-http"], Some(slots + 8))?;
    }
    line.set(&["--rope-scaling"], settings.rope_scaling)?;
    line.set(&["--rope-scale"], settings.rope_scale)?;
    line.set(&["--rope-freq-base"], settings.rope_freq_base)?;
    line.set(&["--rope-freq-scale"], settings.rope_freq_scale)?;
    line.set(&["--yarn-orig-ctx"], settings.yarn_orig_ctx)
}

fn devices(line: &mut Line, settings: &Settings) -> Result<(), Error> {
    line.set(&["--n-gpu-layers"], settings.gpu_layers)?;
    line.set(&["--main-gpu"], settings.main_gpu)?;
    line.set(&["--split-mode"], settings.split_mode)?;
    let shares = settings.tensor_split.as_ref().map(|shares| {
        let words: Vec<String> = shares.iter().map(f64::to_string).collect();
        words.join(",")
    });
    line.set(&["--tensor-split"], shares)?;
    line.set(&["--n-cpu-moe"], settings.cpu_moe_layers)?;
    line.set(&["--cache-type-k"], settings.cache_type_k)?;
    line.set(&["--cache-type-v"], settings.cache_type_v)?;
    line.set(&["--flash-attn"], settings.flash_attention)?;
    line.switch(&["--kv-offload"], &["--no-kv-offload"], settings.kv_offload)?;
    line.switch(&["--kv-unified"], &["--no-kv-unified"], settings.kv_unified)?;
    match settings.loading {
        None | Some(Loading::Auto) => Ok(()),
        Some(mode) if line.spelling(&["--load-mode"]).is_some() => line.set(&["--load-mode"], Some(mode)),
        Some(Loading::Read) => line.switch(&["--no-mmap"], &[], Some(true)),
        Some(Loading::Mmap) => Ok(()),
        Some(Loading::Mlock | Loading::MmapMlock) => line.switch(&["--mlock"], &[], Some(true)),
    }
}

fn drafting(line: &mut Line, settings: &Settings, files: &Files) -> Result<(), Error> {
    let Some(draft) = files.draft.as_deref() else { return Ok(()) };
    line.file(&["--spec-draft-model", "--model-draft"], Some(draft))?;
    if line.spelling(&["--spec-type"]).is_some() {
        line.must(&["--spec-type"], "draft-simple")?;
    }
    line.set(&["--spec-draft-n-max", "--draft-max"], settings.draft_max)?;
    line.set(&["--spec-draft-n-min", "--draft-min"], settings.draft_min)?;
    line.set(&["--spec-draft-p-min", "--draft-p-min"], settings.draft_p_min)
}

fn answers(line: &mut Line, settings: &Settings) -> Result<(), Error> {
    if settings.embeddings == Some(true) {
        line.switch(&["--embeddings", "--embedding"], &[], Some(true))?;
    }
    if settings.reranking == Some(true) {
        line.switch(&["--reranking", "--rerank"], &[], Some(true))?;
    }
    line.set(&["--pooling"], settings.pooling)?;
    line.switch(&["--jinja"], &["--no-jinja"], settings.jinja)?;
    line.set(&["--reasoning-format"], settings.reasoning_format)?;
    line.set(&["--reasoning"], settings.reasoning)?;
    line.set(&["--reasoning-budget"], settings.reasoning_budget)
}

fn caches(line: &mut Line, settings: &Settings) -> Result<(), Error> {
    line.set(&["--cache-reuse"], settings.cache_reuse)?;
    if line.spelling(&["--cache-ram"]).is_some() {
        line.set(&["--cache-ram"], settings.prompt_cache_mib)?;
    }
    line.set(&["--slot-prompt-similarity"], settings.slot_similarity)
}

fn sampling(line: &mut Line, settings: &Settings) -> Result<(), Error> {
    line.set(&["--temp"], settings.temperature)?;
    line.set(&["--top-k"], settings.top_k)?;
    line.set(&["--top-p"], settings.top_p)?;
    line.set(&["--min-p"], settings.min_p)?;
    line.set(&["--repeat-penalty"], settings.repeat_penalty)?;
    line.set(&["--presence-penalty"], settings.presence_penalty)?;
    line.set(&["--frequency-penalty"], settings.frequency_penalty)?;
    line.set(&["--seed"], settings.seed)?;
    line.set(&["--predict", "--n-predict"], settings.max_tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(flags: &[&str]) -> BTreeSet<String> {
        let always = ["--model", "--host", "--alias", "--ctx-size", "--parallel"];
        always.iter().chain(flags).map(|flag| (*flag).to_owned()).collect()
    }

    fn files() -> Files {
        Files {
            model: "/m.gguf".into(),
            socket: "/run/e.sock".into(),
            alias: "ai/x".into(),
            ..Files::default()
        }
    }

    #[test]
    fn the_context_is_multiplied_by_the_slots_unless_they_share_it() {
        let settings = |kv_unified| Settings {
            context_size: Some(1000),
            parallel: Some(4),
            kv_unified,
            ..Settings::default()
        };
        let has = |settings: &Settings, total: &str| {
            let line = argv(settings, &files(), &known(&["--kv-unified"])).unwrap();
            line.windows(2).any(|pair| pair[0] == "--ctx-size" && pair[1] == total)
        };
        assert!(has(&settings(None), "4000"));
        assert!(has(&settings(Some(true)), "1000"));
    }

    #[test]
    fn an_option_that_the_engine_lacks_is_an_error_and_not_left_out() {
        let settings = Settings { reasoning_budget: Some(0), ..Settings::default() };
        let error = argv(&settings, &files(), &known(&[])).unwrap_err();
        assert!(error.to_string().contains("--reasoning-budget"), "{error}");
    }

    #[test]
    fn spellings_follow_the_version() {
        let files = Files { draft: Some("/d.gguf".into()), ..files() };
        let old = argv(&Settings::default(), &files, &known(&["--model-draft"])).unwrap();
        assert!(old.contains(&"--model-draft".into()));
        let new = known(&["--model-draft", "--spec-draft-model", "--spec-type"]);
        let new = argv(&Settings::default(), &files, &new).unwrap();
        assert!(new.contains(&"--spec-draft-model".into()) && new.contains(&"draft-simple".into()));
    }
}
