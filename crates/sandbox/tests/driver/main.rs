//! A fully confined process can still drive a GPU: compile shaders, compute, draw, read back.
//!
//! Each case runs in a child process (this program again), because confinement cannot be undone.

#[cfg(target_os = "linux")]
mod workload;

#[cfg(not(target_os = "linux"))]
fn main() {}

#[cfg(target_os = "linux")]
fn main() {
    match std::env::var(linux::ROLE) {
        Ok(role) => linux::child(&role),
        Err(_) => linux::parent(),
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Output, exit};

    use libtest_mimic::{Arguments, Failed, Trial};
    use pontoon_sandbox::{Identity, Level, Mechanism, Policy, QUIET_DRIVER_ENV, enter};

    use crate::workload;

    pub const ROLE: &str = "PONTOON_SANDBOX_TEST_ROLE";
    const NOBODY: u32 = 65534;
    const NO_ADAPTER: i32 = 77;

    /// What a child prints when all went well; an exit status alone could come from anywhere.
    const DONE: &str = "computed and drew while confined";

    pub fn parent() {
        let cases = [
            ("as_it_was_started", "keep", false),
            ("without_sending_descriptors", "receive-only", false),
            ("root_that_becomes_nobody", "become-nobody", true),
            ("started_as_nobody", "nobody", true),
        ];
        let is_root = rustix::process::getuid().is_root();
        let trials = cases.map(|(name, role, needs_root)| {
            let ignored = needs_root && !is_root;
            Trial::test(name, move || case(role)).with_ignored_flag(ignored)
        });
        libtest_mimic::run(&Arguments::from_args(), trials.into()).exit();
    }

    fn case(role: &str) -> Result<(), Failed> {
        let output = spawn(role).map_err(|e| e.to_string())?;
        let text = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        println!("--- {role}\n{text}{errors}");
        match output.status.code() {
            Some(NO_ADAPTER) => {
                println!("SKIPPED: this machine has no Vulkan adapter at all");
                Ok(())
            }
            Some(0) if text.contains(DONE) => Ok(()),
            _ => Err(format!("{}\n{text}{errors}", output.status).into()),
        }
    }

    fn spawn(role: &str) -> std::io::Result<Output> {
        let mut command = Command::new("/proc/self/exe");
        command.env(ROLE, role).envs(QUIET_DRIVER_ENV.iter().copied());
        if role == "nobody" {
            command.uid(NOBODY).gid(NOBODY);
        }
        command.output()
    }

    pub fn child(role: &str) -> ! {
        let policy = policy(role);
        let warm = enter(&policy).unwrap_or_else(|e| panic!("enter: {e}"));
        let Some(adapter) = workload::warm_up() else {
            exit(NO_ADAPTER);
        };
        let report = warm.seal().unwrap_or_else(|e| panic!("seal: {e}"));
        println!("{report}");
        assert_eq!(report.level(Mechanism::Files), Level::InForce);
        assert_eq!(report.level(Mechanism::SystemCalls), Level::InForce);
        workload::run(&adapter);
        println!("{DONE}");
        exit(0)
    }

    fn policy(role: &str) -> Policy {
        let mut policy = Policy::gpu();
        policy.add_driver_environment(|name| std::env::var_os(name));
        policy.parent = Some(std::os::unix::process::parent_id());
        policy.send_descriptors = role != "receive-only";
        if role == "become-nobody" {
            let devices = &policy.device_paths;
            policy.user = Some(Identity::for_devices(NOBODY, NOBODY, devices).unwrap());
        }
        policy
    }
}
