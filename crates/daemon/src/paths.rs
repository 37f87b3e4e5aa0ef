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

/// The admin socket that belongs to a guests' socket: in a private folder beside the guests' folder.
pub fn admin_socket(guest_socket: &Path) -> PathBuf {
    let folder = guest_socket.parent().unwrap_or(Path::new("."));
    let mut name = folder.file_name().unwrap_or_default().to_os_string();
    name.push("-admin");
    folder.with_file_name(name).join("admin.sock")
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
