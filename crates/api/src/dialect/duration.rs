//! Durations and times as clients write them: Go's `"1h30m"`, seconds, negative for ever; RFC 3339.

use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::call::KeepAlive;
use super::error::DialectError;
use super::json::{Path, wrong};

/// Parses `keep_alive`: seconds as a number, or a Go duration like `"5m"`; anything negative means for ever.
///
/// # Errors
/// Says what was got where it is neither.
pub fn parse_keep_alive(value: &Value) -> Result<KeepAlive, DialectError> {
    let parsed = match value {
        Value::Number(number) => number.as_f64().and_then(seconds),
        Value::String(text) => go_duration(text.trim()),
        _ => None,
    };
    parsed.ok_or_else(|| {
        let at = Path::Key(&Path::Root, "keep_alive");
        wrong(&at, "a number of seconds or a duration like \"5m\", negative for ever", value)
    })
}

/// 100 years.
const CENTURY: Duration = Duration::from_secs(100 * 365 * 86_400);

fn seconds(number: f64) -> Option<KeepAlive> {
    if !number.is_finite() {
        None
    } else if number < 0.0 {
        Some(KeepAlive::Forever)
    } else {
        // Clocks are added to it: what no clock reaches is for ever as well.
        let time = Duration::try_from_secs_f64(number).ok().filter(|time| *time < CENTURY);
        Some(time.map_or(KeepAlive::Forever, KeepAlive::For))
    }
}

/// Go's `time.ParseDuration`: a sign, then numbers with units; a bare number counts as seconds.
fn go_duration(text: &str) -> Option<KeepAlive> {
    let (negative, mut rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let mut total = 0.0;
    if let Ok(number) = rest.parse::<f64>() {
        if !rest.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
            return None;
        }
        (total, rest) = (number, "");
    } else if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        total += number
            * match &rest[..letters] {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                "us" | "µs" | "μs" => 1e-6,
                "ns" => 1e-9,
                _ => return None,
            };
        rest = &rest[letters..];
    }
    seconds(if negative && total > 0.0 { -total } else { total })
}

/// A time as RFC 3339 in UTC with nanoseconds.
pub fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let (days, of_day) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:09}Z", since.subsec_nanos())
}

/// The Gregorian date of a day counted from 1970-01-01. Years begin in March, so that a leap day ends one.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_durations() {
        let parse = |text: &str| parse_keep_alive(&Value::from(text)).ok();
        assert_eq!(parse("1h30m"), Some(KeepAlive::For(Duration::from_secs(5400))));
        assert_eq!(parse("1.5s"), Some(KeepAlive::For(Duration::from_millis(1500))));
        assert_eq!(parse("300"), Some(KeepAlive::For(Duration::from_secs(300))));
        assert_eq!(parse("-1m"), Some(KeepAlive::Forever));
        assert_eq!(parse("0"), Some(KeepAlive::For(Duration::ZERO)));
        assert_eq!(parse("-0s"), Some(KeepAlive::For(Duration::ZERO)));
        for bad in ["", "-", "5 minutes", "5x", "m", "inf", "nan", "1h-5m", "1..5s"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
        assert_eq!(parse_keep_alive(&Value::from(-1)).ok(), Some(KeepAlive::Forever));
        assert_eq!(parse_keep_alive(&Value::from(1e300)).ok(), Some(KeepAlive::Forever));
        assert_eq!(parse_keep_alive(&Value::from(1e19)).ok(), Some(KeepAlive::Forever));
        assert!(parse_keep_alive(&Value::from(true)).is_err());
    }

    #[test]
    fn times_are_gregorian() {
        let at = |secs| rfc3339(SystemTime::UNIX_EPOCH + Duration::from_secs(secs));
        assert_eq!(at(0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(at(951_782_399), "2000-02-28T23:59:59.000000000Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00.000000000Z");
        assert_eq!(at(1_709_251_199), "2024-02-29T23:59:59.000000000Z");
        assert_eq!(at(4_107_542_400), "2100-03-01T00:00:00.000000000Z");
    }
}
