//! Owns the operator's policy: which models may come into the store, and under which names.

use serde::{Deserialize, Serialize};

use crate::{Digest, Error, Model, Reference, Result, Role};

/// What may be pulled and packaged. The default allows everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// Where models may come from: `docker.io/ai`, `hf.co/bartowski/*`, `localhost:5000`. Everything
    /// below a prefix is meant; `*` stands for the rest of a name. Empty: anywhere.
    pub registries: Vec<String>,
    /// Which models: digests of manifests, or of the weights. Empty: any.
    pub digests: Vec<Digest>,
    /// Refuse models that neither carry a licence nor name one.
    pub license_required: bool,
    /// Refuse names that are not `org/family:params-quant-context`, like
    /// `ai/smollm2:360m-q4_k_m-8k`, or that say something else than the model.
    pub naming: bool,
}

/// The parts of a tag that follows the naming convention.
#[derive(Clone, Debug, PartialEq)]
pub struct TagParts {
    /// Number of parameters.
    pub parameters: f64,
    /// In upper case: `Q4_K_M`.
    pub quantization: String,
    /// In tokens.
    pub context: u64,
}

impl Policy {
    /// Whether something with this name may come, before anything is fetched.
    pub fn check_reference(&self, reference: &Reference) -> Result<()> {
        let place = format!("{}/{}", reference.registry(), reference.repository());
        if !self.registries.is_empty() && !self.registries.iter().any(|pattern| matches(pattern, &place)) {
            return Err(Error::Policy(format!(
                "{place} is not among the allowed registries ({})",
                self.registries.join(", ")
            )));
        }
        if self.naming {
            check_name(reference)?;
        }
        Ok(())
    }

    /// Whether a model may stay, once its manifest and config are known.
    pub fn check_model(&self, model: &Model, reference: &Reference) -> Result<()> {
        let weights = model.files_of(Role::Weights).map(|file| file.descriptor.digest);
        if !self.digests.is_empty()
            && !self.digests.contains(&model.digest)
            && !weights.into_iter().all(|digest| self.digests.contains(&digest))
        {
            return Err(Error::Policy(format!(
                "{} ({}) is not among the allowed digests",
                reference.familiar(),
                model.digest
            )));
        }
        let named = model.config.gguf.get("general.license").is_some_and(|text| !text.is_empty());
        if self.license_required && !named && !model.has_license() {
            return Err(Error::Policy(format!(
                "{} has no licence; package it with --license, or choose a model that has one",
                reference.familiar()
            )));
        }
        if self.naming {
            agree(&check_name(reference)?, model, reference)?;
        }
        Ok(())
    }
}

/// True if the pattern names the place or something above it.
fn matches(pattern: &str, place: &str) -> bool {
    if let Some(prefix) = pattern.strip_suffix('*') {
        return place.starts_with(prefix);
    }
    let pattern = pattern.trim_end_matches('/');
    place == pattern || place.strip_prefix(pattern).is_some_and(|rest| rest.starts_with('/'))
}

/// Reads a name that follows the convention.
pub fn check_name(reference: &Reference) -> Result<TagParts> {
    let wrong = |reason: &str| {
        Error::Policy(format!(
            "the name {} does not follow `org/family:params-quant-context`, like `ai/smollm2:360m-q4_k_m-8k`: {reason}",
            reference.familiar()
        ))
    };
    if reference.repository().split('/').count() != 2 {
        return Err(wrong("the repository is not an organisation and a family"));
    }
    let tag = reference.tag().ok_or_else(|| wrong("it has no tag"))?;
    let parts: Vec<&str> = tag.split('-').collect();
    let [parameters, quantization, context] = parts.as_slice() else {
        return Err(wrong("the tag does not have three parts between dashes"));
    };
    let word =
        !quantization.is_empty() && quantization.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_');
    Ok(TagParts {
        parameters: read_parameters(parameters)
            .ok_or_else(|| wrong("the first part is no number of parameters"))?,
        quantization: word
            .then(|| quantization.to_ascii_uppercase())
            .ok_or_else(|| wrong("the second part is no quantisation"))?,
        context: read_context(context).ok_or_else(|| wrong("the third part is no context size"))?,
    })
}

