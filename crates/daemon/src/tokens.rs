//! Tokens that the operator has given out (`pontoon token`), kept in the data folder: of each only its SHA-256, so that
//! who reads the file cannot use it.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::Error;

/// Bytes of a secret.
const SECRET: usize = 24;
/// Longest time that a token may hold: ten years.
const MAX_LASTS: Duration = Duration::from_secs(10 * 365 * 86_400);
/// Tokens that may be there at once.
const MAX_TOKENS: usize = 10_000;

/// A token, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issued {
    /// Its name, by which it is listed and taken back; also the first part of its secret.
    pub id: String,
    /// Whom it stands for.
    pub tenant: String,
    /// Seconds since 1970 when it was made.
    pub created: u64,
    /// Seconds since 1970 from when on it is void; never, if not set.
    pub expires: Option<u64>,
    /// SHA-256 of the whole secret, in hexadecimal digits.
    sha256: String,
}

/// The file of tokens. What others write to it is seen at the next question.
#[derive(Debug, Default)]
pub struct Tokens {
    path: PathBuf,
    read: Mutex<(Option<Stamp>, Arc<Vec<Issued>>)>,
}

/// How long an expired token is remembered, so that who presents it is told so.
const REMEMBERED: Duration = Duration::from_secs(7 * 24 * 3600);

/// When and as what the file was read.
type Stamp = (SystemTime, u64, u64);

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Issued {
    /// Whether it is void by now.
    pub fn expired(&self, now: SystemTime) -> bool {
        self.expires.is_some_and(|end| end <= seconds(now))
    }
}

impl Tokens {
    /// The tokens in `tokens.json` of a folder.
    pub fn in_folder(folder: &Path) -> Self {
        Self { path: folder.join("tokens.json"), read: Mutex::default() }
    }

    /// All of them, the void ones included.
    ///
    /// # Errors
    /// [`Error::Io`] where the file is there and cannot be read.
    pub fn list(&self) -> Result<Arc<Vec<Issued>>, Error> {
        use std::os::unix::fs::MetadataExt;
        let failed = |error| Error::io(format!("reading {}", self.path.display()))(error);
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = match std::fs::metadata(&self.path) {
            Ok(found) => Some((found.modified().map_err(failed)?, found.len(), found.ino())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed(error)),
        };
        if read.0 != stamp || stamp.is_none() {
            let tokens = match stamp {
                Some(_) => serde_json::from_slice(&std::fs::read(&self.path).map_err(failed)?)
                    .map_err(|error| failed(error.into()))?,
                None => Vec::new(),
            };
            *read = (stamp, Arc::new(tokens));
        }
        Ok(read.1.clone())
    }

