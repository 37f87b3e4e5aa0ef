//! Podman without root, and a daemon without root: a container whose users are mapped gets the GPU and the port of the
//! models by the same device.

mod common;

use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;
use common::models::variable;
use pontoon_testbed::{Scratch, busybox_rootfs, find_tool, ready};

/// In a mount namespace of its own: a user that the system does not have, with users to map to, and a folder of CDI
/// specifications where podman 4 looks. `$1` is the test's folder, `$2` the user's number.
const SCRIPT: &str = r#"set -e
dir=$1 uid=$2
cp /etc/passwd "$dir/passwd" && echo "rootless:x:$uid:$uid::$dir/home:/bin/sh" >> "$dir/passwd"
echo "rootless:200000:65536" > "$dir/ids"
mount --bind "$dir/passwd" /etc/passwd
touch /etc/subuid /etc/subgid && mount --bind "$dir/ids" /etc/subuid && mount --bind "$dir/ids" /etc/subgid
mkdir -p /etc/cdi && mount --bind "$dir/cdi" /etc/cdi
chown -R "$uid:$uid" "$dir"
export HOME="$dir/home" XDG_RUNTIME_DIR="$dir/run" CONTAINERS_CONF="$dir/containers.conf" PONTOON_DATA="$dir/data"
as="setpriv --reuid $uid --regid $uid --init-groups"
$as "$dir/pontoon" serve --config "$dir/pontoon.toml" --socket "$dir/run/g/pontoon.sock" > "$dir/log" 2>&1 &
daemon=$!
end() {
    kill $daemon 2> /dev/null || true
    kill "$(cat "$dir/run/libpod/tmp/pause.pid" 2> /dev/null)" 2> /dev/null || true
    wait
    cat "$dir/log"
}
trap end EXIT
for wait in $(seq 300); do grep -q "models on unix:$dir/run/g/models.sock" "$dir/log" && break; sleep 0.1; done
$as "$dir/pontoon" cdi generate --output "$dir/cdi/pontoon.json" --config "$dir/pontoon.toml" \
    --socket "$dir/run/g/pontoon.sock" --program "$dir/pontoon"
for user in 0 1000; do
    $as podman --log-level error run --rm --network none --user $user --device pontoon.dev/gpu=all \
        --rootfs "$dir/rootfs" /bin/sh -c 'id -u; cat /proc/self/uid_map; digits --json;
            wget -q -O - $OPENAI_BASE_URL/models; echo " of $(id -u)"'
done
"#;

const USER: u32 = 54321;

/// The folder with all that the script needs.
fn prepare() -> anyhow::Result<(Scratch, PathBuf)> {
    anyhow::ensure!(rustix::process::geteuid().is_root(), "becoming another user needs root");
    for tool in ["podman", "newuidmap", "setpriv", "unshare"] {
        find_tool(tool).with_context(|| format!("{tool} is missing"))?;
    }
    let guests = variable("PONTOON_GUEST_BIN")?;
    let scratch = Scratch::new("rootless")?;
    let dir = scratch.path().to_owned();
    let rootfs = busybox_rootfs(&dir)?;
    std::fs::copy(guests.join("digits"), rootfs.join("bin/digits")).context("the static program digits")?;
    std::fs::copy(env!("CARGO_BIN_EXE_pontoon"), dir.join("pontoon"))?;
    for folder in ["home", "run", "cdi", "data"] {
        std::fs::create_dir_all(dir.join(folder))?;
    }
    let engine = "[engine]\nevents_logger = \"file\"\ncgroup_manager = \"cgroupfs\"\nruntime = \"runc\"\n";
    std::fs::write(dir.join("containers.conf"), engine)?;
    std::fs::write(dir.join("pontoon.toml"), "http.listen = ['127.0.0.1:0']\n")?;
    Ok((scratch, dir))
}

#[test]
fn podman_without_root_gives_mapped_users_the_gpu_and_the_port() {
    let Some(_) = common::Setup::gpu() else { return };
    let (_scratch, dir) = match prepare() {
        Ok(prepared) => prepared,
        Err(reason) => {
            ready(Err(reason));
            return;
        }
    };
    let mut script = Command::new("unshare");
    script.args(["--mount", "sh", "-c", SCRIPT, "sh"]).arg(&dir).arg(USER.to_string());
    let output = script.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let all = format!("{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{all}");
    assert_eq!(said.matches("via Pontoon").count(), 2, "both users compute: {all}");
    for user in [0, 1000] {
        assert!(said.contains(&format!("\"data\":[]}} of {user}\n")), "the port is there for {user}: {all}");
    }
    let map = format!("{:>10} {:>10} {:>10}", 1, 200_000, 65_536);
    assert!(said.contains(&map), "users are mapped: {all}");
    assert!(said.contains("models are in the network of container"), "{all}");
    // Without control groups of its own a container is known by its user, as the host numbers it.
    assert!(said.contains(&format!("tenant uid:{USER}")) && said.contains("tenant uid:200999"), "{all}");
}
