//! Policies: what the operator gives to which callers. Pure: facts in, verdict out.

use serde::{Deserialize, Serialize};
use wildmatch::WildMatch;

use crate::{Facts, Via};

/// One `[[policies]]` of the configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Name, for logs and `pontoon ps`; with `device`, also the name of the CDI device.
    pub name: String,
    /// Whether there is a CDI device `pontoon.dev/gpu=NAME` with a socket of its own. Who comes by it gets this
    /// policy or nothing; who comes by another socket never gets it.
    #[serde(default)]
    pub device: bool,
    /// Whom it is for: all that is set must hold.
    #[serde(default, rename = "match")]
    pub callers: Match,
    /// Whom limits count for; by default each container, user, machine or token for itself.
    #[serde(default)]
    pub tenant: Option<String>,
    /// Whether these callers may use the bridge.
    #[serde(default = "yes")]
    pub bridge: bool,
    /// Whether these callers may use the model runner.
    #[serde(default = "yes")]
    pub models: bool,
    /// The models that they may use, as patterns with `*`; all where not set.
    #[serde(default)]
    pub allowed_models: Option<Vec<String>>,
    /// Only adapters whose name contains this text (any case) are offered to them.
    #[serde(default)]
    pub adapter: Option<String>,
    /// Share of a model's turns, 1 to 1000.
    #[serde(default)]
    pub weight: Option<u32>,
    /// Limits in place of those of `[limits]`.
    #[serde(default)]
    pub limits: PolicyLimits,
}

fn yes() -> bool {
    true
}

/// Whom a policy is for. Texts are patterns: `*` stands for any letters, `?` for one.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Match {
    /// The container's name; or its id, as 12 or 64 hexadecimal digits.
    pub container: Option<String>,
    /// The container's image.
    pub image: Option<String>,
    /// The container's Compose project.
    pub project: Option<String>,
    /// The container's Compose service.
    pub service: Option<String>,
    /// The user of the calling process, outside of containers.
    pub uid: Option<u32>,
    /// The virtual machine's vsock context id.
    pub vm: Option<u32>,
    /// The tenant of the caller's token.
    pub token: Option<String>,
}

/// Limits of a policy's callers, in place of those of `[limits]`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PolicyLimits {
    /// Bytes of GPU memory of one session.
    pub memory_bytes: Option<u64>,
    /// Objects of one session.
    pub objects: Option<u64>,
    /// Upload bytes of one session that wait for a submission.
    pub bytes_in_flight: Option<u64>,
    /// Seconds that one submission may run.
    pub submission_seconds: Option<u64>,
    /// Sessions of one tenant at once.
    pub sessions_per_tenant: Option<usize>,
}

impl Match {
    fn holds(&self, facts: &Facts) -> bool {
        let container = facts.container.as_ref();
        let of =
            |get: fn(&crate::Container) -> &Option<String>| container.and_then(|one| get(one).as_deref());
        let like = |pattern: &Option<String>, text: Option<&str>| match pattern {
            None => true,
            Some(pattern) => text.is_some_and(|text| WildMatch::new(pattern).matches(text)),
        };
        // An id is meant only where one is written: a pattern for names would fit strangers' ids by chance.
        let by_id = self.container.as_deref().filter(|text| is_id(text));
        let named = by_id.is_some_and(|id| container.is_some_and(|one| one.id.starts_with(id)))
            || like(&self.container, of(|one| &one.name));
        named
            && like(&self.image, of(|one| &one.image))
            && like(&self.project, of(|one| &one.project))
            && like(&self.service, of(|one| &one.service))
            && like(&self.token, facts.token.as_deref())
            && self.uid.is_none_or(|uid| facts.uid == Some(uid) && container.is_none())
            && self.vm.is_none_or(|vm| facts.via == Via::Vsock(vm))
    }
}

