//! What surrounds the confined process: files, sockets and processes to reach for.

use std::fs::{self, File};
use std::io;
use std::net::{TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

/// Where everything is, as seen by the child.
pub struct Scene {
    pub directory: String,
    pub supervisor: usize,
    pub bystander: usize,
    pub tcp: String,
    pub udp: String,
    pub abstract_name: String,
}

/// Descriptors that a worker might rightly hold when it is confined.
pub struct Kit {
    pub udp: UdpSocket,
    pub stream: UnixStream,
    pub peer: UnixStream,
    pub shell: File,
}

impl Scene {
    pub fn file(&self, name: &str) -> String {
        format!("{}/{name}", self.directory)
    }

    /// One line for the child's environment; `read` is its inverse.
    pub fn write(&self) -> String {
        let Scene { directory, supervisor, bystander, tcp, udp, abstract_name } = self;
        format!("{directory} {supervisor} {bystander} {tcp} {udp} {abstract_name}")
    }

    pub fn read(line: &str) -> Scene {
        let mut words = line.split(' ').map(str::to_owned);
        let mut word = || words.next().expect("a complete scene");
        Scene {
            directory: word(),
            supervisor: word().parse().unwrap(),
            bystander: word().parse().unwrap(),
            tcp: word(),
            udp: word(),
            abstract_name: word(),
        }
    }
}

impl Kit {
    pub fn pack() -> io::Result<Kit> {
        let (stream, peer) = UnixStream::pair()?;
        Ok(Kit { udp: UdpSocket::bind("127.0.0.1:0")?, stream, peer, shell: File::open("/bin/sh")? })
    }
}

/// The scene itself, for as long as one attempt lasts.
pub struct Stage {
    pub scene: Scene,
    directory: PathBuf,
    bystander: Child,
    _tcp: TcpListener,
    _udp: UdpSocket,
    _unix: [UnixListener; 2],
}

impl Stage {
    /// Builds a scene that belongs to user `owner`, in which whoever is not confined can do all.
    pub fn set(name: &str, owner: u32) -> io::Result<Stage> {
        let directory = std::env::temp_dir().join(format!("pontoon-{}-{name}", std::process::id()));
        fs::create_dir_all(&directory)?;
        open_to_all(&directory, owner)?;
        for file in ["secret", "mine", "victim", "gone"] {
            fs::write(directory.join(file), "do not read")?;
            open_to_all(&directory.join(file), owner)?;
        }
        let abstract_name = format!("pontoon-{}-{name}", std::process::id());
        let unix = [
            UnixListener::bind(directory.join("socket"))?,
            UnixListener::bind_addr(&SocketAddr::from_abstract_name(&abstract_name)?)?,
        ];
        open_to_all(&directory.join("socket"), owner)?;
        let (tcp, udp) = (TcpListener::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
        let bystander = bystander(owner)?;
        let scene = Scene {
            directory: directory.display().to_string(),
            supervisor: std::process::id() as usize,
            bystander: bystander.id() as usize,
            tcp: tcp.local_addr()?.to_string(),
            udp: udp.local_addr()?.to_string(),
            abstract_name,
        };
        Ok(Stage { scene, directory, bystander, _tcp: tcp, _udp: udp, _unix: unix })
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // Best effort: the attempt may have done any of this itself.
        let _ = self.bystander.kill();
        let _ = self.bystander.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// A process of the same user that has nothing to do with the worker.
fn bystander(owner: u32) -> io::Result<Child> {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new("/bin/sleep");
    command.arg("600");
    if rustix::process::getuid().as_raw() != owner {
        command.uid(owner).gid(owner);
    }
    command.spawn()
}

fn open_to_all(path: &Path, owner: u32) -> io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(0o777))?;
    if rustix::process::getuid().is_root() {
        std::os::unix::fs::chown(path, Some(owner), Some(owner))?;
    }
    Ok(())
}
