//! Sample quantiles by linear interpolation of the order statistics: type 7 of Hyndman and Fan.
//!
//! R. J. Hyndman, Y. Fan, "Sample Quantiles in Statistical Packages", The American Statistician 50 (1996) 361–365:
//! of n sorted values x₁ … xₙ the quantile of p is at position h = (n − 1) p + 1, between its two neighbours in
//! proportion. It is what R, NumPy and spreadsheets give by default, so that a reader who recomputes a figure from
//! `samples.csv` finds the same one.

/// Sorts values ascending, NaN last, so that they can be given to [`quantile_sorted`].
pub fn sort(values: &mut [f64]) {
    values.sort_unstable_by(f64::total_cmp);
}

/// The quantile of `p` in 0…1 of ascending values; `None` when there are none or `p` is outside.
#[must_use]
pub fn quantile_sorted(sorted: &[f64], p: f64) -> Option<f64> {
    if sorted.is_empty() || !(0.0..=1.0).contains(&p) {
        return None;
    }
    let position = (sorted.len() - 1) as f64 * p;
    let below = position.floor() as usize;
    let above = (below + 1).min(sorted.len() - 1);
    Some(interpolate(sorted[below], sorted[above], position - position.floor()))
}

/// The median of values in any order; `None` when there are none.
#[must_use]
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sort(&mut sorted);
    quantile_sorted(&sorted, 0.5)
}

/// The point at `part` of the way from `low` up to `high`; never outside of the two, whatever the rounding.
pub(super) fn interpolate(low: f64, high: f64, part: f64) -> f64 {
    if low == high { low } else { (low + (high - low) * part).clamp(low, high) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// NIST/SEMATECH e-Handbook of Statistical Methods, section 7.2.6.2: twelve gauge measurements.
    const GAUGE: [f64; 12] =
        [95.1772, 95.1567, 95.1937, 95.1959, 95.1442, 95.0610, 95.1591, 95.1195, 95.1065, 95.0925, 95.1990, 95.1682];

    #[test]
    fn the_handbooks_ninetieth_percentile_by_type_7() {
        let mut sorted = GAUGE;
        sort(&mut sorted);
        // The section gives 95.1981 for its own definition (type 6) and 95.1957 for type 7.
        let p90 = quantile_sorted(&sorted, 0.9).unwrap();
        assert!((p90 - 95.19568).abs() < 5e-6, "{p90}");
    }

    #[test]
    fn the_definition_at_whole_and_half_positions() {
        let values: Vec<f64> = (1..=10).map(f64::from).collect();
        // h = 9 p + 1: 3.25, 5.5, 7.75.
        assert_eq!(quantile_sorted(&values, 0.25), Some(3.25));
        assert_eq!(quantile_sorted(&values, 0.5), Some(5.5));
        assert_eq!(quantile_sorted(&values, 0.75), Some(7.75));
        assert_eq!(quantile_sorted(&values, 0.0), Some(1.0));
        assert_eq!(quantile_sorted(&values, 1.0), Some(10.0));
    }

    #[test]
    fn nothing_comes_of_nothing() {
        assert_eq!(quantile_sorted(&[], 0.5), None);
        assert_eq!(quantile_sorted(&[1.0], 1.5), None);
        assert_eq!(quantile_sorted(&[1.0], f64::NAN), None);
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[7.0]), Some(7.0));
    }

    proptest! {
        /// Two properties that Hyndman and Fan ask of a definition: it grows with p, and mirrored data mirror it.
        #[test]
        fn quantiles_grow_with_p_and_mirror(mut values in prop::collection::vec(-1e9..1e9f64, 1..60), a in 0.0..=1.0f64, b in 0.0..=1.0f64) {
            sort(&mut values);
            let (low, high) = (a.min(b), a.max(b));
            prop_assert!(quantile_sorted(&values, low) <= quantile_sorted(&values, high));
            let mut mirrored: Vec<f64> = values.iter().map(|value| -value).collect();
            sort(&mut mirrored);
            let (here, there) = (quantile_sorted(&values, a).unwrap(), -quantile_sorted(&mirrored, 1.0 - a).unwrap());
            prop_assert!((here - there).abs() <= 1e-4, "{here} {there}");
        }

        /// At most half of the values lie strictly on either side of the median.
        #[test]
        fn a_median_halves(values in prop::collection::vec(-1e9..1e9f64, 1..60)) {
            let middle = median(&values).unwrap();
            prop_assert!(values.iter().filter(|value| **value < middle).count() * 2 <= values.len());
            prop_assert!(values.iter().filter(|value| **value > middle).count() * 2 <= values.len());
        }
    }
}
