//! Layers: archives that are put on top of each other, with names that take away what is below
//! (<https://github.com/opencontainers/image-spec/blob/main/layer.md>).

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::ops::Bound;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use sha2::{Digest, Sha256};
use tar::EntryType;

use super::Image;
use super::layout::{self, Descriptor};

/// Before the name of what is taken away.
const WHITEOUT: &[u8] = b".wh.";
/// Takes away all that a folder held below.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Symbolic links on the way to one file.
const MAX_LINKS: usize = 40;
/// Bytes of a layer, unpacked: all of an image is in the machine's memory.
const MAX_LAYER: u64 = 64 << 30;

/// A file of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// What it is.
    pub kind: Kind,
    /// The layer that it came with.
    layer: usize,
}

/// Kinds of files. Devices and sockets are left out: the machine has its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A folder.
    Folder,
    /// A symbolic link.
    Link(PathBuf),
    /// A file: its layer, where its bytes begin there, and how many there are.
    File(usize, u64, u64),
}

/// Hashes what is read.
struct Hashing<R>(R, Sha256);

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let len = self.0.read(buffer)?;
        self.1.update(&buffer[..len]);
        Ok(len)
    }
}

/// A layer's archive, uncompressed in a file of its own, once its digest is seen to be right.
pub fn expand(folder: &Path, blob: &Descriptor, to: &Path) -> Result<File, String> {
    let path = layout::blob(folder, &blob.digest)?;
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let mut raw = Hashing(BufReader::new(File::open(&path).map_err(failed)?), Sha256::new());
    let mut out = File::options().read(true).write(true).create_new(true).open(to).map_err(failed)?;
    let kind = blob.media_type.as_str();
    let mut unpack = |from: &mut dyn Read| match std::io::copy(&mut from.take(MAX_LAYER + 1), &mut out) {
        Ok(len) if len > MAX_LAYER => {
            Err(format!("the layer {} has more than {MAX_LAYER} bytes", blob.digest))
        }
        Ok(_) => Ok(()),
        Err(error) => Err(failed(error)),
    };
    if kind.ends_with("gzip") {
        unpack(&mut flate2::bufread::MultiGzDecoder::new(BufReader::new(&mut raw)))?;
    } else if kind.ends_with("zstd") {
        let decoder = ruzstd::decoding::StreamingDecoder::new(&mut raw);
        unpack(&mut decoder.map_err(|error| format!("the layer {}: {error}", blob.digest))?)?;
    } else if kind.ends_with(".tar") || kind.is_empty() {
        unpack(&mut raw)?;
    } else {
        return Err(format!(
            "the layer {} is of the kind '{kind}'; tar, gzip and zstd are known",
            blob.digest
        ));
    }
    // What follows the archive's end belongs to the digest too.
    std::io::copy(&mut raw, &mut std::io::sink()).map_err(failed)?;
    let found = format!("sha256:{:x}", raw.1.finalize());
    if found != blob.digest {
        return Err(format!("the blob {} is {found}: it is damaged", blob.digest));
    }
    out.seek(SeekFrom::Start(0)).map_err(failed)?;
    Ok(out)
}

