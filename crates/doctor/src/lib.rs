//! What works and what is missing, found out by trying: each part is one [`Finding`], in words for people.

#![forbid(unsafe_code)]

mod gpu;
mod http;
mod models;

use serde::Serialize;

/// How a part is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It works.
    Ok,
    /// It does not work here, and need not.
    Absent,
    /// It works, but not as somebody might expect.
    Warning,
    /// It does not work.
    Failed,
}

/// One part, tried.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    /// Name of the part, one or two words.
    pub part: &'static str,
    /// How it is.
    pub state: State,
    /// What was seen.
    pub seen: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
    /// The measured value, where there is one: microseconds or MiB/s, as `seen` says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
}

impl Finding {
    /// A part that works.
    pub fn ok(part: &'static str, seen: impl Into<String>) -> Self {
        Self { part, state: State::Ok, seen: seen.into(), advice: None, value: None }
    }

    /// A part that works, but.
    pub fn warning(part: &'static str, seen: impl Into<String>, advice: &str) -> Self {
        Self { state: State::Warning, advice: Some(advice.to_owned()), ..Self::ok(part, seen) }
    }

    /// A part that does not work.
    pub fn failed(part: &'static str, seen: impl Into<String>, advice: &str) -> Self {
        Self { state: State::Failed, ..Self::warning(part, seen, advice) }
    }

    /// A part that need not be there, and is not.
    pub fn absent(part: &'static str, seen: impl Into<String>, advice: &str) -> Self {
        Self { state: State::Absent, ..Self::warning(part, seen, advice) }
    }

    fn measured(part: &'static str, seen: String, value: f64) -> Self {
        Self { value: Some(value), ..Self::ok(part, seen) }
    }
}

/// What to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// The bridge.
    pub gpu: bool,
    /// The model runner.
    pub models: bool,
}

/// Tries everything from a guest's side. Takes a second or two where all is well, a few more where hosts do not answer.
pub fn guest(wanted: Wanted) -> Vec<Finding> {
    let mut findings = Vec::new();
    if wanted.gpu {
        findings.extend(gpu::examine());
    }
    if wanted.models {
        findings.extend(models::examine());
    }
    findings
}

/// The worst state among findings.
pub fn worst(findings: &[Finding]) -> State {
    findings.iter().map(|finding| finding.state).max().unwrap_or(State::Ok)
}

/// Findings as lines for people.
pub fn text(findings: &[Finding]) -> String {
    let width = findings.iter().map(|finding| finding.part.len()).max().unwrap_or(0);
    let mut text = String::new();
    for finding in findings {
        let mark = match finding.state {
            State::Ok => "ok     ",
            State::Absent => "no     ",
            State::Warning => "warning",
            State::Failed => "FAILED ",
        };
        text.push_str(&format!("{mark}  {:width$}  {}\n", finding.part, finding.seen));
        if let Some(advice) = &finding.advice {
            text.push_str(&format!("{:9}{:width$}  -> {advice}\n", "", ""));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_line_up_and_the_worst_counts() {
        let findings =
            [Finding::ok("host", "there"), Finding::warning("adapter", "software", "install a driver")];
        assert_eq!(
            text(&findings),
            "ok       host     there\nwarning  adapter  software\n                  -> install a driver\n"
        );
        assert_eq!(worst(&findings), State::Warning);
        assert_eq!(worst(&[]), State::Ok);
    }
}
