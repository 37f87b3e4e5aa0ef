//! Owns what engines were seen to use, remembered across restarts, and the first estimate before that.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pontoon_models::Facts;
use serde::{Deserialize, Serialize};

use crate::settings::{CacheType, GpuLayers};
use crate::{Error, Memory, Settings, files};

/// Entries kept; the least recently measured go first.
const MAX_ENTRIES: usize = 2000;

/// What one (digest, engine, context, flags, device) took.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    pub memory: Memory,
    /// Milliseconds that loading took.
    pub load_millis: u64,
    /// Number of the measurement: larger is later.
    #[serde(default)]
    pub number: u64,
}

/// All measurements, in one file.
#[derive(Debug)]
pub struct Footprints {
    path: PathBuf,
    entries: BTreeMap<String, Measured>,
}

impl Footprints {
    /// Reads the file. A damaged one is begun anew: everything in it can be measured again.
    pub fn open(path: &Path) -> Footprints {
        let entries = files::read_json(path).unwrap_or_else(|error| {
            log::warn!("measured footprints are begun anew: {error}");
            None
        });
        Footprints { path: path.to_owned(), entries: entries.unwrap_or_default() }
    }

    /// What was measured for `key`.
    pub fn get(&self, key: &str) -> Option<Measured> {
        self.entries.get(key).copied()
    }

    /// Remembers a measurement and writes the file if it says something new.
    ///
    /// # Errors
    /// [`Error::File`]; the measurement is kept in memory all the same.
    pub fn set(&mut self, key: &str, memory: Memory, load: Duration) -> Result<(), Error> {
        let load_millis = u64::try_from(load.as_millis()).unwrap_or(u64::MAX);
        let number = self.entries.values().map(|entry| entry.number).max().unwrap_or(0) + 1;
        let before = self.entries.insert(key.to_owned(), Measured { memory, load_millis, number });
        while self.entries.len() > MAX_ENTRIES {
            let oldest =
                self.entries.iter().min_by_key(|(_, entry)| entry.number).map(|(key, _)| key.clone());
            oldest.and_then(|key| self.entries.remove(&key));
        }
        // Differences of a percent are noise and not worth a write.
        let close = |a: u64, b: u64| a.abs_diff(b) <= a.max(b) / 100;
        match before {
            Some(old) if close(old.memory.host, memory.host) && close(old.memory.gpu, memory.gpu) => Ok(()),
            _ => files::write_json(&self.path, &self.entries),
        }
    }
}

/// What the process itself takes before it has a model: code, libraries, threads.
const PROCESS: u64 = 48 << 20;

/// The first guess: weights, KV cache, buffers of the computation, prompt cache. `gpu` says whether
/// there is GPU memory to be counted by itself.
pub fn estimate(facts: &Facts, settings: &Settings, gpu: bool) -> Memory {
    let slots = match settings.kv_unified {
        Some(true) => 1,
        _ => settings.parallel.unwrap_or(1),
    };
    let context = settings.context_size.unwrap_or(facts.context_length.max(512)).saturating_mul(slots);
    let bits = |kind: Option<CacheType>| kind.unwrap_or(CacheType::F16).bits();
    let kv = facts.kv_bytes(context, bits(settings.cache_type_k), bits(settings.cache_type_v));
    let batch = u64::from(settings.ubatch.unwrap_or(512));
    // Logits of a batch, and the widest activations a few times over.
    let compute = batch * 4 * (u64::from(facts.vocab) + 12 * u64::from(facts.embedding_length));
    let device = facts.weights_bytes.saturating_add(kv).saturating_add(compute);
    match settings.gpu_layers {
        _ if !gpu => Memory::host(PROCESS + device),
        Some(GpuLayers::Exactly(layers)) if facts.layers > 0 => {
            let share = f64::from(layers.min(facts.layers)) / f64::from(facts.layers);
            let on_gpu = (device as f64 * share) as u64;
            Memory { host: PROCESS + device.saturating_sub(on_gpu), gpu: on_gpu }
        }
        _ => Memory { host: PROCESS + facts.weights_bytes / 8, gpu: device },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measurements_survive_and_damage_does_not_stop_anybody() {
        let folder = files::test_folder("footprint");
        let path = folder.join("footprints.json");
        let memory = Memory::host(123 << 20);
        Footprints::open(&path).set("key", memory, Duration::from_millis(40)).unwrap();
        assert_eq!(Footprints::open(&path).get("key").unwrap().memory, memory);
        std::fs::write(&path, "{").unwrap();
        let mut again = Footprints::open(&path);
        assert_eq!(again.get("key"), None);
        again.set("key", memory, Duration::ZERO).unwrap();
        assert!(Footprints::open(&path).get("key").is_some());
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn the_estimate_grows_with_context_slots_and_type() {
        let facts = Facts {
            weights_bytes: 500 << 20,
            layers: 24,
            heads: 14,
            heads_kv: vec![2; 24],
            key_length: 64,
            value_length: 64,
            embedding_length: 896,
            vocab: 150_000,
            context_length: 32_768,
            ..Facts::default()
        };
        let of = |context, parallel, cache| {
            let settings = Settings {
                context_size: Some(context),
                parallel: Some(parallel),
                cache_type_k: cache,
                cache_type_v: cache,
                ..Settings::default()
            };
            estimate(&facts, &settings, false).host
        };
        assert!(of(4096, 1, None) > (500 << 20) + (40 << 20));
        let one = of(4096, 1, None);
        let kv = of(8192, 1, None) - one;
        assert_eq!(of(4096, 2, None), of(8192, 1, None));
        assert_eq!(of(4096, 1, Some(CacheType::F32)) - one, kv);
        let settings = Settings { gpu_layers: Some(GpuLayers::Exactly(12)), ..Settings::default() };
        let split = estimate(&facts, &settings, true);
        assert!(split.gpu > 0 && split.host > split.gpu / 2);
    }
}
