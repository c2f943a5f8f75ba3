//! Enforcement: what was asked of a controller, what happened, what it says of itself; raw, and judged.
//!
//! Experiments push one [`EnforcementSample`] a setting and block. [`judge`] makes one [`EnforcementRow`] a case and
//! setting of them: the median over the measured blocks, the signed error with its interval, and the verdict. A count
//! that must be exact has no median: its row is the worst that was seen, and its interval reaches from end to end.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{CaseRecord, EnforcementRow, Flags, Verdict};
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
    /// The stated tolerance on the error, in percent of `requested`; none of it means an exact count.
    pub tolerance_pct: f64,
    /// Which of the two is held against `requested`.
    pub judged: Judged,
    /// When it was measured: ns of CLOCK_MONOTONIC since the run's start.
    pub start_ns: u64,
    /// Marks.
    pub flags: Flags,
}

/// What a row judges.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Judged {
    /// A limit: what was achieved, against what was asked for.
    #[default]
    Achieved,
    /// An account: what was charged, against what was used. `requested` and `achieved` are both what was used.
    Accounted,
}

impl fmt::Display for Judged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Judged::Achieved => "achieved",
            Judged::Accounted => "accounted",
        })
    }
}

impl FromStr for Judged {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        [Self::Achieved, Self::Accounted].into_iter().find(|known| known.to_string() == text).ok_or(())
    }
}

impl EnforcementSample {
    /// The value that is held against what was requested. What keeps no account has charged nothing.
    #[must_use]
    pub fn judged_value(&self) -> f64 {
        match self.judged {
            Judged::Achieved => self.achieved,
            Judged::Accounted => self.accounted.unwrap_or(0.0),
        }
    }

    /// The signed error of that value, in percent of what was requested.
    #[must_use]
    pub fn error_pct(&self) -> f64 {
        signed_error_pct(self.judged_value(), self.requested)
    }
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

/// The same, in the order of a run's cases: blocks take them in another one.
#[must_use]
pub fn judge_run(samples: &[EnforcementSample], cases: &[CaseRecord], seed: u64) -> Vec<EnforcementRow> {
    let mut rows = judge(samples, seed);
    rows.sort_by_cached_key(|row| cases.iter().position(|case| case.id == row.case));
    rows
}

type Key<'a> = (&'a str, &'a str, &'a str);

fn row(samples: &[&EnforcementSample], seed: u64) -> Option<EnforcementRow> {
    let first = samples.first()?;
    let (judged, excused) = enough_unstarved(samples);
    let found = if first.tolerance_pct == 0.0 { exact(&judged)? } else { typical(&judged, seed)? };
    let verdict = match verdict(found.error.low, found.error.high, first.tolerance_pct) {
        // A container that was kept from the CPU says nothing against the kernel.
        Verdict::Fail if excused => Verdict::Inconclusive,
        verdict => verdict,
    };
    Some(EnforcementRow {
        case: first.case.clone(),
        controller: first.controller.clone(),
        setting: first.setting.clone(),
        requested: found.requested,
        achieved: found.achieved,
        accounted: found.accounted,
        unit: first.unit.clone(),
        error_pct: found.error_pct,
        error_ci95_low: found.error.low,
        error_ci95_high: found.error.high,
        accounting_error_pct: found.accounting_error_pct,
        tolerance_pct: first.tolerance_pct,
        verdict,
        flags: samples.iter().fold(Flags::default(), |all, sample| all.or(sample.flags)),
        judged: first.judged,
    })
}

/// What the samples of one setting come to.
struct Found {
    requested: f64,
    achieved: f64,
    accounted: Option<f64>,
    error_pct: f64,
    error: Interval,
    accounting_error_pct: Option<f64>,
}

/// Medians over blocks, and the interval of the error's.
fn typical(samples: &[&EnforcementSample], seed: u64) -> Option<Found> {
    let first = samples.first()?;
    let median = |value: &dyn Fn(&EnforcementSample) -> Option<f64>| {
        Blocks::of_samples(samples.iter().filter_map(|sample| Some((sample.block, value(sample)?)))).median()
    };
    let errors = Blocks::of_samples(samples.iter().map(|sample| (sample.block, sample.error_pct())));
    let error_pct = errors.median()?;
    let seed = derive_seed(seed, &[&first.case, &first.controller, &first.setting]);
    let interval = errors.median_interval(&Bootstrap::new(seed));
    Some(Found {
        requested: median(&|sample| Some(sample.requested))?,
        achieved: median(&|sample| Some(sample.achieved))?,
        accounted: median(&|sample| sample.accounted),
        error_pct,
        error: interval.unwrap_or(Interval { low: error_pct, high: error_pct }),
        accounting_error_pct: median(&accounting_error_pct),
    })
}

