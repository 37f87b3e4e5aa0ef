//! Owns the reading of `llama-server` flags as people write them for Docker Model Runner
//! (`runtime_flags`, `configure MODEL -- flags`): known harmless ones become typed settings, every
//! other one is refused. No flag is ever passed on.

use serde_json::{Map, Value, json};

use super::Settings;
use crate::Error;

/// What a flag does to its setting.
enum Effect {
    /// The word after the flag (or after `=`) is the value.
    Takes,
    /// As `Takes`, but the word may be missing, which means `on`.
    MayTake,
    /// The flag alone means this.
    Means(Value),
}

type Row = (&'static [&'static str], &'static str, Effect);

/// Flags that only change how this model computes, each with the setting it stands for.
fn table() -> Vec<Row> {
    use Effect::{MayTake, Means, Takes};
    let on = || Means(json!(true));
    let off = || Means(json!(false));
    vec![
        (&["-c", "--ctx-size"], "context_size", Takes),
        (&["-np", "--parallel"], "parallel", Takes),
        (&["-b", "--batch-size"], "batch", Takes),
        (&["-ub", "--ubatch-size"], "ubatch", Takes),
        (&["-t", "--threads"], "threads", Takes),
        (&["-tb", "--threads-batch"], "threads_batch", Takes),
        (&["-ngl", "--gpu-layers", "--n-gpu-layers"], "gpu_layers", Takes),
        (&["-mg", "--main-gpu"], "main_gpu", Takes),
        (&["-sm", "--split-mode"], "split_mode", Takes),
        (&["-ts", "--tensor-split"], "tensor_split", Takes),
        (&["-ncmoe", "--n-cpu-moe"], "cpu_moe_layers", Takes),
        (&["-cmoe", "--cpu-moe"], "cpu_moe_layers", Means(json!(10_000))),
        (&["-ctk", "--cache-type-k"], "cache_type_k", Takes),
        (&["-ctv", "--cache-type-v"], "cache_type_v", Takes),
        (&["-fa", "--flash-attn"], "flash_attention", MayTake),
        (&["-kvo", "--kv-offload"], "kv_offload", on()),
        (&["-nkvo", "--no-kv-offload"], "kv_offload", off()),
        (&["-kvu", "--kv-unified"], "kv_unified", on()),
        (&["-no-kvu", "--no-kv-unified"], "kv_unified", off()),
        (&["-lm", "--load-mode"], "loading", Takes),
        (&["--mlock"], "loading", Means(json!("mmap+mlock"))),
        (&["--no-mmap"], "loading", Means(json!("none"))),
        (&["--mmap"], "loading", Means(json!("mmap"))),
        (&["--rope-scaling"], "rope_scaling", Takes),
        (&["--rope-scale"], "rope_scale", Takes),
        (&["--rope-freq-base"], "rope_freq_base", Takes),
        (&["--rope-freq-scale"], "rope_freq_scale", Takes),
        (&["--yarn-orig-ctx"], "yarn_orig_ctx", Takes),
        (&["--draft", "--draft-n", "--draft-max", "--spec-draft-n-max"], "draft_max", Takes),
        (&["--draft-min", "--draft-n-min", "--spec-draft-n-min"], "draft_min", Takes),
        (&["--draft-p-min", "--spec-draft-p-min"], "draft_p_min", Takes),
        (&["--embedding", "--embeddings"], "embeddings", on()),
        (&["--rerank", "--reranking"], "reranking", on()),
        (&["--pooling"], "pooling", Takes),
        (&["--jinja"], "jinja", on()),
        (&["--no-jinja"], "jinja", off()),
        (&["--reasoning-format"], "reasoning_format", Takes),
        (&["-rea", "--reasoning"], "reasoning", Takes),
        (&["--reasoning-budget"], "reasoning_budget", Takes),
        (&["--cache-reuse"], "cache_reuse", Takes),
        (&["-cram", "--cache-ram"], "prompt_cache_mib", Takes),
        (&["-sps", "--slot-prompt-similarity"], "slot_similarity", Takes),
        (&["--temp", "--temperature"], "temperature", Takes),
        (&["--top-k"], "top_k", Takes),
        (&["--top-p"], "top_p", Takes),
        (&["--min-p"], "min_p", Takes),
        (&["--repeat-penalty"], "repeat_penalty", Takes),
        (&["--presence-penalty"], "presence_penalty", Takes),
        (&["--frequency-penalty"], "frequency_penalty", Takes),
        (&["-s", "--seed"], "seed", Takes),
        (&["-n", "--predict", "--n-predict"], "max_tokens", Takes),
    ]
}

impl Settings {
    /// Reads flags, each a word of its own or `--flag=value`.
    ///
    /// # Errors
    /// [`Error::Flag`] for a flag that is not on the list, [`Error::Setting`] for a wrong value.
    pub fn from_flags<S: AsRef<str>>(words: &[S]) -> Result<Settings, Error> {
        let table = table();
        let mut values = Map::new();
        let mut words = words.iter().map(AsRef::as_ref).peekable();
        while let Some(word) = words.next() {
            let (flag, attached) = match word.split_once('=') {
                Some((flag, value)) if flag.starts_with("--") => (flag, Some(value)),
                _ => (word, None),
            };
            let (_, setting, effect) = table
                .iter()
                .find(|(names, ..)| names.contains(&flag))
                .ok_or_else(|| refused(flag, "only flags that tune this model's computation are accepted"))?;
            let value = match (effect, attached) {
                (Effect::Means(_), Some(_)) => return Err(refused(flag, "it takes no value")),
                (Effect::Means(value), None) => value.clone(),
                (Effect::Takes | Effect::MayTake, Some(value)) => read(setting, value),
                (Effect::Takes, None) => {
                    read(setting, words.next().ok_or_else(|| refused(flag, "its value is missing"))?)
                }
                (Effect::MayTake, None) => match words.next_if(|next| !next.starts_with('-')) {
                    Some(value) => read(setting, value),
                    None => json!("on"),
                },
            };
            // The engine's own way to say "whatever is left", "at random", "as the model says".
            if !is_default(setting, &value) {
                values.insert((*setting).to_owned(), value);
            }
        }
        let settings: Settings = serde_json::from_value(Value::Object(values))
            .map_err(|e| Error::Setting { reason: format!("these flags do not hold: {e}") })?;
        settings.check()?;
        Ok(settings)
    }

