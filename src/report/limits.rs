//! Enforcement in plain words: what holds, what does not, and what the data cannot tell.

use crate::record::{EnforcementRow, Verdict};

use super::figure;
use super::label;

/// Under this name the enforcement of all experiments stands together, in answers and charts.
pub(super) const SECTION: &str = "enforcement";
/// So many limits that hold are told at most; the table has all.
const TOLD: usize = 8;

/// What is said of all rows, the bad news first, and how many limits that hold are left to the table.
pub(super) fn sentences(rows: &[EnforcementRow]) -> (Vec<String>, usize) {
    if rows.is_empty() {
        return (Vec::new(), 0);
    }
    let of = |verdict| rows.iter().filter(move |row| row.verdict == verdict);
    let mut told = vec![overall(rows)];
    let bad = of(Verdict::Fail).chain(of(Verdict::Inconclusive));
    told.extend(bad.chain(of(Verdict::Pass).take(TOLD)).map(sentence));
    (told, of(Verdict::Pass).count().saturating_sub(TOLD))
}

/// `18 of 20 limits hold, 1 does not, 1 cannot be told from this data`.
pub(super) fn overall(rows: &[EnforcementRow]) -> String {
    let count = |verdict| rows.iter().filter(|row| row.verdict == verdict).count();
    let (holds, fails, open) = (count(Verdict::Pass), count(Verdict::Fail), count(Verdict::Inconclusive));
    if holds == rows.len() {
        return if holds == 1 { "The one limit holds".to_owned() } else { format!("All {holds} limits hold") };
    }
    let mut parts = vec![format!("{holds} of {} limits {}", rows.len(), if holds == 1 { "holds" } else { "hold" })];
    if fails > 0 {
        parts.push(format!("{fails} {} not", if fails == 1 { "does" } else { "do" }));
    }
    if open > 0 {
        parts.push(format!("{open} cannot be told from this data"));
    }
    parts.join(", ")
}

/// The case's id as far as it says more than the controller's name: experiment and runtime stand before it.
fn case_name(row: &EnforcementRow) -> String {
    let parts: Vec<&str> = row.case.split('/').collect();
    let known =
        |(index, part): &(usize, &&str)| (*index == 0 && **part == row.controller) || (*index == 1 && parts.len() > 2);
    parts.iter().enumerate().filter(|part| !known(part)).map(|(_, part)| *part).collect::<Vec<_>>().join(" ")
}

/// A controller as a title begins with it.
pub(super) fn controller(name: &str) -> String {
    match name {
        "cpu" => "CPU".to_owned(),
        "blkio" => "Block I/O".to_owned(),
        other => label::capitalised(other),
    }
}

fn sentence(row: &EnforcementRow) -> String {
    let case = case_name(row);
    let case = if case.is_empty() { String::new() } else { format!(" ({case})") };
    let what = format!("{} {}{case}", row.controller, row.setting);
    let end = match row.verdict {
        Verdict::Pass => "holds",
        Verdict::Fail => "does not hold",
        Verdict::Inconclusive if row.flags.starved => "cannot be told: the container was kept from the CPU",
        Verdict::Inconclusive => "cannot be told from this data",
        Verdict::Skipped => "was skipped",
    };
    if row.controller == "devices" {
        return format!("{what}: {}: {end}", access(row));
    }
    let values =
        format!("{} achieved of {}", figure::value(row.achieved, &row.unit), figure::value(row.requested, &row.unit));
    let side = match row.verdict {
        Verdict::Pass => "within",
        Verdict::Fail => "outside",
        Verdict::Inconclusive | Verdict::Skipped => "against",
    };
    match (row.tolerance_pct == 0.0, row.verdict) {
        (true, Verdict::Pass) => format!("{what}: {values}, exactly: {end}"),
        (true, _) => format!("{what}: {values}, where it should be exact: {end}"),
        (false, _) => format!("{what}: {values}, {}, {side} ±{} %: {end}", error(row), row.tolerance_pct),
    }
}

/// What came of accesses to devices: the sum, or one that went wrong.
fn access(row: &EnforcementRow) -> String {
    if row.setting.starts_with("accesses") {
        let (asked, right) = (row.requested, row.achieved);
        return if asked == right {
            format!("all {asked} accesses came out as the rules say")
        } else {
            format!("{right} of {asked} accesses came out as the rules say")
        };
    }
    match row.requested > row.achieved {
        true => "denied, though the rules permit it".to_owned(),
        false => "let through, though the rules forbid it".to_owned(),
    }
}

/// `+0.3 % (−0.4 to +0.6)`; the interval is left out where it is a point.
pub(super) fn error(row: &EnforcementRow) -> String {
    let (low, high) = (percent(row.error_ci95_low), percent(row.error_ci95_high));
    let interval = if low == high { String::new() } else { format!(" ({low} to {high})") };
    format!("{} %{interval}", percent(row.error_pct))
}

/// A signed number with a real minus.
pub(super) fn percent(value: f64) -> String {
    if !value.is_finite() {
        return figure::ABSENT.to_owned();
    }
    let size = value.abs();
    let text = if size >= 0.995 || size == 0.0 { format!("{size:.1}") } else { format!("{size:.2}") };
    match text.trim_matches(|c| c == '0' || c == '.').is_empty() {
        true => "0".to_owned(),
        false if value < 0.0 => format!("−{text}"),
        false => format!("+{text}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture;
    use expect_test::expect;

    #[test]
    fn what_holds_and_what_does_not_is_said_plainly() {
        let (told, left_out) = sentences(&fixture::enforcement());
        expect![[r#"
            5 of 9 limits hold, 3 do not, 1 cannot be told from this data
            cpu quota (quota 150): 75.0 % achieved of 150 %, −50.0 % (−51.0 to −49.0), outside ±2 %: does not hold
            devices accesses (default): 32 of 33 accesses came out as the rules say: does not hold
            devices kmsg/read (default): let through, though the rules forbid it: does not hold
            cpu quota (quota 10): 10.2 % achieved of 10.0 %, +1.9 % (+1.5 to +2.3), against ±2 %: cannot be told from this data
            cpu quota (quota 50): 49.9 % achieved of 50.0 %, −0.20 % (−0.50 to +0.10), within ±2 %: holds
            cpu shares/a (shares 2-1): 66.5 % achieved of 66.7 %, −0.22 % (−0.42 to −0.02), within ±2 %: holds
            cpu shares/b (shares 2-1): 33.5 % achieved of 33.3 %, +0.45 % (+0.05 to +0.85), within ±2 %: holds
            memory limit (limit 64M): 63.7 MiB achieved of 64.0 MiB, −0.47 % (−0.49 to −0.45), within ±1 %: holds
            pids max (24): 24 achieved of 24, exactly: holds
        "#]].assert_eq(&(told.join("\n") + "\n"));
        assert_eq!(left_out, 0);
        assert_eq!(sentences(&[]), (Vec::new(), 0));
        assert_eq!(overall(&fixture::enforcement()[..1]), "The one limit holds");
    }

    #[test]
    fn percents_are_signed() {
        let cases = [(0.0, "0"), (-0.234, "−0.23"), (0.0001, "0"), (12.34, "+12.3"), (-50.0, "−50.0"), (f64::NAN, "–")];
        for (value, text) in cases {
            assert_eq!(percent(value), text);
        }
    }
}
