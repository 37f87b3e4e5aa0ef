//! Which socket of this host is the other end of a loopback connection: `/proc/self/net/tcp` and `tcp6`.

use std::net::{IpAddr, SocketAddr};

/// The owner of a socket, as the kernel lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// User.
    pub uid: u32,
    /// Number of the socket; processes that hold it have a link `socket:[inode]`.
    pub inode: u64,
}

/// The owner of the socket that is bound to `theirs` and connected to `ours`.
pub fn owner(ours: SocketAddr, theirs: SocketAddr) -> Option<Owner> {
    let table = if theirs.is_ipv4() { "/proc/self/net/tcp" } else { "/proc/self/net/tcp6" };
    find(&std::fs::read_to_string(table).ok()?, ours, theirs)
}

fn find(table: &str, ours: SocketAddr, theirs: SocketAddr) -> Option<Owner> {
    let (local, remote) = (written(theirs), written(ours));
    let line = table.lines().find(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        fields.next() == Some(&local) && fields.next() == Some(&remote)
    })?;
    let mut fields = line.split_ascii_whitespace().skip(7);
    let uid = fields.next()?.parse().ok()?;
    let inode = fields.nth(1)?.parse().ok()?;
    // Inode 0: the process closed it already.
    (inode != 0).then_some(Owner { uid, inode })
}

/// An address as the kernel writes it: each 32-bit word in the host's byte order.
fn written(address: SocketAddr) -> String {
    let octets = match address.ip() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let mut text = String::with_capacity(37);
    for word in octets.chunks_exact(4) {
        let word = u32::from_ne_bytes([word[0], word[1], word[2], word[3]]);
        text.push_str(&format!("{word:08X}"));
    }
    text + &format!(":{:04X}", address.port())
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn rows_are_read_as_the_kernel_writes_them() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 0100007F:3092 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 11 1 0 100 0 0 10 0\n\
            1: 0100007F:C350 0100007F:3092 01 00000000:00000000 00:00000000 00000000  1000        0 4242 1 0 20 4 30 10 -1\n";
        let (ours, theirs) = ("127.0.0.1:12434".parse().unwrap(), "127.0.0.1:50000".parse().unwrap());
        assert_eq!(find(table, ours, theirs), Some(Owner { uid: 1000, inode: 4242 }));
        assert_eq!(find(table, theirs, ours), None);
        assert_eq!(written("[::1]:80".parse().unwrap()), "00000000000000000000000001000000:0050");
    }

    #[test]
    fn a_real_connections_other_end_is_found() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (server, theirs) = listener.accept().unwrap();
            let owner = owner(server.local_addr().unwrap(), theirs).expect("our own socket is listed");
            assert_eq!(owner.uid, rustix::process::geteuid().as_raw());
            drop(client);
        }
    }
}
