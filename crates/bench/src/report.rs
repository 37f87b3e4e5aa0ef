//! Owns what comes out: the JSON form, which other programs read, and the table, which people do.

use serde::{Serialize, Serializer};

use crate::{Machine, cases::Unit};

/// All measurements of one run. In JSON: `{"machine":{...},"benchmarks":[...]}`.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Where the numbers were taken.
    pub machine: Machine,
    /// The numbers.
    pub benchmarks: Vec<Benchmark>,
}

/// Medians of one benchmark on every target.
#[derive(Clone, Debug, Serialize)]
pub struct Benchmark {
    /// What was measured.
    pub name: &'static str,
    /// `us`, `MiB/s` or `1/s`.
    pub unit: &'static str,
    /// The first target's number.
    pub native: f64,
    /// The other targets' numbers.
    pub bridged: ByTarget,
    /// How the others compare with the first: above 1 is better, whatever the unit.
    pub ratio: ByTarget,
}

/// A number for each target but the first, in the order of the targets; a map in JSON.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ByTarget(pub Vec<(String, f64)>);

impl ByTarget {
    /// The number of one target.
    pub fn get(&self, target: &str) -> Option<f64> {
        self.0.iter().find(|(name, _)| name == target).map(|(_, value)| *value)
    }
}

impl Serialize for ByTarget {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(target, value)| (target, value)))
    }
}

impl Benchmark {
    /// `values` begins with the native one.
    pub(crate) fn new(name: &'static str, unit: Unit, values: impl Iterator<Item = (String, f64)>) -> Self {
        let mut values = values.map(|(target, value)| (target, rounded(value)));
        let native = values.next().map_or(f64::NAN, |(_, value)| value);
        let bridged = ByTarget(values.collect());
        let ratio =
            bridged.0.iter().map(|(target, value)| (target.clone(), rounded(unit.ratio(native, *value))));
        Self { name, unit: unit.name(), native, ratio: ByTarget(ratio.collect()), bridged }
    }
}

/// To four significant digits, which is more than a measurement has.
fn rounded(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    format!("{value:.3e}").parse().unwrap_or(value)
}

impl Report {
    /// The JSON form, for programs.
    pub fn to_json(&self) -> String {
        // Maps with string keys and finite numbers: nothing here can fail to serialise.
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    /// The text form, for people.
    pub fn to_table(&self) -> String {
        let m = &self.machine;
        let [one, five, fifteen] = m.load_average;
        let mut text = format!(
            "{} ({}), {}, {}, wgpu {}\n{}, {} cores, {} MiB, {}, {}, load {one:.2} {five:.2} {fifteen:.2}\n\n",
            m.adapter,
            m.device_type,
            m.backend,
            m.driver,
            m.wgpu,
            m.cpu,
            m.cores,
            m.memory_mib,
            m.os,
            m.kernel,
        );
        text += &align(&self.rows());
        text += "\nus: microseconds for one, less is better; MiB/s and 1/s: more is better.\n";
        text += "ratio: against native; above 1 is better than native.\n";
        for note in &self.machine.notes {
            text += &format!("note: {note}\n");
        }
        text
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let cell = str::to_owned;
        let mut header = vec![cell("benchmark"), cell("unit"), cell("native")];
        if let Some(first) = self.benchmarks.first() {
            header.extend(first.bridged.0.iter().flat_map(|(name, _)| [cell(name), cell("ratio")]));
        }
        let row = |benchmark: &Benchmark| {
            let mut row = vec![cell(benchmark.name), cell(benchmark.unit), number(benchmark.native)];
            let pairs = benchmark.bridged.0.iter().zip(&benchmark.ratio.0);
            row.extend(pairs.flat_map(|((_, value), (_, ratio))| [number(*value), format!("{ratio:.2}x")]));
            row
        };
        std::iter::once(header).chain(self.benchmarks.iter().map(row)).collect()
    }
}

/// Four significant digits without an exponent.
fn number(value: f64) -> String {
    let magnitude = if value == 0.0 { 0 } else { value.abs().log10().floor() as i32 };
    format!("{value:.*}", (3 - magnitude).clamp(0, 6) as usize)
}

/// Columns two spaces apart: the first two to the left, the numbers to the right.
fn align(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column| rows.iter().filter_map(|row| row.get(column)).map(String::len).max().unwrap_or(0);
    let widths: Vec<_> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| match column {
            0 | 1 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        text += cells.collect::<Vec<_>>().join("  ").trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let values = |native, unix, tcp| {
            [("native", native), ("unix", unix), ("tcp", tcp)]
                .map(|(name, value)| (name.to_owned(), value))
                .into_iter()
        };
        let benchmarks = vec![
            Benchmark::new("sync_round_trip", Unit::Micros, values(10.0, 20.0, 40.0)),
            Benchmark::new("upload_1MiB", Unit::MibPerSecond, values(2000.0, 1000.0, 3000.0)),
        ];
        Report { machine: Machine::default(), benchmarks }
    }

    #[test]
    fn json_has_the_documented_form() {
        let json: serde_json::Value = serde_json::from_str(&report().to_json()).unwrap();
        let keys: std::collections::BTreeSet<_> =
            json.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, ["benchmarks", "machine"].into());
        let expected = serde_json::json!([
            {"name": "sync_round_trip", "unit": "us", "native": 10.0,
             "bridged": {"unix": 20.0, "tcp": 40.0}, "ratio": {"unix": 0.5, "tcp": 0.25}},
            {"name": "upload_1MiB", "unit": "MiB/s", "native": 2000.0,
             "bridged": {"unix": 1000.0, "tcp": 3000.0}, "ratio": {"unix": 0.5, "tcp": 1.5}},
        ]);
        assert_eq!(json["benchmarks"], expected);
    }

    #[test]
    fn table_lines_up() {
        let table = report().to_table();
        let rows: Vec<_> = table.lines().skip(3).take(3).collect();
        assert_eq!(rows[0], "benchmark        unit   native   unix  ratio    tcp  ratio");
        assert_eq!(rows[1], "sync_round_trip  us      10.00  20.00  0.50x  40.00  0.25x");
        assert_eq!(rows[2], "upload_1MiB      MiB/s    2000   1000  0.50x   3000  1.50x");
    }

    #[test]
    fn numbers_keep_four_digits() {
        assert_eq!([0.012_345, 1.5, 1234.56].map(rounded), [0.012_35, 1.5, 1235.0]);
        assert_eq!([0.012_345, 1.5, 123_456.0].map(number), ["0.01235", "1.500", "123456"]);
    }
}