/// `360m`, `1.7B`, `8x7b`.
fn read_parameters(text: &str) -> Option<f64> {
    let lower = text.to_ascii_lowercase();
    let (times, size) = match lower.split_once('x') {
        Some((times, size)) => (times.parse::<u32>().ok()?, size),
        None => (1, lower.as_str()),
    };
    let unit = match size.chars().last()? {
        'k' => 1e3,
        'm' => 1e6,
        'b' => 1e9,
        't' => 1e12,
        _ => return None,
    };
    let digits = &size[..size.len() - 1];
    let plain = !digits.is_empty() && digits.bytes().all(|c| c.is_ascii_digit() || c == b'.');
    let number: f64 = digits.parse().ok().filter(|_| plain)?;
    (number > 0.0 && times > 0).then_some(number * unit * f64::from(times))
}

/// `8k`, `131072`, `1m`: thousands are 1024, as everybody means it here.
fn read_context(text: &str) -> Option<u64> {
    let lower = text.to_ascii_lowercase();
    let (digits, unit) = match lower.strip_suffix('k') {
        Some(digits) => (digits, 1024),
        None => lower.strip_suffix('m').map_or((lower.as_str(), 1), |digits| (digits, 1024 * 1024)),
    };
    let number: u64 = digits.parse().ok().filter(|_| digits.bytes().all(|c| c.is_ascii_digit()))?;
    number.checked_mul(unit).filter(|context| *context > 0)
}

/// The tag must not contradict what is known of the model.
fn agree(parts: &TagParts, model: &Model, reference: &Reference) -> Result<()> {
    let wrong = |what: &str, said: String, is: String| {
        Err(Error::Policy(format!(
            "the name {} says {what} {said}, but the model has {is}",
            reference.familiar()
        )))
    };
    let config = &model.config;
    let real = config.quantization.to_ascii_uppercase().replace("MOSTLY_", "").replace('/', "_");
    if !real.is_empty() && real != parts.quantization {
        return wrong("quantisation", parts.quantization.clone(), real);
    }
    let counted = read_parameters(&config.parameters.replace(' ', ""));
    // Names round: a model of 361.82M is called 360m, one of 8.03B is 8b, one of 6.74B is 7b.
    if counted.is_some_and(|counted| (counted / parts.parameters - 1.0).abs() > 0.15) {
        return wrong("parameters", format!("{:.0}", parts.parameters), config.parameters.clone());
    }
    match config.context_size {
        Some(context) if u64::from(context) != parts.context => {
            wrong("context", parts.context.to_string(), context.to_string())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Reference {
        Reference::parse(text).unwrap()
    }

    #[test]
    fn registries_are_prefixes_of_whole_components() {
        let policy =
            Policy { registries: vec!["docker.io/ai".into(), "hf.co/bart*".into()], ..Policy::default() };
        assert!(policy.check_reference(&name("smollm2")).is_ok());
        assert!(policy.check_reference(&name("hf.co/bartowski/x")).is_ok());
        for other in ["airline/x", "docker.io/ai2/x", "localhost:5000/ai/x", "hf.co/other/x"] {
            let error = policy.check_reference(&name(other)).unwrap_err();
            assert!(matches!(error, Error::Policy(_)), "{other}");
        }
    }

    #[test]
    fn names_that_follow_the_convention() {
        let parts = check_name(&name("ai/smollm2:360M-Q4_K_M-8k")).unwrap();
        assert_eq!(parts, TagParts { parameters: 360e6, quantization: "Q4_K_M".into(), context: 8192 });
        assert_eq!(check_name(&name("ai/mixtral:8x7b-q8_0-32768")).unwrap().parameters, 56e9);
        for bad in [
            "ai/x",
            "ai/x:8b",
            "ai/x:8b-q4_0",
            "ai/x:b-q4_0-8k",
            "ai/x:8b-q4.0-8k",
            "ai/x:8b-q4-0k",
            "a/b/c:8b-q4_0-8k",
            "ai/x:1e3b-q4-8k",
        ] {
            assert!(check_name(&name(bad)).is_err(), "{bad}");
        }
    }
}
