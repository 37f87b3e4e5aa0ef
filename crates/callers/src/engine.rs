//! What a container's engine says of it: `GET /containers/ID/json` on the socket of docker, podman or whatever speaks
//! Docker's API (<https://docs.docker.com/reference/api/engine/>).

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use crate::Container;

/// How long an engine may take for each step of an answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// Bytes of an answer: a container with very many labels has 100 KiB.
const MAX_ANSWER: u64 = 4 << 20;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    id: String,
    #[serde(default)]
    name: String,
    config: Config,
    #[serde(default)]
    state: State,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "PascalCase")]
struct State {
    pid: i32,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    #[serde(default)]
    image: String,
    #[serde(default)]
    labels: Option<std::collections::BTreeMap<String, String>>,
}

/// Asks one engine; the container and its first process, or nothing where the engine does not know it or does not
/// answer.
pub fn inspect(socket: &Path, id: &str) -> Option<(Container, i32)> {
    if !Container::is_id(id) {
        return None;
    }
    let body = get(socket, &format!("/containers/{id}/json")).inspect_err(|error| {
        log::debug!("asking {} about container {id}: {error}", socket.display());
    });
    let found: Inspected = serde_json::from_slice(&body.ok()?).ok()?;
    if !found.id.eq_ignore_ascii_case(id) {
        return None;
    }
    let labels = found.config.labels.unwrap_or_default();
    let label = |what: &str| {
        ["com.docker.compose", "io.podman.compose"]
            .iter()
            .find_map(|prefix| labels.get(&format!("{prefix}.{what}")))
            .cloned()
    };
    let filled = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let container = Container {
        id: id.to_owned(),
        name: filled(found.name.trim_start_matches('/')),
        image: filled(&found.config.image),
        project: label("project"),
        service: label("service"),
    };
    Some((container, found.state.pid))
}

/// The body of a successful answer. HTTP/1.0, so that an answer ends with its connection and comes in one piece.
fn get(socket: &Path, path: &str) -> std::io::Result<Vec<u8>> {
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(&stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    (&stream).take(MAX_ANSWER).read_to_end(&mut answer)?;
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut head = httparse::Response::new(&mut headers);
    match head.parse(&answer) {
        Ok(httparse::Status::Complete(len)) if head.code == Some(200) => Ok(answer.split_off(len)),
        Ok(httparse::Status::Complete(_)) => {
            Err(std::io::Error::other(format!("status {}", head.code.unwrap_or_default())))
        }
        _ => Err(std::io::Error::other("no HTTP answer")),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    fn answering(text: &'static str) -> (std::path::PathBuf, std::thread::JoinHandle<String>) {
        let name = format!("pontoon-callers-{}-{:?}.sock", std::process::id(), std::thread::current().id());
        let path = std::env::temp_dir().join(name);
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        let served = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 512];
            let len = stream.read(&mut request).unwrap();
            stream.write_all(text.as_bytes()).unwrap();
            String::from_utf8_lossy(&request[..len]).into_owned()
        });
        (path, served)
    }

    #[test]
    fn an_engines_answer_is_read() {
        let id = "0a".repeat(32);
        let (path, served) = answering(concat!(
            "HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n",
            r#"{"Id":"0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a","Name":"/web","Image":"sha256:1","State":{"Pid":17},"Config":{"#,
            r#""Image":"acme/web:1","Labels":{"com.docker.compose.project":"shop","com.docker.compose.service":"front"}}}"#
        ));
        let (found, pid) = inspect(&path, &id).unwrap();
        assert_eq!(pid, 17);
        assert!(served.join().unwrap().starts_with(&format!("GET /containers/{id}/json HTTP/1.0\r\n")));
        assert_eq!((found.name.as_deref(), found.image.as_deref()), (Some("web"), Some("acme/web:1")));
        assert_eq!((found.project.as_deref(), found.service.as_deref()), (Some("shop"), Some("front")));
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn an_answer_about_another_container_or_none_is_no_answer() {
        let (path, served) =
            answering("HTTP/1.0 200 OK\r\n\r\n{\"Id\":\"ff\",\"Name\":\"/web\",\"Config\":{}}");
        assert_eq!(inspect(&path, &"0a".repeat(32)), None);
        served.join().unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(inspect(&path, &"0a".repeat(32)), None, "nobody listens");
        assert_eq!(inspect(&path, "../../x"), None);
    }
}
