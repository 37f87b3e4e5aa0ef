//! The bridge's part of `/metrics`, in OpenMetrics: sessions, what they hold and what they have used, by tenant and
//! policy.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, PoisonError};

use pontoon_api::label;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode_registry;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use crate::admin::SessionRow;

/// Tenants with rows of their own; what later ones have used is counted as `other`.
const MAX_TENANTS: usize = 256;

/// Whose it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
struct Labels {
    tenant: String,
    policy: String,
}

/// What sessions have used.
#[derive(Debug, Clone, Copy, Default)]
struct Used {
    sessions: u64,
    commands: u64,
    uploaded: u64,
    named: u64,
    gpu_seconds: f64,
    errors: u64,
}

impl Used {
    fn add(&mut self, row: &SessionRow) {
        // Workers write these numbers, and one that a guest took over writes what it likes.
        self.sessions += 1;
        self.commands = self.commands.saturating_add(row.commands);
        self.uploaded = self.uploaded.saturating_add(row.uploaded_bytes);
        self.named = self.named.saturating_add(row.named_bytes);
        self.gpu_seconds += row.gpu_seconds;
        self.errors = self.errors.saturating_add(row.errors);
    }
}

/// What sessions that are over have used.
#[derive(Debug, Default)]
pub struct Totals(Mutex<BTreeMap<Labels, Used>>);

type Whole = Family<Labels, Counter>;
type Parts = Family<Labels, Counter<f64, AtomicU64>>;

/// The row that `row` counts in: its own while there are not too many.
fn labels(all: &BTreeMap<Labels, Used>, row: &SessionRow) -> Labels {
    let policy = label(row.policy.as_deref().unwrap_or_default());
    let own = Labels { tenant: label(&row.tenant), policy };
    match all.len() < MAX_TENANTS || all.contains_key(&own) {
        true => own,
        false => Labels { tenant: "other".into(), policy: String::new() },
    }
}

impl Totals {
    /// A session is over.
    pub fn ended(&self, row: &SessionRow) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let labels = labels(&all, row);
        all.entry(labels).or_default().add(row);
    }

    /// The text, without an end, from what is over and the sessions that live.
    pub fn text(&self, rows: &[SessionRow]) -> String {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (live, memory) = (Family::<Labels, Gauge>::default(), Family::<Labels, Gauge>::default());
        for row in rows {
            let labels = labels(&all, row);
            live.get_or_create(&labels).inc();
            memory.get_or_create(&labels).inc_by(i64::try_from(row.memory_bytes).unwrap_or(i64::MAX));
            all.entry(labels).or_default().add(row);
        }
        let [sessions, commands, uploaded, named, errors] = [(); 5].map(|()| Whole::default());
        let gpu = Parts::default();
        for (labels, used) in &all {
            for (family, value) in [
                (&sessions, used.sessions),
                (&commands, used.commands),
                (&uploaded, used.uploaded),
                (&named, used.named),
                (&errors, used.errors),
            ] {
                family.get_or_create(labels).inc_by(value);
            }
            gpu.get_or_create(labels).inc_by(used.gpu_seconds);
        }
        let mut registry = Registry::with_prefix("pontoon_bridge");
        registry.register("live_sessions", "Live sessions", live);
        registry.register_with_unit(
            "memory",
            "Memory in buffers and textures of live sessions",
            Unit::Bytes,
            memory,
        );
        registry.register("sessions", "Sessions", sessions);
        registry.register("commands", "Commands", commands);
        registry.register_with_unit("uploaded", "Data that guests have sent", Unit::Bytes, uploaded);
        registry.register_with_unit(
            "named",
            "Data that guests have named instead of sent",
            Unit::Bytes,
            named,
        );
        registry.register_with_unit(
            "gpu",
            "Time during which a session's queue had work",
            Unit::Seconds,
            gpu,
        );
        registry.register("errors", "Commands that were rejected", errors);
        let mut text = String::new();
        match encode_registry(&mut text, &registry) {
            Ok(()) => text,
            Err(error) => format!("# {error}\n"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(tenant: &str, policy: Option<&str>) -> SessionRow {
        let value = serde_json::json!({
            "session": 1, "tenant": tenant, "who": "x", "policy": policy, "program": "p", "transport": "unix",
            "worker": 1, "seconds": 1.0, "memory_bytes": 64, "objects": 1, "gpu_seconds": 0.5, "commands": 10,
            "submissions": 1, "bytes": 5, "uploaded_bytes": 4, "named_bytes": 2, "round_trips": 0, "errors": 1,
        });
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn sessions_count_for_their_tenant_and_policy() {
        let totals = Totals::default();
        totals.ended(&row("farm", Some("night \"shift\"")));
        let text = totals.text(&[row("farm", Some("night \"shift\"")), row("uid:1000", None)]);
        for line in [
            r#"pontoon_bridge_sessions_total{tenant="farm",policy="night \"shift\""} 2"#,
            r#"pontoon_bridge_live_sessions{tenant="farm",policy="night \"shift\""} 1"#,
            r#"pontoon_bridge_memory_bytes{tenant="uid:1000",policy=""} 64"#,
            r#"pontoon_bridge_gpu_seconds_total{tenant="farm",policy="night \"shift\""} 1.0"#,
            r#"pontoon_bridge_named_bytes_total{tenant="farm",policy="night \"shift\""} 4"#,
        ] {
            assert!(text.contains(line), "{line} is missing: {text}");
        }
    }

    #[test]
    fn tenants_are_bounded() {
        let totals = Totals::default();
        (0..2 * MAX_TENANTS).for_each(|at| totals.ended(&row(&format!("t{at}"), None)));
        let text = totals.text(&[]);
        assert!(text.contains(r#"pontoon_bridge_sessions_total{tenant="other",policy=""} 256"#), "{text}");
    }
}
