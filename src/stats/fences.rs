//! Tukey's fences: which values lie so far out that a reader should know of them.
//!
//! J. W. Tukey, "Exploratory Data Analysis", Addison-Wesley (1977), chapter 2: with H the distance between the
//! quartiles, a value beyond 1.5 H of a quartile is outside, beyond 3 H far out. The quartiles here are those of
//! [`quantile`](super::quantile). The fences hold for any shape of distribution only as a rule of thumb, so outliers
//! are marked and counted, never removed.

use super::quantile::{quantile_sorted, sort};

/// How far out a value lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Position {
    /// Between the mild fences.
    Inside,
    /// Beyond a mild fence (1.5 H), not beyond the far one.
    Mild,
    /// Beyond a far fence (3 H).
    Far,
}

/// The four fences of one sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fences {
    /// Below it a value is far out.
    pub far_low: f64,
    /// Below it a value is outside.
    pub mild_low: f64,
    /// Above it a value is outside.
    pub mild_high: f64,
    /// Above it a value is far out.
    pub far_high: f64,
}

impl Fences {
    /// The fences of values in any order; `None` without values or when the quartiles are equal.
    ///
    /// Equal quartiles give no scale to judge by: of retransmits that are mostly 0, a single 1 is not an outlier.
    #[must_use]
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sort(&mut sorted);
        Self::from_quartiles(quantile_sorted(&sorted, 0.25)?, quantile_sorted(&sorted, 0.75)?)
    }

    /// The fences around a lower and an upper quartile; `None` unless the upper one is greater.
    #[must_use]
    pub fn from_quartiles(lower: f64, upper: f64) -> Option<Self> {
        let spread = upper - lower;
        (spread > 0.0).then_some(Self {
            far_low: lower - 3.0 * spread,
            mild_low: lower - 1.5 * spread,
            mild_high: upper + 1.5 * spread,
            far_high: upper + 3.0 * spread,
        })
    }

    /// Where a value lies.
    #[must_use]
    pub fn position(&self, value: f64) -> Position {
        if value < self.far_low || value > self.far_high {
            Position::Far
        } else if value < self.mild_low || value > self.mild_high {
            Position::Mild
        } else {
            Position::Inside
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// NIST/SEMATECH e-Handbook of Statistical Methods, section 7.1.6, "What are outliers in the data?".
    const HANDBOOK: [u32; 90] = [
        30, 171, 184, 201, 212, 250, 265, 270, 272, 289, 305, 306, 322, 322, 336, 346, 351, 370, 390, 404, 409, 411,
        436, 437, 439, 441, 444, 448, 451, 453, 470, 480, 482, 487, 494, 495, 499, 503, 514, 521, 522, 527, 548, 550,
        559, 560, 570, 572, 574, 578, 585, 592, 592, 607, 616, 618, 621, 629, 637, 638, 640, 656, 668, 707, 709, 719,
        737, 739, 752, 758, 766, 792, 792, 794, 802, 818, 830, 832, 843, 858, 860, 869, 918, 925, 953, 991, 1000, 1005,
        1068, 1441,
    ];

    #[test]
    fn the_handbooks_fences_from_its_quartiles() {
        let fences = Fences::from_quartiles(429.75, 742.25).unwrap();
        assert_eq!((fences.mild_low, fences.mild_high), (-39.0, 1211.0));
        assert_eq!((fences.far_low, fences.far_high), (-507.75, 1679.75));
    }

    #[test]
    fn the_handbooks_one_outlier() {
        let values = HANDBOOK.map(f64::from);
        let fences = Fences::of(&values).unwrap();
        let outside: Vec<f64> = values.into_iter().filter(|v| fences.position(*v) != Position::Inside).collect();
        assert_eq!(outside, [1441.0]);
        assert_eq!(fences.position(1441.0), Position::Mild);
    }

    #[test]
    fn without_a_spread_there_are_no_fences() {
        assert_eq!(Fences::of(&[]), None);
        assert_eq!(Fences::of(&[5.0]), None);
        assert_eq!(Fences::of(&[0.0, 0.0, 0.0, 0.0, 0.0, 1.0]), None);
    }

    #[test]
    fn a_far_value_is_told_from_a_mild_one() {
        let fences = Fences::of(&[1.0, 2.0, 3.0, 4.0, 5.0]).unwrap();
        assert_eq!(fences.position(7.0), Position::Inside);
        assert_eq!(fences.position(7.5), Position::Mild);
        assert_eq!(fences.position(-4.5), Position::Far);
        assert_eq!(fences.position(10.5), Position::Far);
    }

    proptest! {
        /// Not even the worst sample has more than half of its values beyond the quartiles, so neither the fences.
        #[test]
        fn most_values_are_inside(values in prop::collection::vec(-1e9..1e9f64, 1..80)) {
            if let Some(fences) = Fences::of(&values) {
                let inside = values.iter().filter(|v| fences.position(**v) == Position::Inside).count();
                prop_assert!(inside * 2 >= values.len());
            }
        }
    }
}
