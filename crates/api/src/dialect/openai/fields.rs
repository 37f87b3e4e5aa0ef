//! Which fields a client may send to an engine, and their bounds. Everything else is dropped.
//!
//! It is a list of what is allowed because engines take every field as their own: llama-server lets a request
//! choose slots (`id_slot`), context shifts (`n_keep`, `n_discard`: CVE-2026-21869), the internal parser's state
//! (`chat_format`, `chat_parser`, `grammar_triggers`, `preserved_tokens`, `generation_prompt`), and what it logs
//! (`verbose`, `response_fields`); mlx-lm loads whatever `model`, `draft_model` and `adapters` name; vLLM takes
//! `chat_template`, `mm_processor_kwargs`, `kv_transfer_params`, `priority`.

use serde_json::Value;
use serde_json::value::RawValue;

use super::super::error::DialectError;
use super::super::grammar;
use super::super::json::{Path, count, whole, wrong};
use super::super::limits;

/// What a field may hold.
#[derive(Debug, Clone, Copy)]
pub enum Rule {
    /// A whole number.
    Int(i64, i64),
    /// A number.
    Num(f64, f64),
    /// True or false.
    Flag,
    /// A string of at most so many bytes.
    Text(usize),
    /// One of these strings.
    OneOf(&'static [&'static str]),
    /// An array or object of at most so many entries.
    Entries(usize),
    /// Anything of at most so many bytes.
    Any(usize),
    /// Something with schemas in it, of at most so many bytes.
    Schema(usize),
    /// A grammar or a regular expression of at most so many bytes.
    Grammar(usize),
    /// A stop sequence or an array of them.
    Stop,
    /// A meaning of its own; looked at elsewhere.
    Own,
    /// Has no meaning here and does no harm; dropped without a word.
    Silent,
}

use Rule::{Any, Entries, Flag, Grammar, Int, Num, OneOf, Own, Schema, Silent, Stop, Text};

/// Fields of chat and text completions.
const SAMPLING: &[(&str, Rule)] = &[
    ("temperature", Num(0.0, 10.0)),
    ("top_p", Num(0.0, 1.0)),
    ("top_k", Int(-1, 1_000_000)),
    ("min_p", Num(0.0, 1.0)),
    ("top_n_sigma", Num(-1.0, 100.0)),
    ("xtc_probability", Num(0.0, 1.0)),
    ("xtc_threshold", Num(0.0, 1.0)),
    ("typical_p", Num(0.0, 10.0)),
    ("dynatemp_range", Num(0.0, 10.0)),
    ("dynatemp_exponent", Num(0.0, 10.0)),
    ("repeat_last_n", Int(0, limits::LOOK_BACK)),
    ("repetition_context_size", Int(0, limits::LOOK_BACK)),
    ("repeat_penalty", Num(0.0, 10.0)),
    ("repetition_penalty", Num(0.0, 10.0)),
    ("frequency_penalty", Num(-10.0, 10.0)),
    ("presence_penalty", Num(-10.0, 10.0)),
    ("dry_multiplier", Num(0.0, 100.0)),
    ("dry_base", Num(0.0, 100.0)),
    ("dry_allowed_length", Int(0, limits::LOOK_BACK)),
    ("dry_penalty_last_n", Int(0, limits::LOOK_BACK)),
    ("dry_sequence_breakers", Entries(16)),
    ("mirostat", Int(0, 2)),
    ("mirostat_tau", Num(0.0, 1000.0)),
    ("mirostat_eta", Num(0.0, 1000.0)),
    ("adaptive_target", Num(-1.0, 1.0)),
    ("adaptive_decay", Num(0.0, 0.99)),
    ("samplers", Entries(32)),
    ("min_keep", Int(0, 1000)),
    ("min_tokens", Int(0, i32::MAX as i64)),
    ("seed", Int(i64::MIN, i64::MAX)),
    ("logit_bias", Entries(limits::BIASES)),
    ("stop", Stop),
    ("stop_token_ids", Entries(64)),
    ("skip_special_tokens", Flag),
    ("include_stop_str_in_output", Flag),
    ("ignore_eos", Flag),
    ("grammar", Grammar(limits::GRAMMAR)),
    ("json_schema", Schema(limits::OPTION)),
    ("response_format", Schema(limits::OPTION)),
    ("guided_json", Schema(limits::OPTION)),
    ("guided_regex", Grammar(limits::GRAMMAR)),
    ("guided_choice", Entries(1024)),
    ("guided_grammar", Grammar(limits::GRAMMAR)),
    ("structured_outputs", Schema(limits::OPTION)),
    ("t_max_predict_ms", Int(-1, i32::MAX as i64)),
    ("cache_prompt", Flag),
    ("lora", Own),
    ("timings_per_token", Flag),
    ("return_progress", Flag),
    ("return_tokens", Flag),
    ("post_sampling_probs", Flag),
    ("n_probs", Int(0, limits::LOGPROBS)),
    ("reasoning_format", OneOf(&["none", "auto", "deepseek", "deepseek-legacy"])),
    ("max_tokens", Own),
    ("max_completion_tokens", Own),
    ("n_predict", Own),
    ("n", Int(1, limits::CHOICES)),
    ("stream", Own),
    ("stream_options", Own),
    ("model", Own),
    ("keep_alive", Own),
    ("user", Silent),
    ("store", Silent),
    ("metadata", Silent),
    ("service_tier", Silent),
    ("safety_identifier", Silent),
    ("prompt_cache_key", Silent),
    ("prompt_cache_retention", Silent),
    ("verbosity", Silent),
    ("modalities", Silent),
];

