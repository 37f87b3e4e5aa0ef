//! Owns the macOS sandbox profile. **Never run by us on a Mac.**

use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::{Error, Level, Mechanism, Policy, Program, Report, sys};

/// The profile is applied in one piece, by the second stage.
pub struct Entered {
    profile: String,
}

/// Nothing is refused yet: the sandbox of macOS binds all threads at any time, so one stage, after
/// the warm-up, is enough.
pub fn enter(policy: &Policy, _report: &mut Report) -> Result<Entered, Error> {
    let profile = profile(policy);
    Ok(Entered { profile })
}

pub fn seal(entered: Entered, report: &mut Report) -> Result<(), Error> {
    sys::apply_profile(&entered.profile).map_err(|reason| Error::Profile { reason })?;
    report.note(Mechanism::Profile, Level::InForce, "sandbox_init");
    Ok(())
}

/// The program to become. The profile is inherited by it.
pub fn prepare(program: &Program) -> Result<Command, Error> {
    let mut command = Command::new(&program.path);
    command.args(&program.arguments).env_clear().envs(program.environment.iter().cloned());
    Ok(command)
}

pub fn execute(mut ready: Command) -> Error {
    let source = ready.exec();
    Error::Execute { program: ready.get_program().display().to_string(), source }
}

/// Denies by default; leaves what Metal is known to need: reading system libraries, the GPU's user
/// clients and the shader compiler, which runs in a service of the system.
const METAL: &str = r#"(version 1)
(deny default)
(allow process-info* (target self))
(allow signal (target self))
(allow sysctl-read)
(allow iokit-open
    (iokit-user-client-class "AGXDeviceUserClient")
    (iokit-user-client-class "IOSurfaceRootUserClient")
    (iokit-user-client-class "IOAccelDevice2"))
(allow mach-lookup
    (global-name "com.apple.MTLCompilerService")
    (xpc-service-name "com.apple.MTLCompilerService"))
(allow file-read*
    (subpath "/System")
    (subpath "/usr/lib")
    (subpath "/usr/share")
    (literal "/dev/urandom")
    (literal "/dev/null"))
"#;

fn profile(policy: &Policy) -> String {
    let mut text = METAL.to_owned();
    for path in &policy.read_paths {
        // The escapes of Rust's string literals are those of the profile language.
        let path = format!("{:?}", path.display().to_string());
        text.push_str(&format!("(allow file-read* (subpath {path}))\n"));
    }
    for path in &policy.write_paths {
        let path = format!("{:?}", path.display().to_string());
        text.push_str(&format!("(allow file-read* file-write* network-bind (subpath {path}))\n"));
        text.push_str("(allow network-inbound (local unix-socket))\n");
    }
    for path in &policy.execute_paths {
        let path = format!("{:?}", path.display().to_string());
        text.push_str(&format!("(allow process-exec file-read* (literal {path}))\n"));
    }
    text
}
