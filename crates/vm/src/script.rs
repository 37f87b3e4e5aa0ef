//! What runs in the machine.

/// Where a machine finds its host's ports.
pub(crate) const HOST: &str = "10.0.2.100";

/// The script that runs a command in the machine, with the variables by which programs find the host; `bridge` is the bridge's
/// address.
pub fn command_script(
    command: &[String],
    bridge: &str,
    variables: &[(String, String)],
    workdir: Option<&str>,
) -> String {
    let quote = |text: &str| format!("'{}'", text.replace('\'', "'\\''"));
    let mut script =
        String::from("#!/bin/sh\nexport PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n");
    let host = [
        ("PONTOON_HOST", bridge.to_owned()),
        ("OPENAI_BASE_URL", format!("http://{HOST}:12434/v1")),
        ("OPENAI_API_KEY", "pontoon".to_owned()),
        ("ANTHROPIC_BASE_URL", format!("http://{HOST}:12434")),
        ("ANTHROPIC_API_KEY", "pontoon".to_owned()),
        ("OLLAMA_HOST", format!("http://{HOST}:12434")),
    ];
    for (name, value) in host.iter().map(|(name, value)| (*name, value)) {
        script.push_str(&format!("export {name}={}\n", quote(value)));
    }
    for (name, value) in variables {
        script.push_str(&format!("export {name}={}\n", quote(value)));
    }
    if let Some(workdir) = workdir {
        script.push_str(&format!("cd {} || exit 127\n", quote(workdir)));
    }
    let words: Vec<String> = command.iter().map(|word| quote(word)).collect();
    script.push_str(&format!("exec {}\n", words.join(" ")));
    script
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_quoted_for_the_machines_shell() {
        let script = command_script(
            &["/bin/echo".into(), "it's".into()],
            "vsock:2:7300",
            &[("A".into(), "b c".into())],
            Some("/x y"),
        );
        assert!(
            script.ends_with("export A='b c'\ncd '/x y' || exit 127\nexec '/bin/echo' 'it'\\''s'\n"),
            "{script}"
        );
        assert!(script.contains("PONTOON_HOST='vsock:2:7300'"));
    }
}
