//! Numbers as sentences and tables show them: scaled values, ratios, intervals, shares.

use crate::record::summary::SummaryRow;
use crate::units::{human, significant};

/// Stands where the data gives no value.
pub(super) const ABSENT: &str = "–";

/// One unit for numbers that stand together: on an axis, or as the two ends of an interval.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Scale {
    /// Base units in one scaled unit.
    pub divisor: f64,
    /// What follows a number, with the space before it: ` ms`, `k/s`.
    pub suffix: String,
    /// The unit's name on an axis; empty for bare numbers.
    pub axis: String,
}

impl Scale {
    /// The unit in which a number of this size is read best; the same choice as [`crate::units::human`] makes.
    pub(super) fn of(size: f64, base: &str) -> Self {
        // (divisor, suffix, name on an axis)
        let steps: &[(f64, &str, &str)] = match base {
            "ns" => &[(1.0, " ns", "ns"), (1e3, " µs", "µs"), (1e6, " ms", "ms"), (1e9, " s", "s")],
            "bit/s" => &[
                (1.0, " bit/s", "bit/s"),
                (1e3, " kbit/s", "kbit/s"),
                (1e6, " Mbit/s", "Mbit/s"),
                (1e9, " Gbit/s", "Gbit/s"),
                (1e12, " Tbit/s", "Tbit/s"),
            ],
            "bytes" => &[
                (1.0, " B", "B"),
                (1024.0, " KiB", "KiB"),
                (1_048_576.0, " MiB", "MiB"),
                (1_073_741_824.0, " GiB", "GiB"),
                (1_099_511_627_776.0, " TiB", "TiB"),
            ],
            "bytes/s" => &[
                (1.0, " B/s", "B/s"),
                (1024.0, " KiB/s", "KiB/s"),
                (1_048_576.0, " MiB/s", "MiB/s"),
                (1_073_741_824.0, " GiB/s", "GiB/s"),
            ],
            "1/s" => &[(1.0, "/s", ""), (1e3, "k/s", "thousands"), (1e6, "M/s", "millions"), (1e9, "G/s", "billions")],
            "count" => &[(1.0, "", ""), (1e3, "k", "thousands"), (1e6, "M", "millions"), (1e9, "G", "billions")],
            "ratio" => &[(0.01, " %", "%")],
            other => return Self { divisor: 1.0, suffix: format!(" {other}"), axis: other.to_owned() },
        };
        // 999.6 would print as "1000", so the step comes half a digit earlier.
        let fits = |step: &&(f64, &str, &str)| size.abs() >= step.0 * 0.9995;
        let (divisor, suffix, axis) = *steps.iter().rev().find(fits).unwrap_or(&steps[0]);
        Self { divisor, suffix: suffix.to_owned(), axis: axis.to_owned() }
    }

    /// A base-unit value as a bare number in this unit, without trailing zeros.
    pub(super) fn number(&self, value: f64) -> String {
        significant(value / self.divisor)
    }

    /// `what, ms`, or only `what` where there is no unit.
    pub(super) fn label(&self, what: &str) -> String {
        if self.axis.is_empty() { what.to_owned() } else { format!("{what}, {}", self.axis) }
    }

    /// Decimals that give a value of this size three digits.
    fn decimals(&self, size: f64) -> usize {
        let size = (size / self.divisor).abs();
        // Half a unit of the last digit may round up to one digit more.
        if size > 0.0 { (2 - (size * 1.0005).log10().floor() as i32).clamp(0, 6) as usize } else { 0 }
    }
}

/// A value in its base unit as text for people; a dash when it is absent or not a number.
///
/// Three digits are always written (`2.40 ms`), so that columns and comparisons line up; counts stay as they are.
pub(super) fn value(value: impl Into<Option<f64>>, unit: &str) -> String {
    match value.into() {
        Some(value) if value.is_finite() && unit == "count" => human(value, unit),
        Some(value) if value.is_finite() => {
            let scale = Scale::of(value, unit);
            format!("{:.*}{}", scale.decimals(value), value / scale.divisor, scale.suffix)
        }
        _ => ABSENT.to_owned(),
    }
}

/// `low–high` in one unit, as in `2.59–2.63 ms`, with enough digits to tell the ends apart.
pub(super) fn interval(low: Option<f64>, high: Option<f64>, unit: &str) -> String {
    let (Some(low), Some(high)) = (low, high) else { return ABSENT.to_owned() };
    if !low.is_finite() || !high.is_finite() {
        return ABSENT.to_owned();
    }
    if unit == "count" {
        return format!("{}–{}", human(low, unit), human(high, unit));
    }
    let scale = Scale::of(low.abs().max(high.abs()), unit);
    let usual = scale.decimals(high);
    let write = |decimals: usize| {
        (format!("{:.decimals$}", low / scale.divisor), format!("{:.decimals$}", high / scale.divisor))
    };
    let (low, high) = (usual..=usual + 2).map(write).find(|(low, high)| low != high).unwrap_or_else(|| write(usual));
    format!("{low}–{high}{}", scale.suffix)
}

