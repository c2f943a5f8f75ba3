//! Axes with ticks that people read: round numbers in a scaled unit, linear or logarithmic, and rows of names.

use std::ops::Range;

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};

use crate::report::figure::Scale;
use crate::units::significant;

/// One axis: from where to where, how values map to it, and where its ticks are.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Axis {
    low: f64,
    high: f64,
    logarithmic: bool,
    ticks: Vec<f64>,
}

impl Axis {
    /// From zero to a bit beyond the largest value.
    pub(super) fn from_zero(largest: f64, scale: &Scale, ticks: usize) -> Self {
        let high = if largest > 0.0 { largest } else { scale.divisor };
        Self::linear(0.0, high, scale, ticks)
    }

    /// Over these values with a little air; logarithmic when the largest is more than 8 times the smallest.
    pub(super) fn around(low: f64, high: f64, scale: &Scale, ticks: usize) -> Self {
        if low > 0.0 && high / low > 8.0 {
            let air = (high / low).powf(0.03);
            return Self::logarithmic(low / air, high * air, scale, ticks);
        }
        // Equal values still need a span, or the axis would have no length.
        let span = if high > low { high - low } else { (high.abs() * 0.2).max(scale.divisor * 1e-3) };
        let (low_end, high_end) = (low - span * 0.06, high + span * 0.06);
        Self::linear(if low >= 0.0 { low_end.max(0.0) } else { low_end }, high_end, scale, ticks)
    }

    /// Linear between two ends, with about this many round ticks.
    pub(super) fn linear(low: f64, high: f64, scale: &Scale, ticks: usize) -> Self {
        let step = round_step((high - low) / scale.divisor / ticks.max(1) as f64) * scale.divisor;
        // Half a count does not exist.
        let step = if scale.suffix.is_empty() { step.max(1.0) } else { step };
        let first = (low / step - 1e-9).ceil() as i64;
        let last = (high / step + 1e-9).floor() as i64;
        let ticks = (first..=last.min(first + 50)).map(|index| index as f64 * step).collect();
        Self { low, high, logarithmic: false, ticks }
    }

    /// Logarithmic between two positive ends, with at most about this many ticks at 1, 2 and 5, or at powers of ten.
    pub(super) fn logarithmic(low: f64, high: f64, scale: &Scale, ticks: usize) -> Self {
        if high / low < 2.0 {
            // In so short a span even steps give rounder numbers than the usual 1, 2, 5.
            return Self { logarithmic: true, ..Self::linear(low, high, scale, ticks) };
        }
        let powers = (low / scale.divisor).log10().floor() as i32..=(high / scale.divisor).log10().ceil() as i32;
        let at = |steps: &[f64]| -> Vec<f64> {
            powers
                .clone()
                .flat_map(|power| steps.iter().map(move |step| step * 10f64.powi(power) * scale.divisor))
                .filter(|tick| (low..=high).contains(tick))
                .collect()
        };
        let choices = [
            at(&[1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0]),
            at(&[1.0, 2.0, 3.0, 5.0, 7.0]),
            at(&[1.0, 2.0, 5.0]),
            at(&[1.0, 3.0]),
            at(&[1.0]),
        ];
        let fitting = choices.iter().find(|choice| choice.len() <= ticks).unwrap_or(&choices[4]);
        Self { low, high, logarithmic: true, ticks: fitting.clone() }
    }

    /// A given set of ticks between two ends.
    pub(super) fn with_ticks(low: f64, high: f64, logarithmic: bool, ticks: Vec<f64>) -> Self {
        Self { low, high, logarithmic, ticks }
    }

    /// Rows from the top: row `i` has its middle at `i`.
    pub(super) fn rows(count: f64) -> Self {
        Self { low: count - 0.5, high: -0.5, logarithmic: false, ticks: Vec::new() }
    }

    /// Where a value lies, 0 at the low end and 1 at the high end; values outside are held at the ends.
    fn position(&self, value: f64) -> f64 {
        let position = if self.logarithmic {
            if value <= 0.0 { 0.0 } else { (value / self.low).ln() / (self.high / self.low).ln() }
        } else {
            (value - self.low) / (self.high - self.low)
        };
        if position.is_finite() { position.clamp(0.0, 1.0) } else { 0.0 }
    }

    /// The low end.
    pub(super) fn low(&self) -> f64 {
        self.low
    }

    /// The high end.
    pub(super) fn high(&self) -> f64 {
        self.high
    }

    /// Whether equal ratios are equal lengths.
    pub(super) fn is_logarithmic(&self) -> bool {
        self.logarithmic
    }
}

/// The smallest of 1, 2, 2.5 or 5 times a power of ten that is not below.
fn round_step(at_least: f64) -> f64 {
    if at_least <= 0.0 || !at_least.is_finite() {
        return 1.0;
    }
    let power = 10f64.powf(at_least.log10().floor());
    [1.0, 2.0, 2.5, 5.0, 10.0]
        .map(|step| step * power)
        .into_iter()
        .find(|step| *step >= at_least * 0.999)
        .unwrap_or(power * 10.0)
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        limit.0 + (f64::from(limit.1 - limit.0) * self.position(*value)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _hint: Hint) -> Vec<f64> {
        self.ticks.clone()
    }

    fn range(&self) -> Range<f64> {
        self.low..self.high
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, value: &f64) -> String {
        significant(*value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ns() -> Scale {
        Scale::of(2e6, "ns")
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(Axis::from_zero(2.3e6, &ns(), 5).ticks, [0.0, 0.5e6, 1e6, 1.5e6, 2e6]);
        assert_eq!(Axis::logarithmic(0.9e6, 60e6, &ns(), 6).ticks, [1e6, 2e6, 5e6, 1e7, 2e7, 5e7]);
        assert_eq!(Axis::logarithmic(0.9e6, 1.3e6, &ns(), 5).ticks, [0.9e6, 1e6, 1.1e6, 1.2e6, 1.3e6]);
        assert_eq!(Axis::logarithmic(1e3, 1e9, &ns(), 8).ticks, [1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9]);
    }

    #[test]
    fn equal_values_still_make_an_axis() {
        for value in [0.0, 1.0, 5e6] {
            let axis = Axis::around(value, value, &ns(), 5);
            assert!(axis.low < axis.high, "{axis:?}");
            assert!(axis.map(&value, (0, 1000)) > 0 || value == 0.0);
            assert!(!axis.ticks.is_empty());
        }
        assert!(Axis::from_zero(0.0, &ns(), 5).high > 0.0);
    }

    #[test]
    fn values_outside_stay_at_the_ends() {
        let axis = Axis::logarithmic(1.0, 100.0, &Scale::of(1.0, "count"), 5);
        assert_eq!(axis.map(&10.0, (0, 100)), 50);
        assert_eq!(axis.map(&-3.0, (0, 100)), 0);
        assert_eq!(axis.map(&f64::NAN, (0, 100)), 0);
        assert_eq!(axis.map(&1e9, (0, 100)), 100);
        assert_eq!(Axis::rows(3.0).map(&0.0, (90, 0)), 15);
        assert_eq!(Axis::rows(3.0).map(&2.0, (90, 0)), 75);
    }
}
