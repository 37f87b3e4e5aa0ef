//! Who may manage over loopback TCP: real processes in other namespaces, of other users, behind carriers.

use std::process::Command;

use libtest_mimic::Trial;

use crate::scene::{Scene, trial};

pub fn trials() -> Vec<Trial> {
    vec![
        trial("a_process_of_the_operator_may_manage", own),
        trial("a_process_in_a_container_may_not", contained),
        trial("another_user_may_not", other),
        trial("a_program_that_carries_guests_connections_may_not", carrier),
    ]
}

const ASK: &str = "exec 3<>/dev/tcp/127.0.0.1/PORT; printf 'GET /METRICS HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n' >&3; cat <&3";

fn script(scene: &Scene, path: &str) -> String {
    let port = scene.address().rsplit(':').next().unwrap();
    ASK.replace("PORT", port).replace("/METRICS", path)
}

async fn ask(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if text.is_empty() { String::from_utf8_lossy(&output.stderr).into_owned() } else { text }
}

async fn own() {
    let scene = Scene::new().await;
    let answer = ask(Command::new("bash").args(["-c", &script(&scene, "/metrics")])).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// A mount namespace of its own is what every container has, even one with the host's network.
async fn contained() {
    let scene = Scene::new().await;
    for kind in ["--mount", "--pid"] {
        let mut command = Command::new("unshare");
        command.args([kind, "--fork", "bash", "-c", &script(&scene, "/metrics")]);
        let answer = ask(&mut command).await;
        if answer.contains("Operation not permitted") {
            println!("skipped: this machine lets nobody unshare");
            return;
        }
        assert!(answer.starts_with("HTTP/1.1 403"), "{kind}: {answer}");
        assert!(answer.contains("container") && answer.contains("pontoon model"), "{kind}: {answer}");
        let mut command = Command::new("unshare");
        command.args([kind, "--fork", "bash", "-c", &script(&scene, "/v1/models")]);
        assert!(ask(&mut command).await.starts_with("HTTP/1.1 200"), "inference is for everybody");
    }
}

async fn other() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can be another user");
        return;
    }
    let scene = Scene::new().await;
    let mut command = Command::new("setpriv");
    command.args([
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "bash",
        "-c",
        &script(&scene, "/metrics"),
    ]);
    let answer = ask(&mut command).await;
    assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("user 65534"), "{answer}");
}

/// What a virtual machine's user-mode network sends comes from a process of the operator's.
async fn carrier() {
    let scene = Scene::new().await;
    let program = scene.folder.join("slirp4netns");
    std::fs::copy("/bin/bash", &program).unwrap();
    // `cat` would hold the socket too: read with the shell alone.
    let script =
        script(&scene, "/metrics").replace("cat <&3", "while read -r line <&3; do echo \"$line\"; done");
    let answer = ask(Command::new(program).args(["-c", &script])).await;
    assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("carries connections"), "{answer}");
}
