//! Owns the host's configuration of models: durable, one file, written whole or not at all.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Settings;
use crate::{Error, files};

/// Settings by the model's full reference (or digest, for a model without a name).
#[derive(Debug)]
pub struct Saved {
    path: PathBuf,
    content: Content,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    version: u32,
    models: BTreeMap<String, Settings>,
}

const VERSION: u32 = 1;

impl Saved {
    /// Reads the file; a missing one is empty.
    ///
    /// # Errors
    /// [`Error::Damaged`] if it is not ours: nobody's configuration is thrown away silently.
    pub fn open(path: &Path) -> Result<Saved, Error> {
        let content: Content =
            files::read_json(path)?.unwrap_or(Content { version: VERSION, ..Content::default() });
        if content.version != VERSION {
            let reason = format!("its version is {} and this Pontoon reads {VERSION}", content.version);
            return Err(Error::Damaged { path: path.to_owned(), reason });
        }
        Ok(Saved { path: path.to_owned(), content })
    }

    /// The layer of one model.
    pub fn get(&self, model: &str) -> Settings {
        self.content.models.get(model).cloned().unwrap_or_default()
    }

    /// Every model that has a layer.
    pub fn all(&self) -> &BTreeMap<String, Settings> {
        &self.content.models
    }

    /// Replaces the layer of one model; an empty one is removed. On an error nothing has changed.
    ///
    /// # Errors
    /// [`Error::Setting`] for values out of bounds, [`Error::File`] if the file cannot be written.
    pub fn set(&mut self, model: &str, settings: Settings) -> Result<(), Error> {
        settings.check()?;
        let before = match settings.is_empty() {
            true => self.content.models.remove(model),
            false => self.content.models.insert(model.to_owned(), settings),
        };
        let written = files::write_json(&self.path, &self.content);
        if written.is_err() {
            match before {
                Some(before) => self.content.models.insert(model.to_owned(), before),
                None => self.content.models.remove(model),
            };
        }
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_survives_and_what_is_damaged_is_not_overwritten() {
        let folder = files::test_folder("saved");
        let path = folder.join("models.json");
        let settings = Settings { context_size: Some(2048), ..Settings::default() };
        Saved::open(&path).unwrap().set("ai/x:latest", settings.clone()).unwrap();
        let mut again = Saved::open(&path).unwrap();
        assert_eq!(again.get("ai/x:latest"), settings);
        again.set("ai/x:latest", Settings::default()).unwrap();
        assert!(Saved::open(&path).unwrap().all().is_empty());
        std::fs::write(&path, "{\"version\":1,\"models\":{\"a\":{\"ctx\":1}}}").unwrap();
        assert!(matches!(Saved::open(&path), Err(Error::Damaged { .. })));
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_write_that_fails_changes_nothing() {
        let folder = files::test_folder("saved-full");
        let mut saved = Saved::open(&folder.join("no/such/folder/models.json")).unwrap();
        std::fs::write(folder.join("no"), "a file where the folder should be").unwrap();
        let settings = Settings { context_size: Some(2048), ..Settings::default() };
        assert!(saved.set("ai/x:latest", settings).is_err());
        assert!(saved.all().is_empty());
        std::fs::remove_dir_all(folder).unwrap();
    }
}