    /// The words that [`Settings::from_flags`] reads these settings from, in the order of its list; settings that no
    /// flag stands for are left out.
    pub fn flags(&self) -> Vec<String> {
        let Ok(Value::Object(values)) = serde_json::to_value(self) else { return Vec::new() };
        let mut words = Vec::new();
        let mut told = std::collections::BTreeSet::new();
        for (names, setting, effect) in table() {
            let Some(value) = values.get(setting).filter(|value| !value.is_null()) else { continue };
            let value = match effect {
                Effect::Means(meant) if meant == *value => None,
                Effect::Means(_) => continue,
                Effect::Takes | Effect::MayTake => Some(write(value)),
            };
            // The last name is the long one.
            if told.insert(setting) {
                words.extend(names.last().map(|name| (*name).to_owned()));
                words.extend(value);
            }
        }
        words
    }
}

/// A value as a word, which [`read`] reads again.
fn write(value: &Value) -> String {
    match value {
        Value::String(word) => word.clone(),
        Value::Array(shares) => shares.iter().map(write).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

fn is_default(setting: &str, value: &Value) -> bool {
    match setting {
        "context_size" => *value == json!(0),
        "seed" | "max_tokens" | "threads" | "threads_batch" => *value == json!(-1),
        _ => false,
    }
}

/// Numbers become numbers, a list of shares a list, everything else stays a word.
fn read(setting: &str, text: &str) -> Value {
    if setting == "tensor_split" {
        return text.split([',', '/']).map(|share| read("", share)).collect();
    }
    if let Ok(whole) = text.parse::<i64>() {
        return json!(whole);
    }
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() => json!(number),
        _ => json!(text),
    }
}

fn refused(flag: &str, why: &str) -> Error {
    let flag = flag.chars().take(64).collect();
    Error::Flag { flag, why: why.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::super::{CacheType, GpuLayers, Loading, Switch};
    use super::*;

    fn read_line(line: &str) -> Result<Settings, Error> {
        Settings::from_flags(&line.split_whitespace().collect::<Vec<_>>())
    }

    #[test]
    fn settings_tell_the_flags_that_they_were_read_from() {
        let line = "--ctx-size 8192 --gpu-layers all --cache-type-k q8_0 --flash-attn on --no-kv-offload --load-mode none \
                    --temperature 0.1 --seed 7";
        let settings = read_line(line).unwrap();
        assert_eq!(settings.flags().join(" "), line.replace("--gpu-layers", "--n-gpu-layers"));
        let shares = read_line("-ts 3,1.5 --mlock").unwrap();
        assert_eq!(read_line(&shares.flags().join(" ")).unwrap(), shares);
        assert!(Settings::default().flags().is_empty());
    }

    #[test]
    fn known_flags_become_settings() {
        let line =
            "--ctx-size 8192 -ngl all --temp=0.3 -fa --no-mmap -ctk q8_0 -ts 3,1 --seed -1 --n-predict -1";
        let settings = read_line(line).unwrap();
        let expected = Settings {
            context_size: Some(8192),
            gpu_layers: Some(GpuLayers::All),
            temperature: Some(0.3),
            flash_attention: Some(Switch::On),
            loading: Some(Loading::Read),
            cache_type_k: Some(CacheType::Q8_0),
            tensor_split: Some(vec![3.0, 1.0]),
            ..Settings::default()
        };
        assert_eq!(settings, expected);
        assert_eq!(read_line("-fa off").unwrap().flash_attention, Some(Switch::Off));
    }

    #[test]
    fn every_row_names_a_setting_that_exists() {
        let names = serde_json::to_value(Settings::default()).unwrap();
        assert_eq!(names, json!({}), "unset settings are left out");
        for (flags, setting, effect) in table() {
            let value = match effect {
                Effect::Means(value) => value,
                _ => json!({ "never": "right" }),
            };
            let one = Value::Object(Map::from_iter([(setting.to_owned(), value)]));
            if let Err(error) = serde_json::from_value::<Settings>(one) {
                assert!(!error.to_string().contains("unknown field"), "{flags:?}: {error}");
            }
        }
    }

    #[test]
    fn flags_that_reach_outside_are_refused() {
        for line in [
            "--log-file /etc/cron.d/x",
            "--model /etc/passwd",
            "--host 0.0.0.0",
            "--slot-save-path /",
            "--lora /tmp/x",
            "--api-key-file=/etc/shadow",
            "--tools all",
            "--mcp-servers-json {}",
            "--rpc 1.2.3.4:5",
            "--override-tensor a=b",
            "--chat-template-file /etc/passwd",
            "--media-path /",
            "-hf a/b",
            "extra",
        ] {
            assert!(matches!(read_line(line), Err(Error::Flag { .. })), "{line}");
        }
        for line in ["--temp", "--temp hot", "--top-p 7", "--jinja=1", "-c -5", "-c 1e9"] {
            assert!(read_line(line).is_err(), "{line}");
        }
    }
}
