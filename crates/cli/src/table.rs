//! Tables for people: aligned columns, and amounts with units.

/// Prints rows under headings, aligned; nothing but the headings where there are no rows.
pub fn print(headings: &[&str], rows: &[Vec<String>]) {
    let width = |column: usize| {
        rows.iter().map(|row| row[column].chars().count()).chain([headings[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..headings.len()).map(width).collect();
    let line = |cells: &[String]| {
        let padded = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        println!("{}", padded.collect::<Vec<_>>().join("  ").trim_end());
    };
    line(&headings.iter().map(ToString::to_string).collect::<Vec<_>>());
    rows.iter().for_each(|row| line(row));
}

/// A number of bytes, with three digits and a unit.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit < UNITS.len() - 1 {
        value /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{count} B"),
        _ if value < 10.0 => format!("{value:.2} {}", UNITS[unit]),
        _ if value < 100.0 => format!("{value:.1} {}", UNITS[unit]),
        _ => format!("{value:.0} {}", UNITS[unit]),
    }
}

/// Seconds, as people say them.
pub fn seconds(seconds: f64) -> String {
    match seconds {
        s if s < 100.0 => format!("{s:.1}s"),
        s if s < 6000.0 => format!("{:.0}m{:02.0}s", (s / 60.0).floor(), s % 60.0),
        s => format!("{:.0}h{:02.0}m", (s / 3600.0).floor(), (s / 60.0).floor() % 60.0),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn amounts_read_well() {
        let bytes = [0, 1023, 1024, 150 << 20, 4 << 30].map(super::bytes);
        assert_eq!(bytes, ["0 B", "1023 B", "1.00 KiB", "150 MiB", "4.00 GiB"]);
        assert_eq!([1.25, 150.0, 7260.0].map(super::seconds), ["1.2s", "2m30s", "2h01m"]);
    }
}
