//! A scenario's checks: each bound held against the interval of every case that its pattern names.
//!
//! A check passes where the whole 95 % interval keeps the bound, fails where the whole interval breaks it, and is
//! inconclusive where the interval reaches over it: then more blocks would tell. Without an interval (a single block)
//! the value itself decides.
//!
//! A pattern is a case id in which `*` stands for exactly one part between slashes: `network/*/bridge/*/tcp_stream`
//! has five parts and names only cases of five parts. A `*` inside a part is an ordinary character.
//!
//! No check disappears. Of a pattern's cases, the measured ones are judged and those among the run's skips are
//! `skipped`; a pattern that names neither is `inconclusive`, and its bound says what is missing. Only a ratio leaves
//! cases out that have no baseline, such as the baseline itself, as long as the pattern names others.

use std::collections::BTreeSet;

use crate::record::summary::SummaryRow;
use crate::record::{CheckRow, Skip, Verdict};
use crate::scenario::{Bound, Check, overlap};

/// Judges every check, in the order of the scenario and, within a check, of the summary.
#[must_use]
pub fn evaluate(checks: &[Check], summary: &[SummaryRow], skips: &[Skip]) -> Vec<CheckRow> {
    let names = names(checks);
    checks.iter().zip(&names).flat_map(|(check, name)| Judge { check, name, summary, skips }.rows()).collect()
}

/// `throughput min_ratio`, with a number where a scenario has several of that name.
fn names(checks: &[Check]) -> Vec<String> {
    let plain = |check: &Check| format!("{} {}", check.metric, word(check.bound));
    let names: Vec<String> = checks.iter().map(plain).collect();
    let numbered = |(index, name): (usize, &String)| match names.iter().filter(|other| *other == name).count() {
        1 => name.clone(),
        _ => format!("{name} #{}", names[..=index].iter().filter(|other| *other == name).count()),
    };
    names.iter().enumerate().map(numbered).collect()
}

/// The bound's key in a scenario.
fn word(bound: Bound) -> &'static str {
    match bound {
        Bound::MinRatio(_) => "min_ratio",
        Bound::MaxRatio(_) => "max_ratio",
        Bound::Min(_) => "min",
        Bound::Max(_) => "max",
    }
}

/// The bound as text, as in `>= 0.5`.
fn text(bound: Bound) -> String {
    match bound {
        Bound::MinRatio(bound) | Bound::Min(bound) => format!(">= {bound}"),
        Bound::MaxRatio(bound) | Bound::Max(bound) => format!("<= {bound}"),
    }
}

fn is_ratio(bound: Bound) -> bool {
    matches!(bound, Bound::MinRatio(_) | Bound::MaxRatio(_))
}

/// One check with what it is held against.
struct Judge<'a> {
    check: &'a Check,
    name: &'a str,
    summary: &'a [SummaryRow],
    skips: &'a [Skip],
}

impl Judge<'_> {
    fn rows(&self) -> Vec<CheckRow> {
        let named: Vec<&SummaryRow> = self.summary.iter().filter(|row| overlap(&self.check.case, &row.case)).collect();
        let measured: Vec<&SummaryRow> = named.iter().copied().filter(|row| row.metric == self.check.metric).collect();
        let apt = |row: &&SummaryRow| !is_ratio(self.check.bound) || row.ratio_to.is_some();
        let mut rows: Vec<CheckRow> = measured.iter().copied().filter(apt).map(|row| self.judged(row)).collect();
        rows.extend(self.skipped(&named));
        if rows.is_empty() {
            let why = match (named.is_empty(), measured.is_empty()) {
                (true, _) => "no such case was measured".to_owned(),
                (false, true) => format!("no such case has the metric {}", self.check.metric),
                (false, false) => "no such case has a baseline".to_owned(),
            };
            rows.push(self.row(&self.check.case, None, Verdict::Inconclusive, Some(&why)));
        }
        rows
    }

    /// The named cases that were skipped: all of them that were not measured after all.
    fn skipped(&self, named: &[&SummaryRow]) -> Vec<CheckRow> {
        let skips = self.skips.iter().map(|skip| skip.case.as_str());
        let cases: BTreeSet<&str> =
            skips.filter(|case| overlap(&self.check.case, case) && named.iter().all(|row| row.case != *case)).collect();
        cases.into_iter().map(|case| self.row(case, None, Verdict::Skipped, None)).collect()
    }

    fn judged(&self, row: &SummaryRow) -> CheckRow {
        let (value, low, high) = if is_ratio(self.check.bound) {
            (row.ratio, row.ratio_ci95_low, row.ratio_ci95_high)
        } else {
            ((row.n > 0).then_some(row.p50), row.ci95_low, row.ci95_high)
        };
        let Some(value) = value else {
            return self.row(&row.case, None, Verdict::Inconclusive, Some(missing(self.check.bound, row)));
        };
        let verdict = verdict(self.check.bound, low.unwrap_or(value), high.unwrap_or(value));
        self.row(&row.case, Some(value), verdict, None)
    }

    fn row(&self, case: &str, value: Option<f64>, verdict: Verdict, note: Option<&str>) -> CheckRow {
        let bound = text(self.check.bound);
        CheckRow {
            check: self.name.to_owned(),
            case: case.to_owned(),
            metric: self.check.metric.clone(),
            value,
            bound: note.map_or(bound.clone(), |note| format!("{bound} ({note})")),
            verdict,
        }
    }
}

