//! The bootstrap: how much a statistic would vary if the measurement were made again.
//!
//! B. Efron, R. J. Tibshirani, "An Introduction to the Bootstrap", Chapman & Hall (1993): the percentile interval
//! (chapter 13) and the bias-corrected accelerated one, BCa (chapter 14). What is drawn with replacement is a *block*,
//! not a sample: samples of one block share the machine's mood of that moment, and drawing them one by one would
//! promise more than the data hold (A. C. Davison, D. V. Hinkley, "Bootstrap Methods and their Application",
//! Cambridge (1997), section 3.8).
//!
//! **Medians take the expanded percentile interval.** Not BCa: it estimates its acceleration by the jackknife, which is
//! not consistent for a median (Efron and Tibshirani, section 11.6: the statistic is not smooth, leaving out one block
//! moves it to one of two or three values), and its bias correction counts replicates below the estimate, of which a
//! median of few blocks gives many exact ties. The percentile interval of a median is close to the exact one made of
//! order statistics (B. Efron, "Bootstrap Methods: Another Look at the Jackknife", Annals of Statistics 7 (1979) 1–26,
//! section 3), but like every plug-in interval it is too narrow for few blocks: the replicates' variance is short of a
//! factor n/(n − 1), and normal rather than t levels are read. T. C. Hesterberg, "What Teachers Should Know About the
//! Bootstrap", The American Statistician 69 (2015) 371–386, corrects both by reading the replicates further
//! out. A test in [`blocks`](super::blocks) holds the coverage against simulated data. BCa is for smooth statistics:
//! means, ratios of means, variances.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::quantile::{quantile_sorted, sort};
use super::{normal, student};

/// A range that holds the true value with the stated confidence.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

/// How to resample. The same values give the same intervals, on any machine.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bootstrap {
    /// How many times; Efron and Tibshirani (section 19.3) ask for at least 1000 where intervals are wanted.
    pub resamples: usize,
    /// The confidence, as in 0.95.
    pub level: f64,
    /// The seed of the draws.
    pub seed: u64,
}

impl Bootstrap {
    /// 2000 resamples at 95 %.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { resamples: 2000, level: 0.95, seed }
    }

    /// The statistic of each resample, ascending. `statistic` gets the drawn blocks: as many as there are, from 0.
    ///
    /// A value that is not a number is left out (a correlation of a resample with one point alone, for instance).
    pub fn replicates(&self, blocks: usize, mut statistic: impl FnMut(&[usize]) -> f64) -> Vec<f64> {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        let mut drawn = vec![0; blocks];
        let mut replicates = Vec::with_capacity(self.resamples);
        for _ in 0..self.resamples {
            for index in &mut drawn {
                // Scaling 32 random bits favours a block by at most 1 in 2³² / blocks; and unlike a library's
                // range sampler it cannot change with a version and so change a stored run's figures.
                *index = ((u64::from(rng.next_u32()) * blocks as u64) >> 32) as usize;
            }
            let value = statistic(&drawn);
            if !value.is_nan() {
                replicates.push(value);
            }
        }
        sort(&mut replicates);
        replicates
    }

    /// The percentile interval; `None` below two blocks, or when no resample had a value.
    pub fn percentile(&self, blocks: usize, statistic: impl FnMut(&[usize]) -> f64) -> Option<Interval> {
        if blocks < 2 {
            return None;
        }
        let tail = (1.0 - self.level) / 2.0;
        between(&self.replicates(blocks, statistic), tail, 1.0 - tail)
    }

    /// The percentile interval, read further out to allow for few blocks: for medians. `None` as for [`Self::percentile`].
    pub fn expanded_percentile(&self, blocks: usize, statistic: impl FnMut(&[usize]) -> f64) -> Option<Interval> {
        let n = u32::try_from(blocks).ok().filter(|n| *n >= 2)?;
        let t = student::quantile(1.0 - (1.0 - self.level) / 2.0, n - 1);
        let tail = normal::cdf(-t * (f64::from(n) / f64::from(n - 1)).sqrt());
        between(&self.replicates(blocks, statistic), tail, 1.0 - tail)
    }

    /// The bias-corrected accelerated interval, for smooth statistics; `None` below two blocks, or when the
    /// statistic of the blocks as they are has no value.
    pub fn bca(&self, blocks: usize, mut statistic: impl FnMut(&[usize]) -> f64) -> Option<Interval> {
        if blocks < 2 {
            return None;
        }
        let all: Vec<usize> = (0..blocks).collect();
        let estimate = statistic(&all);
        let acceleration = acceleration(&all, &mut statistic)?;
        let replicates = self.replicates(blocks, statistic);
        let bias = bias_correction(&replicates, estimate)?;
        let z = normal::quantile((1.0 - self.level) / 2.0);
        between(&replicates, adjusted(bias, acceleration, z), adjusted(bias, acceleration, -z))
    }
}

