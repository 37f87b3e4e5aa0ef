//! The machine's first file system: busybox, drivers, the first process, and the root file system in `/root`. A `newc`
//! archive (<https://docs.kernel.org/driver-api/early-userspace/buffer-format.html>).

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use cpio::newc::{Builder, trailer};

use crate::image::Kind;
use crate::mounts::tag;
use crate::{Error, Image, Mount, Root};

const INIT: &str = include_str!("init.sh");

/// Drivers that the machine needs, and what they need; those that the kernel has built in are left out.
const MODULES: [&str; 23] = [
    "virtio_ring",
    "virtio",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_pci",
    "failover",
    "net_failover",
    "virtio_net",
    "vsock",
    "vmw_vsock_virtio_transport_common",
    "vmw_vsock_virtio_transport",
    "fuse",
    "virtiofs",
    "virtio_blk",
    "overlay",
    "libcrc32c",
    "crc32c_generic",
    "crc16",
    "mbcache",
    "jbd2",
    "ext4",
    "squashfs",
    "xfs",
];

/// Bytes of one file: they are in memory, here and in the machine.
const MAX_FILE: u64 = 2 << 30;

/// What goes into the archive.
pub struct Contents<'a> {
    /// The root file system.
    pub root: &'a Root,
    /// Folders of the host to mount in it.
    pub mounts: &'a [Mount],
    /// Whether the machine has devices of the host, whose drivers it looks for.
    pub devices: bool,
    /// Whether the console is the command's terminal.
    pub interactive: bool,
    /// A static busybox.
    pub busybox: &'a Path,
    /// The kernel's modules, `lib/modules/VERSION`.
    pub modules: &'a Path,
    /// The command's script, which becomes `/.pontoon-command` of the root file system.
    pub command: &'a str,
}

/// Writes the archive.
///
/// # Errors
/// [`Error::File`] with the path, [`Error::Module`] for a driver that is only there compressed.
pub fn write(contents: &Contents<'_>, to: &Path) -> Result<(), Error> {
    let failed = |error| Error::file(to, error);
    let mut out = io::BufWriter::new(File::create(to).map_err(failed)?);
    let mut archive = Archive { out: &mut out, inode: 1, owner: (0, 0) };
    for folder in ["bin", "modules", "root"] {
        archive.put(folder.as_bytes(), 0o040_755, &[]).map_err(failed)?;
    }
    archive.put(b"init", 0o100_755, INIT.as_bytes()).map_err(failed)?;
    archive.put(b"bin/busybox", 0o100_755, &read(contents.busybox)?).map_err(failed)?;
    let mut order = String::new();
    for module in modules(contents.modules)? {
        let name = module.file_name().unwrap_or_default().to_string_lossy().into_owned();
        archive.put(format!("modules/{name}").as_bytes(), 0o100_644, &read(&module)?).map_err(failed)?;
        order.push_str(&name);
        order.push('\n');
    }
    archive.put(b"modules/order", 0o100_644, order.as_bytes()).map_err(failed)?;
    archive.put(b"mounts", 0o100_644, mount_list(contents.mounts)?.as_bytes()).map_err(failed)?;
    if contents.devices {
        archive.put(b"devices", 0o100_644, &[]).map_err(failed)?;
    }
    if matches!(contents.root, Root::Disk(_)) {
        archive.put(b"disk", 0o100_644, &[]).map_err(failed)?;
    }
    if contents.interactive {
        archive.put(b"interactive", 0o100_644, &[]).map_err(failed)?;
    }
    match contents.root {
        Root::Folder(folder) => archive.folder(folder, Path::new("root"))?,
        Root::Image(image) => archive.image(image).map_err(failed)?,
        // It is mounted.
        Root::Disk(_) => {}
    }
    archive.put(b"root/.pontoon-command", 0o100_755, contents.command.as_bytes()).map_err(failed)?;
    trailer(&mut out).and_then(|out| out.flush()).map_err(failed)
}

/// A line for each mount: tag, options, place.
fn mount_list(mounts: &[Mount]) -> Result<String, Error> {
    let line = |(number, mount): (usize, &Mount)| {
        let target = mount.target.to_str().filter(|target| !target.contains('\n'));
        let target = target.ok_or_else(|| Error::Mount {
            path: mount.source.clone(),
            why: "its place in the machine is no line of text".into(),
        })?;
        Ok(format!("{} {} {target}\n", tag(number), if mount.read_only { "ro" } else { "rw" }))
    };
    mounts.iter().enumerate().map(line).collect()
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|error| Error::file(path, error))
}

