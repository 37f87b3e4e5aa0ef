//! Owns prompt caches that survive eviction: slots saved to disk and restored at the next load.
//!
//! A folder for each combination of model, engine and settings that shape the cache; nothing saved for one
//! is ever given to another. The oldest folders go when all together take more than their share of disk.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde_json::json;

use super::{get, post};
use crate::{Error, Settings, files};

/// Saving and restoring may take this long in all; a prompt is computed again rather than waited for.
const PATIENCE: Duration = Duration::from_secs(20);

/// An engine that takes longer to say what there is to save has lost its way, and somebody may wait for its memory.
const ANSWER: Duration = Duration::from_secs(3);

/// Names a folder of saved slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotKey(String);

impl SlotKey {
    /// From everything that the bytes of a slot depend on.
    pub fn new(digest: &str, engine: &str, settings: &Settings) -> SlotKey {
        let shape = Settings {
            cache_type_k: settings.cache_type_k,
            cache_type_v: settings.cache_type_v,
            flash_attention: settings.flash_attention,
            kv_unified: settings.kv_unified,
            rope_scaling: settings.rope_scaling,
            rope_scale: settings.rope_scale,
            rope_freq_base: settings.rope_freq_base,
            rope_freq_scale: settings.rope_freq_scale,
            yarn_orig_ctx: settings.yarn_orig_ctx,
            context_size: settings.context_size,
            parallel: settings.parallel,
            lora_scale: settings.lora_scale.clone(),
            ..Settings::default()
        };
        let text = format!("{digest} {engine} {}", serde_json::to_string(&shape).unwrap_or_default());
        SlotKey(pontoon_models::Digest::of(text.as_bytes()).hex()[..32].to_owned())
    }
}

/// The folder of all saved slots.
#[derive(Clone, Debug)]
pub struct SlotCache {
    folder: PathBuf,
    most_bytes: u64,
}

