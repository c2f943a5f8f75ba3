//! Enforcement: what was asked of a controller, what happened, what it says of itself; raw, and judged.
//!
//! Experiments push one [`EnforcementSample`] a setting and block. [`judge`] makes one [`EnforcementRow`] a case and
//! setting of them: the median over the measured blocks, the signed error with its interval, and the verdict.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{EnforcementRow, Flags, Verdict};
use crate::stats::blocks::Blocks;
use crate::stats::bootstrap::{Bootstrap, Interval, derive_seed};

/// One setting as it was seen in one block.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EnforcementSample {
    /// The case's id.
    pub case: String,
    /// The controller, as in `memory`.
    pub controller: String,
    /// The setting, as in `limit`, or with the container it is about, as in `shares/a`.
    pub setting: String,
    /// The base unit of the three values.
    pub unit: String,
    /// The block, as in [`super::Sample::block`].
    pub block: u32,
    /// The position inside the block.
    pub iteration: u32,
    /// What was written and read back.
    pub requested: f64,
    /// What an independent clock or count inside the workload saw.
    pub achieved: f64,
    /// What the controller's own files say; absent where it keeps no account.
    pub accounted: Option<f64>,
    /// The stated tolerance on the error, in percent of `requested`.
    pub tolerance_pct: f64,
    /// When it was measured: ns of CLOCK_MONOTONIC since the run's start.
    pub start_ns: u64,
    /// Marks.
    pub flags: Flags,
}

/// `(value - reference) / reference` in percent. Nothing asked and nothing seen is no error; nothing asked and
/// something seen is all of it.
#[must_use]
pub fn signed_error_pct(value: f64, reference: f64) -> f64 {
    match (value == reference, reference == 0.0) {
        (true, _) => 0.0,
        (false, true) => 100.0 * value.signum(),
        (false, false) => 100.0 * (value - reference) / reference,
    }
}

/// Judges every case and setting, in the order in which they first appear. Warm-up blocks are left out.
#[must_use]
pub fn judge(samples: &[EnforcementSample], seed: u64) -> Vec<EnforcementRow> {
    let mut order: Vec<Key<'_>> = Vec::new();
    let mut groups: BTreeMap<Key<'_>, Vec<&EnforcementSample>> = BTreeMap::new();
    for sample in samples.iter().filter(|sample| !sample.flags.warmup) {
        let key = (sample.case.as_str(), sample.controller.as_str(), sample.setting.as_str());
        let group = groups.entry(key).or_insert_with(|| {
            order.push(key);
            Vec::new()
        });
        group.push(sample);
    }
    order.iter().filter_map(|key| row(groups.get(key)?, seed)).collect()
}

type Key<'a> = (&'a str, &'a str, &'a str);

fn row(samples: &[&EnforcementSample], seed: u64) -> Option<EnforcementRow> {
    let first = samples.first()?;
    let median = |value: &dyn Fn(&EnforcementSample) -> Option<f64>| {
        Blocks::of_samples(samples.iter().filter_map(|sample| Some((sample.block, value(sample)?)))).median()
    };
    let errors = Blocks::of_samples(
        samples.iter().map(|sample| (sample.block, signed_error_pct(sample.achieved, sample.requested))),
    );
    let error_pct = errors.median()?;
    let seed = derive_seed(seed, &[&first.case, &first.controller, &first.setting]);
    let interval = errors.median_interval(&Bootstrap::new(seed));
    let Interval { low, high } = interval.unwrap_or(Interval { low: error_pct, high: error_pct });
    let flags = samples.iter().fold(Flags::default(), |all, sample| all.or(sample.flags));
    Some(EnforcementRow {
        case: first.case.clone(),
        controller: first.controller.clone(),
        setting: first.setting.clone(),
        requested: median(&|sample| Some(sample.requested))?,
        achieved: median(&|sample| Some(sample.achieved))?,
        accounted: median(&|sample| sample.accounted),
        unit: first.unit.clone(),
        error_pct,
        error_ci95_low: low,
        error_ci95_high: high,
        accounting_error_pct: median(&|sample| Some(signed_error_pct(sample.accounted?, sample.achieved))),
        tolerance_pct: first.tolerance_pct,
        verdict: excused(verdict(low, high, first.tolerance_pct), flags),
        flags,
    })
}

