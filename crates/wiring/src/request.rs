//! What a guest is to be given, and the checks that hold for every engine.

use std::{
    ffi::{OsStr, OsString},
    fmt,
    path::{Component, Path, PathBuf},
    str::FromStr,
};

use crate::error::WiringError;

/// What to run programs in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageRef {
    /// An image that the engine knows or can pull.
    Name(String),
    /// An absolute path of a folder that holds a root file system.
    RootFs(PathBuf),
}

impl ImageRef {
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            ImageRef::Name(_) => "image",
            ImageRef::RootFs(_) => "root file system",
        }
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ImageRef::Name(name) => f.write_str(name),
            ImageRef::RootFs(path) => path.display().fmt(f),
        }
    }
}

/// A folder or file of the host that the guest sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    pub source: PathBuf,
    pub target: PathBuf,
    pub read_only: bool,
}

/// A variable of the guest's environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvVar {
    pub name: String,
    pub value: OsString,
}

/// Which network the guest sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// Nothing but its own loopback.
    #[default]
    None,
    /// The host's.
    Host,
}

impl Network {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Network::None => "none",
            Network::Host => "host",
        }
    }
}

impl FromStr for Network {
    type Err = WiringError;

    fn from_str(name: &str) -> Result<Self, WiringError> {
        match name {
            "none" => Ok(Network::None),
            "host" => Ok(Network::Host),
            _ => {
                Err(WiringError::Unknown { what: "network", value: name.to_owned(), choices: "none or host" })
            }
        }
    }
}

/// The way to the GPU: a unix socket of `pontoon serve`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuAccess {
    /// On the host. Its folder is what the guest gets to see, so it must hold nothing else.
    pub host_socket: PathBuf,
    /// Where that folder appears in the guest; the socket keeps its file name.
    pub guest_folder: PathBuf,
}

impl GpuAccess {
    pub const GUEST_FOLDER: &'static str = "/run/pontoon";
    /// The variable that tells the guest library where the daemon is.
    pub const VARIABLE: &'static str = "PONTOON_HOST";

    pub fn new(host_socket: impl Into<PathBuf>) -> Self {
        Self { host_socket: host_socket.into(), guest_folder: Self::GUEST_FOLDER.into() }
    }

    /// Where the guest finds the socket.
    pub fn guest_socket(&self) -> PathBuf {
        self.guest_folder.join(self.host_socket.file_name().unwrap_or_default())
    }

    pub(crate) fn variable(&self) -> EnvVar {
        let mut value = OsString::from("unix:");
        value.push(self.guest_socket());
        EnvVar { name: Self::VARIABLE.to_owned(), value }
    }

    pub(crate) fn mount(&self) -> Mount {
        Mount { source: self.host_folder().to_owned(), target: self.guest_folder.clone(), read_only: true }
    }

    fn host_folder(&self) -> &Path {
        self.host_socket.parent().unwrap_or(Path::new("/"))
    }

    fn check(&self) -> Result<(), WiringError> {
        check_source("GPU socket", &self.host_socket)?;
        check_target("GPU socket folder in the guest", &self.guest_folder)?;
        if self.host_socket.file_name().is_none() || is_shared_folder(self.host_folder()) {
            return Err(path_error(
                "GPU socket",
                &self.host_socket,
                "its folder is shown to the guest and must hold nothing but the socket",
            ));
        }
        Ok(())
    }
}

/// Folders that always hold other programs' files.
pub(crate) fn is_shared_folder(folder: &Path) -> bool {
    const SHARED: [&str; 6] = ["/", "/run", "/tmp", "/var/run", "/var/tmp", "/dev/shm"];
    SHARED.iter().any(|shared| folder == Path::new(shared))
        || folder.parent() == Some(Path::new("/run/user"))
        || folder.parent() == Some(Path::new("/home"))
        || folder == Path::new("/root")
}

/// Everything that a command line is made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunRequest {
    pub image: ImageRef,
    pub command: Vec<OsString>,
    pub mounts: Vec<Mount>,
    pub env: Vec<EnvVar>,
    pub network: Network,
    pub gpu: Option<GpuAccess>,
    /// Keep standard input open. Bubblewrap always hands on the caller's.
    pub interactive: bool,
    /// Give the guest a terminal. Bubblewrap never does: a guest that shares the caller's terminal
    /// could type into it.
    pub tty: bool,
    pub workdir: Option<PathBuf>,
    /// SELinux enforces on this host. A container may then not connect to a socket of a process
    /// outside its own domain, however the file is labelled, so that GPU access needs
    /// `label=disable`; everywhere else the line leaves labels alone.
    pub selinux_enforcing: bool,
    /// Handed to the engine as they are, before the image.
    pub engine_args: Vec<OsString>,
}