impl SlotCache {
    /// In `folder`, which is private, of at most `most_bytes`.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn open(folder: &Path, most_bytes: u64) -> Result<SlotCache, Error> {
        files::private_folder(folder)?;
        Ok(SlotCache { folder: folder.to_owned(), most_bytes })
    }

    /// The same, as it is: to look at and to clear from outside the daemon.
    pub fn at(folder: &Path) -> SlotCache {
        SlotCache { folder: folder.to_owned(), most_bytes: u64::MAX }
    }

    /// The folder for `key`, made if it is missing; the engine, which may run as `user`, may write there. None
    /// if nothing is kept.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn place(&self, key: &SlotKey, user: Option<u32>) -> Result<Option<PathBuf>, Error> {
        if self.most_bytes == 0 {
            return Ok(None);
        }
        let place = self.folder.join(&key.0);
        files::own_folder(&place, 0o700, user).or_else(|_| {
            // Left by engines of another user, before the configuration changed; ours is the folder it is in.
            let _ = fs::remove_dir_all(&place);
            files::own_folder(&place, 0o700, user)
        })?;
        Ok(Some(place))
    }

    /// Bytes and folders.
    pub fn usage(&self) -> (u64, usize) {
        let folders = self.folders();
        (
            folders.iter().map(|(_, _, bytes)| bytes).sum(),
            folders.iter().filter(|(_, _, bytes)| *bytes > 0).count(),
        )
    }

    /// Asks an engine that serves nobody to save what its slots hold. Returns how many did.
    pub async fn save(&self, socket: &Path, place: &Path) -> usize {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let Ok(answer) = get(socket, "/slots", ANSWER).await else { return 0 };
        let slots = answer.json().and_then(|slots| slots.as_array().cloned()).unwrap_or_default();
        let mut saved = 0;
        for slot in slots {
            let number = |field: &str| slot.get(field).and_then(serde_json::Value::as_u64);
            let Some(id) = number("id") else { continue };
            let tokens = number("n_prompt_tokens").unwrap_or(1);
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            let path = format!("/slots/{id}?action=save");
            let body = json!({ "filename": file_name(id) });
            let worth_it = tokens > 0 && !left.is_zero();
            if worth_it && post(socket, &path, &body, left).await.is_ok_and(|answer| answer.status == 200) {
                saved += 1;
            } else {
                // Half a file is worse than none.
                let _ = fs::remove_file(place.join(file_name(id)));
            }
        }
        touch(place);
        self.trim();
        saved
    }

    /// Gives an engine that has just started what was saved for it. Returns how many slots took it.
    pub async fn restore(&self, socket: &Path, place: &Path, slots: u32) -> usize {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let mut restored = 0;
        for id in 0..u64::from(slots) {
            let file = place.join(file_name(id));
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            if !file.is_file() || left.is_zero() {
                continue;
            }
            let body = json!({ "filename": file_name(id) });
            let answer = post(socket, &format!("/slots/{id}?action=restore"), &body, left).await;
            match answer {
                Ok(answer) if answer.status == 200 => restored += 1,
                // What an engine does not take once it will not take again.
                _ => drop(fs::remove_file(&file)),
            }
        }
        restored
    }

    fn folders(&self) -> Vec<(SystemTime, PathBuf, u64)> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let folders = entries.filter_map(|entry| {
            if !entry.file_type().ok()?.is_dir() {
                return None;
            }
            let at = entry.metadata().ok()?.modified().ok()?;
            let path = entry.path();
            let files = fs::read_dir(&path).ok()?.flatten();
            let bytes = files.filter_map(|file| file.metadata().ok()).map(|meta| meta.len()).sum();
            Some((at, path, bytes))
        });
        folders.collect()
    }

    /// Removes the oldest folders until the rest fits.
    pub fn trim(&self) {
        let mut folders = self.folders();
        folders.sort();
        let mut total: u64 = folders.iter().map(|(_, _, bytes)| bytes).sum();
        for (_, path, bytes) in folders {
            if total <= self.most_bytes {
                break;
            }
            for file in fs::read_dir(&path).into_iter().flatten().flatten() {
                let _ = fs::remove_file(file.path());
            }
            total -= bytes;
        }
    }

    /// Forgets everything that was saved.
    pub fn clear(&self) {
        SlotCache { folder: self.folder.clone(), most_bytes: 0 }.trim();
    }
}

fn file_name(slot: u64) -> String {
    format!("slot-{slot}.bin")
}

/// Marks a folder as used now.
fn touch(folder: &Path) {
    // Nothing is written into it, where an engine could have put a link.
    let _ = fs::File::open(folder).and_then(|folder| folder.set_modified(SystemTime::now()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go_when_it_is_too_much() {
        let folder = files::test_folder("slots");
        let cache = SlotCache::open(&folder.join("slots"), 150).unwrap();
        let key = |digest: &str| SlotKey::new(digest, "llama.cpp 1", &Settings::default());
        for digest in ["a", "b"] {
            let place = cache.place(&key(digest), None).unwrap().unwrap();
            fs::write(place.join(file_name(0)), [0; 100]).unwrap();
            touch(&place);
            std::thread::sleep(Duration::from_millis(20));
        }
        cache.trim();
        let there =
            |digest: &str| cache.place(&key(digest), None).unwrap().unwrap().join(file_name(0)).exists();
        assert!(!there("a") && there("b"));
        cache.clear();
        assert!(!there("b"));
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn other_settings_have_another_folder() {
        let of = |settings| SlotKey::new("sha256:1", "llama.cpp 1", &settings);
        let plain = of(Settings::default());
        let q8 = Settings { cache_type_k: Some(crate::settings::CacheType::Q8_0), ..Settings::default() };
        assert_ne!(plain, of(q8));
        assert_ne!(plain, SlotKey::new("sha256:1", "llama.cpp 2", &Settings::default()));
        let warm = Settings { temperature: Some(0.1), ..Settings::default() };
        assert_eq!(plain, of(warm), "sampling does not shape the cache");
    }
}
