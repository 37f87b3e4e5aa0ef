//! Owns the check of projectors, which are loaded beside vision and audio models.

use std::path::Path;

use super::{CheckError, Header, List, Metadata, Value, arch, check, read};

/// Projectors whose graph takes one learned position for each patch of a picture of the one size that they know.
const OF_ONE_SIZE: &[&str] = &["mlp", "mlp_norm", "ldp", "ldpv2"];

/// Checks a projector, which is loaded beside a vision or audio model.
pub fn check_projector(path: &Path) -> Result<Header, CheckError> {
    let header = read(path)?;
    check_header(&header).map_err(|reason| CheckError::new(path, reason))?;
    Ok(header)
}

fn check_header(header: &Header) -> Result<(), String> {
    let meta = &header.metadata;
    check::check_tensors(header)?;
    if !arch::is_projector(header.architecture()) {
        return Err(format!("it is no projector: its architecture is `{}`", header.architecture()));
    }
    check::check_kinds(meta)?;
    for media in ["vision", "audio"] {
        let within = |name: &str, low, high| check::range(meta, &format!("clip.{media}.{name}"), low, high);
        within("block_count", 0, u64::from(check::MAX_LAYERS))?;
        within("embedding_length", 1, check::MAX_EMBEDDING)?;
        within("feed_forward_length", 0, check::MAX_FEED_FORWARD)?;
        within("projection_dim", 0, check::MAX_EMBEDDING)?;
        within("attention.head_count", 1, check::MAX_HEADS)?;
        within("image_size", 1, 1 << 16)?;
        within("patch_size", 1, 1 << 12)?;
        let key = format!("clip.{media}.attention.layer_norm_epsilon");
        if let Some(epsilon) = meta.f64(&key).filter(|value| !(0.0..=1.0).contains(value)) {
            return Err(format!("its `{key}` is {epsilon}; 0 to 1 is possible"));
        }
    }
    check_pixels(meta, "clip.vision.image_mean", f64::NEG_INFINITY)?;
    check_pixels(meta, "clip.vision.image_std", 0.0)?;
    check_positions(header)
}

/// What is taken from pixels, and what they are divided by: finite, and more than `above`.
fn check_pixels(meta: &Metadata, key: &str, above: f64) -> Result<(), String> {
    let values = match meta.get(key) {
        None => return Ok(()),
        Some(Value::List(List::Floats { values, .. })) if values.len() >= 3 => values,
        Some(_) => return Err(format!("its `{key}` must be three numbers, one for each colour")),
    };
    match values.iter().find(|value| !value.is_finite() || **value <= above) {
        Some(value) => Err(format!("its `{key}` holds {value}, which pixels cannot be normalised with")),
        None => Ok(()),
    }
}

/// A picture with more patches than there are positions ends the engine.
fn check_positions(header: &Header) -> Result<(), String> {
    let meta = &header.metadata;
    let kind = meta.str("clip.projector_type").unwrap_or_default();
    let sizes = meta.u64("clip.vision.image_size").zip(meta.u64("clip.vision.patch_size"));
    let positions = header.tensor("v.position_embd.weight");
    let (true, Some((image, patch)), Some(positions)) = (OF_ONE_SIZE.contains(&kind), sizes, positions)
    else {
        return Ok(());
    };
    let rows = positions.shape.get(1).copied().unwrap_or(1);
    let class = u64::from(header.tensor("v.class_embd").is_some());
    let needed = image.checked_div(patch).unwrap_or(0).pow(2) + class;
    match rows < needed {
        true => Err(format!(
            "it has {rows} positions, but pictures of {image} by {image} pixels have {needed} patches of {patch}"
        )),
        false => Ok(()),
    }
}
