//! Which of a model's LoRA adapters a request wants, and how strongly.
//!
//! llama-server takes unknown adapters for none, texts for zero and any number for a scale, and a request that says
//! nothing of adapters gets what an earlier one with others has left in the cache. So requests are checked here, and
//! each says all scales.

use serde_json::Value;

use super::error::DialectError;
use super::json::{Object, Path, wrong};

/// The field.
pub const FIELD: &str = "lora";

/// Most entries of the field; more adapters than any model has.
const MOST: usize = 64;

/// Largest scale, either way; the same as of the setting `lora_scale`.
const SCALE: f64 = 100.0;

/// One entry: which adapter, and its scale.
pub type Choice = (usize, f64);

/// Reads the field: `[{"id": 0, "scale": 1}]`.
pub fn parse(value: &Value) -> Result<Vec<Choice>, DialectError> {
    let at = Path::Key(&Path::Root, FIELD);
    let entries = super::json::list(value, &at, MOST)?;
    let mut chosen: Vec<Choice> = Vec::with_capacity(entries.len());
    for (index, entry) in entries.iter().enumerate() {
        let at = Path::Index(&at, index);
        let entry = Object::new(entry, &at)?;
        let id = entry.integer("id", 0, MOST as i64 - 1)?.ok_or_else(|| missing(&at, "id"))? as usize;
        let scale = entry.number("scale", -SCALE, SCALE)?.ok_or_else(|| missing(&at, "scale"))?;
        if chosen.iter().any(|(other, _)| *other == id) {
            return Err(wrong(&Path::Key(&at, "id"), "an adapter that is named once", &Value::from(id)));
        }
        chosen.push((id, scale));
    }
    Ok(chosen)
}

fn missing(at: &Path<'_>, key: &str) -> DialectError {
    super::json::missing(&Path::Key(at, key))
}

/// The scale of each adapter of a model whose own are `usual`. Those that the request leaves out are off, unless it
/// says nothing at all.
pub fn scales(chosen: Option<&[Choice]>, usual: &[f64]) -> Result<Vec<f64>, DialectError> {
    let Some(chosen) = chosen else { return Ok(usual.to_vec()) };
    let mut scales = vec![0.0; usual.len()];
    for (index, (id, scale)) in chosen.iter().enumerate() {
        let Some(place) = scales.get_mut(*id) else {
            let known = match usual.len() {
                0 => "the model has no adapters".to_owned(),
                1 => "the model has one adapter, 0".to_owned(),
                count => format!("the model has the adapters 0 to {}", count - 1),
            };
            let param = format!("{FIELD}[{index}].id");
            let text = format!("{param} is {id}, but {known}");
            return Err(DialectError::invalid(param, text));
        };
        *place = *scale;
    }
    Ok(scales)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn entries_are_whole_and_within_bounds() {
        assert_eq!(
            parse(&json!([{"id": 1, "scale": 0.5}, {"id": 0, "scale": -1}])).unwrap(),
            [(1, 0.5), (0, -1.0)]
        );
        assert_eq!(parse(&json!([])).unwrap(), []);
        for (value, param) in [
            (json!({}), "lora"),
            (json!(["x"]), "lora[0]"),
            (json!([{"scale": 1}]), "lora[0].id"),
            (json!([{"id": 0}]), "lora[0].scale"),
            (json!([{"id": -1, "scale": 1}]), "lora[0].id"),
            (json!([{"id": 0.5, "scale": 1}]), "lora[0].id"),
            (json!([{"id": 0, "scale": "1"}]), "lora[0].scale"),
            (json!([{"id": 0, "scale": 1e38}]), "lora[0].scale"),
            (json!([{"id": 0, "scale": 1}, {"id": 0, "scale": 0}]), "lora[1].id"),
        ] {
            let error = parse(&value).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(param), "{value}: {}", error.message);
        }
    }

    #[test]
    fn what_is_left_out_is_off_and_silence_is_the_usual() {
        assert_eq!(scales(None, &[1.0, 0.5]).unwrap(), [1.0, 0.5]);
        assert_eq!(scales(Some(&[]), &[1.0, 0.5]).unwrap(), [0.0, 0.0]);
        assert_eq!(scales(Some(&[(1, 2.0)]), &[1.0, 0.5]).unwrap(), [0.0, 2.0]);
        let error = scales(Some(&[(0, 1.0)]), &[]).unwrap_err();
        assert!(error.message.contains("has no adapters"), "{}", error.message);
        assert_eq!(scales(Some(&[(2, 1.0)]), &[0.0, 0.0]).unwrap_err().param.as_deref(), Some("lora[0].id"));
    }
}
