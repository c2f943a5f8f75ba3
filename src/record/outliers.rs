//! Marks the samples that lie far out of their case; the schedule calls it once, before the run is written.

use super::Sample;
use crate::stats::fences::{Fences, Position};

/// Sets [`Flags::outlier`](super::Flags::outlier) on every measured sample beyond Tukey's far fences of its case and
/// metric, and clears it on all others.
///
/// Warm-up samples are neither judged nor part of the judgement. Where more than half of a case's values are equal
/// there are no fences, so that nothing is marked: see [`Fences::of`].
pub fn mark_outliers(samples: &mut [Sample]) {
    samples.iter_mut().for_each(|sample| sample.flags.outlier = false);
    let mut measured: Vec<&mut Sample> =
        samples.iter_mut().filter(|s| !s.flags.warmup && s.value.is_finite()).collect();
    measured.sort_by(|a, b| (&a.case, &a.metric).cmp(&(&b.case, &b.metric)));
    for group in measured.chunk_by_mut(|a, b| a.case == b.case && a.metric == b.metric) {
        let values: Vec<f64> = group.iter().map(|sample| sample.value).collect();
        let Some(fences) = Fences::of(&values) else { continue };
        for sample in group {
            sample.flags.outlier = fences.position(sample.value) == Position::Far;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Flags;

    fn sample(case: &str, value: f64, flags: Flags) -> Sample {
        let (case, metric, unit) = (case.to_owned(), "rtt".to_owned(), "ns".to_owned());
        Sample { case, metric, unit, block: 0, iteration: 0, value, start_ns: 0, flags }
    }

    fn marked(samples: &[Sample]) -> Vec<f64> {
        samples.iter().filter(|s| s.flags.outlier).map(|s| s.value).collect()
    }

    #[test]
    fn each_case_has_fences_of_its_own() {
        let mut samples = Vec::new();
        for value in [1.0, 2.0, 3.0, 4.0, 5.0, 100.0] {
            samples.push(sample("a", value, Flags::default()));
            samples.push(sample("b", value * 100.0 - if value == 100.0 { 9400.0 } else { 0.0 }, Flags::default()));
        }
        mark_outliers(&mut samples);
        assert_eq!(marked(&samples), [100.0]);
    }

    #[test]
    fn warm_up_is_left_alone_and_old_marks_go() {
        let warm = Flags { warmup: true, ..Flags::default() };
        let stale = Flags { outlier: true, ..Flags::default() };
        let mut samples: Vec<Sample> = [1.0, 2.0, 3.0, 4.0, 5.0].iter().map(|v| sample("a", *v, stale)).collect();
        samples.push(sample("a", 1e6, warm));
        samples.push(sample("a", f64::NAN, Flags::default()));
        mark_outliers(&mut samples);
        assert!(marked(&samples).is_empty());
        mark_outliers(&mut []);
    }
}
