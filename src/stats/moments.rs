//! Mean and variance in one pass, without the cancellation of the textbook formula.
//!
//! B. P. Welford, "Note on a Method for Calculating Corrected Sums of Squares and Products", Technometrics 4 (1962)
//! 419–420; merging two parts by T. F. Chan, G. H. Golub, R. J. LeVeque, "Updating Formulae and a Pairwise Algorithm
//! for Computing Sample Variances", Stanford STAN-CS-79-773 (1979).

/// Count, mean, spread and range of the values seen so far.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Moments {
    count: u64,
    mean: f64,
    squares: f64,
    min: f64,
    max: f64,
}

impl Default for Moments {
    fn default() -> Self {
        Self { count: 0, mean: 0.0, squares: 0.0, min: f64::INFINITY, max: f64::NEG_INFINITY }
    }
}

impl Moments {
    /// Takes in one value.
    pub fn push(&mut self, value: f64) {
        self.count += 1;
        let before = value - self.mean;
        self.mean += before / self.count as f64;
        self.squares += before * (value - self.mean);
        self.min = self.min.min(value);
        self.max = self.max.max(value);
    }

    /// Takes in everything that another one has seen.
    pub fn merge(&mut self, other: &Self) {
        if other.count == 0 {
            return;
        }
        let (here, there) = (self.count as f64, other.count as f64);
        let difference = other.mean - self.mean;
        self.count += other.count;
        self.mean += difference * there / (here + there);
        self.squares += other.squares + difference * difference * here * there / (here + there);
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
    }

    /// How many values.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The arithmetic mean; `None` without values.
    #[must_use]
    pub fn mean(&self) -> Option<f64> {
        (self.count > 0).then_some(self.mean)
    }

    /// The sample variance (divided by n − 1); `None` below two values.
    #[must_use]
    pub fn variance(&self) -> Option<f64> {
        (self.count > 1).then(|| self.squares / (self.count - 1) as f64)
    }

    /// The sample standard deviation; `None` below two values.
    #[must_use]
    pub fn stddev(&self) -> Option<f64> {
        self.variance().map(f64::sqrt)
    }

    /// The smallest value; `None` without values.
    #[must_use]
    pub fn min(&self) -> Option<f64> {
        (self.count > 0).then_some(self.min)
    }

    /// The largest value; `None` without values.
    #[must_use]
    pub fn max(&self) -> Option<f64> {
        (self.count > 0).then_some(self.max)
    }
}

impl FromIterator<f64> for Moments {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        let mut moments = Self::default();
        values.into_iter().for_each(|value| moments.push(value));
        moments
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// NIST Statistical Reference Datasets, univariate, `Michelso`: Michelson's speed of light in air, in 10⁶ m/s
    /// above 299, in thousandths.
    const MICHELSO: [u32; 100] = [
        850, 740, 900, 1070, 930, 850, 950, 980, 980, 880, 1000, 980, 930, 650, 760, 810, 1000, 1000, 960, 960, 960,
        940, 960, 940, 880, 800, 850, 880, 900, 840, 830, 790, 810, 880, 880, 830, 800, 790, 760, 800, 880, 880, 880,
        860, 720, 720, 620, 860, 970, 950, 880, 910, 850, 870, 840, 840, 850, 840, 840, 840, 890, 810, 810, 820, 800,
        770, 760, 740, 750, 760, 910, 920, 890, 860, 880, 720, 840, 850, 850, 780, 890, 840, 780, 810, 760, 810, 790,
        810, 820, 850, 870, 870, 810, 740, 810, 940, 950, 800, 810, 870,
    ];

    /// NIST Statistical Reference Datasets, univariate, `Mavro`: filter transmittance, above 2, in units of 10⁻⁴.
    const MAVRO: [u32; 50] = [
        18, 17, 18, 19, 18, 17, 15, 14, 15, 15, 17, 18, 18, 19, 19, 21, 20, 16, 14, 13, 13, 15, 15, 16, 15, 14, 13, 14,
        15, 14, 15, 16, 15, 16, 19, 20, 20, 21, 22, 23, 24, 25, 27, 26, 26, 26, 27, 26, 25, 24,
    ];

    /// `NumAcc2` to `NumAcc4`: a first value, then 500 pairs around it.
    fn numerical_accuracy(middle: f64, step: f64) -> impl Iterator<Item = f64> {
        std::iter::once(middle).chain((0..1000).map(move |i| if i % 2 == 0 { middle - step } else { middle + step }))
    }

    fn certified(values: impl IntoIterator<Item = f64>, mean: f64, stddev: f64, tolerance: f64) {
        let moments: Moments = values.into_iter().collect();
        let (got_mean, got_stddev) = (moments.mean().unwrap(), moments.stddev().unwrap());
        assert!((got_mean / mean - 1.0).abs() < 1e-14, "mean {got_mean}, certified {mean}");
        assert!((got_stddev / stddev - 1.0).abs() < tolerance, "stddev {got_stddev}, certified {stddev}");
    }

    #[test]
    fn nist_certified_means_and_standard_deviations() {
        certified(MICHELSO.map(|v| f64::from(v) / 1000.0 + 299.0), 299.852_400_000_000, 0.079_010_547_819_051_8, 1e-12);
        certified(MAVRO.map(|v| f64::from(v) / 1e4 + 2.0), 2.001_856_000_000_00, 0.000_429_123_454_003_053, 1e-11);
        certified([10_000_001.0, 10_000_003.0, 10_000_002.0], 10_000_002.0, 1.0, 1e-15);
        certified(numerical_accuracy(1.2, 0.1), 1.2, 0.1, 1e-13);
        // The data themselves are not exact in binary here, which costs the digits.
        certified(numerical_accuracy(1_000_000.2, 0.1), 1_000_000.2, 0.1, 1e-8);
        certified(numerical_accuracy(10_000_000.2, 0.1), 10_000_000.2, 0.1, 1e-7);
    }

    #[test]
    fn what_is_missing_is_none() {
        assert_eq!(Moments::default().mean(), None);
        assert_eq!(Moments::default().min(), None);
        let one: Moments = [3.0].into_iter().collect();
        assert_eq!((one.mean(), one.stddev(), one.min(), one.max()), (Some(3.0), None, Some(3.0), Some(3.0)));
    }

    proptest! {
        #[test]
        fn parts_merge_to_the_whole(left in prop::collection::vec(-1e6..1e6f64, 0..40), right in prop::collection::vec(-1e6..1e6f64, 0..40)) {
            let mut merged: Moments = left.iter().copied().collect();
            merged.merge(&right.iter().copied().collect());
            let whole: Moments = left.iter().chain(&right).copied().collect();
            prop_assert_eq!(merged.count(), whole.count());
            prop_assert_eq!((merged.min(), merged.max()), (whole.min(), whole.max()));
            if whole.count() > 1 {
                prop_assert!((merged.mean().unwrap() - whole.mean().unwrap()).abs() < 1e-8);
                prop_assert!((merged.variance().unwrap() - whole.variance().unwrap()).abs() <= 1e-9 * whole.variance().unwrap() + 1e-6);
            }
        }
    }
}
