//! The Container Device Interface: a specification by which podman, Docker, containerd and CRI-O give a container
//! what a guest needs (<https://github.com/cncf-tags/container-device-interface/blob/main/SPEC.md>).

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::error::WiringError;
use crate::request::{GpuAccess, is_shared_folder, path_error};

/// Vendor and class of Pontoon's devices.
pub const KIND: &str = "pontoon.dev/gpu";
/// The device that every container may be given.
pub const ALL: &str = "all";
/// The lowest version that knows everything that is used here; older engines refuse newer ones.
const VERSION: &str = "0.5.0";
/// Where the host's folder of programs for guests appears.
const TOOLS: &str = "/opt/pontoon";
/// Port of the model runner in a container: the one that Docker Model Runner's clients know.
pub const MODELS_PORT: u16 = 12434;

/// One device, `pontoon.dev/gpu=NAME`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CdiDevice {
    /// Its name: [`ALL`] or that of a policy.
    pub name: String,
    /// The guests' socket on the host; its folder is what the container gets to see.
    pub socket: PathBuf,
    /// Whether its callers may use the bridge.
    pub bridge: bool,
    /// Whether its callers may use the model runner.
    pub models: bool,
    /// Whether the model runner wants a key of the caller's own, so that none is made up here.
    pub keys: bool,
}

/// What all devices have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CdiCommon {
    /// This program, which engines start as a hook, on the host.
    pub program: PathBuf,
    /// The usual guests' socket, by which the hook finds the daemon.
    pub socket: PathBuf,
    /// A folder of programs and libraries for guests, if there is one.
    pub tools: Option<PathBuf>,
}

/// The specification, as JSON.
///
/// # Errors
/// [`WiringError::Path`] for a socket whose folder holds more than sockets, or a path that is not absolute.
pub fn cdi_spec(common: &CdiCommon, devices: &[CdiDevice]) -> Result<Value, WiringError> {
    absolute("program", &common.program)?;
    let devices = devices.iter().map(|device| one(common, device)).collect::<Result<Vec<_>, _>>()?;
    let mut spec = json!({ "cdiVersion": VERSION, "kind": KIND, "devices": devices });
    if let Some(tools) = &common.tools {
        absolute("folder of guest programs", tools)?;
        spec["containerEdits"] = json!({ "mounts": [mount(tools, Path::new(TOOLS), "exec")] });
    }
    Ok(spec)
}

fn one(common: &CdiCommon, device: &CdiDevice) -> Result<Value, WiringError> {
    absolute("guests' socket", &device.socket)?;
    let folder = device.socket.parent().unwrap_or(Path::new("/"));
    if is_shared_folder(folder) {
        return Err(path_error(
            "guests' socket",
            &device.socket,
            "its folder is shown to containers and must hold nothing but sockets",
        ));
    }
    let access = GpuAccess::new(&device.socket);
    let mut env = Vec::new();
    if device.bridge {
        env.push(format!("{}=unix:{}", GpuAccess::VARIABLE, access.guest_socket().display()));
    }
    let mut edits = json!({ "mounts": [mount(folder, &access.guest_folder, "noexec")] });
    if device.models {
        let host = format!("http://127.0.0.1:{MODELS_PORT}");
        env.push(format!("OPENAI_BASE_URL={host}/v1"));
        env.push(format!("ANTHROPIC_BASE_URL={host}"));
        env.push(format!("OLLAMA_HOST={host}"));
        if !device.keys {
            // The SDKs refuse to start without one; it means nothing here.
            env.extend(["OPENAI_API_KEY=pontoon".to_owned(), "ANTHROPIC_API_KEY=pontoon".to_owned()]);
        }
        edits["hooks"] = json!([hook(common, device)]);
    }
    if !env.is_empty() {
        edits["env"] = json!(env);
    }
    Ok(json!({ "name": device.name, "containerEdits": edits }))
}

/// Opens the model runner's port in the container's own network, before its program starts.
fn hook(common: &CdiCommon, device: &CdiDevice) -> Value {
    let mut arguments =
        vec!["pontoon".to_owned(), "cdi".into(), "hook".into(), "--socket".into(), text(&common.socket)];
    if device.name != ALL {
        arguments.extend(["--device".to_owned(), device.name.clone()]);
    }
    json!({ "hookName": "createRuntime", "path": text(&common.program), "args": arguments, "timeout": 10 })
}

