//! The CDI specification of this host's configuration: made, written whole or not at all, and kept up to date.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use pontoon_wiring::{ALL, CdiCommon, CdiDevice, KIND, cdi_spec};
use serde_json::Value;

use crate::{Config, Error, paths};

/// Name of the file in a folder of CDI specifications.
pub const FILE: &str = "pontoon.json";

/// What writing a specification came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// There was none.
    New,
    /// Another took its place.
    Replaced,
    /// The same was there.
    Unchanged,
}

/// The folder where engines look for specifications of this user: `/etc/cdi` for root, else `cdi` in
/// `$XDG_CONFIG_HOME` or `~/.config`.
pub fn folder() -> PathBuf {
    let named = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if rustix::process::geteuid().is_root() {
        return "/etc/cdi".into();
    }
    let home = || named("HOME").unwrap_or_else(|| "/".into()).join(".config");
    named("XDG_CONFIG_HOME").unwrap_or_else(home).join("cdi")
}

/// Where specifications of ours may lie: [`folder`], and the folder for those that go with the system's run.
pub fn places() -> Vec<PathBuf> {
    [folder(), "/var/run/cdi".into()].iter().map(|folder| folder.join(FILE)).collect()
}

/// The devices that a configuration offers: everybody's, and one for each policy that is one.
pub fn devices(config: &Config) -> Vec<CdiDevice> {
    let socket = config.socket();
    let (models, keys) = (config.http.enabled, config.http.require_keys);
    let everybodys = CdiDevice { name: ALL.into(), socket: socket.clone(), bridge: true, models, keys };
    let policies = config.policies.iter().filter(|policy| policy.device).map(|policy| CdiDevice {
        name: policy.name.clone(),
        socket: paths::device_socket(&socket, &policy.name),
        bridge: policy.bridge,
        models: models && policy.models,
        keys,
    });
    std::iter::once(everybodys).chain(policies).collect()
}

/// The specification's text. `program` is this program, as the host's container engines reach it.
///
/// # Errors
/// [`Error::Config`] where a path cannot be shown to containers.
pub fn text(config: &Config, program: &Path) -> Result<String, Error> {
    if let Some(stranger) = config.socket().parent().and_then(paths::other_file) {
        let message = format!(
            "{} lies beside it, and containers get to see the whole folder: give the socket a folder of its own",
            stranger.display()
        );
        return Err(Error::Config { path: "listen.socket".into(), message });
    }
    let common =
        CdiCommon { program: program.to_owned(), socket: config.socket(), tools: guest_tools(program) };
    let spec = cdi_spec(&common, &devices(config))
        .map_err(|error| Error::Config { path: "listen.socket".into(), message: error.to_string() })?;
    let mut text =
        serde_json::to_string_pretty(&spec).map_err(|error| Error::io("writing JSON")(error.into()))?;
    text.push('\n');
    Ok(text)
}

/// Programs for guests lie beside this one, in `guest/`, or in `../lib/pontoon/guest`.
fn guest_tools(program: &Path) -> Option<PathBuf> {
    let folder = program.parent()?;
    let places = [folder.join("guest"), folder.parent()?.join("lib/pontoon/guest")];
    places.into_iter().find(|place| place.join("pontoon-doctor").is_file())
}

/// Writes a specification; engines that read meanwhile see the old one or the new one.
///
/// # Errors
/// [`Error::Io`] with the path.
pub fn write(path: &Path, text: &str) -> Result<Written, Error> {
    let failed = |error| Error::io(format!("writing {}", path.display()))(error);
    let before = std::fs::read(path).ok();
    let kind = |bytes: &Vec<u8>| serde_json::from_slice::<Value>(bytes).ok().map(|spec| spec["kind"] == KIND);
    if before.as_ref().is_some_and(|bytes| kind(bytes) != Some(true)) {
        let message = "it is there, and is no specification of Pontoon's: it is left alone".to_owned();
        return Err(Error::Config { path: path.display().to_string(), message });
    }
    if before.as_deref() == Some(text.as_bytes()) {
        return Ok(Written::Unchanged);
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(failed)?;
    // Engines read every file that ends in .json or .yaml.
    let new = folder.join(format!(".{FILE}.{}.new", std::process::id()));
    let written = std::fs::File::create(&new).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&new, path)?;
        std::fs::File::open(folder)?.sync_all()
    });
    if let Err(error) = written {
        let _ = std::fs::remove_file(&new);
        return Err(failed(error));
    }
    Ok(if before.is_some() { Written::Replaced } else { Written::New })
}

/// Whether a specification was made for the daemon with this guests' socket.
pub fn is_of(text: &str, socket: &Path) -> bool {
    let Ok(spec) = serde_json::from_str::<Value>(text) else { return false };
    let all = spec["devices"].as_array().into_iter().flatten().find(|device| device["name"] == ALL);
    let folder = all.and_then(|device| device["containerEdits"]["mounts"][0]["hostPath"].as_str());
    folder.map(Path::new) == socket.parent()
}

/// Brings the specifications of a daemon that lie on this host up to date; which they are and what came of it.
///
/// # Errors
/// The first that cannot be written.
pub fn refresh(
    config: &Config,
    program: &Path,
    places: &[PathBuf],
) -> Result<Vec<(PathBuf, Written)>, Error> {
    let socket = config.socket();
    let ours = |path: &&PathBuf| std::fs::read_to_string(path).is_ok_and(|text| is_of(&text, &socket));
    places.iter().filter(ours).map(|path| Ok((path.clone(), write(path, &text(config, program)?)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_specification_follows_the_configuration() {
        let folder = std::env::temp_dir().join(format!("pontoon-cdi-{}", std::process::id()));
        let place = folder.join("cdi").join(FILE);
        let mut config = Config::default();
        config.listen.socket = Some("/run/x/guest/pontoon.sock".into());
        let program = Path::new("/usr/bin/pontoon");
        let places = [place.clone(), folder.join("none.json")];
        assert!(refresh(&config, program, &places).unwrap().is_empty(), "none is there yet");
        assert_eq!(write(&place, &text(&config, program).unwrap()).unwrap(), Written::New);
        assert_eq!(refresh(&config, program, &places).unwrap(), [(place.clone(), Written::Unchanged)]);
        let policy = "[[policies]]\nname = 'batch'\ndevice = true";
        config.policies = toml::from_str::<Config>(policy).unwrap().policies;
        assert_eq!(refresh(&config, program, &places).unwrap(), [(place.clone(), Written::Replaced)]);
        assert!(std::fs::read_to_string(&place).unwrap().contains("/run/x/guest-devices/batch"));
        config.listen.socket = Some("/run/y/guest/pontoon.sock".into());
        assert!(refresh(&config, program, &places).unwrap().is_empty(), "another daemon's is left alone");
        assert_eq!(std::fs::read_dir(folder.join("cdi")).unwrap().count(), 1, "nothing else is left there");
        std::fs::remove_dir_all(folder).unwrap();
    }
}