/// The level at which BCa reads the replicates in place of Φ(z): equation 14.10 of Efron and Tibshirani.
fn adjusted(bias: f64, acceleration: f64, z: f64) -> f64 {
    let shifted = bias + z;
    normal::cdf(bias + shifted / (1.0 - acceleration * shifted))
}

/// z₀: how far the replicates' median is from the estimate, in normal units. Ties count half.
fn bias_correction(replicates: &[f64], estimate: f64) -> Option<f64> {
    if replicates.is_empty() || estimate.is_nan() {
        return None;
    }
    let below = replicates.iter().filter(|value| **value < estimate).count();
    let equal = replicates.iter().filter(|value| **value == estimate).count();
    let count = replicates.len() as f64;
    let share = (below as f64 + equal as f64 / 2.0) / count;
    // All replicates on one side would make z₀ infinite; B resamples cannot tell a share from 1/2B further out.
    Some(normal::quantile(share.clamp(0.5 / count, 1.0 - 0.5 / count)))
}

/// a: how fast the standard error changes with the value, from the jackknife; 0 where leaving a block out changes nothing.
fn acceleration(all: &[usize], statistic: &mut impl FnMut(&[usize]) -> f64) -> Option<f64> {
    let mut without = all[1..].to_vec();
    let mut values = Vec::with_capacity(all.len());
    for left_out in 0..all.len() {
        if left_out > 0 {
            without[left_out - 1] = left_out - 1;
        }
        values.push(statistic(&without));
    }
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let squares: f64 = values.iter().map(|value| (mean - value).powi(2)).sum();
    let cubes: f64 = values.iter().map(|value| (mean - value).powi(3)).sum();
    if !squares.is_finite() {
        return None;
    }
    Some(if squares == 0.0 { 0.0 } else { cubes / (6.0 * squares.powf(1.5)) })
}

fn between(sorted: &[f64], low: f64, high: f64) -> Option<Interval> {
    Some(Interval { low: quantile_sorted(sorted, low)?, high: quantile_sorted(sorted, high)? })
}