fn mount(from: &Path, to: &Path, exec: &str) -> Value {
    let options = ["rbind", "ro", "nosuid", "nodev", exec];
    json!({ "hostPath": text(from), "containerPath": text(to), "options": options })
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn absolute(what: &'static str, path: &Path) -> Result<(), WiringError> {
    if path.to_str().is_none() {
        return Err(path_error(what, path, "a CDI specification is JSON, so it must be UTF-8"));
    }
    match path.is_absolute() {
        true => Ok(()),
        false => Err(path_error(what, path, "it must be an absolute path")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn common() -> CdiCommon {
        CdiCommon {
            program: "/usr/bin/pontoon".into(),
            socket: "/run/pontoon/guest/pontoon.sock".into(),
            tools: Some("/usr/lib/pontoon/guest".into()),
        }
    }

    fn device(name: &str, socket: &str) -> CdiDevice {
        CdiDevice { name: name.into(), socket: socket.into(), bridge: true, models: true, keys: false }
    }

    #[test]
    fn a_device_gives_all_that_a_guest_needs() {
        let spec = cdi_spec(&common(), &[device(ALL, "/run/pontoon/guest/pontoon.sock")]).unwrap();
        assert_eq!(
            spec,
            json!({
                "cdiVersion": "0.5.0",
                "kind": "pontoon.dev/gpu",
                "devices": [{
                    "name": "all",
                    "containerEdits": {
                        "mounts": [{
                            "hostPath": "/run/pontoon/guest", "containerPath": "/run/pontoon",
                            "options": ["rbind", "ro", "nosuid", "nodev", "noexec"],
                        }],
                        "env": [
                            "PONTOON_HOST=unix:/run/pontoon/pontoon.sock",
                            "OPENAI_BASE_URL=http://127.0.0.1:12434/v1",
                            "ANTHROPIC_BASE_URL=http://127.0.0.1:12434",
                            "OLLAMA_HOST=http://127.0.0.1:12434",
                            "OPENAI_API_KEY=pontoon",
                            "ANTHROPIC_API_KEY=pontoon",
                        ],
                        "hooks": [{
                            "hookName": "createRuntime", "path": "/usr/bin/pontoon", "timeout": 10,
                            "args": ["pontoon", "cdi", "hook", "--socket", "/run/pontoon/guest/pontoon.sock"],
                        }],
                    },
                }],
                "containerEdits": { "mounts": [{
                    "hostPath": "/usr/lib/pontoon/guest", "containerPath": "/opt/pontoon",
                    "options": ["rbind", "ro", "nosuid", "nodev", "exec"],
                }] },
            })
        );
    }

    #[test]
    fn a_policys_device_gives_what_the_policy_gives() {
        let mut batch = device("batch", "/run/pontoon/guest-devices/batch/pontoon.sock");
        batch.models = false;
        let mut words = device("words", "/run/pontoon/guest-devices/words/pontoon.sock");
        (words.bridge, words.keys) = (false, true);
        let spec = cdi_spec(&common(), &[batch, words]).unwrap();
        let edits = |at: usize| &spec["devices"][at]["containerEdits"];
        assert_eq!(edits(0)["env"], json!(["PONTOON_HOST=unix:/run/pontoon/pontoon.sock"]));
        assert!(edits(0).get("hooks").is_none());
        let env: Vec<&str> = edits(1)["env"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        assert!(env.iter().all(|one| !one.contains("KEY=") && !one.starts_with("PONTOON_HOST")), "{env:?}");
        let args: Vec<&str> =
            edits(1)["hooks"][0]["args"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        assert!(args.ends_with(&["--device", "words"]), "{args:?}");
    }

    #[test]
    fn a_folder_with_other_files_is_not_shown_to_containers() {
        let error = cdi_spec(&common(), &[device(ALL, "/tmp/pontoon.sock")]).unwrap_err().to_string();
        assert!(error.contains("'/tmp/pontoon.sock'") && error.contains("nothing but sockets"), "{error}");
        assert!(cdi_spec(&common(), &[device(ALL, "guest/pontoon.sock")]).is_err());
    }
}