/// The sample that is furthest off, and how far the errors reach: once is too often for a count that must be exact.
fn exact(samples: &[&EnforcementSample]) -> Option<Found> {
    let worst = samples.iter().max_by(|a, b| a.error_pct().abs().total_cmp(&b.error_pct().abs()))?;
    let errors = samples.iter().map(|sample| sample.error_pct());
    let (low, high) = errors.fold((0.0, 0.0), |(low, high): (f64, f64), error| (low.min(error), high.max(error)));
    Some(Found {
        requested: worst.requested,
        achieved: worst.achieved,
        accounted: worst.accounted,
        error_pct: worst.error_pct(),
        error: Interval { low, high },
        accounting_error_pct: accounting_error_pct(worst),
    })
}

fn accounting_error_pct(sample: &EnforcementSample) -> Option<f64> {
    Some(signed_error_pct(sample.accounted?, sample.achieved))
}

/// The samples of those blocks in which nobody was kept from the CPU, where they are half of the blocks or more. Else
/// all, and whether that excuses an error.
fn enough_unstarved<'a>(samples: &[&'a EnforcementSample]) -> (Vec<&'a EnforcementSample>, bool) {
    let blocks = |starved: bool| -> BTreeSet<u32> {
        samples.iter().filter(|sample| sample.flags.starved == starved).map(|sample| sample.block).collect()
    };
    let (starved, all) = (blocks(true), samples.len());
    let rest: Vec<&EnforcementSample> =
        samples.iter().filter(|sample| !starved.contains(&sample.block)).copied().collect();
    if 2 * rest.len() >= all { (rest, false) } else { (samples.to_vec(), true) }
}

/// Pass when the whole interval is within the tolerance, fail when none of it is, and undecided between.
fn verdict(low: f64, high: f64, tolerance: f64) -> Verdict {
    if low >= -tolerance && high <= tolerance {
        Verdict::Pass
    } else if low > tolerance || high < -tolerance || tolerance == 0.0 {
        // Of an exact count, the interval's ends were seen.
        Verdict::Fail
    } else {
        Verdict::Inconclusive
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
            judged: Judged::Achieved,
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
        assert_eq!(row(&[EnforcementSample { achieved: 0.5, ..starved.clone() }]).verdict, Verdict::Pass);
        assert_eq!(row(&[sample(1, 0.4, None)]).verdict, Verdict::Fail);
        // One such block among several is left out, and excuses none of the others.
        let mixed = |wrong: f64| [starved.clone(), sample(2, wrong, None), sample(3, wrong, None)];
        assert_eq!(row(&mixed(0.5)).verdict, Verdict::Pass);
        let wrong = row(&mixed(0.4));
        assert!(wrong.verdict == Verdict::Fail && (wrong.error_pct + 20.0).abs() < 1e-9, "{wrong:?}");
    }

    #[test]
    fn an_exact_count_is_exact_every_time() {
        let count = |block, achieved| EnforcementSample {
            requested: 24.0,
            tolerance_pct: 0.0,
            ..sample(block, achieved, Some(achieved))
        };
        let judged = |seen: &[f64]| {
            judge(&seen.iter().zip(1..).map(|(seen, block)| count(block, *seen)).collect::<Vec<_>>(), 1).remove(0)
        };
        assert_eq!(judged(&[24.0; 9]).verdict, Verdict::Pass);
        let row = judged(&[24.0, 24.0, 24.0, 25.0, 24.0, 24.0, 18.0, 24.0, 24.0]);
        assert_eq!((row.verdict, row.achieved, row.error_pct), (Verdict::Fail, 18.0, -25.0));
        assert!((row.error_ci95_low, row.error_ci95_high) == (-25.0, 100.0 / 24.0), "{row:?}");
    }

    #[test]
    fn an_account_is_held_against_what_was_used() {
        let used = |accounted| EnforcementSample {
            judged: Judged::Accounted,
            requested: 100.0,
            achieved: 100.0,
            accounted,
            ..sample(1, 0.0, None)
        };
        let judged = |accounted| judge(&[used(accounted)], 1).remove(0);
        assert_eq!((judged(Some(101.0)).verdict, judged(Some(101.0)).error_pct), (Verdict::Pass, 1.0));
        assert_eq!(judged(Some(90.0)).verdict, Verdict::Fail);
        let none = judged(None);
        assert_eq!((none.verdict, none.error_pct, none.accounting_error_pct), (Verdict::Fail, -100.0, None));
    }

    #[test]
    fn rows_stand_as_the_cases_do() {
        let samples = [("b", "x"), ("b", "y"), ("a", "x")].map(|(case, setting)| EnforcementSample {
            case: case.to_owned(),
            setting: setting.to_owned(),
            ..sample(1, 0.5, None)
        });
        let cases = ["a", "b"].map(|id| crate::record::fixture::case(id, None));
        let rows = judge_run(&samples, &cases, 1);
        let order: Vec<_> = rows.iter().map(|row| (row.case.as_str(), row.setting.as_str())).collect();
        assert_eq!(order, [("a", "x"), ("b", "x"), ("b", "y")]);
    }

    #[test]
    fn half_of_what_was_asked_fails_even_once() {
        let rows = judge(&[sample(1, 0.25, None)], 1);
        assert_eq!((rows[0].error_pct, rows[0].verdict), (-50.0, Verdict::Fail));
        assert_eq!(rows[0].accounting_error_pct, None);
    }
}
