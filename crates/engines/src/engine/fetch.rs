//! Owns the download of a source release from a Python package index (PEP 503 and 691).

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use reqwest::Url;
use sha2::{Digest, Sha256};

use crate::Error;

/// The index that everybody uses unless told otherwise.
const PUBLIC_INDEX: &str = "https://pypi.org/simple";
const JSON: &str = "application/vnd.pypi.simple.v1+json";
const MAX_PAGE: usize = 64 << 20;
const MAX_FILE: u64 = 1 << 30;
const IDLE: Duration = Duration::from_secs(60);

/// A file that the index offers.
#[derive(Debug, PartialEq, Eq)]
pub struct Offer {
    pub url: Url,
}

/// The index: from the configuration, pip's variable, pip's configuration, or the public one.
pub fn index(configured: Option<&str>) -> String {
    let variable = || std::env::var("PIP_INDEX_URL").ok();
    let found = configured.map(str::to_owned).or_else(variable).or_else(pip_configuration);
    found.filter(|url| !url.trim().is_empty()).unwrap_or_else(|| PUBLIC_INDEX.to_owned()).trim().to_owned()
}

fn pip_configuration() -> Option<String> {
    let output = Command::new("pip").args(["config", "get", "global.index-url"]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && text.starts_with("http")).then(|| text.trim().to_owned())
}

/// Downloads `file` of `package` to `to` and compares its digest. `progress` gets bytes so far and in all.
pub fn fetch(
    index: &str,
    package: &str,
    file: &str,
    sha256: &str,
    to: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(Error::file(to, "downloaded"))?;
    runtime.block_on(async {
        let client = client()?;
        let offer = find(&client, index, package, file).await?;
        download(&client, &offer, file, sha256, to, progress).await
    })
}

fn client() -> Result<reqwest::Client, Error> {
    // Harmless if another part of the program was first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = reqwest::Client::builder().user_agent("pontoon").read_timeout(IDLE);
    builder.build().map_err(|e| failed("the download", &e))
}

async fn find(client: &reqwest::Client, index: &str, package: &str, file: &str) -> Result<Offer, Error> {
    let address = format!("{}/{package}/", index.trim_end_matches('/'));
    let page = client.get(&address).header("accept", format!("{JSON}, text/html;q=0.1")).send().await;
    let page = page.and_then(reqwest::Response::error_for_status).map_err(|e| failed(package, &e))?;
    let base = page.url().clone();
    let mut text = Vec::new();
    let mut page = page;
    while let Some(piece) = page.chunk().await.map_err(|e| failed(package, &e))? {
        text.extend_from_slice(&piece);
        if text.len() > MAX_PAGE {
            let reason = format!("the index lists {package} on more than {MAX_PAGE} bytes");
            return Err(Error::Install { name: package.to_owned(), reason });
        }
    }
    let url = offered(&text, file).and_then(|link| base.join(&link).ok());
    url.map(|url| Offer { url }).ok_or_else(|| Error::Install {
        name: package.to_owned(),
        reason: format!("the package index has no {file}; check the version, or name another index"),
    })
}

/// The link to `file` on an index page of either kind.
fn offered(page: &[u8], file: &str) -> Option<String> {
    if let Ok(listed) = serde_json::from_slice::<serde_json::Value>(page) {
        let files = listed.get("files")?.as_array()?;
        let found =
            files.iter().find(|entry| entry.get("filename").and_then(|name| name.as_str()) == Some(file))?;
        return found.get("url")?.as_str().map(str::to_owned);
    }
    let page = String::from_utf8_lossy(page);
    let links = page.split("href=\"").skip(1).filter_map(|rest| rest.split('"').next());
    let links = links.map(|link| link.replace("&amp;", "&"));
    links.into_iter().find(|link| {
        let path = link.split(['#', '?']).next().unwrap_or_default();
        path.rsplit('/').next() == Some(file)
    })
}

