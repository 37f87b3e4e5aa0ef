//! From what a user types (`-v`, `-e`, the image) to the types of a request.

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use crate::{
    error::WiringError,
    request::{EnvVar, ImageRef, Mount, check_env_name, check_image_name, check_target},
};

/// `SOURCE:TARGET`, `SOURCE:TARGET:ro` or `SOURCE:TARGET:rw`; a relative source is relative to
/// `cwd`.
pub fn parse_mount(text: &OsStr, cwd: &Path) -> Result<Mount, WiringError> {
    let error = |reason| WiringError::Mount { value: text.to_string_lossy().into_owned(), reason };
    let parts: Vec<&[u8]> = text.as_bytes().split(|&byte| byte == b':').collect();
    let (source, target, read_only) = match parts[..] {
        [source, target] | [source, target, b"rw"] => (source, target, false),
        [source, target, b"ro"] => (source, target, true),
        [_, _, _] => return Err(error("the only options are 'ro' and 'rw'")),
        [_] => return Err(error("it names no target")),
        _ => return Err(error("it has too many ':'; a path cannot hold one here")),
    };
    if source.is_empty() {
        return Err(error("its source is empty"));
    }
    let target = path(target);
    if check_target("mount target", &target).is_err() {
        return Err(error("its target must be an absolute path below '/'"));
    }
    Ok(Mount { source: cwd.join(path(source)), target, read_only })
}

/// `NAME=VALUE`; the value may be empty and may hold anything.
pub fn parse_env(text: &OsStr) -> Result<EnvVar, WiringError> {
    let shown = text.to_string_lossy();
    let bytes = text.as_bytes();
    let Some(equals) = bytes.iter().position(|&byte| byte == b'=') else {
        return Err(WiringError::Env { value: shown.into_owned(), reason: "it has no '='" });
    };
    let name = String::from_utf8_lossy(&bytes[..equals]).into_owned();
    check_env_name(&name, &shown)?;
    Ok(EnvVar { name, value: OsStr::from_bytes(&bytes[equals + 1..]).to_owned() })
}

/// A folder if it looks like a path (`/srv/rootfs`, `./rootfs`, `..`), an image's name otherwise.
pub fn parse_image(text: &OsStr, cwd: &Path) -> Result<ImageRef, WiringError> {
    let bytes = text.as_bytes();
    let is_path = bytes.starts_with(b"/")
        || bytes.starts_with(b"./")
        || bytes.starts_with(b"../")
        || matches!(bytes, b"." | b"..");
    if is_path {
        return Ok(ImageRef::RootFs(cwd.join(path(bytes))));
    }
    let Some(name) = text.to_str() else {
        return Err(WiringError::Image {
            value: text.to_string_lossy().into_owned(),
            reason: "a name must be UTF-8",
        });
    };
    check_image_name(name)?;
    Ok(ImageRef::Name(name.to_owned()))
}

fn path(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mount(text: &str) -> Result<Mount, String> {
        parse_mount(OsStr::new(text), Path::new("/home/me")).map_err(|error| error.to_string())
    }

    fn env(text: &str) -> Result<(String, String), String> {
        let variable = parse_env(OsStr::new(text)).map_err(|error| error.to_string())?;
        Ok((variable.name, variable.value.into_string().unwrap()))
    }

    #[test]
    fn mounts() {
        let expected =
            |source: &str, read_only| Mount { source: source.into(), target: "/data".into(), read_only };
        assert_eq!(mount("/srv:/data"), Ok(expected("/srv", false)));
        assert_eq!(mount("/srv:/data:rw"), Ok(expected("/srv", false)));
        assert_eq!(mount("/srv:/data:ro"), Ok(expected("/srv", true)));
        assert_eq!(mount("out:/data"), Ok(expected("/home/me/out", false)));
    }

    #[test]
    fn mount_errors_name_the_value() {
        let tail = "(write SOURCE:TARGET or SOURCE:TARGET:ro)";
        for (text, reason) in [
            ("/srv", "it names no target"),
            (":/data", "its source is empty"),
            ("/srv:data", "its target must be an absolute path below '/'"),
            ("/srv:/", "its target must be an absolute path below '/'"),
            ("/srv:/a/../b", "its target must be an absolute path below '/'"),
            ("/srv:/data:z", "the only options are 'ro' and 'rw'"),
            ("a:b:c:d", "it has too many ':'; a path cannot hold one here"),
        ] {
            assert_eq!(mount(text), Err(format!("mount '{text}': {reason} {tail}")));
        }
    }

    #[test]
    fn variables() {
        assert_eq!(env("A=b=c"), Ok(("A".into(), "b=c".into())));
        assert_eq!(env("A="), Ok(("A".into(), String::new())));
        assert_eq!(env("A").unwrap_err(), "environment 'A': it has no '=' (write NAME=VALUE)");
        assert_eq!(env("=x").unwrap_err(), "environment '=x': the name is empty (write NAME=VALUE)");
        assert!(env("A*=x").unwrap_err().contains("'A*=x'"));
    }

    #[test]
    fn images() {
        let image = |text: &str| parse_image(OsStr::new(text), Path::new("/home/me"));
        assert_eq!(image("debian:12"), Ok(ImageRef::Name("debian:12".to_owned())));
        assert_eq!(image("./rootfs"), Ok(ImageRef::RootFs("/home/me/./rootfs".into())));
        assert_eq!(image("/srv/r"), Ok(ImageRef::RootFs("/srv/r".into())));
        assert!(image("--privileged").is_err());
        assert!(image("").is_err());
    }

    proptest! {
        #[test]
        fn a_mount_that_parses_can_be_used(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(mount) = parse_mount(OsStr::from_bytes(&bytes), Path::new("/cwd")) {
                prop_assert!(mount.source.is_absolute());
                prop_assert!(mount.target.is_absolute());
            }
        }

        #[test]
        fn mount_parts_survive(source in "/[a-z ,=é]{1,12}", target in "/[a-z ,=é]{1,12}", ro: bool) {
            let text = format!("{source}:{target}{}", if ro { ":ro" } else { "" });
            let mount = mount(&text).unwrap();
            prop_assert_eq!(mount.source, PathBuf::from(source));
            prop_assert_eq!(mount.target, PathBuf::from(target));
            prop_assert_eq!(mount.read_only, ro);
        }

        #[test]
        fn any_bytes_as_variable(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(variable) = parse_env(OsStr::from_bytes(&bytes)) {
                let mut again = variable.name.into_bytes();
                again.push(b'=');
                again.extend_from_slice(variable.value.as_bytes());
                prop_assert_eq!(again, bytes);
            }
        }

        #[test]
        fn any_bytes_as_image(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = parse_image(OsStr::from_bytes(&bytes), Path::new("/cwd"));
        }
    }
}
