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

/// The control groups of a process; none where it has ended. Beyond Linux there are none, and no containers.
pub fn groups(pid: i32) -> Option<String> {
    Some(read(pid, "cgroup")).filter(|groups| !groups.is_empty() || cfg!(not(target_os = "linux")))
}

/// The id of the container that a process is in, unless it is the one that Pontoon itself is in.
pub fn foreign_container(pid: i32) -> Option<String> {
    foreign_in(&groups(pid)?).map(str::to_owned)
}

/// The same, of the process's control groups.
pub fn foreign_in(groups: &str) -> Option<&str> {
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    Container::id_in(groups).filter(|id| Container::id_in(&own) != Some(id))
}

/// Whether a process is in the same place of the tree of control groups as the first process of a container: a user
/// may name a group of his own like somebody else's container.
pub fn is_in(groups: &str, container: &str, first: i32) -> bool {
    let place = |groups: &str| -> Vec<String> {
        let lines = groups.lines().filter_map(|line| Some(line.split_at(line.find(container)?).0.to_owned()));
        lines.collect()
    };
    let theirs = read(first, "cgroup");
    !place(groups).is_empty() && place(groups) == place(&theirs)
}

fn read(pid: i32, file: &str) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default()
}
