//! Requests that no engine may be given, and the sentences that say so.

use pontoon_wiring::{Engine, EnvVar, GpuAccess, ImageRef, Mount, Network, RunRequest, command_line};
use proptest::prelude::*;

fn folder() -> RunRequest {
    RunRequest::new(ImageRef::RootFs("/srv/rootfs".into()), ["/bin/true"])
}

fn mount(source: &str, target: &str) -> Mount {
    Mount { source: source.into(), target: target.into(), read_only: false }
}

fn refusal(engine: Engine, change: impl FnOnce(&mut RunRequest)) -> String {
    let mut request = folder();
    change(&mut request);
    command_line(engine, &request).unwrap_err().to_string()
}

#[test]
fn engines_say_what_they_cannot_run() {
    assert_eq!(
        refusal(Engine::Docker, |_| ()),
        "docker cannot run the root file system '/srv/rootfs': choose one of podman, bwrap"
    );
    assert_eq!(
        refusal(Engine::Bubblewrap, |request| {
            request.image = ImageRef::Name("debian:12".into());
        }),
        "bwrap cannot run the image 'debian:12': choose one of podman, docker, nerdctl"
    );
}

#[test]
fn options_cannot_pose_as_an_image() {
    assert_eq!(
        refusal(Engine::Podman, |request| {
            request.image = ImageRef::Name("--privileged".into());
        }),
        "image '--privileged': a name cannot begin with '-'; options go before the image"
    );
    assert_eq!(
        refusal(Engine::Podman, |request| {
            request.image = ImageRef::RootFs("rootfs".into());
        }),
        "root file system 'rootfs': it must be an absolute path"
    );
}

#[test]
fn a_command_is_needed() {
    assert_eq!(
        refusal(Engine::Podman, |request| request.command.clear()),
        "no command given: say what to run in '/srv/rootfs'"
    );
}

#[test]
fn mounts_must_not_collide() {
    assert_eq!(
        refusal(Engine::Podman, |request| {
            request.mounts = vec![mount("/a", "/data"), mount("/b", "/data")];
        }),
        "two mounts have the target '/data'"
    );
    for target in ["/run", "/run/pontoon", "/run/pontoon/x"] {
        assert_eq!(
            refusal(Engine::Podman, |request| {
                request.mounts = vec![mount("/a", target)];
                request.gpu = Some(GpuAccess::new("/srv/pontoon/pontoon.sock"));
            }),
            format!("the mount on '{target}' would cover the GPU socket in '/run/pontoon'")
        );
    }
}

#[test]
fn a_comma_cannot_smuggle_mount_options() {
    for engine in [Engine::Podman, Engine::Docker, Engine::Nerdctl] {
        let mut request = RunRequest::new(ImageRef::Name("debian".into()), ["true"]);
        request.mounts = vec![mount("/srv,dst=/etc", "/data")];
        if engine == Engine::Podman {
            request.image = ImageRef::RootFs("/srv/rootfs".into());
        }
        assert_eq!(
            command_line(engine, &request).unwrap_err().to_string(),
            "mount source '/srv,dst=/etc': container engines take no comma, quote or line break \
             in it"
        );
    }
}

#[test]
fn a_socket_in_a_shared_folder_is_refused() {
    for socket in ["/pontoon.sock", "/run/pontoon.sock", "/tmp/pontoon.sock", "/run/user/1000/pontoon.sock"] {
        assert_eq!(
            refusal(Engine::Bubblewrap, |request| {
                request.gpu = Some(GpuAccess::new(socket));
            }),
            format!(
                "GPU socket '{socket}': its folder is shown to the guest and must hold nothing \
                 but the socket"
            )
        );
    }
}

#[test]
fn the_gpu_variable_cannot_be_set_twice() {
    assert_eq!(
        refusal(Engine::Podman, |request| {
            request.gpu = Some(GpuAccess::new("/srv/pontoon/pontoon.sock"));
            request.env = vec![EnvVar { name: "PONTOON_HOST".into(), value: "tcp:elsewhere".into() }];
        }),
        "environment 'PONTOON_HOST': it is set by GPU access; leave out one of the two (write \
         NAME=VALUE)"
    );
}

#[test]
fn networks_are_named() {
    assert_eq!("none".parse(), Ok(Network::None));
    assert_eq!("host".parse(), Ok(Network::Host));
    assert_eq!(
        "bridge".parse::<Network>().unwrap_err().to_string(),
        "unknown network 'bridge': choose none or host"
    );
}

proptest! {
    /// Whatever the guest's command is, it stands at the end of the line, unchanged.
    #[test]
    fn the_command_is_never_read_as_options(
        command in prop::collection::vec("[^\0]{0,12}", 1..5),
    ) {
        for engine in [Engine::Podman, Engine::Bubblewrap] {
            let request = RunRequest::new(ImageRef::RootFs("/srv/rootfs".into()), command.clone());
            let line = command_line(engine, &request).unwrap();
            let tail: Vec<_> = line.args[line.args.len() - command.len()..]
                .iter()
                .map(|word| word.to_str().unwrap())
                .collect();
            prop_assert_eq!(tail, command.iter().map(String::as_str).collect::<Vec<_>>());
        }
    }

    #[test]
    fn any_mount_is_a_line_or_a_sentence(source in ".{0,20}", target in ".{0,20}", ro: bool) {
        for engine in [Engine::Podman, Engine::Bubblewrap] {
            let mut request = folder();
            request.mounts = vec![Mount { source: source.clone().into(), target: target.clone().into(), read_only: ro }];
            if let Err(error) = command_line(engine, &request) {
                prop_assert!(!error.to_string().is_empty());
            }
        }
    }
}