/// Whether a text is an id of a container, whole or as engines print it.
fn is_id(text: &str) -> bool {
    matches!(text.len(), 12 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

impl Policy {
    /// Whether these callers may use a model, by any of its names.
    pub fn allows_model<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> bool {
        let Some(patterns) = &self.allowed_models else { return true };
        let patterns: Vec<WildMatch> = patterns.iter().map(|pattern| WildMatch::new(pattern)).collect();
        names.into_iter().any(|name| patterns.iter().any(|pattern| pattern.matches(name)))
    }
}

/// What the policies say to a caller.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Verdict<'a> {
    /// No policy is about it: what holds for everybody.
    Everybodys,
    /// This policy.
    Policy(&'a Policy),
    /// It came by a device's socket and is not one of those that the device is for.
    Stranger(&'a str),
}

/// The policy of a caller: the device's by whose socket it came, else the first without a device that is for it.
pub fn decide<'a>(policies: &'a [Policy], facts: &'a Facts) -> Verdict<'a> {
    if let Some(device) = &facts.device {
        let policy = policies.iter().find(|policy| policy.device && policy.name == *device);
        return match policy.filter(|policy| policy.callers.holds(facts)) {
            Some(policy) => Verdict::Policy(policy),
            None => Verdict::Stranger(device),
        };
    }
    match policies.iter().find(|policy| !policy.device && policy.callers.holds(facts)) {
        Some(policy) => Verdict::Policy(policy),
        None => Verdict::Everybodys,
    }
}

/// What is wrong with policies that are well-formed.
///
/// # Errors
/// One sentence with the key, its value and the limit.
pub fn check(policies: &[Policy]) -> Result<(), String> {
    for (at, policy) in policies.iter().enumerate() {
        let name = &policy.name;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let bounded = (1..=63).contains(&name.len()) && name.chars().all(plain);
        let ends = name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && name.ends_with(|c: char| c.is_ascii_alphanumeric());
        if !bounded || !ends {
            return Err(format!(
                "policies.name is '{name}'; it needs 1 to 63 letters, digits, '-', '_' or '.', a letter or digit at both ends"
            ));
        }
        if policy.device && name == "all" {
            return Err("policies.name is 'all', which is the CDI device of the usual socket".into());
        }
        if policies[..at].iter().any(|earlier| earlier.name == *name) {
            return Err(format!("policies.name '{name}' is there twice"));
        }
        if policy.tenant.as_ref().is_some_and(|tenant| tenant.is_empty() || tenant.len() > 64) {
            return Err(format!("policies.tenant of '{name}' needs 1 to 64 bytes"));
        }
        if let Some(vm) = policy.callers.vm.filter(|vm| *vm < 3) {
            return Err(format!("policies.match.vm of '{name}' is {vm}; virtual machines have 3 or more"));
        }
        if let Some(weight) = policy.weight.filter(|weight| !(1..=1000).contains(weight)) {
            return Err(format!("policies.weight of '{name}' is {weight}; it must be 1 to 1000"));
        }
        let limits = &policy.limits;
        let zero = [
            ("objects", limits.objects == Some(0)),
            ("submission_seconds", limits.submission_seconds == Some(0)),
            ("sessions_per_tenant", limits.sessions_per_tenant == Some(0)),
        ];
        if let Some((key, _)) = zero.iter().find(|(_, zero)| *zero) {
            return Err(format!(
                "policies.limits.{key} of '{name}' is 0, the minimum is 1; `bridge = false` closes the bridge"
            ));
        }
        if let Some(seconds) = limits.submission_seconds.filter(|seconds| *seconds > 86_400) {
            return Err(format!(
                "policies.limits.submission_seconds of '{name}' is {seconds}, the maximum is 86400 (a day)"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Container;

    fn policy(name: &str, callers: Match) -> Policy {
        Policy {
            name: name.into(),
            device: false,
            callers,
            tenant: None,
            bridge: true,
            models: true,
            allowed_models: None,
            adapter: None,
            weight: None,
            limits: PolicyLimits::default(),
        }
    }

    fn facts(name: &str, image: &str) -> Facts {
        let container = Container {
            id: "ab".repeat(32),
            name: Some(name.into()),
            image: Some(image.into()),
            ..Container::default()
        };
        Facts { uid: Some(0), container: Some(container), ..Facts::default() }
    }

    #[test]
    fn the_first_policy_that_fits_holds() {
        let policies = [
            policy("trainers", Match { container: Some("train-*".into()), ..Match::default() }),
            policy("acme", Match { image: Some("*/acme/*".into()), ..Match::default() }),
        ];
        let name = |facts: &Facts| match decide(&policies, facts) {
            Verdict::Policy(policy) => policy.name.clone(),
            other => format!("{other:?}"),
        };
        assert_eq!(name(&facts("train-1", "docker.io/acme/x")), "trainers");
        assert_eq!(name(&facts("web", "docker.io/acme/x")), "acme");
        assert_eq!(name(&facts("web", "docker.io/other/x")), "Everybodys");
        let mut unknown = facts("", "");
        unknown.container = Some(Container::unknown(&"ab".repeat(32)));
        assert_eq!(name(&unknown), "Everybodys", "what no engine confirms does not match");
        assert_eq!(name(&Facts { uid: Some(0), ..Facts::default() }), "Everybodys");
    }

    #[test]
    fn ids_and_users_are_meant_exactly() {
        let holds = |callers: Match, facts: &Facts| policy("p", callers).callers.holds(facts);
        let container = facts("web", "x");
        let by = |text: &str| Match { container: Some(text.into()), ..Match::default() };
        assert!(holds(by("abababababab"), &container) && holds(by(&"ab".repeat(32)), &container));
        assert!(!holds(by("a*"), &container), "a pattern is for names");
        let root = Match { uid: Some(0), ..Match::default() };
        assert!(!holds(root.clone(), &container), "root in a container is not the host's");
        assert!(holds(root, &Facts { uid: Some(0), ..Facts::default() }));
    }

    #[test]
    fn a_devices_socket_is_for_its_own_callers_alone() {
        let mut batch = policy("batch", Match { container: Some("job-*".into()), ..Match::default() });
        batch.device = true;
        let policies = [batch];
        let at = |device: Option<&str>, name: &str| {
            let mut facts = facts(name, "x");
            facts.device = device.map(str::to_owned);
            match decide(&policies, &facts) {
                Verdict::Policy(policy) => policy.name.clone(),
                Verdict::Everybodys => "everybody's".into(),
                Verdict::Stranger(device) => format!("stranger to {device}"),
            }
        };
        assert_eq!(at(Some("batch"), "job-7"), "batch");
        assert_eq!(at(Some("batch"), "thief"), "stranger to batch");
        assert_eq!(at(Some("gone"), "job-7"), "stranger to gone", "a device that is no longer configured");
        assert_eq!(at(None, "job-7"), "everybody's", "the usual socket never leads to a device's policy");
    }

    #[test]
    fn models_are_allowed_by_any_of_their_names() {
        let mut policy = policy("p", Match::default());
        assert!(policy.allows_model(["x"]));
        policy.allowed_models = Some(vec!["ai/*".into(), "demo/toy:latest".into()]);
        assert!(policy.allows_model(["docker.io/ai/x:latest", "ai/x:latest"]));
        assert!(!policy.allows_model(["demo/other:latest"]));
        policy.allowed_models = Some(Vec::new());
        assert!(!policy.allows_model(["x"]));
    }

    #[test]
    fn impossible_policies_are_named() {
        let wrong = |change: fn(&mut Policy)| {
            let mut one = policy("p", Match::default());
            change(&mut one);
            check(&[one]).unwrap_err()
        };
        assert!(wrong(|one| one.name = "a b".into()).contains("'a b'"));
        assert!(wrong(|one| one.weight = Some(0)).contains("is 0; it must be 1 to 1000"));
        assert!(wrong(|one| one.limits.objects = Some(0)).contains("policies.limits.objects of 'p' is 0"));
        let twice = [policy("p", Match::default()), policy("p", Match::default())];
        assert!(check(&twice).unwrap_err().contains("there twice"));
    }
}
