//! Owns the bounds of every setting: what no layer may ask for.

use super::{CacheType, Settings, Switch};
use crate::Error;

/// Larger contexts than any model has.
const MAX_CONTEXT: u32 = 16 << 20;

impl Settings {
    /// Refuses values that no engine should see.
    ///
    /// # Errors
    /// [`Error::Setting`] naming the setting, its value and what is allowed.
    pub fn check(&self) -> Result<(), Error> {
        self.check_sizes()?;
        self.check_shape()?;
        self.check_sampling()?;
        self.check_together()
    }

    fn check_sizes(&self) -> Result<(), Error> {
        within("context_size", self.context_size, 1, MAX_CONTEXT)?;
        within("parallel", self.parallel, 1, 256)?;
        within("batch", self.batch, 1, 65_536)?;
        within("ubatch", self.ubatch, 1, 65_536)?;
        within("threads", self.threads, 1, 1024)?;
        within("threads_batch", self.threads_batch, 1, 1024)?;
        within("main_gpu", self.main_gpu, 0, 63)?;
        within("cpu_moe_layers", self.cpu_moe_layers, 0, 10_000)?;
        within("cache_reuse", self.cache_reuse, 0, MAX_CONTEXT)?;
        within("prompt_cache_mib", self.prompt_cache_mib, 0, 1 << 20)?;
        within("draft_max", self.draft_max, 1, 256)?;
        within("draft_min", self.draft_min, 0, 256)?;
        within("max_tokens", self.max_tokens, 1, MAX_CONTEXT)?;
        within("reasoning_budget", self.reasoning_budget, -1, MAX_CONTEXT as i32)
    }

    fn check_shape(&self) -> Result<(), Error> {
        within("rope_scale", self.rope_scale, 0.001, 1000.0)?;
        within("rope_freq_base", self.rope_freq_base, 1.0, 1e12)?;
        within("rope_freq_scale", self.rope_freq_scale, 0.0001, 1000.0)?;
        within("yarn_orig_ctx", self.yarn_orig_ctx, 1, MAX_CONTEXT)?;
        within("slot_similarity", self.slot_similarity, 0.0, 1.0)?;
        within("draft_p_min", self.draft_p_min, 0.0, 1.0)?;
        list("tensor_split", self.tensor_split.as_deref(), 0.0, 1e6)?;
        list("lora_scale", self.lora_scale.as_deref(), -100.0, 100.0)
    }

    fn check_sampling(&self) -> Result<(), Error> {
        within("temperature", self.temperature, 0.0, 100.0)?;
        within("top_k", self.top_k, 0, 1_000_000)?;
        within("top_p", self.top_p, 0.0, 1.0)?;
        within("min_p", self.min_p, 0.0, 1.0)?;
        within("repeat_penalty", self.repeat_penalty, 0.0, 100.0)?;
        within("presence_penalty", self.presence_penalty, -100.0, 100.0)?;
        within("frequency_penalty", self.frequency_penalty, -100.0, 100.0)
    }

    fn check_together(&self) -> Result<(), Error> {
        let slots = u64::from(self.parallel.unwrap_or(1)) * u64::from(self.context_size.unwrap_or(1));
        if slots > u64::from(MAX_CONTEXT) {
            return refuse(format!(
                "context_size × parallel is {slots} tokens and may be {MAX_CONTEXT} at most; lower one of them"
            ));
        }
        let quantised = |kind: Option<CacheType>| kind.is_some_and(|kind| kind.bits() < 16.0);
        if quantised(self.cache_type_v) && self.flash_attention == Some(Switch::Off) {
            return refuse(
                "cache_type_v is quantised, which needs flash_attention; set it to `on` or `auto`".to_owned(),
            );
        }
        if let (Some(least), Some(most)) = (self.draft_min, self.draft_max)
            && least > most
        {
            return refuse(format!("draft_min {least} is above draft_max {most}; swap them"));
        }
        for (name, text) in [("engine", &self.engine), ("draft_model", &self.draft_model)] {
            if let Some(text) = text
                && (text.is_empty() || text.len() > 512 || text.chars().any(char::is_control))
            {
                return refuse(format!("{name} must be a name of at most 512 printable characters"));
            }
        }
        Ok(())
    }
}

fn within<T: PartialOrd + std::fmt::Display>(
    name: &str,
    value: Option<T>,
    least: T,
    most: T,
) -> Result<(), Error> {
    match value {
        // Written so that NaN is refused.
        Some(value) if !(value >= least && value <= most) => {
            refuse(format!("{name} is {value} and must be from {least} to {most}"))
        }
        _ => Ok(()),
    }
}

fn list(name: &str, values: Option<&[f64]>, least: f64, most: f64) -> Result<(), Error> {
    let values = values.unwrap_or_default();
    within(&format!("the length of {name}"), Some(values.len()), 0, 64)?;
    values.iter().try_for_each(|value| within(name, Some(*value), least, most))
}

fn refuse(reason: String) -> Result<(), Error> {
    Err(Error::Setting { reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_out_of_bounds_are_named() {
        let nan = Settings { temperature: Some(f64::NAN), ..Settings::default() };
        assert!(nan.check().unwrap_err().to_string().contains("temperature"));
        let huge = Settings { context_size: Some(1 << 20), parallel: Some(64), ..Settings::default() };
        assert!(huge.check().unwrap_err().to_string().contains("parallel"));
        let engine = Settings { engine: Some("a\nb".into()), ..Settings::default() };
        assert!(engine.check().is_err());
        let cache = Settings {
            cache_type_v: Some(CacheType::Q4_0),
            flash_attention: Some(Switch::Off),
            ..Settings::default()
        };
        assert!(cache.check().unwrap_err().to_string().contains("flash_attention"));
        Settings::default().check().unwrap();
    }
}
