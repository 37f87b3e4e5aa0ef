//! Disk images as root file systems, told by what they begin with.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// What a disk image's bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The disk's own.
    Raw,
    /// QEMU's (`docs/interop/qcow2.txt`: `QFI` and 0xfb).
    Qcow2,
}

impl Format {
    /// QEMU's name for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
        }
    }
}

/// The lowest byte of a qcow2 image's incompatible features (big-endian, at 72).
fn flags(file: &File) -> std::io::Result<u8> {
    let mut flags = [0; 8];
    file.read_exact_at(&mut flags, 72)?;
    Ok(flags[7])
}

/// A disk image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// Where it is.
    pub path: PathBuf,
    /// What its bytes are.
    pub format: Format,
}

impl Disk {
    /// The disk image in a file: qcow2, or a raw one with a partition table (0x55 0xaa at 510) or a file system of Linux
    /// that fills it (ext2 to 4: 0xef53 at 1080; squashfs: `hsqs`; XFS: `XFSB`). One that names other files of this host,
    /// as its base or for its data, is refused: it may come from anywhere.
    pub(crate) fn open(path: &Path) -> std::io::Result<Option<Self>> {
        let file = File::open(path)?;
        let has = |at: u64, wanted: &[u8]| {
            let mut found = vec![0; wanted.len()];
            file.read_exact_at(&mut found, at).is_ok() && found == wanted
        };
        let raw = [(510, &[0x55, 0xaa][..]), (1080, &[0x53, 0xef]), (0, b"hsqs"), (0, b"XFSB")];
        let format = match has(0, b"QFI\xfb") {
            // Backing file's place, at 8; incompatible features, at 72, of which bit 2 is a data file elsewhere.
            true if !has(8, &[0; 8]) || has(4, &[0, 0, 0, 3]) && flags(&file)? & 4 != 0 => {
                return Err(std::io::Error::other(
                    "the image names another file, which the machine would read too: `qemu-img convert -O qcow2` makes one that is whole",
                ));
            }
            true => Some(Format::Qcow2),
            false => raw.iter().any(|(at, wanted)| has(*at, wanted)).then_some(Format::Raw),
        };
        let path = path.canonicalize()?;
        Ok(format.map(|format| Self { path, format }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_told_by_what_they_begin_with() {
        let folder = std::env::temp_dir().join(format!("pontoon-disk-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let open = |bytes: &[(usize, &[u8])]| {
            let mut image = vec![0; 2048];
            for (at, part) in bytes {
                image[*at..*at + part.len()].copy_from_slice(part);
            }
            let path = folder.join("image");
            std::fs::write(&path, image).unwrap();
            Disk::open(&path).map(|disk| disk.map(|disk| disk.format))
        };
        let qcow: (usize, &[u8]) = (0, b"QFI\xfb\0\0\0\x03");
        assert_eq!(open(&[qcow]).unwrap(), Some(Format::Qcow2));
        assert!(open(&[qcow, (15, &[104])]).unwrap_err().to_string().contains("names another file"));
        assert!(open(&[qcow, (79, &[4])]).unwrap_err().to_string().contains("names another file"));
        assert_eq!(open(&[(510, &[0x55, 0xaa])]).unwrap(), Some(Format::Raw));
        assert_eq!(open(&[(1080, &[0x53, 0xef])]).unwrap(), Some(Format::Raw));
        assert_eq!(open(&[]).unwrap(), None);
        std::fs::remove_dir_all(folder).unwrap();
    }
}
