//! Quantities as people write and read them: durations, bytes, rates, and limits that may be absent.
//!
//! Files hold base units (ns, bytes, bit/s, counts); scaled text is for people only. Parsing is used by scenarios
//! and the command line, formatting by reports and the terminal.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A duration in ns, the base unit; one of more than 584 years is that long.
#[must_use]
pub fn ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A limit on a resource: a value, or the kernel's "no limit".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Limit {
    /// At most this many base units.
    Value(u64),
    /// No limit (`max` on cgroup v2, `-1` or a huge number on v1).
    Max,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Limit::Value(value) => write!(f, "{value}"),
            Limit::Max => f.write_str("max"),
        }
    }
}

/// A text that is not the quantity it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Not a duration.
    #[error("`{0}` is not a duration; write a number and a unit, as in 250ms, 1.5s or 2m (units: ns, us, ms, s, m, h)")]
    Duration(String),
    /// Not a byte count.
    #[error("`{0}` is not a byte count; write a number and a unit, as in 4096, 64K, 16MiB or 1G (powers of 1024)")]
    Bytes(String),
    /// Not a limit.
    #[error("`{0}` is not a limit; write a byte count such as 64M, or max")]
    Limit(String),
}

/// Splits `1.5ms` into its number and its unit; `None` when there is no finite, non-negative number.
fn split_number(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.' && c != '_').unwrap_or(text.len());
    let number: f64 = text[..end].replace('_', "").parse().ok()?;
    number.is_finite().then(|| (number, text[end..].trim()))
}

/// Parses `250ms`, `1.5s`, `2m`; the unit is required, so that no one guesses it.
///
/// # Errors
/// When the number or the unit is missing or unknown.
pub fn parse_duration(text: &str) -> Result<Duration, ParseError> {
    let error = || ParseError::Duration(text.to_owned());
    let (number, unit) = split_number(text).ok_or_else(error)?;
    let ns_per_unit = match unit {
        "ns" => 1.0,
        "us" | "µs" => 1e3,
        "ms" => 1e6,
        "s" => 1e9,
        "m" | "min" => 60e9,
        "h" => 3600e9,
        _ => return Err(error()),
    };
    let ns = number * ns_per_unit;
    if ns > 1e18 {
        return Err(error());
    }
    Ok(Duration::from_nanos(ns.round() as u64))
}

/// Parses a byte count; suffixes are powers of 1024 as in docker's flags (`64K`, `64KB` and `64KiB` are the same).
///
/// # Errors
/// When the number is missing, the suffix unknown, or the value does not fit 63 bits.
pub fn parse_bytes(text: &str) -> Result<u64, ParseError> {
    let error = || ParseError::Bytes(text.to_owned());
    let (number, unit) = split_number(text).ok_or_else(error)?;
    let unit = unit.to_ascii_lowercase();
    let shift = match unit.strip_suffix("ib").or_else(|| unit.strip_suffix('b')).unwrap_or(&unit) {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return Err(error()),
    };
    let bytes = number * (1u64 << shift) as f64;
    if bytes >= i64::MAX as f64 {
        return Err(error());
    }
    Ok(bytes.round() as u64)
}

impl FromStr for Limit {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        if text == "max" {
            return Ok(Limit::Max);
        }
        parse_bytes(text).map(Limit::Value).map_err(|_| ParseError::Limit(text.to_owned()))
    }
}

/// Three significant digits, without trailing zeros after a point: `12.3`, `0.5`, `1230`.
#[must_use]
pub fn significant(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    if !value.is_finite() {
        return value.to_string();
    }
    let magnitude = value.abs().log10().floor() as i32;
    let decimals = (2 - magnitude).clamp(0, 9) as usize;
    let text = format!("{value:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

fn scaled(value: f64, step: f64, units: &[&str]) -> String {
    let mut value = value;
    let mut index = 0;
    // 999.6 would print as "1000" with three digits, so the step comes half a digit earlier.
    while value.abs() >= step * 0.9995 && index + 1 < units.len() {
        value /= step;
        index += 1;
    }
    format!("{} {}", significant(value), units[index]).trim_end().to_owned()
}

/// A value in a metric's base unit (`ns`, `bytes`, `bit/s`, `1/s`, `ns/B`, `count`, …) as text for people.
#[must_use]
pub fn human(value: f64, unit: &str) -> String {
    match unit {
        "ns" if value.abs() >= 120e9 => format!("{} min", significant(value / 60e9)),
        "ns" => scaled(value, 1000.0, &["ns", "µs", "ms", "s"]),
        "bytes" => scaled(value, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB"]),
        "bytes/s" => scaled(value, 1024.0, &["B/s", "KiB/s", "MiB/s", "GiB/s", "TiB/s"]),
        "bit/s" => scaled(value, 1000.0, &["bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"]),
        "1/s" => format!("{}/s", scaled(value, 1000.0, &["", "k", "M", "G"])).replace(' ', ""),
        "count" => scaled(value, 1000.0, &["", "k", "M", "G"]).replace(' ', ""),
        "ratio" => format!("{} %", significant(value * 100.0)),
        other => format!("{} {other}", significant(value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("1.5 s"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
        for bad in ["", "5", "ms", "-1s", "1 week", "nan s", "1e3s", "99999999999h"] {
            assert_eq!(parse_duration(bad), Err(ParseError::Duration(bad.to_owned())), "{bad}");
        }
    }

    #[test]
    fn bytes_are_powers_of_1024() {
        assert_eq!(parse_bytes("4096"), Ok(4096));
        assert_eq!(parse_bytes("64k"), Ok(65536));
        assert_eq!(parse_bytes("1.5MiB"), Ok(1_572_864));
        assert_eq!(parse_bytes("1GB"), Ok(1 << 30));
        for bad in ["", "x", "-1", "5q", "99999999T"] {
            assert_eq!(parse_bytes(bad), Err(ParseError::Bytes(bad.to_owned())), "{bad}");
        }
    }

    #[test]
    fn limits_know_max() {
        assert_eq!("max".parse(), Ok(Limit::Max));
        assert_eq!("64M".parse(), Ok(Limit::Value(64 << 20)));
        assert_eq!("-1".parse::<Limit>(), Err(ParseError::Limit("-1".to_owned())));
        assert!(Limit::Value(u64::MAX) < Limit::Max);
    }

    #[test]
    fn people_get_scaled_values() {
        assert_eq!(human(1_234_567.0, "ns"), "1.23 ms");
        assert_eq!(human(999.7, "ns"), "1 µs");
        assert_eq!(human(0.0, "ns"), "0 ns");
        assert_eq!(human(180e9, "ns"), "3 min");
        assert_eq!(human(94.2e9, "bit/s"), "94.2 Gbit/s");
        assert_eq!(human(65536.0, "bytes"), "64 KiB");
        assert_eq!(human(12_345.0, "1/s"), "12.3k/s");
        assert_eq!(human(0.123_456, "ns/B"), "0.123 ns/B");
        assert_eq!(human(3.0, "count"), "3");
    }
}