impl Image {
    /// Puts a layer on top.
    pub(super) fn stack(&mut self, plain: File) -> Result<(), String> {
        let layer = self.layers.len();
        let text = |error: std::io::Error| error.to_string();
        let mut archive = tar::Archive::new(&plain);
        for entry in archive.entries().map_err(text)? {
            let mut entry = entry.map_err(text)?;
            let path = inside(&entry.path().map_err(text)?)?;
            let Some(path) = path.map(|path| self.resolved(&path)).transpose()? else { continue };
            let name = path.file_name().unwrap_or_default().as_bytes();
            if name == OPAQUE {
                let folder = path.parent().unwrap_or(Path::new("")).to_owned();
                self.entries
                    .retain(|at, below| below.layer == layer || *at == folder || !at.starts_with(&folder));
                continue;
            }
            if let Some(gone) = name.strip_prefix(WHITEOUT) {
                let gone = path.with_file_name(std::ffi::OsStr::from_bytes(gone));
                self.entries.retain(|at, below| below.layer == layer || !at.starts_with(&gone));
                continue;
            }
            let header = entry.header();
            let number = |value: std::io::Result<u64>| value.map(|value| value as u32).unwrap_or_default();
            let (uid, gid) = (number(header.uid()), number(header.gid()));
            let mode = header.mode().unwrap_or(0o644) & 0o7777;
            let target = entry.link_name().map_err(text)?.map(std::borrow::Cow::into_owned);
            let kind = match (entry.header().entry_type(), target) {
                (EntryType::Directory, _) => Kind::Folder,
                (EntryType::Symlink, Some(target)) => Kind::Link(target),
                (EntryType::Link, Some(target)) => {
                    let target = inside(&target)?.map(|target| self.resolved(&target)).transpose()?;
                    let linked = target.and_then(|target| self.entries.get(&target));
                    let linked = linked.ok_or_else(|| format!("{} is a link to nothing", path.display()))?;
                    linked.kind.clone()
                }
                (EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse, _) => {
                    if entry.header().entry_type() == EntryType::GNUSparse {
                        return Err(format!("{} is a sparse file, which is not understood", path.display()));
                    }
                    Kind::File(layer, entry.raw_file_position(), entry.size())
                }
                _ => continue,
            };
            // Makes sure that reading went where it should have, and moves on.
            let _ = entry.read(&mut [0; 1]).map_err(text)?;
            // Paths are in order: what lies below one comes right behind it.
            let behind = (Bound::Excluded(path.as_path()), Bound::Unbounded);
            let covers = |at: &Path| at.starts_with(&path);
            if kind != Kind::Folder
                && self.entries.range::<Path, _>(behind).next().is_some_and(|(at, _)| covers(at))
            {
                self.entries.retain(|at, _| !covers(at));
            }
            self.entries.insert(path, Entry { mode, uid, gid, kind, layer });
        }
        self.layers.push(plain);
        Ok(())
    }

    /// Where a path leads in the image: its folders may be symbolic links of layers below.
    fn resolved(&self, path: &Path) -> Result<PathBuf, String> {
        let mut left: Vec<_> = path.components().rev().map(|part| part.as_os_str().to_owned()).collect();
        let (mut at, mut links) = (PathBuf::new(), 0);
        while let Some(part) = left.pop() {
            if part == ".." {
                at.pop();
                continue;
            }
            at.push(&part);
            // The last part is meant itself.
            let Some(Entry { kind: Kind::Link(target), .. }) =
                self.entries.get(&at).filter(|_| !left.is_empty())
            else {
                continue;
            };
            links += 1;
            if links > MAX_LINKS {
                return Err(format!("{} is behind too many links", path.display()));
            }
            at.pop();
            if target.is_absolute() {
                at = PathBuf::new();
            }
            let parts = target
                .components()
                .filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir));
            let parts: Vec<_> = parts.map(|part| part.as_os_str().to_owned()).collect();
            left.extend(parts.into_iter().rev());
        }
        Ok(at)
    }

    /// The bytes of a file.
    ///
    /// # Errors
    /// What the system said.
    pub fn read(&self, layer: usize, at: u64, len: u64) -> std::io::Result<Vec<u8>> {
        use std::os::unix::fs::FileExt;
        let mut bytes = vec![0; len as usize];
        let file = self.layers.get(layer).ok_or(std::io::ErrorKind::NotFound)?;
        file.read_exact_at(&mut bytes, at)?;
        Ok(bytes)
    }
}

