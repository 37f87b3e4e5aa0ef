//! Owns the check of LoRA adapters, by themselves and against the weights that they change.
//!
//! llama.cpp compares an adapter's matrices with the model's when it loads both, but not all of what it multiplies
//! later: some that it takes end it at the first request that asks for them.

use std::path::Path;

use super::{CheckError, Header, Tensor, arch, check, read};

/// Checks a LoRA adapter in GGUF; with `base`, also whether it fits that model's weights.
pub fn check_adapter(path: &Path, base: Option<&Header>) -> Result<Header, CheckError> {
    let header = read(path)?;
    let refuse = |reason: String| CheckError::new(path, reason);
    check::check_tensors(&header).map_err(refuse)?;
    check::check_kinds(&header.metadata).map_err(refuse)?;
    check_alone(&header).map_err(refuse)?;
    if let Some(base) = base {
        check_against(&header, base).map_err(refuse)?;
    }
    Ok(header)
}

fn check_alone(header: &Header) -> Result<(), String> {
    if header.metadata.str("general.type") != Some("adapter") {
        return Err("it is no adapter: its `general.type` is not `adapter`".to_owned());
    }
    let kind = header.metadata.str("adapter.type").unwrap_or_default();
    if kind != "lora" {
        return Err(format!("its `adapter.type` is `{kind}`, only `lora` is possible"));
    }
    let alpha = header.metadata.f64("adapter.lora.alpha");
    if !alpha.is_some_and(f64::is_finite) {
        return Err("its `adapter.lora.alpha` is missing or not a finite number".to_owned());
    }
    for tensor in &header.tensors {
        let other = match halves_of(&tensor.name) {
            Some((base, "a")) => format!("{base}.lora_b"),
            Some((base, _)) => format!("{base}.lora_a"),
            None if tensor.name.ends_with("_norm.weight") => continue,
            None => return Err(format!("the tensor `{}` is no half of an update", tensor.name)),
        };
        if header.tensor(&other).is_none() {
            return Err(format!("the tensor `{}` lacks its other half", tensor.name));
        }
    }
    Ok(())
}

/// `blk.0.attn_q.weight` and `a` for `blk.0.attn_q.weight.lora_a`.
fn halves_of(name: &str) -> Option<(&str, &str)> {
    name.rsplit_once(".lora_").filter(|(_, half)| matches!(*half, "a" | "b"))
}

fn check_against(header: &Header, base: &Header) -> Result<(), String> {
    let (wanted, own) = (header.architecture(), base.architecture());
    if wanted != own {
        return Err(format!("it is for models of the architecture `{wanted}`, this one is `{own}`"));
    }
    for a in &header.tensors {
        let Some((name, "a")) = halves_of(&a.name) else { continue };
        let Some(b) = header.tensor(&format!("{name}.lora_b")) else { continue };
        let changed =
            base.tensor(name).ok_or_else(|| format!("the model has no tensor `{name}` to change"))?;
        let embeds = name == "token_embd.weight";
        // Without a matrix of its own for the output the model uses this one, and llama.cpp then multiplies the
        // update the wrong way round.
        if embeds && !arch::is_encoder(own) && base.tensor("output.weight").is_none() {
            return Err(format!(
                "it changes `{name}`, which is the model's output too; engines abort on that"
            ));
        }
        if !fits(changed, a, b, embeds) {
            return Err(format!(
                "its update of {:?} and {:?} does not fit `{name}`, which is {:?}",
                a.shape, b.shape, changed.shape
            ));
        }
    }
    Ok(())
}

/// Whether `b` times `a` is as large as what it is added to. Of token embeddings rows of `a` are taken, so they are
/// stored the other way round.
fn fits(changed: &Tensor, a: &Tensor, b: &Tensor, embeds: bool) -> bool {
    let size = |tensor: &Tensor, at: usize| tensor.shape.get(at).copied().unwrap_or(1);
    let beyond = (2..4).all(|at| size(a, at) == size(changed, at) && size(b, at) == size(changed, at));
    let [inner, outer] = [size(changed, 0), size(changed, 1)];
    beyond
        && match embeds {
            true => size(b, 1) == inner && size(a, 1) == outer && size(a, 0) == size(b, 0),
            false => size(a, 0) == inner && size(b, 1) == outer && size(a, 1) == size(b, 0),
        }
}
