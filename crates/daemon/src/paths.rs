//! Where the daemon's sockets are.

use std::path::{Path, PathBuf};

/// The folder for this user's sockets: `$XDG_RUNTIME_DIR/pontoon`, or `/run/pontoon` for root and
/// where there is no such variable.
pub fn runtime_folder() -> PathBuf {
    match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(folder) if !rustix::process::geteuid().is_root() && Path::new(&folder).is_dir() => {
            Path::new(&folder).join("pontoon")
        }
        _ => PathBuf::from("/run/pontoon"),
    }
}

/// The guests' socket: alone in its folder, so that the folder can be mounted into a container.
pub fn default_socket() -> PathBuf {
    runtime_folder().join("guest/pontoon.sock")
}

/// The guests' socket of the CDI device `name`: alone in a folder of its own, beside the usual one's.
pub fn device_socket(guest_socket: &Path, name: &str) -> PathBuf {
    let folder = guest_socket.parent().unwrap_or(Path::new("."));
    let mut devices = folder.file_name().unwrap_or_default().to_os_string();
    devices.push("-devices");
    let file = guest_socket.file_name().unwrap_or("pontoon.sock".as_ref());
    folder.with_file_name(devices).join(name).join(file)
}

/// A file in a guests' folder that is no socket, and that containers would get to see.
pub fn other_file(folder: &Path) -> Option<PathBuf> {
    use std::os::unix::fs::FileTypeExt;
    let mut entries = std::fs::read_dir(folder).ok()?.flatten();
    let other = |entry: &std::fs::DirEntry| entry.file_type().is_ok_and(|kind| !kind.is_socket());
    entries.find(other).map(|entry| entry.path())
}

/// The admin socket that belongs to a guests' socket: in a private folder beside the guests' folder.
pub fn admin_socket(guest_socket: &Path) -> PathBuf {
    let folder = guest_socket.parent().unwrap_or(Path::new("."));
    let mut name = folder.file_name().unwrap_or_default().to_os_string();
    name.push("-admin");
    folder.with_file_name(name).join("admin.sock")
}

/// The folder for what outlives the daemon: `PONTOON_DATA`, else `/var/lib/pontoon` for root,
/// `$XDG_DATA_HOME/pontoon` or `~/.local/share/pontoon` for others.
pub fn data_folder() -> PathBuf {
    let named = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(folder) = named("PONTOON_DATA") {
        return folder;
    }
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/var/lib/pontoon");
    }
    let home = || named("HOME").unwrap_or_else(|| PathBuf::from("/")).join(".local/share");
    named("XDG_DATA_HOME").unwrap_or_else(home).join("pontoon")
}

/// The store of models, unless the configuration names another.
pub fn models_folder() -> PathBuf {
    data_folder().join("models")
}

/// Installed engines.
pub fn engines_folder() -> PathBuf {
    data_folder().join("engines")
}

/// The model runner's socket for guests: beside the bridge's.
pub fn models_socket(guest_socket: &Path) -> PathBuf {
    guest_socket.with_file_name("models.sock")
}

/// The model runner's socket for the operator: beside the bridge's admin socket.
pub fn models_admin_socket(guest_socket: &Path) -> PathBuf {
    admin_socket(guest_socket).with_file_name("models.sock")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_admin_socket_is_not_where_guests_look() {
        assert_eq!(
            admin_socket(Path::new("/run/pontoon/guest/pontoon.sock")),
            Path::new("/run/pontoon/guest-admin/admin.sock")
        );
    }
}