/// A path of an archive without what leads nowhere; nothing for the root itself.
fn inside(path: &Path) -> Result<Option<PathBuf>, String> {
    let mut inside = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(part) => inside.push(part),
            Component::CurDir | Component::RootDir => {}
            _ => return Err(format!("{} leads out of the image", path.display())),
        }
    }
    Ok((inside != Path::new("")).then_some(inside))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::ImageConfig;

    fn layer(files: &[(&str, &str)]) -> File {
        let path = std::env::temp_dir().join(format!(
            "pontoon-layer-{}-{:?}-{}",
            std::process::id(),
            std::thread::current().id(),
            files.len()
        ));
        let mut tar = tar::Builder::new(File::create(&path).unwrap());
        for (name, content) in files {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o640);
            header.set_uid(7);
            let (kind, data) = match content.split_once("->") {
                Some(("", target)) => (EntryType::Symlink, Some(target)),
                Some(("hard", target)) => (EntryType::Link, Some(target)),
                _ if name.ends_with('/') => (EntryType::Directory, None),
                _ => (EntryType::Regular, None),
            };
            header.set_entry_type(kind);
            match data {
                Some(target) => {
                    header.set_size(0);
                    tar.append_link(&mut header, name, target).unwrap();
                }
                None => {
                    let bytes = if kind == EntryType::Directory { "" } else { content };
                    header.set_size(bytes.len() as u64);
                    tar.append_data(&mut header, name, bytes.as_bytes()).unwrap();
                }
            }
        }
        drop(tar.into_inner().unwrap());
        let file = File::open(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        file
    }

    fn image(layers: &[&[(&str, &str)]]) -> Result<Image, String> {
        let mut image =
            Image { config: ImageConfig::default(), entries: Default::default(), layers: Vec::new() };
        layers.iter().try_for_each(|files| image.stack(layer(files)))?;
        Ok(image)
    }

    fn content(image: &Image, path: &str) -> Option<String> {
        match image.entries.get(Path::new(path))?.kind {
            Kind::File(layer, at, len) => {
                Some(String::from_utf8(image.read(layer, at, len).unwrap()).unwrap())
            }
            _ => None,
        }
    }

    #[test]
    fn layers_cover_and_take_away() {
        let image = image(&[
            &[
                ("etc/", ""),
                ("etc/a", "one"),
                ("etc/b", "two"),
                ("var/x/y", "deep"),
                ("opt/old", "old"),
                ("f", "file"),
            ],
            &[
                ("etc/.wh.a", ""),
                ("etc/b", "three"),
                ("var/.wh.x", ""),
                ("opt/.wh..wh..opq", ""),
                ("opt/new", "new"),
                ("f/", ""),
                ("f/in", "now a folder"),
            ],
        ])
        .unwrap();
        assert_eq!(content(&image, "etc/a"), None);
        assert_eq!(content(&image, "etc/b").unwrap(), "three");
        assert_eq!(content(&image, "var/x/y"), None);
        assert_eq!((content(&image, "opt/old"), content(&image, "opt/new").unwrap()), (None, "new".into()));
        assert_eq!(content(&image, "f/in").unwrap(), "now a folder");
        assert_eq!(
            (image.entries[Path::new("etc/b")].uid, image.entries[Path::new("etc/b")].mode),
            (7, 0o640)
        );
    }

    #[test]
    fn links_of_lower_layers_are_followed_within_the_image() {
        let image = image(&[
            &[("usr/bin/", ""), ("bin", "->usr/bin"), ("lib", "->/usr/../../usr/lib64"), ("loop", "->loop")],
            &[("bin/tool", "tool"), ("lib/c", "c"), ("same", "hard->bin/tool")],
        ])
        .unwrap();
        assert_eq!(content(&image, "usr/bin/tool").unwrap(), "tool");
        assert_eq!(content(&image, "usr/lib64/c").unwrap(), "c");
        assert_eq!(content(&image, "same").unwrap(), "tool");
        assert!(image.entries[Path::new("bin")].kind == Kind::Link("usr/bin".into()));
    }

    #[test]
    fn what_leads_out_or_nowhere_is_refused() {
        assert!(inside(Path::new("a/../../etc")).unwrap_err().contains("leads out"));
        assert!(image(&[&[("l", "->l")], &[("l/x", "")]]).unwrap_err().contains("too many links"));
        assert!(image(&[&[("a", "hard->gone")]]).unwrap_err().contains("link to nothing"));
    }
}
