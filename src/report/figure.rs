//! Numbers as sentences and tables show them: scaled values, ratios, intervals, shares.

use crate::record::summary::SummaryRow;
use crate::units::{human, significant};

/// Stands where the data gives no value.
pub(super) const ABSENT: &str = "–";

/// A value in its base unit as text for people; a dash when it is absent or not a number.
pub(super) fn value(value: impl Into<Option<f64>>, unit: &str) -> String {
    match value.into() {
        Some(value) if value.is_finite() && unit == "ratio" => share(value),
        Some(value) if value.is_finite() => human(value, unit),
        _ => ABSENT.to_owned(),
    }
}

/// `low – high` in one unit, as in `2.59–2.63 ms`.
pub(super) fn interval(low: Option<f64>, high: Option<f64>, unit: &str) -> String {
    let (Some(low), Some(high)) = (low, high) else { return ABSENT.to_owned() };
    let (low_text, high_text) = (value(low, unit), value(high, unit));
    match (low_text.rsplit_once(' '), high_text.rsplit_once(' ')) {
        (Some((number, unit)), Some((_, same))) if unit == same => format!("{number}–{high_text}"),
        _ => format!("{low_text}–{high_text}"),
    }
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
        let nearest = match self.ci {
            Some((low, _)) if low > 1.0 => low,
            Some((_, high)) if high < 1.0 => high,
            _ => return usual,
        };
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
    fn intervals_name_the_unit_once() {
        assert_eq!(interval(Some(2.59e6), Some(2.63e6), "ns"), "2.59–2.63 ms");
        assert_eq!(interval(Some(990e3), Some(1.01e6), "ns"), "990 µs–1.01 ms");
        assert_eq!(interval(Some(10_100.0), Some(10_400.0), "1/s"), "10.1k/s–10.4k/s");
        assert_eq!(interval(None, Some(1.0), "ns"), "–");
        assert_eq!(value(f64::NAN, "ns"), "–");
    }
}
