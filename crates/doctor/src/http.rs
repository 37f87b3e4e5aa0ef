//! One small question over HTTP, on TCP or on a unix socket.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(5);
const MAX_ANSWER: u64 = 4 << 20;

/// Where a server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Server {
    /// `host:port`, and what paths begin with.
    Tcp(String, String),
    /// A unix socket.
    Unix(PathBuf),
}

impl Server {
    /// A server from a URL; none where it is not `http://`.
    pub fn parse(url: &str) -> Option<Self> {
        // A name and a password in a URL are no business of ours.
        let rest = url.strip_prefix("http://").filter(|rest| !rest.contains('@'))?;
        let (address, path) = rest.split_once('/').unwrap_or((rest, ""));
        let address = if address.contains(':') { address.to_owned() } else { format!("{address}:80") };
        let path = path.trim_end_matches('/');
        Some(Self::Tcp(address, if path.is_empty() { String::new() } else { format!("/{path}") }))
    }
}

impl std::fmt::Display for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address, path) => write!(f, "http://{address}{path}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Status and body of an answer. HTTP/1.0, so that it ends with its connection and comes in one piece.
pub fn get(server: &Server, path: &str, key: Option<&str>) -> Result<(u16, Vec<u8>), String> {
    let key = key.map(|key| format!("Authorization: Bearer {key}\r\n")).unwrap_or_default();
    match server {
        Server::Tcp(address, prefix) => {
            let mut last = "no such name".to_owned();
            for socket in address.to_socket_addrs().map_err(|error| error.to_string())? {
                match TcpStream::connect_timeout(&socket, PATIENCE) {
                    Ok(stream) => {
                        let _ = stream.set_read_timeout(Some(PATIENCE));
                        return ask(stream, address, &format!("{prefix}{path}"), &key);
                    }
                    Err(error) => last = error.to_string(),
                }
            }
            Err(last)
        }
        Server::Unix(socket) => {
            let stream = UnixStream::connect(socket).map_err(|error| error.to_string())?;
            let _ = stream.set_read_timeout(Some(PATIENCE));
            ask(stream, "localhost", &format!("/v1{path}"), &key)
        }
    }
}

fn ask(mut stream: impl Read + Write, host: &str, path: &str, key: &str) -> Result<(u16, Vec<u8>), String> {
    let text = format!("GET {path} HTTP/1.0\r\nHost: {host}\r\n{key}Connection: close\r\n\r\n");
    stream.write_all(text.as_bytes()).map_err(|error| error.to_string())?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer).map_err(|error| error.to_string())?;
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Response::new(&mut headers);
    match head.parse(&answer) {
        Ok(httparse::Status::Complete(len)) => Ok((head.code.unwrap_or(0), answer.split_off(len))),
        _ => Err("what answers there speaks no HTTP".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_sdks_read_them() {
        let tcp = |address: &str, path: &str| Some(Server::Tcp(address.into(), path.into()));
        assert_eq!(Server::parse("http://127.0.0.1:12434/v1"), tcp("127.0.0.1:12434", "/v1"));
        assert_eq!(Server::parse("http://host/v1/"), tcp("host:80", "/v1"));
        assert_eq!(Server::parse("https://host/v1"), None);
    }
}