/// Pass when the whole interval is within the tolerance, fail when none of it is, and undecided between.
fn verdict(low: f64, high: f64, tolerance: f64) -> Verdict {
    if low >= -tolerance && high <= tolerance {
        Verdict::Pass
    } else if low > tolerance || high < -tolerance {
        Verdict::Fail
    } else {
        Verdict::Inconclusive
    }
}

/// A container that was kept from the CPU says nothing against the kernel.
fn excused(verdict: Verdict, flags: Flags) -> Verdict {
    match verdict {
        Verdict::Fail if flags.starved => Verdict::Inconclusive,
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(block: u32, achieved: f64, accounted: Option<f64>) -> EnforcementSample {
        EnforcementSample {
            case: "cpu/builtin/quota/50".to_owned(),
            controller: "cpu".to_owned(),
            setting: "quota".to_owned(),
            unit: "ratio".to_owned(),
            block,
            iteration: 0,
            requested: 0.5,
            achieved,
            accounted,
            tolerance_pct: 2.0,
            start_ns: 0,
            flags: Flags { warmup: block == 0, ..Flags::default() },
        }
    }

    #[test]
    fn the_error_is_signed_and_in_percent_of_what_was_asked() {
        let samples: Vec<_> = [9.0, 0.495, 0.496, 0.494, 0.495, 0.495, 0.497]
            .into_iter()
            .zip(0..)
            .map(|(achieved, block)| sample(block, achieved, Some(achieved * 1.01)))
            .collect();
        let rows = judge(&samples, 1);
        assert_eq!(rows.len(), 1);
        assert!((rows[0].error_pct - -1.0).abs() < 1e-9, "{rows:?}");
        assert!((rows[0].accounting_error_pct.unwrap() - 1.0).abs() < 1e-9);
        assert!(rows[0].error_ci95_low <= rows[0].error_pct && rows[0].error_pct <= rows[0].error_ci95_high);
        assert_eq!(rows[0].verdict, Verdict::Pass);
    }

    #[test]
    fn the_whole_interval_decides() {
        assert_eq!(verdict(-1.9, 2.0, 2.0), Verdict::Pass);
        assert_eq!(verdict(-1.9, 2.1, 2.0), Verdict::Inconclusive);
        assert_eq!(verdict(2.1, 3.0, 2.0), Verdict::Fail);
        assert_eq!(verdict(-9.0, -2.1, 2.0), Verdict::Fail);
        assert_eq!(verdict(0.0, 0.0, 0.0), Verdict::Pass);
    }

    #[test]
    fn nothing_asked_and_something_seen_is_a_whole_error() {
        assert_eq!(signed_error_pct(0.0, 0.0), 0.0);
        assert_eq!(signed_error_pct(3.0, 0.0), 100.0);
        assert_eq!(signed_error_pct(-3.0, 0.0), -100.0);
        assert_eq!(signed_error_pct(1.0, 2.0), -50.0);
    }

    #[test]
    fn a_starved_container_fails_nobody() {
        let mut starved = sample(1, 0.4, None);
        starved.flags.starved = true;
        let row = |samples: &[EnforcementSample]| judge(samples, 1).remove(0);
        let judged = row(&[starved.clone()]);
        assert_eq!((judged.verdict, judged.flags.to_string().as_str()), (Verdict::Inconclusive, "starved"));
        // It holds all the same where the error is small; and a mark on another row is none on this one.
        assert_eq!(row(&[EnforcementSample { achieved: 0.5, ..starved }]).verdict, Verdict::Pass);
        assert_eq!(row(&[sample(1, 0.4, None)]).verdict, Verdict::Fail);
    }

    #[test]
    fn half_of_what_was_asked_fails_even_once() {
        let rows = judge(&[sample(1, 0.25, None)], 1);
        assert_eq!((rows[0].error_pct, rows[0].verdict), (-50.0, Verdict::Fail));
        assert_eq!(rows[0].accounting_error_pct, None);
    }
}