/// Why a measured case has no value to judge.
fn missing(bound: Bound, row: &SummaryRow) -> &'static str {
    if !is_ratio(bound) {
        "nothing was measured"
    } else if row.flags.split('|').any(|flag| flag == "zero_baseline") {
        "the baseline was zero"
    } else {
        "no block has both the case and its baseline"
    }
}

fn verdict(bound: Bound, low: f64, high: f64) -> Verdict {
    let (keeps, breaks) = match bound {
        Bound::MinRatio(bound) | Bound::Min(bound) => (low >= bound, high < bound),
        Bound::MaxRatio(bound) | Bound::Max(bound) => (high <= bound, low > bound),
    };
    match (keeps, breaks) {
        (true, _) => Verdict::Pass,
        (_, true) => Verdict::Fail,
        _ => Verdict::Inconclusive,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A row of throughput with its interval and a ratio to `network/host`.
    fn row(case: &str, p50: [f64; 3], ratio: Option<[f64; 3]>) -> SummaryRow {
        SummaryRow {
            case: case.to_owned(),
            experiment: "network".to_owned(),
            runtime: "builtin".to_owned(),
            network: String::new(),
            metric: "throughput".to_owned(),
            unit: "bit/s".to_owned(),
            better: "higher".to_owned(),
            n: 30,
            min: p50[0],
            p50: p50[1],
            p90: p50[1],
            p99: None,
            p999: None,
            max: p50[2],
            mean: p50[1],
            stddev: None,
            ci95_low: Some(p50[0]),
            ci95_high: Some(p50[2]),
            ratio_to: ratio.map(|_| "network/host".to_owned()),
            ratio: ratio.map(|ratio| ratio[1]),
            ratio_ci95_low: ratio.map(|ratio| ratio[0]),
            ratio_ci95_high: ratio.map(|ratio| ratio[2]),
            flags: String::new(),
        }
    }

    fn check(case: &str, bound: Bound) -> Check {
        Check { metric: "throughput".to_owned(), case: case.to_owned(), bound }
    }

    fn skip(case: &str) -> Skip {
        Skip { case: case.to_owned(), reason: "not here".to_owned() }
    }

    /// Case, bound and verdict of each row.
    fn judge(check: Check, summary: &[SummaryRow], skips: &[Skip]) -> Vec<(String, String, Verdict)> {
        evaluate(&[check], summary, skips).into_iter().map(|row| (row.case, row.bound, row.verdict)).collect()
    }

    fn one(case: &str, bound: &str, verdict: Verdict) -> Vec<(String, String, Verdict)> {
        vec![(case.to_owned(), bound.to_owned(), verdict)]
    }

    #[test]
    fn the_whole_interval_decides() {
        let summary = [row("network/bridge", [90.0, 100.0, 110.0], Some([0.5, 0.6, 0.7]))];
        for (bound, verdict) in [
            (Bound::Min(90.0), Verdict::Pass),
            (Bound::Min(90.1), Verdict::Inconclusive),
            (Bound::Min(110.0), Verdict::Inconclusive),
            (Bound::Min(110.1), Verdict::Fail),
            (Bound::Max(110.0), Verdict::Pass),
            (Bound::Max(109.9), Verdict::Inconclusive),
            (Bound::Max(89.9), Verdict::Fail),
            (Bound::MinRatio(0.5), Verdict::Pass),
            (Bound::MinRatio(0.65), Verdict::Inconclusive),
            (Bound::MinRatio(0.75), Verdict::Fail),
            (Bound::MaxRatio(0.7), Verdict::Pass),
            (Bound::MaxRatio(0.6), Verdict::Inconclusive),
            (Bound::MaxRatio(0.4), Verdict::Fail),
        ] {
            assert_eq!(judge(check("network/bridge", bound), &summary, &[])[0].2, verdict, "{bound:?}");
        }
        let judged = &evaluate(&[check("network/*", Bound::MinRatio(0.5))], &summary, &[])[0];
        assert_eq!(
            (judged.check.as_str(), judged.value, judged.bound.as_str()),
            ("throughput min_ratio", Some(0.6), ">= 0.5")
        );
    }

    #[test]
    fn without_an_interval_the_value_decides() {
        let mut row = row("a", [1.0, 5.0, 9.0], Some([1.0, 5.0, 9.0]));
        (row.ci95_low, row.ci95_high, row.ratio_ci95_low, row.ratio_ci95_high) = (None, None, None, None);
        let summary = [row];
        assert_eq!(judge(check("a", Bound::Min(5.0)), &summary, &[])[0].2, Verdict::Pass);
        assert_eq!(judge(check("a", Bound::Max(4.0)), &summary, &[])[0].2, Verdict::Fail);
        assert_eq!(judge(check("a", Bound::MaxRatio(5.0)), &summary, &[])[0].2, Verdict::Pass);
    }

    #[test]
    fn without_a_value_nothing_is_decided() {
        let mut empty = row("a", [0.0; 3], Some([1.0; 3]));
        (empty.n, empty.ratio) = (0, None);
        let summary = [empty.clone()];
        assert_eq!(
            judge(check("a", Bound::Min(1.0)), &summary, &[]),
            one("a", ">= 1 (nothing was measured)", Verdict::Inconclusive)
        );
        let unpaired = ">= 1 (no block has both the case and its baseline)";
        assert_eq!(judge(check("a", Bound::MinRatio(1.0)), &summary, &[]), one("a", unpaired, Verdict::Inconclusive));
        empty.flags = "few_blocks|zero_baseline".to_owned();
        let zero = ">= 1 (the baseline was zero)";
        assert_eq!(judge(check("a", Bound::MinRatio(1.0)), &[empty], &[]), one("a", zero, Verdict::Inconclusive));
    }

    #[test]
    fn a_star_is_one_part() {
        assert!(overlap("network/builtin/bridge/*/tcp_stream", "network/builtin/bridge/egress/tcp_stream"));
        assert!(overlap("*/*/x", "a/b/x"));
        assert!(overlap("a/*", "*/b"));
        for (pattern, case) in
            [("network/*", "network/a/b"), ("*", "a/b"), ("a/*", "a"), ("a/b*", "a/bc"), ("a/**", "a/b")]
        {
            assert!(!overlap(pattern, case), "{pattern} {case}");
        }
    }

    #[test]
    fn measured_cases_are_judged_and_skipped_ones_named() {
        let summary = [row("network/bridge", [9.0, 10.0, 11.0], None), row("network/host", [1.0, 2.0, 3.0], None)];
        let skips = [skip("network/ipvlan"), skip("network/ipvlan"), skip("network/host"), skip("startup/*")];
        let judged = judge(check("network/*", Bound::Min(5.0)), &summary, &skips);
        let verdicts: Vec<(&str, Verdict)> = judged.iter().map(|row| (row.0.as_str(), row.2)).collect();
        assert_eq!(
            verdicts,
            [("network/bridge", Verdict::Pass), ("network/host", Verdict::Fail), ("network/ipvlan", Verdict::Skipped)]
        );
        let pattern = judge(check("startup/builtin", Bound::Min(5.0)), &summary, &skips);
        assert_eq!(pattern, one("startup/*", ">= 5", Verdict::Skipped));
    }

    #[test]
    fn a_check_of_nothing_says_so() {
        let summary = [row("network/host", [1.0, 2.0, 3.0], None)];
        let missing = ">= 5 (no such case was measured)";
        assert_eq!(
            judge(check("network/brigde", Bound::Min(5.0)), &summary, &[]),
            one("network/brigde", missing, Verdict::Inconclusive)
        );
        let rtt = Check { metric: "rtt".to_owned(), ..check("network/*", Bound::Max(5.0)) };
        let metric = "<= 5 (no such case has the metric rtt)";
        assert_eq!(judge(rtt, &summary, &[]), one("network/*", metric, Verdict::Inconclusive));
    }

    #[test]
    fn a_ratio_leaves_the_baseline_itself_out() {
        let summary =
            [row("network/host", [1.0, 2.0, 3.0], None), row("network/bridge", [1.0, 2.0, 3.0], Some([0.8, 0.9, 1.0]))];
        assert_eq!(
            judge(check("network/*", Bound::MinRatio(0.5)), &summary, &[]),
            one("network/bridge", ">= 0.5", Verdict::Pass)
        );
        let alone = ">= 0.5 (no such case has a baseline)";
        assert_eq!(
            judge(check("network/host", Bound::MinRatio(0.5)), &summary, &[]),
            one("network/host", alone, Verdict::Inconclusive)
        );
    }

    #[test]
    fn checks_of_one_name_are_numbered() {
        let checks = [check("a", Bound::Min(1.0)), check("a", Bound::Max(1.0)), check("b", Bound::Min(2.0))];
        let names: Vec<String> = evaluate(&checks, &[], &[]).into_iter().map(|row| row.check).collect();
        assert_eq!(names, ["throughput min #1", "throughput max", "throughput min #2"]);
    }
}