impl RunRequest {
    /// No mounts, no variables, no network, no GPU.
    pub fn new<C: Into<OsString>>(image: ImageRef, command: impl IntoIterator<Item = C>) -> Self {
        Self {
            image,
            command: command.into_iter().map(Into::into).collect(),
            mounts: Vec::new(),
            env: Vec::new(),
            network: Network::None,
            gpu: None,
            interactive: false,
            tty: false,
            workdir: None,
            selinux_enforcing: false,
            engine_args: Vec::new(),
        }
    }

    /// The caller's mounts, and the GPU socket's folder last.
    pub(crate) fn all_mounts(&self) -> impl Iterator<Item = Mount> {
        let gpu = self.gpu.as_ref().map(GpuAccess::mount);
        self.mounts.iter().cloned().chain(gpu)
    }

    /// The caller's variables, and the GPU's last.
    pub(crate) fn all_env(&self) -> impl Iterator<Item = EnvVar> {
        let gpu = self.gpu.as_ref().map(GpuAccess::variable);
        self.env.iter().cloned().chain(gpu)
    }

    pub(crate) fn check(&self) -> Result<(), WiringError> {
        if self.command.is_empty() {
            return Err(WiringError::NoCommand { image: self.image.to_string() });
        }
        self.check_image()?;
        self.check_mounts()?;
        self.check_env()?;
        if let Some(workdir) = &self.workdir {
            check_absolute("working folder", workdir)?;
        }
        self.command.iter().try_for_each(|arg| check_nul(arg))?;
        self.engine_args.iter().try_for_each(|arg| check_nul(arg))
    }

    fn check_image(&self) -> Result<(), WiringError> {
        match &self.image {
            ImageRef::Name(name) => check_image_name(name),
            ImageRef::RootFs(path) => check_source("root file system", path),
        }
    }

    fn check_mounts(&self) -> Result<(), WiringError> {
        for (index, mount) in self.mounts.iter().enumerate() {
            check_source("mount source", &mount.source)?;
            check_target("mount target", &mount.target)?;
            let earlier = &self.mounts[..index];
            if earlier.iter().any(|other| other.target == mount.target) {
                return Err(WiringError::SameTarget { target: mount.target.display().to_string() });
            }
        }
        let Some(gpu) = &self.gpu else { return Ok(()) };
        gpu.check()?;
        let covers =
            |target: &Path| gpu.guest_folder.starts_with(target) || target.starts_with(&gpu.guest_folder);
        match self.mounts.iter().find(|mount| covers(&mount.target)) {
            None => Ok(()),
            Some(mount) => Err(WiringError::CoversSocket {
                target: mount.target.display().to_string(),
                guest_folder: gpu.guest_folder.display().to_string(),
            }),
        }
    }

    fn check_env(&self) -> Result<(), WiringError> {
        for variable in &self.env {
            check_env_name(&variable.name, &variable.name)?;
            check_nul(&variable.value)?;
            if self.gpu.is_some() && variable.name == GpuAccess::VARIABLE {
                return Err(WiringError::Env {
                    value: variable.name.clone(),
                    reason: "it is set by GPU access; leave out one of the two",
                });
            }
        }
        Ok(())
    }
}

pub(crate) fn check_image_name(name: &str) -> Result<(), WiringError> {
    let error = |reason| Err(WiringError::Image { value: name.to_owned(), reason });
    if name.is_empty() {
        return error("its name is empty");
    }
    if name.starts_with('-') {
        return error("a name cannot begin with '-'; options go before the image");
    }
    if name.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return error("a name cannot hold blanks or control characters");
    }
    Ok(())
}

/// Engines give `*` and a missing `=` meanings of their own, so names are kept plain.
pub(crate) fn check_env_name(name: &str, shown: &str) -> Result<(), WiringError> {
    let error = |reason| Err(WiringError::Env { value: shown.to_owned(), reason });
    if name.is_empty() {
        return error("the name is empty");
    }
    if !name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-')) {
        return error("a name is made of letters, digits, '_', '.' and '-'");
    }
    Ok(())
}

pub(crate) fn check_source(what: &'static str, path: &Path) -> Result<(), WiringError> {
    check_absolute(what, path)
}

pub(crate) fn check_target(what: &'static str, path: &Path) -> Result<(), WiringError> {
    check_absolute(what, path)?;
    if path.components().any(|part| part == Component::ParentDir) {
        return Err(path_error(what, path, "it must not hold '..'"));
    }
    if path == Path::new("/") {
        return Err(path_error(what, path, "nothing can be mounted over the root"));
    }
    Ok(())
}

fn check_absolute(what: &'static str, path: &Path) -> Result<(), WiringError> {
    check_nul(path.as_os_str())?;
    if !path.is_absolute() {
        return Err(path_error(what, path, "it must be an absolute path"));
    }
    Ok(())
}

fn check_nul(text: &OsStr) -> Result<(), WiringError> {
    if text.as_encoded_bytes().contains(&0) {
        return Err(WiringError::Nul { value: text.to_string_lossy().into_owned() });
    }
    Ok(())
}

pub(crate) fn path_error(what: &'static str, path: &Path, reason: &'static str) -> WiringError {
    WiringError::Path { what, value: path.display().to_string(), reason }
}
