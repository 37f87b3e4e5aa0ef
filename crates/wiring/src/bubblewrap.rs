//! `bwrap`, which runs a root file system in a folder without any engine.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use crate::{
    error::WiringError,
    request::{ImageRef, Mount, Network, RunRequest, path_error},
};

/// Mounted over the root file system, in this order; each must exist in it as a folder.
const OWN: [(&str, &str); 4] =
    [("--proc", "/proc"), ("--dev", "/dev"), ("--tmpfs", "/tmp"), ("--tmpfs", "/run")];

/// Bubblewrap starts from nothing, while the other engines bring these.
const DEFAULT_ENV: [(&str, &str); 2] =
    [("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"), ("HOME", "/tmp")];

/// The paths that must exist in the root file system for bubblewrap to mount on: it is read-only,
/// so that none can be made there. Targets below `/tmp` and `/run` are made on the way.
pub fn mount_points(request: &RunRequest) -> Vec<PathBuf> {
    let mut points: Vec<PathBuf> = OWN.iter().map(|(_, target)| target.into()).collect();
    let targets: Vec<PathBuf> = request.all_mounts().map(|mount| mount.target).collect();
    for target in &targets {
        let below_own = OWN.iter().any(|(_, own)| target.starts_with(own));
        let below_other = targets.iter().any(|other| other != target && target.starts_with(other));
        if !below_own && !below_other {
            points.push(target.clone());
        }
    }
    points
}

pub(crate) fn args(request: &RunRequest) -> Result<Vec<OsString>, WiringError> {
    let ImageRef::RootFs(rootfs) = &request.image else {
        return Err(WiringError::Image {
            value: request.image.to_string(),
            reason: "bwrap runs folders only",
        });
    };
    let mut args = confinement(request.network);
    push(&mut args, &["--ro-bind".as_ref(), rootfs.as_ref(), "/".as_ref()]);
    for (option, target) in OWN {
        push(&mut args, &[option.as_ref(), target.as_ref()]);
    }
    for mount in outermost_first(request)? {
        let option = if mount.read_only { "--ro-bind" } else { "--bind" };
        push(&mut args, &[option.as_ref(), &mount.source, &mount.target]);
    }
    push_env(&mut args, request);
    let workdir = request.workdir.as_deref().unwrap_or(Path::new("/"));
    push(&mut args, &["--chdir".as_ref(), workdir]);
    args.extend(request.engine_args.iter().cloned());
    args.push("--".into());
    args.extend(request.command.iter().cloned());
    Ok(args)
}

/// `--cap-drop ALL` matters when root runs this: bubblewrap then keeps every capability otherwise.
/// `--new-session` keeps the guest from typing into the caller's terminal.
fn confinement(network: Network) -> Vec<OsString> {
    let mut args: Vec<OsString> = vec!["--unshare-all".into()];
    if network == Network::Host {
        args.push("--share-net".into());
    }
    args.extend(["--die-with-parent", "--new-session", "--cap-drop", "ALL"].into_iter().map(OsString::from));
    args
}

/// Bubblewrap mounts in the order of its arguments, so a parent must come before what lies in it.
fn outermost_first(request: &RunRequest) -> Result<Vec<Mount>, WiringError> {
    let mut mounts: Vec<Mount> = request.all_mounts().collect();
    if let Some(mount) = mounts.iter().find(|mount| OWN.iter().any(|(_, own)| mount.target == Path::new(own)))
    {
        let reason = "bwrap puts a file system of its own there";
        return Err(path_error("mount target", &mount.target, reason));
    }
    mounts.sort_by_key(|mount| mount.target.components().count());
    Ok(mounts)
}

fn push_env(args: &mut Vec<OsString>, request: &RunRequest) {
    args.push("--clearenv".into());
    for (name, value) in DEFAULT_ENV {
        args.extend(["--setenv".into(), name.into(), value.into()]);
    }
    for variable in request.all_env() {
        args.extend(["--setenv".into(), variable.name.into(), variable.value]);
    }
}

fn push(args: &mut Vec<OsString>, words: &[&Path]) {
    args.extend(words.iter().map(|word| word.as_os_str().to_owned()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Engine, EnvVar, GpuAccess, command_line};

    fn words(request: &RunRequest) -> Vec<String> {
        let line = command_line(Engine::Bubblewrap, request).unwrap();
        assert_eq!(line.program, "bwrap");
        line.args.into_iter().map(|word| word.into_string().unwrap()).collect()
    }

    fn plain() -> RunRequest {
        RunRequest::new(ImageRef::RootFs("/srv/rootfs".into()), ["/bin/ls", "-l"])
    }

    fn mount(source: &str, target: &str, read_only: bool) -> Mount {
        Mount { source: source.into(), target: target.into(), read_only }
    }

    const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

    #[test]
    fn the_least() {
        let expected = [
            "--unshare-all",
            "--die-with-parent",
            "--new-session",
            "--cap-drop",
            "ALL",
            "--ro-bind",
            "/srv/rootfs",
            "/",
            "--proc",
            "/proc",
            "--dev",
            "/dev",
            "--tmpfs",
            "/tmp",
            "--tmpfs",
            "/run",
            "--clearenv",
            "--setenv",
            "PATH",
            PATH,
            "--setenv",
            "HOME",
            "/tmp",
            "--chdir",
            "/",
            "--",
            "/bin/ls",
            "-l",
        ];
        assert_eq!(words(&plain()), expected);
    }

    #[test]
    fn everything_at_once() {
        let request = RunRequest {
            mounts: vec![mount("/srv/in, side", "/data/inner", false), mount("/srv/data", "/data", true)],
            env: vec![EnvVar { name: "A".into(), value: "b c".into() }],
            network: Network::Host,
            gpu: Some(GpuAccess::new("/run/pontoon/guest/pontoon.sock")),
            workdir: Some("/data".into()),
            engine_args: vec!["--hostname".into(), "guest".into()],
            ..plain()
        };
        let expected = [
            "--unshare-all",
            "--share-net",
            "--die-with-parent",
            "--new-session",
            "--cap-drop",
            "ALL",
            "--ro-bind",
            "/srv/rootfs",
            "/",
            "--proc",
            "/proc",
            "--dev",
            "/dev",
            "--tmpfs",
            "/tmp",
            "--tmpfs",
            "/run",
            "--ro-bind",
            "/srv/data",
            "/data",
            "--bind",
            "/srv/in, side",
            "/data/inner",
            "--ro-bind",
            "/run/pontoon/guest",
            "/run/pontoon",
            "--clearenv",
            "--setenv",
            "PATH",
            PATH,
            "--setenv",
            "HOME",
            "/tmp",
            "--setenv",
            "A",
            "b c",
            "--setenv",
            "PONTOON_HOST",
            "unix:/run/pontoon/pontoon.sock",
            "--chdir",
            "/data",
            "--hostname",
            "guest",
            "--",
            "/bin/ls",
            "-l",
        ];
        assert_eq!(words(&request), expected);
        let points = ["/proc", "/dev", "/tmp", "/run", "/data"].map(PathBuf::from);
        assert_eq!(mount_points(&request), points);
    }

    #[test]
    fn refuses_targets_that_it_uses_itself() {
        let mut request = plain();
        request.mounts = vec![mount("/srv", "/tmp", false)];
        assert_eq!(
            command_line(Engine::Bubblewrap, &request).unwrap_err().to_string(),
            "mount target '/tmp': bwrap puts a file system of its own there"
        );
    }
}