/// A part of a whole in percent.
pub(super) fn share(part: f64) -> String {
    format!("{} %", significant(part * 100.0))
}

/// A ratio to a baseline with its interval, and what may be concluded from it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Ratio {
    /// The estimate.
    pub at: f64,
    /// The 95 % interval, where the data gives one.
    pub ci: Option<(f64, f64)>,
}

impl Ratio {
    /// The ratio of a row; `None` for a baseline, or when the baseline's median is zero.
    pub(super) fn of(row: &SummaryRow) -> Option<Self> {
        let at = row.ratio.filter(|ratio| ratio.is_finite() && *ratio > 0.0)?;
        if row.ratio_to.as_deref() == Some(row.case.as_str()) {
            return None;
        }
        let ci = row.ratio_ci95_low.zip(row.ratio_ci95_high);
        Some(Self { at, ci: ci.filter(|(low, high)| low.is_finite() && high.is_finite()) })
    }

    /// Whether the interval excludes 1; without an interval nothing can be told.
    pub(super) fn differs(self) -> Option<bool> {
        self.ci.map(|(low, high)| low > 1.0 || high < 1.0)
    }

    /// Decimals that suit the size; more when rounding would turn a difference into `1.00`.
    fn decimals(self) -> usize {
        let usual = match self.at.abs() {
            size if size >= 100.0 => 0,
            size if size >= 10.0 => 1,
            size if size >= 0.1 => 2,
            _ => 4,
        };
        let Some((low, high)) = self.ci else { return usual };
        let nearest = if low > 1.0 {
            low
        } else if high < 1.0 {
            high
        } else {
            return usual;
        };
        let apart = |decimals: &usize| format!("{low:.decimals$}") != format!("{high:.decimals$}");
        let usual = (usual..usual + 2).find(apart).unwrap_or(usual);
        (usual..6).find(|decimals| (nearest - 1.0).abs() >= 0.5 * 10f64.powi(-(*decimals as i32))).unwrap_or(6)
    }

    /// `0.94×`.
    pub(super) fn text(self) -> String {
        format!("{:.*}×", self.decimals(), self.at)
    }

    /// `0.91–0.96`.
    pub(super) fn ci_text(self) -> Option<String> {
        let decimals = self.decimals();
        self.ci.map(|(low, high)| format!("{low:.decimals$}–{high:.decimals$}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ratio(at: f64, low: f64, high: f64) -> (String, String) {
        let ratio = Ratio { at, ci: Some((low, high)) };
        (ratio.text(), ratio.ci_text().unwrap())
    }

    #[test]
    fn a_difference_is_never_rounded_away() {
        assert_eq!(ratio(0.941, 0.912, 0.963), ("0.94×".into(), "0.91–0.96".into()));
        assert_eq!(ratio(1.003, 1.0021, 1.004), ("1.003×".into(), "1.002–1.004".into()));
        assert_eq!(ratio(1.001, 0.99, 1.01), ("1.00×".into(), "0.99–1.01".into()));
        assert_eq!(ratio(23.456, 20.0, 25.0), ("23.5×".into(), "20.0–25.0".into()));
    }

    #[test]
    fn the_unit_suits_the_size() {
        assert_eq!(Scale::of(2e6, "ns").label("time"), "time, ms");
        assert_eq!(Scale::of(2e6, "ns").number(2_500_000.0), "2.5");
        assert_eq!(Scale::of(0.5, "ns").suffix, " ns");
        assert_eq!(Scale::of(4e10, "bit/s").axis, "Gbit/s");
        assert_eq!(Scale::of(3.0, "count").label("segments"), "segments");
        assert_eq!(Scale::of(1.0, "ns/B").suffix, " ns/B");
    }

    #[test]
    fn values_have_three_digits() {
        let cases = [
            (2.4e6, "ns", "2.40 ms"),
            (999_700.0, "ns", "1.00 ms"),
            (9.996e6, "ns", "10.0 ms"),
            (0.0, "ns", "0 ns"),
            (13_000.0, "1/s", "13.0k/s"),
            (0.33, "ns/B", "0.330 ns/B"),
            (2.0, "count", "2"),
            (0.012_345, "ratio", "1.23 %"),
            (f64::NAN, "ns", "–"),
        ];
        for (number, unit, text) in cases {
            assert_eq!(value(number, unit), text);
        }
    }

    #[test]
    fn intervals_name_the_unit_once() {
        assert_eq!(interval(Some(2.59e6), Some(2.63e6), "ns"), "2.59–2.63 ms");
        assert_eq!(interval(Some(990e3), Some(1.01e6), "ns"), "0.99–1.01 ms");
        assert_eq!(interval(Some(10_100.0), Some(10_400.0), "1/s"), "10.1–10.4k/s");
        assert_eq!(interval(Some(12_281.0), Some(12_293.0), "ns"), "12.28–12.29 µs");
        assert_eq!(interval(Some(0.0), Some(2.5), "count"), "0–2.5");
        assert_eq!(interval(None, Some(1.0), "ns"), "–");
        assert_eq!(interval(Some(f64::NAN), Some(1.0), "ns"), "–");
    }
}