async fn download(
    client: &reqwest::Client,
    offer: &Offer,
    file: &str,
    sha256: &str,
    to: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(), Error> {
    let answer = client.get(offer.url.clone()).send().await;
    let mut answer = answer.and_then(reqwest::Response::error_for_status).map_err(|e| failed(file, &e))?;
    let total = answer.content_length().unwrap_or(0);
    let mut out = std::fs::File::create(to).map_err(Error::file(to, "created"))?;
    let (mut hasher, mut had) = (Sha256::new(), 0u64);
    while let Some(piece) = answer.chunk().await.map_err(|e| failed(file, &e))? {
        had += piece.len() as u64;
        if had > MAX_FILE {
            let reason = format!("{file} is larger than {MAX_FILE} bytes");
            return Err(Error::Install { name: file.to_owned(), reason });
        }
        hasher.update(&piece);
        out.write_all(&piece).map_err(Error::file(to, "written"))?;
        progress(had, total);
    }
    out.sync_all().map_err(Error::file(to, "written"))?;
    let found: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    if found != sha256 {
        let reason = format!("{file} has the digest {found} instead of {sha256}; it was not used");
        return Err(Error::Install { name: file.to_owned(), reason });
    }
    Ok(())
}

/// What went wrong, without the address: it may hold a password.
fn failed(what: &str, error: &reqwest::Error) -> Error {
    let mut reason = match error.status() {
        Some(status) => format!("the package index answered {status}"),
        None => "the package index cannot be reached".to_owned(),
    };
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        reason.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    Error::Install { name: what.to_owned(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_index_page_are_read() {
        let json = br#"{"files":[{"filename":"a-1.tar.gz","url":"../a-1.tar.gz","hashes":{}}]}"#;
        assert_eq!(offered(json, "a-1.tar.gz").unwrap(), "../a-1.tar.gz");
        assert_eq!(offered(json, "a-2.tar.gz"), None);
        let html =
            br#"<a href="/f/xa-1.tar.gz">x</a><a href="/f/a-1.tar.gz?x=1&amp;y=2#sha256=00">a-1.tar.gz</a>"#;
        assert_eq!(offered(html, "a-1.tar.gz").unwrap(), "/f/a-1.tar.gz?x=1&y=2#sha256=00");
    }

    /// A served index, a wrong digest and a right one.
    #[test]
    fn what_does_not_have_its_digest_is_not_used() {
        let folder = crate::files::test_folder("fetch");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let index = format!("http://{}/simple", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                answer(stream.unwrap());
            }
        });
        let to = folder.join("a");
        let mut seen = 0;
        let mut progress = |had, _| seen = had;
        let right = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        fetch(&index, "a", "a-1.tar.gz", right, &to, &mut progress).unwrap();
        assert_eq!((seen, std::fs::read(&to).unwrap()), (3, b"abc".to_vec()));
        let wrong = fetch(&index, "a", "a-1.tar.gz", &"0".repeat(64), &to, &mut |_, _| ()).unwrap_err();
        assert!(wrong.to_string().contains("digest"), "{wrong}");
        let missing = fetch(&index, "a", "a-2.tar.gz", right, &to, &mut |_, _| ()).unwrap_err();
        assert!(missing.to_string().contains("a-2.tar.gz"), "{missing}");
        std::fs::remove_dir_all(folder).unwrap();
    }

    fn answer(mut stream: std::net::TcpStream) {
        use std::io::Read;
        let mut request = [0; 2048];
        let had = stream.read(&mut request).unwrap();
        let body = match String::from_utf8_lossy(&request[..had]).split(' ').nth(1) {
            Some("/simple/a/") => r#"<a href="../../files/a-1.tar.gz#sha256=x">a-1.tar.gz</a>"#,
            _ => "abc",
        };
        let head = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.write_all((head + body).as_bytes()).unwrap();
    }
}