/// A seed of its own for each figure of a run: the run's seed and the figure's names, hashed by 64-bit FNV-1a
/// (of G. Fowler, L. C. Noll and K.-P. Vo). Fixed for ever, so that rendering again gives the same figures.
#[must_use]
pub fn derive_seed(seed: u64, names: &[&str]) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let mut take = |byte: u8| hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    seed.to_le_bytes().into_iter().for_each(&mut take);
    for name in names {
        name.bytes().for_each(&mut take);
        // A byte that no UTF-8 text holds keeps ("ab", "c") from ("a", "bc").
        take(0xff);
    }
    hash
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::stats::moments::Moments;
    use crate::stats::quantile::median;

    fn picked(data: &[f64], drawn: &[usize]) -> Vec<f64> {
        drawn.iter().map(|index| data[*index]).collect()
    }

    fn stddev(values: &[f64]) -> f64 {
        values.iter().copied().collect::<Moments>().stddev().unwrap()
    }

    /// Efron and Tibshirani, table 2.1: survival in days of the seven treated mice.
    const MICE: [f64; 7] = [94.0, 197.0, 16.0, 38.0, 99.0, 141.0, 23.0];

    #[test]
    fn mouse_data_standard_errors() {
        let bootstrap = Bootstrap { resamples: 20_000, ..Bootstrap::new(1) };
        let mean = bootstrap.replicates(7, |drawn| picked(&MICE, drawn).iter().sum::<f64>() / 7.0);
        let middle = bootstrap.replicates(7, |drawn| median(&picked(&MICE, drawn)).unwrap());
        // Table 2.2, the column for an infinite number of resamples: 23.36 and 37.83.
        assert!((stddev(&mean) - 23.36).abs() < 0.5, "{}", stddev(&mean));
        assert!((stddev(&middle) - 37.83).abs() < 0.7, "{}", stddev(&middle));
    }

    /// Efron and Tibshirani, table 3.1: LSAT and GPA of the fifteen law schools.
    const LAW: [(f64, f64); 15] = [
        (576.0, 3.39),
        (635.0, 3.30),
        (558.0, 2.81),
        (578.0, 3.03),
        (666.0, 3.44),
        (580.0, 3.07),
        (555.0, 3.00),
        (661.0, 3.43),
        (651.0, 3.36),
        (605.0, 3.13),
        (653.0, 3.12),
        (575.0, 2.74),
        (545.0, 2.76),
        (572.0, 2.88),
        (594.0, 2.96),
    ];

    fn correlation(drawn: &[usize]) -> f64 {
        let n = drawn.len() as f64;
        let (mut x, mut y) = (0.0, 0.0);
        drawn.iter().for_each(|i| (x, y) = (x + LAW[*i].0 / n, y + LAW[*i].1 / n));
        let (mut xx, mut yy, mut xy) = (0.0, 0.0, 0.0);
        for index in drawn {
            let (dx, dy) = (LAW[*index].0 - x, LAW[*index].1 - y);
            (xx, yy, xy) = (xx + dx * dx, yy + dy * dy, xy + dx * dy);
        }
        xy / (xx * yy).sqrt()
    }

    #[test]
    fn law_school_correlation() {
        let all: Vec<usize> = (0..15).collect();
        assert!((correlation(&all) - 0.776).abs() < 5e-4);
        let bootstrap = Bootstrap { resamples: 20_000, ..Bootstrap::new(1) };
        // Section 6.3: the standard error from 3200 resamples is 0.132.
        let error = stddev(&bootstrap.replicates(15, correlation));
        assert!((error - 0.132).abs() < 0.004, "{error}");
    }

    /// Efron and Tibshirani, table 14.1: test A of the spatial perception of 26 children.
    const SPATIAL: [f64; 26] = [
        48.0, 36.0, 20.0, 29.0, 42.0, 42.0, 20.0, 42.0, 22.0, 41.0, 45.0, 14.0, 6.0, 0.0, 33.0, 28.0, 34.0, 4.0, 32.0,
        24.0, 47.0, 41.0, 24.0, 26.0, 30.0, 41.0,
    ];

    fn plug_in_variance(drawn: &[usize]) -> f64 {
        let values: Moments = picked(&SPATIAL, drawn).into_iter().collect();
        values.variance().unwrap() * (drawn.len() - 1) as f64 / drawn.len() as f64
    }

    #[test]
    fn spatial_test_variance_intervals() {
        let all: Vec<usize> = (0..26).collect();
        assert!((plug_in_variance(&all) - 171.5).abs() < 0.05);
        // Section 14.3: a = 0.061, z₀ = 0.146, and from them the levels 0.110 and 0.985 in place of 0.05 and 0.95.
        let a = acceleration(&all, &mut plug_in_variance).unwrap();
        assert!((a - 0.061).abs() < 5e-4, "{a}");
        let levels = [-1.645, 1.645].map(|z| adjusted(0.146, 0.061, z));
        assert!((levels[0] - 0.110).abs() < 5e-4 && (levels[1] - 0.985).abs() < 1e-3, "{levels:?}");
        // Table 14.2, 90 %: percentile 100.8 to 233.9, BCa 115.8 to 259.6. The book drew 2000 resamples, which leaves
        // z₀ a standard error of 0.03, the ends about 2, and 4 at BCa's sparse upper end: three of these are allowed.
        let bootstrap = Bootstrap { resamples: 20_000, level: 0.90, seed: 1 };
        let bias = bias_correction(&bootstrap.replicates(26, plug_in_variance), 171.5).unwrap();
        assert!((bias - 0.146).abs() < 0.09, "{bias}");
        let percentile = bootstrap.percentile(26, plug_in_variance).unwrap();
        let bca = bootstrap.bca(26, plug_in_variance).unwrap();
        assert!((percentile.low - 100.8).abs() < 6.0 && (percentile.high - 233.9).abs() < 6.0, "{percentile:?}");
        assert!((bca.low - 115.8).abs() < 6.0 && (bca.high - 259.6).abs() < 12.0, "{bca:?}");
    }

    #[test]
    fn expansion_widens_few_blocks_and_leaves_many() {
        let bootstrap = Bootstrap { resamples: 20_000, ..Bootstrap::new(1) };
        let mean = |drawn: &[usize]| drawn.iter().sum::<usize>() as f64 / drawn.len() as f64;
        let width = |interval: Interval| interval.high - interval.low;
        // Two blocks: the whole range. Ten: by the tables t = 2.262, so that Φ(−2.262 √(10/9)) = Φ(−2.384) = 0.0086.
        assert_eq!(bootstrap.expanded_percentile(2, mean), Some(Interval { low: 0.0, high: 1.0 }));
        let ten = bootstrap.replicates(10, mean);
        assert_eq!(bootstrap.expanded_percentile(10, mean), between(&ten, 0.0086, 1.0 - 0.0086));
        let plain = bootstrap.percentile(100, mean).unwrap();
        let expanded = bootstrap.expanded_percentile(100, mean).unwrap();
        assert!((1.0..1.05).contains(&(width(expanded) / width(plain))));
    }

    #[test]
    fn too_little_gives_no_interval() {
        let bootstrap = Bootstrap::new(1);
        assert_eq!(bootstrap.percentile(0, |_| 1.0), None);
        assert_eq!(bootstrap.percentile(1, |_| 1.0), None);
        assert_eq!(bootstrap.expanded_percentile(1, |_| 1.0), None);
        assert_eq!(bootstrap.bca(1, |_| 1.0), None);
        assert_eq!(bootstrap.percentile(3, |_| f64::NAN), None);
        assert_eq!(bootstrap.bca(3, |_| f64::NAN), None);
    }

    #[test]
    fn a_constant_has_an_interval_without_width() {
        let interval = Some(Interval { low: 4.0, high: 4.0 });
        assert_eq!(Bootstrap::new(1).percentile(5, |_| 4.0), interval);
        assert_eq!(Bootstrap::new(1).expanded_percentile(5, |_| 4.0), interval);
        assert_eq!(Bootstrap::new(1).bca(5, |_| 4.0), interval);
    }

    #[test]
    fn draws_are_the_same_for_ever() {
        // Of ChaCha8 with this seed; a change here changes the figures of stored runs.
        let mut first = Vec::new();
        Bootstrap { resamples: 1, ..Bootstrap::new(42) }.replicates(8, |drawn| {
            first = drawn.to_vec();
            0.0
        });
        assert_eq!(first, [1, 5, 1, 7, 6, 3, 2, 5]);
        assert_eq!(derive_seed(0, &[]), 0xa8c7_f832_281a_39c5);
        assert_ne!(derive_seed(1, &["ab", "c"]), derive_seed(1, &["a", "bc"]));
        assert_ne!(derive_seed(1, &["a"]), derive_seed(2, &["a"]));
    }

    proptest! {
        #[test]
        fn a_percentile_interval_of_means_lies_in_the_datas_range(data in prop::collection::vec(-1e6..1e6f64, 2..20), seed in any::<u64>()) {
            let bootstrap = Bootstrap { resamples: 200, ..Bootstrap::new(seed) };
            let mean = |drawn: &[usize]| picked(&data, drawn).iter().sum::<f64>() / drawn.len() as f64;
            let all: Moments = data.iter().copied().collect();
            for interval in [bootstrap.percentile(data.len(), mean).unwrap(), bootstrap.bca(data.len(), mean).unwrap()] {
                prop_assert!(interval.low <= interval.high);
                prop_assert!(interval.low >= all.min().unwrap() - 1e-6 && interval.high <= all.max().unwrap() + 1e-6);
            }
        }
    }
}
