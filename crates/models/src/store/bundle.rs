//! Owns bundles: folders of links in which an engine finds a model's files under names it knows.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Component, Path, PathBuf},
};

use super::{Staging, Store, archive::damaged, disk, unpack};
use crate::{Bundle, Defaults, Error, Format, Model, ModelFile, Result, Role, gguf, gguf::ShardName};

/// The longest path of a file inside a model, in bytes.
const MAX_PATH: usize = 1024;
/// The largest text of Ollama's defaults, in bytes.
const MAX_DEFAULTS: u64 = 1 << 20;
/// Code and pickles: an engine would run them. They stay in the store and out of bundles.
const CODE: &[&str] = &["py", "pyc", "so", "dylib", "sh", "pt", "pth", "ckpt", "pkl", "pickle"];

/// Where each file of a model goes inside the bundle.
struct Plan {
    /// Relative path and the blob.
    links: Vec<(String, PathBuf)>,
    archives: Vec<PathBuf>,
    bundle: Bundle,
}

impl Store {
    /// The model's bundle; it is made if it is not there, and made again if something is missing.
    pub fn bundle(&self, model: &Model) -> Result<Bundle> {
        let dir = self.root.join("bundles").join(model.digest.hex());
        let plan = plan(model, &dir)?;
        // The lease also keeps the blobs until the links are there.
        if is_complete(&dir, &plan) {
            return Ok(plan.bundle);
        }
        let staging = self.stage()?;
        for blob in model.manifest.blobs() {
            if !staging.keep(blob)? {
                let there = fs::metadata(self.blob_path(&blob.digest)).map(|there| there.len());
                return Err(damaged(&model.display_name(), blob, there.ok()));
            }
        }
        staging.build_bundle(&dir, &plan)?;
        Ok(plan.bundle)
    }
}

impl Staging {
    fn build_bundle(&self, dir: &Path, plan: &Plan) -> Result<()> {
        let temporary = self.temporary();
        disk::create_dir(&temporary).map_err(Error::io("cannot create", &temporary))?;
        for archive in &plan.archives {
            unpack::unpack(archive, &temporary)?;
        }
        for (name, blob) in &plan.links {
            let path = temporary.join(name);
            let parent = path.parent().unwrap_or(&temporary);
            disk::create_dir(parent).map_err(Error::io("cannot create", parent))?;
            disk::remove_file(&path).map_err(Error::io("cannot remove", &path))?;
            disk::link(blob, &path).map_err(Error::io("cannot link", &path))?;
        }
        // One that misses something is moved out of the way in one step, never repaired in place:
        // an engine may be using it.
        let old = self.temporary();
        if dir.exists() {
            disk::rename(dir, &old).map_err(Error::io("cannot move", dir))?;
        }
        match disk::rename(&temporary, dir) {
            // Somebody else was quicker; theirs is as good.
            Err(error) if error.kind() == std::io::ErrorKind::DirectoryNotEmpty => {}
            other => other.map_err(Error::io("cannot create", dir))?,
        }
        for left in [old, temporary] {
            disk::remove_dir(&left).map_err(Error::io("cannot remove", left))?;
        }
        Ok(())
    }
}

fn is_complete(dir: &Path, plan: &Plan) -> bool {
    let same = |name: &String, blob: &PathBuf| match (fs::metadata(dir.join(name)), fs::metadata(blob)) {
        // The same file, be it by a hard link or a symbolic one; not a copy, nor what the blob was before.
        (Ok(link), Ok(blob)) => (link.dev(), link.ino()) == (blob.dev(), blob.ino()),
        _ => false,
    };
    dir.is_dir() && plan.links.iter().all(|(name, blob)| same(name, blob))
}

fn plan(model: &Model, dir: &Path) -> Result<Plan> {
    let weights = ordered_weights(model)?;
    let Some(first) = weights.first() else {
        return Err(Error::malformed(
            model.display_name(),
            "it has no weights in a format that is known here",
        ));
    };
    let format = first.format;
    let mut plan = Plan { links: Vec::new(), archives: Vec::new(), bundle: empty_bundle(dir, format) };
    let count = weights.len();
    for (index, file) in weights.iter().enumerate() {
        let name = weights_name(file, format, index, count)?;
        let path = plan.add(name, file);
        plan.bundle.weights.push(path);
    }
    for file in &model.files {
        plan.place(file)?;
    }
    plan.bundle.defaults = defaults(model)?;
    plan.refuse_collisions(model)?;
    Ok(plan)
}

fn empty_bundle(dir: &Path, format: Format) -> Bundle {
    Bundle {
        dir: dir.to_owned(),
        format,
        weights: Vec::new(),
        mmproj: None,
        chat_template: None,
        adapters: Vec::new(),
        draft: None,
        licenses: Vec::new(),
        defaults: Defaults::default(),
    }
}

impl Plan {
    /// Plans a link and tells where it will be.
    fn add(&mut self, name: String, file: &ModelFile) -> PathBuf {
        let path = self.bundle.dir.join(&name);
        self.links.push((name, file.path.clone()));
        path
    }

