//! Owns the check of the vocabulary: engines index its lists without asking how long they are.

use std::collections::HashSet;

use super::{Header, List, Metadata, Texts, Value, arch};

/// Vocabularies that an engine builds in without a list.
const WITHOUT_LIST: &[&str] = &["no_vocab", "none"];
/// The kinds of tokens are numbered from 0 to 6.
const MAX_TOKEN_TYPE: i64 = 6;
const MAX_TOKENS: usize = 1 << 22;

pub(super) fn check(header: &Header) -> Result<(), String> {
    let meta = &header.metadata;
    let model = meta.str("tokenizer.ggml.model").ok_or("it lacks `tokenizer.ggml.model`")?;
    if WITHOUT_LIST.contains(&model) {
        return Ok(());
    }
    let tokens =
        meta.texts("tokenizer.ggml.tokens").ok_or("it lacks its vocabulary, `tokenizer.ggml.tokens`")?;
    check_tokens(tokens)?;
    check_types(meta, tokens.len())?;
    check_scores(meta, tokens.len(), model)?;
    check_merges(meta, model)?;
    check_ids(meta)?;
    check_rows(header, tokens.len())
}

fn check_tokens(tokens: &Texts) -> Result<(), String> {
    if tokens.is_empty() || tokens.len() > MAX_TOKENS {
        return Err(format!("its vocabulary has {} tokens; 1 to {MAX_TOKENS} are possible", tokens.len()));
    }
    let mut seen = HashSet::with_capacity(tokens.len());
    // Engines give empty tokens a name of their own, so these do not collide.
    match tokens.iter().position(|token| !token.is_empty() && !seen.insert(token)) {
        Some(at) => Err(format!("token {at} of its vocabulary occurs a second time")),
        None => Ok(()),
    }
}

/// Engines read this list as 32-bit integers, one for each token.
fn check_types(meta: &Metadata, tokens: usize) -> Result<(), String> {
    let key = "tokenizer.ggml.token_type";
    match meta.get(key) {
        None => Ok(()),
        Some(Value::List(List::Integers { width: 4, values })) => {
            if values.len() != tokens {
                return Err(format!("its `{key}` has {} elements for {tokens} tokens", values.len()));
            }
            match values.iter().find(|value| !(0..=MAX_TOKEN_TYPE).contains(*value)) {
                Some(value) => Err(format!("its `{key}` has the unknown type {value}")),
                None => Ok(()),
            }
        }
        Some(_) => Err(format!("its `{key}` is not a list of 32-bit integers")),
    }
}

/// Engines read this list as 32-bit floats, one for each token.
fn check_scores(meta: &Metadata, tokens: usize, model: &str) -> Result<(), String> {
    let key = "tokenizer.ggml.scores";
    match meta.get(key) {
        // Unigram vocabularies weigh their tokens; without scores every text is one unknown token.
        None if model == "t5" => Err(format!("it lacks `{key}`, which its kind of vocabulary needs")),
        None => Ok(()),
        Some(Value::List(List::Floats { width: 4, values })) if values.len() == tokens => {
            match values.iter().any(|value| value.is_nan()) {
                true => Err(format!("its `{key}` has values that are no numbers")),
                false => Ok(()),
            }
        }
        Some(Value::List(List::Floats { width: 4, values })) => {
            Err(format!("its `{key}` has {} elements for {tokens} tokens", values.len()))
        }
        Some(_) => Err(format!("its `{key}` is not a list of 32-bit floats")),
    }
}

fn check_merges(meta: &Metadata, model: &str) -> Result<(), String> {
    let key = "tokenizer.ggml.merges";
    match meta.get(key) {
        None if model == "gpt2" => Err(format!("it lacks `{key}`, which its kind of vocabulary needs")),
        None => Ok(()),
        Some(Value::List(List::Texts(merges))) => {
            let two_parts = |merge: &[u8]| merge.iter().skip(1).any(|byte| *byte == b' ');
            match merges.iter().position(|merge| !two_parts(merge)) {
                Some(at) => Err(format!("merge {at} of its vocabulary does not have two parts")),
                None => Ok(()),
            }
        }
        Some(_) => Err(format!("its `{key}` is not a list of texts")),
    }
}

/// Ids beyond the vocabulary are ignored by engines, with a warning; other types than counts are not.
fn check_ids(meta: &Metadata) -> Result<(), String> {
    let ids = meta.iter().filter(|(key, _)| key.starts_with("tokenizer.ggml.") && key.ends_with("_token_id"));
    for (key, value) in ids {
        let ok = match value {
            Value::Unsigned(id) => *id <= u64::from(u32::MAX),
            Value::Signed(id) => (-1..=i64::from(i32::MAX)).contains(id),
            _ => false,
        };
        if !ok {
            return Err(format!("its `{key}` is not the id of a token"));
        }
    }
    Ok(())
}

/// The embedding has a row for each token, as wide as the model.
fn check_rows(header: &Header, tokens: usize) -> Result<(), String> {
    let arch = header.architecture();
    let width = header.metadata.u64(&format!("{arch}.embedding_length")).unwrap_or(0);
    let Some(rows) = header.tensor("token_embd.weight").filter(|_| arch::embeds_tokens(arch)) else {
        return Ok(());
    };
    if rows.shape.len() == 2 && rows.shape[0] == width && rows.shape[1] == tokens as u64 {
        return Ok(());
    }
    Err(format!("its embedding has the shape {:?} for {tokens} tokens and a width of {width}", rows.shape))
}
