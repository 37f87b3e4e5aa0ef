//! OCI image layouts as root file systems: a folder or an archive of one, as `podman save --format oci-archive`,
//! `docker save` (25 and later) and `skopeo copy … oci:` write them
//! (<https://github.com/opencontainers/image-spec/blob/main/image-layout.md>).
//!
//! Layers are put on top of each other in a table of paths, not in a folder: owners are kept without being root, and
//! nothing in an image is followed on this host.

mod layers;
mod layout;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::{Disk, Error};

pub use layers::{Entry, Kind};

/// What the command of an image is run with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ImageConfig {
    /// Variables, `NAME=VALUE`.
    pub env: Vec<String>,
    /// The beginning of every command.
    pub entrypoint: Option<Vec<String>>,
    /// What follows where nothing else is asked for.
    pub cmd: Option<Vec<String>>,
    /// Where it runs.
    pub working_dir: String,
    /// Whom it runs as; the machine runs everything as root.
    pub user: String,
}

/// An image, its layers unpacked onto each other.
#[derive(Debug)]
pub struct Image {
    /// Its configuration.
    pub config: ImageConfig,
    /// Its files, by path without a slash in front.
    pub entries: BTreeMap<PathBuf, Entry>,
    /// The layers' bytes, in which the files lie.
    pub layers: Vec<File>,
}

/// A root file system.
#[derive(Debug)]
pub enum Root {
    /// A folder.
    Folder(PathBuf),
    /// An image.
    Image(Box<Image>),
    /// A disk.
    Disk(Disk),
}

impl Root {
    /// What is at a path: a root file system folder, an OCI image layout as folder or archive, or a disk image. `scratch` takes the
    /// unpacked layers.
    ///
    /// # Errors
    /// [`Error::Image`] with what is wrong with it, [`Error::File`].
    pub fn open(path: &Path, scratch: &Path) -> Result<Self, Error> {
        let found = std::fs::metadata(path).map_err(|error| Error::file(path, error))?;
        if found.is_dir() && !path.join("oci-layout").is_file() {
            return Ok(Self::Folder(path.to_owned()));
        }
        if found.is_file()
            && let Some(disk) = Disk::open(path).map_err(|error| Error::file(path, error))?
        {
            return Ok(Self::Disk(disk));
        }
        let folder = match found.is_dir() {
            true => path.to_owned(),
            false => layout::unpack(path, &scratch.join("layout"))?,
        };
        let wrong = |why: String| Error::Image { path: path.to_owned(), why };
        let (config, blobs) = layout::read(&folder).map_err(wrong)?;
        let mut image = Image { config, entries: BTreeMap::new(), layers: Vec::new() };
        for (number, blob) in blobs.iter().enumerate() {
            let plain =
                layers::expand(&folder, blob, &scratch.join(format!("layer-{number}"))).map_err(wrong)?;
            image.stack(plain).map_err(|error| wrong(format!("layer {}: {error}", blob.digest)))?;
        }
        Ok(Self::Image(Box::new(image)))
    }

    /// The command to run: what was asked for, behind an image's entry point.
    ///
    /// # Errors
    /// A sentence where there is none.
    pub fn command(&self, asked: &[String]) -> Result<Vec<String>, String> {
        let words = match self {
            Self::Folder(_) | Self::Disk(_) => asked.to_vec(),
            Self::Image(image) => {
                let mut words = image.config.entrypoint.clone().unwrap_or_default();
                match asked {
                    [] => words.extend(image.config.cmd.clone().unwrap_or_default()),
                    asked => words.extend_from_slice(asked),
                }
                words
            }
        };
        match words.is_empty() {
            true => Err("no command: name one behind the root file system".into()),
            false => Ok(words),
        }
    }

    /// The variables and the folder that an image's commands are run with.
    pub fn surroundings(&self) -> (Vec<(String, String)>, Option<&str>) {
        let Self::Image(image) = self else { return (Vec::new(), None) };
        let variables = image.config.env.iter().filter_map(|text| text.split_once('='));
        let workdir = Some(image.config.working_dir.as_str()).filter(|folder| !folder.is_empty());
        (variables.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(), workdir)
    }
}
