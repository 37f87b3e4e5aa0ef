//! The host's certificate and key, by which guests on other machines know it: the operator's, or one that is made once
//! and kept in the data folder.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use pontoon_transport::tls::Identity;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::Error;
use crate::config::Listen;

/// The identity of this host. It is made where there is none yet.
///
/// # Errors
/// [`Error::Io`] or [`Error::Config`] with the file.
pub fn of_host(listen: &Listen, data: &Path) -> Result<Identity, Error> {
    if let Some(files) = &listen.certificate {
        return read(&files.certificate, &files.key);
    }
    let folder = data.join("tls");
    let (certificate, key) = (folder.join("certificate.pem"), folder.join("key.pem"));
    if !certificate.exists() {
        make(&folder)?;
    }
    read(&certificate, &key)
}

fn read(certificate: &Path, key: &Path) -> Result<Identity, Error> {
    let wrong = |path: &Path, message: String| Error::Config { path: path.display().to_string(), message };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect);
    let chain = chain.map_err(|error| wrong(certificate, error.to_string()))?;
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| wrong(key, error.to_string()))?;
    Identity::new(chain, secret).map_err(|error| wrong(certificate, error.to_string()))
}

fn make(folder: &Path) -> Result<(), Error> {
    let failed = |error| Error::io(format!("writing to {}", folder.display()))(error);
    // Guests look at the fingerprint alone: name and dates mean nothing.
    let made = rcgen::generate_simple_self_signed(["pontoon".to_owned()])
        .map_err(|error| failed(std::io::Error::other(error)))?;
    std::fs::create_dir_all(folder).map_err(failed)?;
    // Alone: a key of one and a certificate of another would be of no use.
    let lock =
        std::fs::File::options().create(true).append(true).open(folder.join("lock")).map_err(failed)?;
    lock.lock().map_err(failed)?;
    if folder.join("certificate.pem").exists() {
        return Ok(());
    }
    // The certificate comes last: with it, both are there.
    for (name, mode, text) in
        [("key.pem", 0o600, made.signing_key.serialize_pem()), ("certificate.pem", 0o644, made.cert.pem())]
    {
        let new = folder.join(format!(".{name}.{}", std::process::id()));
        let mut options = std::fs::File::options();
        let mut file =
            options.create(true).truncate(true).write(true).mode(mode).open(&new).map_err(failed)?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
        std::fs::rename(&new, folder.join(name)).map_err(failed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_made_once_and_kept_private() {
        use std::os::unix::fs::PermissionsExt;
        let data = std::env::temp_dir().join(format!("pontoon-identity-{}", std::process::id()));
        let first = of_host(&Listen::default(), &data).unwrap();
        assert_eq!(of_host(&Listen::default(), &data).unwrap().fingerprint(), first.fingerprint());
        let key = std::fs::metadata(data.join("tls/key.pem")).unwrap();
        assert_eq!(key.permissions().mode() & 0o777, 0o600);
        std::fs::write(data.join("tls/certificate.pem"), "nonsense").unwrap();
        assert!(of_host(&Listen::default(), &data).unwrap_err().to_string().contains("certificate.pem"));
        std::fs::remove_dir_all(data).unwrap();
    }
}