    /// Everything but weights.
    fn place(&mut self, file: &ModelFile) -> Result<()> {
        match file.role {
            Role::Mmproj if self.bundle.mmproj.is_none() => {
                self.bundle.mmproj = Some(self.add("mmproj.gguf".to_owned(), file));
            }
            Role::Draft if self.bundle.draft.is_none() => {
                self.bundle.draft = Some(self.add("draft.gguf".to_owned(), file));
            }
            Role::Template if self.bundle.chat_template.is_none() => {
                self.bundle.chat_template = Some(self.add("chat_template.jinja".to_owned(), file));
            }
            Role::Adapter => {
                let name = format!("adapter-{}.gguf", self.bundle.adapters.len() + 1);
                let path = self.add(name, file);
                self.bundle.adapters.push(path);
            }
            Role::License => {
                let name = format!("LICENSE-{}", self.bundle.licenses.len() + 1);
                let path = self.add(name, file);
                self.bundle.licenses.push(path);
            }
            Role::File => self.place_named(file)?,
            Role::Archive => self.archives.push(file.path.clone()),
            _ => {}
        }
        Ok(())
    }

    /// A file that has its place beside the weights, such as a tokenizer.
    fn place_named(&mut self, file: &ModelFile) -> Result<()> {
        let Some(path) = file.descriptor.file_path() else { return Ok(()) };
        let path = safe_path(path)?;
        let extension = Path::new(&path).extension().and_then(|it| it.to_str()).unwrap_or_default();
        if !CODE.contains(&extension.to_ascii_lowercase().as_str()) {
            self.add(path, file);
        }
        Ok(())
    }

    /// Two files of one name would hide each other; the same blob twice is harmless.
    fn refuse_collisions(&mut self, model: &Model) -> Result<()> {
        self.links.sort();
        self.links.dedup();
        let mut names = BTreeSet::new();
        match self.links.iter().find(|(name, _)| !names.insert(name.as_str())) {
            Some((name, _)) => Err(Error::malformed(
                model.display_name(),
                format!("two of its files want the place `{name}`"),
            )),
            None => Ok(()),
        }
    }
}

/// The weights of the model's format. Shards of a GGUF know their number; the order of layers is
/// not always theirs.
fn ordered_weights(model: &Model) -> Result<Vec<&ModelFile>> {
    let all: Vec<&ModelFile> = model.files_of(Role::Weights).collect();
    let format = all.first().map_or(Format::Unknown, |file| file.format);
    let mut weights: Vec<&ModelFile> = all.into_iter().filter(|file| file.format == format).collect();
    if format == Format::Gguf && weights.len() > 1 {
        let mut numbered = Vec::with_capacity(weights.len());
        for file in weights {
            let header = gguf::read(&file.path)?;
            numbered.push((header.metadata.u64("split.no").unwrap_or(0), file));
        }
        numbered.sort_by_key(|(number, _)| *number);
        weights = numbered.into_iter().map(|(_, file)| file).collect();
    }
    Ok(weights)
}

fn weights_name(file: &ModelFile, format: Format, index: usize, count: usize) -> Result<String> {
    let shard =
        ShardName { prefix: "model".into(), number: 1, count: count as u32, extension: format.name().into() };
    match (format, file.descriptor.file_path()) {
        // Engines find the other shards by these names, so they are not the packager's to choose.
        (Format::Safetensors, Some(path)) => safe_path(path),
        _ if count > 1 => Ok(shard.sibling(index as u32 + 1)),
        _ => Ok(format!("model.{}", format.name())),
    }
}

/// A path inside the bundle, or a refusal: packagers are not trusted with names either.
pub(super) fn safe_path(path: &str) -> Result<String> {
    let wrong = |reason: &str| Err(Error::malformed(format!("the path `{}`", path.escape_debug()), reason));
    if path.is_empty() || path.len() > MAX_PATH || path.contains(['\0', '\\']) {
        return wrong("it is empty, too long or has impossible characters");
    }
    let mut parts = Vec::new();
    for component in Path::new(path).components() {
        match component {
            Component::Normal(part) => parts.push(part.to_str().unwrap_or_default()),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                return wrong("it leaves the model's folder");
            }
        }
    }
    match parts.is_empty() {
        true => wrong("it names a folder"),
        false => Ok(parts.join("/")),
    }
}

/// What Ollama's artifact says beside the weights.
fn defaults(model: &Model) -> Result<Defaults> {
    let text = |role: Role| -> Result<Option<String>> {
        let Some(file) = model.files_of(role).next() else { return Ok(None) };
        let what = || format!("{} ({:?})", model.display_name(), role);
        if file.descriptor.size > MAX_DEFAULTS {
            return Err(Error::malformed(what(), format!("it has more than {MAX_DEFAULTS} bytes")));
        }
        let bytes = fs::read(&file.path).map_err(Error::io("cannot read", &file.path))?;
        String::from_utf8(bytes).map(Some).map_err(|_| Error::malformed(what(), "it is not UTF-8"))
    };
    let parameters = match text(Role::Params)? {
        Some(json) => serde_json::from_str(&json).map_err(|error| {
            Error::malformed(format!("{} (parameters)", model.display_name()), error.to_string())
        })?,
        None => serde_json::Map::new(),
    };
    Ok(Defaults { system: text(Role::System)?, template: text(Role::OllamaTemplate)?, parameters })
}
