//! What became of the checks, what was skipped, and what was disturbed, in words.

use crate::record::{CheckRow, RunRecord, Verdict};
use crate::units::human;

use super::{figure, limits};
use crate::gate::enforcement;

/// How the checks came out, all together: the worst of them.
pub(super) fn overall(checks: &[CheckRow]) -> Option<Verdict> {
    [Verdict::Fail, Verdict::Inconclusive, Verdict::Pass, Verdict::Skipped]
        .into_iter()
        .find(|verdict| checks.iter().any(|check| check.verdict == *verdict))
}

/// The checks that the scenario wrote down; those on enforcement have a table of their own.
pub(super) fn written(checks: &[CheckRow]) -> Vec<CheckRow> {
    checks.iter().filter(|check| !enforcement::is_one(check)).cloned().collect()
}

/// What became of the checks and of the limits: a sentence each.
pub(super) fn sentences(run: &RunRecord, checks: &[CheckRow]) -> Vec<String> {
    let written = written(checks);
    let checks = (!written.is_empty() || run.enforcement.is_empty()).then(|| sentence(&written));
    checks.into_iter().chain((!run.enforcement.is_empty()).then(|| limits::overall(&run.enforcement))).collect()
}

/// `3 of 5 checks pass, 1 fails, 1 was skipped`.
fn sentence(checks: &[CheckRow]) -> String {
    let count = |verdict| checks.iter().filter(|check| check.verdict == verdict).count();
    let all = checks.len();
    let (pass, fail, open, skipped) =
        (count(Verdict::Pass), count(Verdict::Fail), count(Verdict::Inconclusive), count(Verdict::Skipped));
    if all == 0 {
        return "The scenario checks nothing".to_owned();
    }
    if pass == all {
        return if all == 1 { "The one check passes".to_owned() } else { format!("All {all} checks pass") };
    }
    let mut parts = vec![format!("{pass} of {all} checks {}", if pass == 1 { "passes" } else { "pass" })];
    if fail > 0 {
        parts.push(format!("{fail} {}", if fail == 1 { "fails" } else { "fail" }));
    }
    if open > 0 {
        parts.push(format!("{open} cannot be told from this data"));
    }
    if skipped > 0 {
        parts.push(format!("{skipped} {} skipped", if skipped == 1 { "was" } else { "were" }));
    }
    parts.join(", ")
}

/// A check's value as people read it: a ratio, or a value in the metric's unit.
pub(super) fn value(check: &CheckRow) -> String {
    if let Some(error) = check.value.filter(|_| enforcement::is_one(check)) {
        return format!("{} % off", limits::percent(error));
    }
    match check.value {
        Some(value) if is_ratio(check) => figure::Ratio { at: value, ci: None }.text(),
        value => figure::value(value, unit(check)),
    }
}

/// A check's bound as people read it.
pub(super) fn bound(check: &CheckRow) -> String {
    if enforcement::is_one(check) {
        return check.bound.replace("within ", "within ±");
    }
    let Some((sign, number)) = check.bound.split_once(' ') else { return check.bound.clone() };
    let sign = match sign {
        ">=" => "≥",
        "<=" => "≤",
        other => other,
    };
    // What stands behind the number says why nothing was judged.
    let (number, note) =
        number.split_once(' ').map_or((number, String::new()), |(number, note)| (number, format!(" {note}")));
    match number.parse::<f64>() {
        Ok(number) if is_ratio(check) => format!("{sign} {number}×{note}"),
        Ok(number) => format!("{sign} {}{note}", human(number, unit(check))),
        Err(_) => check.bound.clone(),
    }
}

fn is_ratio(check: &CheckRow) -> bool {
    check.check.contains("ratio")
}

fn unit(check: &CheckRow) -> &'static str {
    crate::record::metric::find(&check.metric).map_or("", |metric| metric.unit)
}

/// What disturbed the measured samples, in one sentence.
pub(super) fn disturbance(run: &RunRecord) -> String {
    let enforced = || run.enforcement_samples.iter().map(|sample| sample.flags);
    let measured = || run.samples.iter().map(|sample| sample.flags).chain(enforced()).filter(|flags| !flags.warmup);
    let all = measured().count();
    let disturbed = measured().filter(|flags| flags.disturbed()).count();
    let outliers = measured().filter(|flags| flags.outlier).count();
    if all == 0 {
        return "No sample was measured".to_owned();
    }
    let count = |name: &str, is: fn(&crate::record::Flags) -> bool| {
        let count = measured().filter(is).count();
        (count > 0).then(|| format!("{name} {count}"))
    };
    let outliers =
        if outliers > 0 { format!("; {outliers} lie far outside their case's usual range") } else { String::new() };
    if disturbed == 0 {
        return format!("None of the {all} measured samples was disturbed{outliers}");
    }
    let why: Vec<String> = [
        count("time stolen by the hypervisor", |flags| flags.steal),
        count("CPU pressure from outside", |flags| flags.pressure),
        count("harness switched out", |flags| flags.preempted),
    ]
    .into_iter()
    .flatten()
    .collect();
    let share = figure::share(disturbed as f64 / all as f64);
    format!("{disturbed} of the {all} measured samples ({share}) were disturbed ({}){outliers}", why.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture;

    #[test]
    fn checks_are_counted_in_words() {
        let checks = fixture::checks();
        assert_eq!(overall(&checks), Some(Verdict::Fail));
        assert_eq!(overall(&[]), None);
        assert_eq!(sentence(&checks), "2 of 5 checks pass, 1 fails, 1 cannot be told from this data, 1 was skipped");
        assert_eq!(sentence(&checks[..2]), "All 2 checks pass");
        assert_eq!(sentence(&checks[..1]), "The one check passes");
        assert_eq!(sentence(&checks[2..3]), "0 of 1 checks pass, 1 fails");
    }

    #[test]
    fn bounds_are_scaled() {
        let checks = fixture::checks();
        assert_eq!((value(&checks[0]), bound(&checks[0])), ("0.94×".to_owned(), "≥ 0.5×".to_owned()));
        assert_eq!((value(&checks[2]), bound(&checks[2])), ("2.57 ms".to_owned(), "≤ 2 ms".to_owned()));
        assert_eq!(value(&checks[4]), "–");
        let noted = CheckRow { bound: "<= 2000000 (nothing was measured)".to_owned(), ..checks[2].clone() };
        assert_eq!(bound(&noted), "≤ 2 ms (nothing was measured)");
        let odd = CheckRow { bound: "about right".to_owned(), ..checks[2].clone() };
        assert_eq!(bound(&odd), "about right");
    }

    #[test]
    fn disturbance_says_what_and_how_often() {
        expect_test::expect!["350 of the 2100 measured samples (16.7 %) were disturbed (time stolen by the hypervisor 175, CPU pressure from outside 350)"].assert_eq(&disturbance(&fixture::run()));
        assert_eq!(disturbance(&fixture::run_of(Vec::new(), 0, 0)), "No sample was measured");
    }
}
