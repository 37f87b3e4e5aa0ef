//! What was taken, written down before it is taken: by its journal alone everything can be put back. Journals lie under
//! `/run`, which a reboot clears together with what they tell of, in a folder of their own, root's: everybody may read what
//! is taken, nobody else may say it.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::{Address, Owner, Uuid};

/// Where they are, below the root.
const FOLDER: &str = "run/pontoon-passthrough";

/// How long another process that takes or puts back may take.
const PATIENCE: Duration = Duration::from_secs(90);

/// The version of their form.
pub const VERSION: u32 = 1;

/// How far a taking has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// It has begun.
    Taking,
    /// All is taken.
    Taken,
    /// It is being put back.
    Restoring,
}

/// A device as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// Where it is.
    pub address: Address,
    /// Vendor's number: another device in its place is left alone.
    pub vendor: u16,
    /// Device's number.
    pub device: u16,
    /// The driver that had it.
    pub driver: Option<String>,
    /// The only driver that might have it.
    pub driver_override: Option<String>,
    /// Whether it might sleep.
    pub power: Option<String>,
}

/// What was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Taken {
    /// Devices of an IOMMU group, for VFIO. Those that were on VFIO before are not among them.
    Group {
        /// The group's number.
        group: u32,
        /// The devices.
        devices: Vec<Saved>,
    },
    /// Virtual functions were made.
    VirtualFunctions {
        /// The physical function.
        device: Address,
        /// How many there were.
        before: u32,
        /// How many we have made, each time; the last are there now.
        counts: Vec<u32>,
        /// Whether they looked for drivers.
        autoprobe: Option<bool>,
    },
    /// A mediated device was made.
    Mediated {
        /// The device that it is a slice of.
        device: Address,
        /// Its type.
        mediated: String,
        /// Its name.
        uuid: Uuid,
    },
}

impl Taken {
    /// The journal's name: one for each group, physical function and mediated device.
    pub fn key(&self) -> String {
        match self {
            Self::Group { group, .. } => format!("group-{group}"),
            Self::VirtualFunctions { device, .. } => format!("sriov-{device}"),
            Self::Mediated { uuid, .. } => format!("mdev-{uuid}"),
        }
    }

    /// Each device, and in words what it goes back to.
    pub fn goes_back_to(&self) -> Vec<(Address, String)> {
        match self {
            Self::Group { devices, .. } => {
                let words = |saved: &Saved| {
                    let driver = saved.driver.as_deref().unwrap_or("no driver");
                    let only = saved.driver_override.as_ref().map(|only| format!(", driver_override {only}"));
                    format!("{driver}{}", only.unwrap_or_default())
                };
                devices.iter().map(|saved| (saved.address, words(saved))).collect()
            }
            Self::VirtualFunctions { device, before, counts, .. } => {
                let now = counts.last().copied().unwrap_or_default();
                vec![(*device, format!("{before} virtual functions instead of {now}"))]
            }
            Self::Mediated { device, mediated, uuid } => {
                vec![(*device, format!("without {uuid}, a '{mediated}'"))]
            }
        }
    }

    /// The devices that are somebody's now.
    pub fn devices(&self) -> Vec<Address> {
        match self {
            Self::Group { devices, .. } => devices.iter().map(|saved| saved.address).collect(),
            Self::VirtualFunctions { device, .. } | Self::Mediated { device, .. } => vec![*device],
        }
    }
}

/// What was taken, by whom, and how far that has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Journal {
    /// Of its form.
    pub version: u32,
    /// The boot in which it holds (`/proc/sys/kernel/random/boot_id`).
    pub boot: String,
    /// Who has it.
    pub owner: Owner,
    /// How far.
    pub phase: Phase,
    /// Whether all was taken once: then a machine may have had it.
    pub used: bool,
    /// What.
    pub taken: Taken,
}

impl Journal {
    /// Whether it is still somebody's: of this boot, of an owner who lives, and, where that is the administrator, whole.
    pub fn holds(&self, root: &Path) -> bool {
        let whole = self.phase == Phase::Taken || matches!(self.owner, Owner::Process { .. });
        let other_boot = Journals::below(root).boot().is_ok_and(|boot| boot != self.boot);
        whole && !other_boot && self.owner.lives(root)
    }
}

/// Why there is no word of what was taken.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The system refused.
    #[error("{}: {source}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// It cannot be read.
    #[error(
        "{} is no journal that this version can read ({why}): it says what to put back; see to the devices by hand, then remove it",
        .path.display()
    )]
    Form {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Somebody else is at it.
    #[error("another process has been taking or putting back devices for {0} s: try again when it is done")]
    Locked(u64),
    /// The folder is not ours.
    #[error("{}: it must be root's, and nobody else's to write: journals say what root writes", .0.display())]
    Folder(PathBuf),
    /// The boot is not known.
    #[error(
        "/proc/sys/kernel/random/boot_id: {0}: whether what was taken still is cannot be told; nothing was changed"
    )]
    Boot(io::Error),
    /// What is taken already.
    #[error("{0} is taken already (`pontoon vfio status`): nothing was changed")]
    Taken(String),
}

