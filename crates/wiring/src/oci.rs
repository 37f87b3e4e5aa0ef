//! `podman run`, `docker run` and `nerdctl run`, which share their options.

use std::ffi::OsString;

use crate::{
    error::WiringError,
    request::{EnvVar, ImageRef, Mount, RunRequest, path_error},
};

pub(crate) fn args(request: &RunRequest) -> Result<Vec<OsString>, WiringError> {
    let mut args: Vec<OsString> = vec!["run".into(), "--rm".into()];
    if request.interactive {
        args.push("--interactive".into());
    }
    if request.tty {
        args.push("--tty".into());
    }
    args.extend(["--network".into(), request.network.name().into()]);
    if request.selinux_enforcing && request.gpu.is_some() {
        args.extend(["--security-opt".into(), "label=disable".into()]);
    }
    if let Some(workdir) = &request.workdir {
        args.extend(["--workdir".into(), workdir.into()]);
    }
    for variable in request.all_env() {
        args.extend(["--env".into(), assignment(variable)]);
    }
    for mount in request.all_mounts() {
        args.extend(["--mount".into(), mount_spec(&mount)?]);
    }
    args.extend(request.engine_args.iter().cloned());
    push_image(&mut args, &request.image);
    args.extend(request.command.iter().cloned());
    Ok(args)
}

fn assignment(variable: EnvVar) -> OsString {
    let mut text = OsString::from(variable.name);
    text.push("=");
    text.push(variable.value);
    text
}

/// `--mount` and not `--volume`: with the latter docker makes a missing source, as root, and takes
/// some paths for the names of volumes.
fn mount_spec(mount: &Mount) -> Result<OsString, WiringError> {
    for (what, path) in [("mount source", &mount.source), ("mount target", &mount.target)] {
        let bytes = path.as_os_str().as_encoded_bytes();
        if bytes.iter().any(|byte| matches!(byte, b',' | b'"' | b'\n' | b'\r')) {
            return Err(path_error(what, path, "container engines take no comma, quote or line break in it"));
        }
    }
    let mut spec = OsString::from("type=bind,src=");
    spec.push(&mount.source);
    spec.push(",dst=");
    spec.push(&mount.target);
    if mount.read_only {
        spec.push(",readonly");
    }
    Ok(spec)
}

/// Options end at the first word that is none, so that the command needs no `--`.
fn push_image(args: &mut Vec<OsString>, image: &ImageRef) {
    match image {
        ImageRef::Name(name) => args.push(name.into()),
        // `:O` puts a throw-away overlay on top: without it podman itself leaves files in the
        // folder, and so does the guest.
        ImageRef::RootFs(path) => {
            let mut overlay = path.clone().into_os_string();
            overlay.push(":O");
            args.extend(["--rootfs".into(), overlay]);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{CommandLine, Engine, EnvVar, GpuAccess, ImageRef, Mount, Network, RunRequest, command_line};

    fn words(line: &CommandLine) -> Vec<&str> {
        let program = std::iter::once(&line.program);
        program.chain(&line.args).map(|word| word.to_str().unwrap()).collect()
    }

    fn plain() -> RunRequest {
        RunRequest::new(ImageRef::Name("debian:12".into()), ["ls", "-l"])
    }

    fn everything() -> RunRequest {
        RunRequest {
            mounts: vec![
                Mount { source: "/srv/data".into(), target: "/data".into(), read_only: true },
                Mount { source: "/srv/out put".into(), target: "/out".into(), read_only: false },
            ],
            env: vec![EnvVar { name: "A".into(), value: "b c".into() }],
            network: Network::Host,
            gpu: Some(GpuAccess::new("/run/pontoon/guest/pontoon.sock")),
            interactive: true,
            tty: true,
            workdir: Some("/data".into()),
            engine_args: vec!["--memory=1g".into()],
            ..plain()
        }
    }

    #[test]
    fn the_least() {
        for (engine, program) in
            [(Engine::Podman, "podman"), (Engine::Docker, "docker"), (Engine::Nerdctl, "nerdctl")]
        {
            let line = command_line(engine, &plain()).unwrap();
            assert_eq!(words(&line), [program, "run", "--rm", "--network", "none", "debian:12", "ls", "-l"]);
        }
    }

    #[test]
    fn everything_at_once() {
        for (engine, program) in
            [(Engine::Podman, "podman"), (Engine::Docker, "docker"), (Engine::Nerdctl, "nerdctl")]
        {
            let line = command_line(engine, &everything()).unwrap();
            assert_eq!(
                words(&line),
                [
                    program,
                    "run",
                    "--rm",
                    "--interactive",
                    "--tty",
                    "--network",
                    "host",
                    "--workdir",
                    "/data",
                    "--env",
                    "A=b c",
                    "--env",
                    "PONTOON_HOST=unix:/run/pontoon/pontoon.sock",
                    "--mount",
                    "type=bind,src=/srv/data,dst=/data,readonly",
                    "--mount",
                    "type=bind,src=/srv/out put,dst=/out",
                    "--mount",
                    "type=bind,src=/run/pontoon/guest,dst=/run/pontoon,readonly",
                    "--memory=1g",
                    "debian:12",
                    "ls",
                    "-l",
                ]
            );
        }
    }

    #[test]
    fn podman_runs_a_folder_below_an_overlay() {
        let request = RunRequest::new(ImageRef::RootFs("/srv/root:fs".into()), ["/bin/true"]);
        let line = command_line(Engine::Podman, &request).unwrap();
        assert_eq!(
            words(&line)[1..],
            ["run", "--rm", "--network", "none", "--rootfs", "/srv/root:fs:O", "/bin/true"]
        );
    }

    #[test]
    fn labels_are_disabled_only_for_the_socket_and_only_under_selinux() {
        let has_label = |request: &RunRequest| {
            let line = command_line(Engine::Podman, request).unwrap();
            words(&line).contains(&"label=disable")
        };
        let mut request = plain();
        request.selinux_enforcing = true;
        assert!(!has_label(&request));
        request.gpu = Some(GpuAccess::new("/run/pontoon/guest/pontoon.sock"));
        assert!(has_label(&request));
        request.selinux_enforcing = false;
        assert!(!has_label(&request));
    }

    #[test]
    fn no_line_passes_a_device() {
        for engine in [Engine::Podman, Engine::Docker, Engine::Nerdctl] {
            let line = command_line(engine, &everything()).unwrap();
            assert!(words(&line).iter().all(|word| {
                !word.starts_with("--device")
                    && !word.starts_with("--gpus")
                    && !word.starts_with("--privileged")
                    && !word.contains("/dev/")
            }));
        }
    }
}