/// The drivers' files, in the order in which they are loaded.
fn modules(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut files = Vec::new();
    find(&folder.join("kernel"), &mut files)?;
    let mut found = Vec::new();
    for name in MODULES {
        let is_it = |file: &&PathBuf| {
            let file = file.file_name().unwrap_or_default().to_string_lossy();
            file.split_once(".ko").is_some_and(|(stem, _)| stem.replace('-', "_") == name)
        };
        let Some(file) = files.iter().find(is_it) else { continue };
        match file.extension().is_some_and(|extension| extension == "ko") {
            true => found.push(file.clone()),
            false => return Err(Error::Module(file.clone())),
        }
    }
    Ok(found)
}

/// All files below a folder.
fn find(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), Error> {
    let failed = |error| Error::file(folder, error);
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        match entry.file_type().map_err(failed)?.is_dir() {
            true => find(&entry.path(), files)?,
            false => files.push(entry.path()),
        }
    }
    Ok(())
}

struct Archive<'a, W: Write> {
    out: &'a mut W,
    inode: u32,
    /// User and group of what is put in.
    owner: (u32, u32),
}

impl<W: Write> Archive<'_, W> {
    fn put(&mut self, name: &[u8], mode: u32, data: &[u8]) -> io::Result<()> {
        let name = std::str::from_utf8(name).map_err(io::Error::other)?;
        let len = u32::try_from(data.len())
            .map_err(|_| io::Error::other(format!("{name} is larger than 4 GiB")))?;
        let owned = Builder::new(name).mode(mode).uid(self.owner.0).gid(self.owner.1);
        let mut entry = owned.ino(self.inode).nlink(1).write(&mut *self.out, len);
        self.inode += 1;
        entry.write_all(data)?;
        entry.finish().map(drop)
    }

    /// An image's files, with their owners; folders that no layer mentions are everybody's to read.
    fn image(&mut self, image: &Image) -> io::Result<()> {
        let mut made: BTreeSet<&Path> = BTreeSet::new();
        for (path, entry) in &image.entries {
            let above: Vec<&Path> =
                path.ancestors().skip(1).filter(|above| *above != Path::new("")).collect();
            for folder in above.into_iter().rev() {
                if !image.entries.contains_key(folder) && made.insert(folder) {
                    self.put(Path::new("root").join(folder).as_os_str().as_bytes(), 0o040_755, &[])?;
                }
            }
            let name = Path::new("root").join(path);
            let name = name.as_os_str().as_bytes();
            self.owner = (entry.uid, entry.gid);
            let put = match &entry.kind {
                Kind::Folder => self.put(name, 0o040_000 | entry.mode, &[]),
                Kind::Link(target) => self.put(name, 0o120_777, target.as_os_str().as_bytes()),
                Kind::File(_, _, len) if *len > MAX_FILE => {
                    Err(io::Error::other(format!("{} has more than {MAX_FILE} bytes", path.display())))
                }
                Kind::File(layer, at, len) => image
                    .read(*layer, *at, *len)
                    .and_then(|bytes| self.put(name, 0o100_000 | entry.mode, &bytes)),
            };
            self.owner = (0, 0);
            put?;
        }
        Ok(())
    }

    /// A folder with all that is below it. Devices and sockets are left out: the machine has its own.
    fn folder(&mut self, from: &Path, to: &Path) -> Result<(), Error> {
        let failed = |error| Error::file(from, error);
        let mut seen = BTreeSet::new();
        for entry in fs::read_dir(from).map_err(failed)? {
            seen.insert(entry.map_err(failed)?.file_name());
        }
        for name in seen {
            let (source, target) = (from.join(&name), to.join(&name));
            let failed = |error| Error::file(&source, error);
            let found = fs::symlink_metadata(&source).map_err(failed)?;
            let (kind, name) = (found.file_type(), target.as_os_str().as_bytes());
            if kind.is_dir() {
                self.put(name, found.mode(), &[]).map_err(failed)?;
                self.folder(&source, &target)?;
            } else if kind.is_symlink() {
                let link = fs::read_link(&source).map_err(failed)?;
                self.put(name, found.mode(), link.as_os_str().as_bytes()).map_err(failed)?;
            } else if kind.is_file() {
                // Not through a link that somebody put there meanwhile, nor from a pipe.
                let flags =
                    rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::CLOEXEC;
                let file = rustix::fs::open(&source, flags, rustix::fs::Mode::empty());
                let file = File::from(file.map_err(|errno| failed(errno.into()))?);
                let now = file.metadata().map_err(failed)?;
                if !now.is_file() || now.len() > MAX_FILE {
                    let message = format!("it is no file of at most {MAX_FILE} bytes");
                    return Err(failed(io::Error::other(message)));
                }
                let mut bytes = Vec::new();
                io::Read::read_to_end(&mut io::Read::take(file, MAX_FILE), &mut bytes).map_err(failed)?;
                self.put(name, found.mode(), &bytes).map_err(failed)?;
            } else {
                debug_assert!(
                    kind.is_socket() || kind.is_fifo() || kind.is_block_device() || kind.is_char_device()
                );
            }
        }
        Ok(())
    }
}
