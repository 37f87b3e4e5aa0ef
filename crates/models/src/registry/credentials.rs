//! Owns who we are to a registry: logins given directly, and those of `docker login`.
//!
//! Docker keeps logins in `config.json` or hands them to helper programs. Such a helper is the one
//! process that this crate starts: nothing else can read the user's key chain.

use std::{collections::BTreeMap, env, fs, path::PathBuf, process::Stdio, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::Deserialize;
use tokio::{io::AsyncWriteExt as _, process::Command, time::timeout};

use crate::{Error, Result, reference::DEFAULT_REGISTRY};

/// Under which name Docker keeps the login of its own registry.
const DOCKER_KEY: &str = "https://index.docker.io/v1/";
const MAX_CONFIG: u64 = 4 << 20;
const HELPER_TIMEOUT: Duration = Duration::from_secs(30);

/// A login.
#[derive(Clone, PartialEq, Eq)]
pub enum Login {
    Password {
        user: String,
        password: String,
    },
    /// A refresh token, to be exchanged for access tokens.
    Identity(String),
}

impl std::fmt::Debug for Login {
    /// Without the secret: logins end up in logs of structs that hold them.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Password { user, .. } => write!(f, "Password({user})"),
            Self::Identity(_) => write!(f, "Identity"),
        }
    }
}

/// Where logins are found.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// By registry; these go before all others.
    pub logins: BTreeMap<String, Login>,
    /// Docker's `config.json`, or another file of its form.
    pub docker_config: Option<PathBuf>,
}

impl Default for Credentials {
    /// The file that `docker login` writes.
    fn default() -> Self {
        let folder = env::var_os("DOCKER_CONFIG").map(PathBuf::from);
        let folder = folder.or_else(|| env::home_dir().map(|home| home.join(".docker")));
        Self { logins: BTreeMap::new(), docker_config: folder.map(|folder| folder.join("config.json")) }
    }
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct DockerConfig {
    auths: BTreeMap<String, DockerAuth>,
    creds_store: String,
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct DockerAuth {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HelperAnswer {
    #[serde(default)]
    username: String,
    secret: String,
}

impl Credentials {
    /// None at all.
    pub fn none() -> Self {
        Self { logins: BTreeMap::new(), docker_config: None }
    }

    /// The login for a registry, if there is one.
    pub(super) async fn find(&self, registry: &str) -> Result<Option<Login>> {
        if let Some(login) = self.logins.get(registry) {
            return Ok(Some(login.clone()));
        }
        let Some(config) = self.read()? else { return Ok(None) };
        let keys = keys(registry);
        for key in &keys {
            let helper =
                config.cred_helpers.get(key).or(Some(&config.creds_store)).filter(|name| !name.is_empty());
            if let Some(helper) = helper
                && let Some(login) = ask_helper(helper, key).await?
            {
                return Ok(Some(login));
            }
        }
        Ok(keys.iter().find_map(|key| config.auths.get(key)).and_then(DockerAuth::login))
    }

    fn read(&self) -> Result<Option<DockerConfig>> {
        let Some(path) = &self.docker_config else { return Ok(None) };
        match fs::metadata(path) {
            Err(_) => return Ok(None),
            Ok(meta) if meta.len() > MAX_CONFIG => {
                return Err(Error::malformed(
                    path.display().to_string(),
                    format!("it has more than {MAX_CONFIG} bytes"),
                ));
            }
            Ok(_) => {}
        }
        let bytes = fs::read(path).map_err(Error::io("cannot read", path))?;
        let config = serde_json::from_slice(&bytes);
        config.map(Some).map_err(|error| Error::malformed(path.display().to_string(), error.to_string()))
    }
}

/// The names under which a registry's login may be kept.
fn keys(registry: &str) -> Vec<String> {
    let mut keys = vec![registry.to_owned(), format!("https://{registry}"), format!("http://{registry}")];
    if registry == DEFAULT_REGISTRY {
        keys.insert(0, DOCKER_KEY.to_owned());
        keys.push("index.docker.io".to_owned());
    }
    keys
}

impl DockerAuth {
    fn login(&self) -> Option<Login> {
        if !self.identitytoken.is_empty() {
            return Some(Login::Identity(self.identitytoken.clone()));
        }
        let pair =
            BASE64_STANDARD.decode(self.auth.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        if let Some((user, password)) = pair.as_deref().and_then(|pair| pair.split_once(':')) {
            let password = password.trim_end_matches('\0').to_owned();
            return Some(Login::Password { user: user.to_owned(), password });
        }
        let given = !self.username.is_empty();
        given.then(|| Login::Password { user: self.username.clone(), password: self.password.clone() })
    }
}

/// Runs `docker-credential-NAME get`. That it has nothing for us is no error.
async fn ask_helper(name: &str, registry: &str) -> Result<Option<Login>> {
    let program = format!("docker-credential-{name}");
    let wrong = |reason: String| Error::malformed(format!("the credential helper {program}"), reason);
    if !name.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-')) {
        return Err(wrong("its name has impossible characters".to_owned()));
    }
    let mut child = Command::new(&program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| wrong(format!("it cannot be started: {error}")))?;
    let talk = async {
        if let Some(mut stdin) = child.stdin.take() {
            // A helper that ends without reading has nothing for us.
            let _ = stdin.write_all(registry.as_bytes()).await;
        }
        child.wait_with_output().await
    };
    let output = timeout(HELPER_TIMEOUT, talk).await.map_err(|_| wrong("it does not answer".to_owned()))?;
    let output = output.map_err(|error| wrong(error.to_string()))?;
    if !output.status.success() {
        return Ok(None);
    }
    let answer: HelperAnswer =
        serde_json::from_slice(&output.stdout).map_err(|error| wrong(error.to_string()))?;
    Ok(Some(match answer.username.as_str() {
        "<token>" => Login::Identity(answer.secret),
        user => Login::Password { user: user.to_owned(), password: answer.secret },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(json: &str) -> (pontoon_testbed::Scratch, Credentials) {
        let folder = pontoon_testbed::Scratch::new("logins").unwrap();
        let path = folder.path().join("config.json");
        fs::write(&path, json).unwrap();
        (folder, Credentials { logins: BTreeMap::new(), docker_config: Some(path) })
    }

    #[tokio::test]
    async fn reads_what_docker_login_wrote() {
        let (_folder, credentials) = with(
            r#"{"auths":{"https://index.docker.io/v1/":{"auth":"bWU6czpl"},"reg.lan:5000":{"identitytoken":"T"},"empty":{}},
                "HttpHeaders":{"x":"y"}}"#,
        );
        let docker = credentials.find("docker.io").await.unwrap();
        assert_eq!(docker, Some(Login::Password { user: "me".into(), password: "s:e".into() }));
        assert_eq!(credentials.find("reg.lan:5000").await.unwrap(), Some(Login::Identity("T".into())));
        assert_eq!(credentials.find("empty").await.unwrap(), None);
        assert_eq!(credentials.find("other").await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_broken_config_or_helper_is_a_clear_error() {
        let (_folder, credentials) = with("{");
        assert!(credentials.find("x").await.unwrap_err().to_string().contains("config.json"));
        let (_folder, credentials) = with(r#"{"credHelpers":{"x":"../../bin/sh"}}"#);
        assert!(credentials.find("x").await.unwrap_err().to_string().contains("impossible characters"));
        let (_folder, credentials) = with(r#"{"credsStore":"no-such-helper-here"}"#);
        assert!(credentials.find("x").await.unwrap_err().to_string().contains("cannot be started"));
    }
}
