//! What QEMU starts for each connection of the machine to a port.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

/// Carries one connection of the guest: standard input and output on one side, a socket on the other.
///
/// # Errors
/// What the system said.
pub fn relay(socket: &Path) -> std::io::Result<()> {
    let stream = UnixStream::connect(socket)?;
    let mut outward = stream.try_clone()?;
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut outward);
        let _ = outward.shutdown(std::net::Shutdown::Write);
    });
    let mut chunk = vec![0; 64 << 10];
    let (mut from, mut to) = (stream, std::io::stdout().lock());
    loop {
        match from.read(&mut chunk)? {
            0 => return Ok(()),
            len => {
                to.write_all(&chunk[..len])?;
                to.flush()?;
            }
        }
    }
}
