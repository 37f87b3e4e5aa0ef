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
    /// that fills it (ext2 to 4: 0xef53 at 1080; squashfs: `hsqs`; XFS: `XFSB`; Btrfs: `_BHRfS_M` at 65600).
    pub(crate) fn open(path: &Path) -> std::io::Result<Option<Self>> {
        let file = File::open(path)?;
        let has = |at: u64, wanted: &[u8]| {
            let mut found = vec![0; wanted.len()];
            file.read_exact_at(&mut found, at).is_ok() && found == wanted
        };
        let raw = [
            (510, &[0x55, 0xaa][..]),
            (1080, &[0x53, 0xef]),
            (0, b"hsqs"),
            (0, b"XFSB"),
            (65_600, b"_BHRfS_M"),
        ];
        let format = match has(0, b"QFI\xfb") {
            true => Some(Format::Qcow2),
            false => raw.iter().any(|(at, wanted)| has(*at, wanted)).then_some(Format::Raw),
        };
        let path = path.canonicalize()?;
        Ok(format.map(|format| Self { path, format }))
    }
}