    /// Makes a token; the secret is not kept and cannot be shown again. Without a tenant it stands for one of its own,
    /// `token:` and its id.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Config`] for a tenant's name that is none.
    pub fn create(
        &self,
        tenant: Option<&str>,
        lasts: Option<Duration>,
        now: SystemTime,
    ) -> Result<(Issued, String), Error> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.:@".contains(c);
        if let Some(tenant) = tenant
            && (!(1..=64).contains(&tenant.len()) || !tenant.chars().all(plain))
        {
            let message = format!("'{tenant}' needs 1 to 64 letters, digits, '-', '_', '.', ':' or '@'");
            return Err(Error::Config { path: "tenant".into(), message });
        }
        if let Some(lasts) = lasts.filter(|lasts| lasts.as_secs() == 0 || *lasts > MAX_LASTS) {
            let message =
                format!("{} s; a token holds from one second to ten years (3650d)", lasts.as_secs());
            return Err(Error::Config { path: "expires".into(), message });
        }
        let mut random = [0; 4 + SECRET];
        getrandom::fill(&mut random).map_err(|error| Error::io("random bytes")(error.into()))?;
        let id = hexadecimal(&random[..4]);
        let secret = format!("{id}.{}", hexadecimal(&random[4..]));
        let issued = Issued {
            tenant: tenant.map_or_else(|| format!("token:{id}"), str::to_owned),
            id,
            created: seconds(now),
            expires: lasts.map(|lasts| seconds(now).saturating_add(lasts.as_secs())),
            sha256: hexadecimal(&Sha256::digest(&secret)),
        };
        let added = issued.clone();
        self.change(move |tokens| {
            tokens.retain(|token| !token.expired(now.checked_sub(REMEMBERED).unwrap_or(now)));
            tokens.push(added);
            match tokens.len() > MAX_TOKENS {
                true => Err(format!(
                    "there are {MAX_TOKENS} tokens, the limit: take some back with `pontoon token rm`"
                )),
                false => Ok(()),
            }
        })?;
        Ok((issued, secret))
    }

    /// Takes a token back; sessions that it began go on.
    ///
    /// # Errors
    /// [`Error::Config`] where there is none of that id, [`Error::Io`].
    pub fn remove(&self, id: &str) -> Result<(), Error> {
        self.change(|tokens| {
            let before = tokens.len();
            tokens.retain(|token| token.id != id);
            match tokens.len() == before {
                // What was given may be a secret: it is not repeated.
                true if id.len() != 8 => {
                    Err("that is no token's id: ids have eight digits, and `pontoon token ls` lists them"
                        .into())
                }
                true => Err(format!("there is no token '{id}'; `pontoon token ls` lists them")),
                false => Ok(()),
            }
        })
    }

    /// The tenant of a secret. Every token is compared, each in a time that does not depend on where it differs.
    ///
    /// # Errors
    /// Why it leads nowhere, for who presented it.
    pub fn tenant_of(&self, secret: &str, now: SystemTime) -> Result<Option<String>, String> {
        let tokens = self.list().map_err(|error| {
            log::error!("{error}");
            "the host cannot read its tokens; its log says why".to_owned()
        })?;
        let presented = hexadecimal(&Sha256::digest(secret));
        let found = tokens.iter().fold(None, |found, token| {
            if bool::from(token.sha256.as_bytes().ct_eq(presented.as_bytes())) { Some(token) } else { found }
        });
        match found {
            Some(token) if token.expired(now) => {
                Err(format!("the token {} has expired: ask the host's operator for a new one", token.id))
            }
            found => Ok(found.map(|token| token.tenant.clone())),
        }
    }

    /// Reads, changes and writes the file, alone.
    fn change(&self, change: impl FnOnce(&mut Vec<Issued>) -> Result<(), String>) -> Result<(), Error> {
        let failed = |error| Error::io(format!("writing {}", self.path.display()))(error);
        let folder = self.path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).map_err(failed)?;
        let lock = self.path.with_extension("lock");
        let lock =
            std::fs::File::options().create(true).append(true).mode(0o600).open(lock).map_err(failed)?;
        lock.lock().map_err(failed)?;
        let mut tokens = (*self.list()?).clone();
        change(&mut tokens).map_err(|message| Error::Config { path: "token".into(), message })?;
        let new = self.path.with_extension("new");
        let mut file = std::fs::File::options()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&new)
            .map_err(failed)?;
        let text = serde_json::to_vec_pretty(&tokens).map_err(|error| failed(error.into()))?;
        file.write_all(&text).and_then(|()| file.sync_all()).map_err(failed)?;
        std::fs::rename(&new, &self.path).map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_expire_and_go() {
        let folder = std::env::temp_dir().join(format!("pontoon-tokens-{}", std::process::id()));
        let (here, daemon) = (Tokens::in_folder(&folder), Tokens::in_folder(&folder));
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        assert_eq!(daemon.tenant_of("x", now), Ok(None), "no file is no token");
        let (first, secret) = here.create(Some("farm"), None, now).unwrap();
        assert_eq!(daemon.tenant_of(&secret, now), Ok(Some("farm".into())));
        assert_eq!(daemon.tenant_of(&secret[..secret.len() - 1], now), Ok(None));
        assert!(!std::fs::read_to_string(folder.join("tokens.json")).unwrap().contains(&secret));
        let (_, brief) = here.create(Some("guest"), Some(Duration::from_secs(60)), now).unwrap();
        let later = now + Duration::from_secs(60);
        assert_eq!(daemon.tenant_of(&brief, now), Ok(Some("guest".into())));
        assert!(daemon.tenant_of(&brief, later).unwrap_err().contains("has expired"));
        here.create(Some("later"), None, later).unwrap();
        assert!(daemon.tenant_of(&brief, later).unwrap_err().contains("has expired"), "it is remembered");
        here.create(Some("much-later"), None, later + 2 * REMEMBERED).unwrap();
        assert_eq!(daemon.tenant_of(&brief, later), Ok(None), "and then forgotten");
        here.remove(&first.id).unwrap();
        assert_eq!(daemon.tenant_of(&secret, now), Ok(None), "what is taken back is void at once");
        assert!(here.remove(&first.id).unwrap_err().to_string().contains("no token"));
        let forever = Some(Duration::from_secs(u64::MAX));
        assert!(here.create(Some("a"), forever, now).unwrap_err().to_string().contains("ten years"));
        assert!(here.create(Some("a b"), None, now).unwrap_err().to_string().contains("'a b'"));
        std::fs::remove_dir_all(folder).unwrap();
    }
}