const CHAT: &[(&str, Rule)] = &[
    ("messages", Own),
    ("tools", Own),
    ("tool_choice", Own),
    ("parallel_tool_calls", Flag),
    ("logprobs", Own),
    ("top_logprobs", Own),
    ("reasoning_effort", Text(32)),
    ("reasoning_budget_tokens", Int(-1, i32::MAX as i64)),
    ("thinking_budget_tokens", Int(-1, i32::MAX as i64)),
    ("chat_template_kwargs", Any(16 << 10)),
    ("add_generation_prompt", Flag),
    ("continue_final_message", Any(64)),
];

const TEXT: &[(&str, Rule)] = &[
    ("prompt", Own),
    ("logprobs", Int(0, limits::LOGPROBS)),
    ("echo", Own),
    ("suffix", Own),
    ("best_of", Own),
];

const EMBEDDING: &[(&str, Rule)] = &[
    ("model", Own),
    ("input", Own),
    ("encoding_format", Own),
    ("dimensions", Own),
    ("keep_alive", Own),
    ("embd_normalize", Int(-1, 6)),
    ("truncate_prompt_tokens", Int(-1, i32::MAX as i64)),
    ("user", Silent),
];

/// The fields of one path.
#[derive(Debug, Clone, Copy)]
pub enum Table {
    /// `chat/completions`
    Chat,
    /// `completions`
    Text,
    /// `embeddings`
    Embedding,
}

impl Table {
    /// The rule of a field, or `None` where no client may send it.
    pub fn rule(self, name: &str) -> Option<Rule> {
        let (own, shared): (&[_], &[_]) = match self {
            Self::Chat => (CHAT, SAMPLING),
            Self::Text => (TEXT, SAMPLING),
            Self::Embedding => (EMBEDDING, &[]),
        };
        own.iter().chain(shared).find(|(key, _)| *key == name).map(|(_, rule)| *rule)
    }
}

/// Holds a value against its rule.
pub fn obey(name: &str, rule: Rule, raw: &RawValue) -> Result<(), DialectError> {
    let at = Path::Key(&Path::Root, name);
    match rule {
        Own | Silent => Ok(()),
        Any(max) => length(&at, raw, max),
        Schema(max) => length(&at, raw, max).and_then(|()| grammar::check_text(name, raw.get())),
        Entries(max) => length(&at, raw, limits::OPTION).and_then(|()| entries(&at, raw, max)),
        Text(max) => text(&at, raw, max).map(drop),
        Grammar(max) => text(&at, raw, max).and_then(|text| grammar::check_repetitions(name, &text)),
        Flag => match raw.get() {
            "true" | "false" => Ok(()),
            _ => Err(wrong(&at, "true or false", &value(raw))),
        },
        Int(min, max) => {
            let value = value(raw);
            match whole(&value) {
                Some(number) if (min..=max).contains(&number) => Ok(()),
                _ => Err(wrong(&at, &format!("a whole number from {min} to {max}"), &value)),
            }
        }
        Num(min, max) => {
            let value = value(raw);
            match value.as_f64() {
                Some(number) if (min..=max).contains(&number) => Ok(()),
                _ => Err(wrong(&at, &format!("a number from {min} to {max}"), &value)),
            }
        }
        OneOf(all) => {
            let value = value(raw);
            match value.as_str() {
                Some(text) if all.contains(&text) => Ok(()),
                _ => Err(wrong(&at, &format!("one of {}", all.join(", ")), &value)),
            }
        }
        Stop => stop(&at, &value(raw)),
    }
}

/// Checks stop sequences: a string, or an array of strings.
pub fn stop(at: &Path<'_>, value: &Value) -> Result<(), DialectError> {
    let one = |at: &Path<'_>, item: &Value| match item.as_str() {
        Some(text) if text.len() <= limits::STOP => Ok(()),
        Some(text) => Err(too_long(at, text.len(), limits::STOP)),
        None => Err(wrong(at, "a string", item)),
    };
    match value {
        Value::Array(items) => {
            super::super::json::list(value, at, limits::STOPS)?;
            items.iter().enumerate().try_for_each(|(index, item)| one(&Path::Index(at, index), item))
        }
        Value::String(_) => one(at, value),
        other => Err(wrong(at, "a string or an array of strings", other)),
    }
}

/// The value of a field. `fields()` has validated the text, so only absurd depth or numbers end as `null`.
pub fn value(raw: &RawValue) -> Value {
    serde_json::from_str(raw.get()).unwrap_or(Value::Null)
}

fn text(at: &Path<'_>, raw: &RawValue, max: usize) -> Result<String, DialectError> {
    length(at, raw, 6 * max + 2)?;
    match value(raw) {
        Value::String(text) if text.len() <= max => Ok(text),
        Value::String(text) => Err(too_long(at, text.len(), max)),
        other => Err(wrong(at, "a string", &other)),
    }
}

fn length(at: &Path<'_>, raw: &RawValue, max: usize) -> Result<(), DialectError> {
    if raw.get().len() > max { Err(too_long(at, raw.get().len(), max)) } else { Ok(()) }
}

fn entries(at: &Path<'_>, raw: &RawValue, max: usize) -> Result<(), DialectError> {
    let got = match count(raw) {
        Some(count) => count,
        None => match value(raw) {
            Value::Object(map) => map.len(),
            other => return Err(wrong(at, "an array or an object", &other)),
        },
    };
    if got > max {
        let text = format!("{at} has {got} entries, the limit is {max}");
        return Err(DialectError::invalid(at.to_string(), text));
    }
    Ok(())
}

fn too_long(at: &Path<'_>, got: usize, max: usize) -> DialectError {
    DialectError::invalid(at.to_string(), format!("{at} is {got} bytes long, the limit is {max} bytes"))
}
