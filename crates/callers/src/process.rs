//! What `/proc` says of a process.

use crate::Container;

/// The name that a process goes by, fit to be printed.
pub fn name(pid: i32) -> String {
    let name = read(pid, "comm");
    match name.trim() {
        "" => "?".into(),
        name => name.replace(char::is_control, "?"),
    }
}

/// The id of the container that a process is in, unless it is the one that Pontoon itself is in.
pub fn foreign_container(pid: i32) -> Option<String> {
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let groups = read(pid, "cgroup");
    let id = Container::id_in(&groups)?;
    (Container::id_in(&own) != Some(id)).then(|| id.to_owned())
}

fn read(pid: i32, file: &str) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default()
}