/// The journals of a host.
#[derive(Debug, Clone)]
pub struct Journals {
    folder: PathBuf,
    root: PathBuf,
}

/// The right to take and to put back on this host, let go when dropped.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "held, not used")] File);

impl Journals {
    /// Those below a root.
    pub fn below(root: &Path) -> Self {
        Self { folder: root.join(FOLDER), root: root.to_owned() }
    }

    /// The name of this boot.
    ///
    /// # Errors
    /// [`JournalError::Boot`].
    pub fn boot(&self) -> Result<String, JournalError> {
        let text = fs::read_to_string(self.root.join("proc/sys/kernel/random/boot_id"));
        Ok(text.map_err(JournalError::Boot)?.trim().to_owned())
    }

    fn path(&self, key: &str) -> PathBuf {
        self.folder.join(format!("{key}.json"))
    }

    fn failed(path: &Path) -> impl FnOnce(io::Error) -> JournalError {
        let path = path.to_owned();
        |source| JournalError::File { path, source }
    }

    /// All of them, by name; what cannot be read is among the errors.
    pub fn list(&self) -> (Vec<Journal>, Vec<JournalError>) {
        let (mut journals, mut errors) = (Vec::new(), Vec::new());
        let mut paths: Vec<PathBuf> = match fs::read_dir(&self.folder) {
            Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return (journals, errors),
            Err(source) => {
                errors.push(JournalError::File { path: self.folder.clone(), source });
                return (journals, errors);
            }
        };
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
        paths.sort();
        for path in paths {
            match Self::read(&path) {
                Ok(Some(journal)) => journals.push(journal),
                Ok(None) => {}
                Err(error) => errors.push(error),
            }
        }
        (journals, errors)
    }

    /// One of them.
    ///
    /// # Errors
    /// [`JournalError::File`], [`JournalError::Form`].
    pub fn get(&self, key: &str) -> Result<Option<Journal>, JournalError> {
        Self::read(&self.path(key))
    }

    /// Nothing where it has gone meanwhile.
    fn read(path: &Path) -> Result<Option<Journal>, JournalError> {
        let bytes = match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            bytes => bytes.map_err(Self::failed(path))?,
        };
        let wrong = |why: String| JournalError::Form { path: path.to_owned(), why };
        let journal: Journal = serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?;
        match journal.version {
            VERSION => Ok(Some(journal)),
            other => Err(wrong(format!("its version is {other}, not {VERSION}"))),
        }
    }

    /// Makes the folder, whatever the process's mask, and sees that it is ours.
    fn make_folder(&self) -> Result<(), JournalError> {
        let failed = Self::failed(&self.folder);
        let mut builder = fs::DirBuilder::new();
        let made = builder.recursive(true).mode(0o755).create(&self.folder);
        let found = made.and_then(|()| fs::symlink_metadata(&self.folder)).map_err(failed)?;
        let own = found.uid() == rustix::process::geteuid().as_raw();
        if !found.is_dir() || !own {
            return Err(JournalError::Folder(self.folder.clone()));
        }
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(&self.folder, mode).map_err(Self::failed(&self.folder))
    }

    /// Takes the one lock of this host, within which everything is read, decided and done.
    ///
    /// # Errors
    /// [`JournalError::Locked`] where somebody else has it for long.
    pub fn lock(&self) -> Result<Lock, JournalError> {
        self.make_folder()?;
        let path = self.folder.join("lock");
        let file = File::options().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let file = file.map_err(Self::failed(&path))?;
        let begun = Instant::now();
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Lock(file)),
                Err(rustix::io::Errno::WOULDBLOCK) if begun.elapsed() < PATIENCE => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(rustix::io::Errno::WOULDBLOCK) => return Err(JournalError::Locked(PATIENCE.as_secs())),
                Err(errno) => return Err(Self::failed(&path)(errno.into())),
            }
        }
    }

    /// Writes a journal, and returns when it would survive a crash. The old one is there until the new one is whole.
    ///
    /// # Errors
    /// [`JournalError::File`].
    pub fn write(&self, journal: &Journal) -> Result<(), JournalError> {
        self.make_folder()?;
        let path = self.path(&journal.taken.key());
        let new = path.with_extension("new");
        let write = || {
            let mut file = File::options().create(true).truncate(true).write(true).mode(0o644).open(&new)?;
            file.set_permissions(fs::Permissions::from_mode(0o644))?;
            file.write_all(&serde_json::to_vec_pretty(journal)?)?;
            file.sync_all()?;
            fs::rename(&new, &path)?;
            File::open(&self.folder)?.sync_all()
        };
        write().map_err(Self::failed(&path))
    }

    /// Removes a journal: all is put back.
    ///
    /// # Errors
    /// [`JournalError::File`].
    pub fn remove(&self, key: &str) -> Result<(), JournalError> {
        let path = self.path(key);
        match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result.map_err(Self::failed(&path)),
        }
    }
}
