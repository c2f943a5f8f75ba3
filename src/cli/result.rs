//! What a run (or a report made again) says at its end: figures, verdicts, where the report lies.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::Ended;
use super::output::{BOLD, DOUBT, ERROR, GOOD, Table};
use crate::gate::{Outcome, enforcement};
use crate::record::metric;
use crate::record::summary::SummaryRow;
use crate::record::{CheckRow, EnforcementRow, RunRecord, Skip, Verdict};
use crate::units::{human, significant};

/// A run with everything that was derived from it.
#[derive(Debug)]
pub(super) struct Judged {
    /// Where it was written.
    pub(super) directory: PathBuf,
    /// The raw run.
    pub(super) record: RunRecord,
    /// Its summary.
    pub(super) summary: Vec<SummaryRow>,
    /// Its checks.
    pub(super) checks: Vec<CheckRow>,
    /// The question's answer in plain words, one statement a line.
    pub(super) answers: Vec<String>,
}

impl Judged {
    /// How the run ends by what was measured and by its checks alone.
    pub(super) fn ended(&self) -> Ended {
        let by_checks = match Outcome::of(&self.checks) {
            Outcome::Pass => Ended::Pass,
            Outcome::Fail => Ended::Failed,
            Outcome::Inconclusive => Ended::Inconclusive,
        };
        if self.record.cases.is_empty() { by_checks.worst(Ended::Error) } else { by_checks }
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let meta = &self.record.meta;
        let interrupted = if meta.interrupted { format!(" {DOUBT}(interrupted){DOUBT:#}") } else { String::new() };
        let mut text = format!("\n{BOLD}{}{BOLD:#}: {}{interrupted}\n", meta.name, meta.question);
        for answer in &self.answers {
            text.push_str(&format!("  {answer}\n"));
        }
        if !self.summary.is_empty() {
            text.push_str(&format!("\n{}{}", self.figures().render(2), disturbed(&self.summary)));
        }
        if !self.record.enforcement.is_empty() {
            text.push_str(&format!("\n{}", self.enforcement().render(2)));
        }
        text.push_str(&skips(&self.record.skips));
        // Those on enforcement stand in the table above.
        let written: Vec<&CheckRow> = self.checks.iter().filter(|check| !enforcement::is_one(check)).collect();
        if !written.is_empty() {
            text.push('\n');
        }
        for check in written {
            text.push_str(&format!("  {}\n", verdict_line(check)));
        }
        text.push_str(&format!("\n  report: {}\n", self.directory.join("report.html").display()));
        text
    }

    /// For machines.
    pub(super) fn value(&self, ended: Ended) -> Value {
        let meta = &self.record.meta;
        json!({
            "scenario": meta.name,
            "question": meta.question,
            "directory": self.directory,
            "seed": meta.seed,
            "interrupted": meta.interrupted,
            "exit_code": ended.code(),
            "answers": self.answers,
            "summary": self.summary,
            "enforcement": self.record.enforcement,
            "checks": self.checks,
            "skips": self.record.skips,
        })
    }

    /// What was asked of each controller, and what came.
    fn enforcement(&self) -> Table {
        let mut table = Table::titled(&[
            "case",
            "setting",
            ">requested",
            ">achieved",
            ">error (95 %)",
            ">accounted",
            ">tolerance",
            "verdict",
        ]);
        let mut last = "";
        for row in &self.record.enforcement {
            let case = if row.case == last { "" } else { row.case.as_str() };
            last = &row.case;
            let value = |value: f64| human(value, &row.unit);
            let accounted = row.accounting_error_pct.map_or_else(|| "-".to_owned(), |error| format!("{error:+.1} %"));
            let judged = self.checks.iter().any(|check| enforcement::is_one(check) && check.case == row.case);
            let verdict = format!("{}{}", row.verdict, if judged { "" } else { " (only shown)" });
            table.row([
                case,
                &format!("{} {}", row.controller, row.setting),
                &value(row.requested),
                &value(row.achieved),
                &error(row),
                &accounted,
                &format!("±{} %", row.tolerance_pct),
                &verdict,
            ]);
        }
        table
    }

    fn figures(&self) -> Table {
        let mut table = Table::titled(&["case", "metric", ">median", ">95 % interval", "ratio", "to"]);
        let mut last = "";
        for row in &self.summary {
            let case = if row.case == last { "" } else { row.case.as_str() };
            last = &row.case;
            let interval = match (row.ci95_low, row.ci95_high) {
                (Some(low), Some(high)) => format!("{} to {}", human(low, &row.unit), human(high, &row.unit)),
                _ => "-".to_owned(),
            };
            let to = row.ratio_to.as_deref().filter(|_| !case.is_empty()).unwrap_or("");
            table.row([case, &row.metric, &human(row.p50, &row.unit), &interval, &ratio(row), to]);
        }
        table
    }
}

/// What a limit's row shows of its error, as in `-0.2 % (-0.4 to +0.1)`.
fn error(row: &EnforcementRow) -> String {
    let percent = |value: f64| if value == 0.0 { "0".to_owned() } else { format!("{value:+.1}") };
    let (low, high) = (percent(row.error_ci95_low), percent(row.error_ci95_high));
    let interval = if low == high { String::new() } else { format!(" ({low} to {high})") };
    format!("{} %{interval}", percent(row.error_pct))
}

/// The skipped cases, those with one reason together.
fn skips(skips: &[Skip]) -> String {
    let mut by_reason: Vec<(&str, Vec<&str>)> = Vec::new();
    for skip in skips {
        match by_reason.iter_mut().find(|(reason, _)| *reason == skip.reason) {
            Some((_, cases)) => cases.push(&skip.case),
            None => by_reason.push((&skip.reason, vec![&skip.case])),
        }
    }
    let mut text = String::new();
    for (reason, cases) in by_reason {
        text.push_str(&format!("\n  {DOUBT}skipped{DOUBT:#}: {reason}\n    {}\n", cases.join("\n    ")));
    }
    text
}

/// `2.1× (2 to 2.3)`, or nothing.
fn ratio(row: &SummaryRow) -> String {
    let Some(ratio) = row.ratio else { return String::new() };
    let interval = match (row.ratio_ci95_low, row.ratio_ci95_high) {
        (Some(low), Some(high)) => format!(" ({} to {})", significant(low), significant(high)),
        _ => String::new(),
    };
    format!("{}×{interval}", significant(ratio))
}

/// A line where samples carry a mark of disturbance; which ones stands in the files.
fn disturbed(summary: &[SummaryRow]) -> String {
    let marked = summary.iter().filter(|row| row.flags.contains("disturbed")).count();
    if marked == 0 {
        return String::new();
    }
    let of = summary.len();
    format!(
        "\n  {DOUBT}disturbed{DOUBT:#}: others used the machine during samples of {marked} of {of} rows, see the flags in summary.csv\n"
    )
}

fn verdict_line(check: &CheckRow) -> String {
    let style = match check.verdict {
        Verdict::Pass => GOOD,
        Verdict::Fail => ERROR,
        Verdict::Inconclusive | Verdict::Skipped => DOUBT,
    };
    let text = |value: f64| match metric::find(&check.metric) {
        Some(metric) if !check.check.contains("_ratio") => human(value, metric.unit),
        _ => significant(value),
    };
    let value = check.value.map_or_else(|| "not measured".to_owned(), text);
    // `<= 5000000000`, perhaps with a remark behind it; the number is for machines.
    let (sign, number) = check.bound.split_once(' ').unwrap_or((&check.bound, ""));
    let (number, remark) = number.split_once(' ').unwrap_or((number, ""));
    let bound = number.parse().map_or_else(|_| number.to_owned(), text);
    let line = format!(
        "{style}{:<12}{style:#}  {}  {}: {value} {sign} {bound} {remark}",
        check.verdict.to_string(),
        check.check,
        check.case
    );
    line.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::record::{Fingerprint, Flags, RunMeta, SCHEMA_VERSION};
    use crate::scenario::{Options, Scenario};

    fn row(case: &str, ratio: Option<f64>, flags: &str) -> SummaryRow {
        SummaryRow {
            case: case.to_owned(),
            experiment: "startup".to_owned(),
            runtime: String::new(),
            network: String::new(),
            metric: "exit".to_owned(),
            unit: "ns".to_owned(),
            better: "lower".to_owned(),
            n: 20,
            min: 1e6,
            p50: 1.25e6,
            p90: 2e6,
            p99: None,
            p999: None,
            max: 3e6,
            mean: 1.3e6,
            stddev: None,
            ci95_low: Some(1.2e6),
            ci95_high: Some(1.3e6),
            ratio_to: ratio.map(|_| "startup/floor/none/c1".to_owned()),
            ratio,
            ratio_ci95_low: ratio,
            ratio_ci95_high: ratio,
            flags: flags.to_owned(),
        }
    }

    fn judged(verdict: Verdict) -> Judged {
        let text = "[scenario]\nname = \"t\"\nquestion = \"What?\"\n\
                    [[experiment]]\nkind = \"startup\"\nruntime = [\"floor\", \"builtin\"]\nnetwork = \"none\"\n";
        let scenario = Scenario::parse(text, "t.toml", &Options::default()).unwrap();
        let check = CheckRow {
            check: "exit max_ratio".to_owned(),
            case: "startup/builtin/none/c1".to_owned(),
            metric: "exit".to_owned(),
            value: Some(2.0),
            bound: "<= 10".to_owned(),
            verdict,
        };
        Judged {
            directory: PathBuf::from("reports/t"),
            record: RunRecord {
                meta: RunMeta {
                    schema_version: SCHEMA_VERSION,
                    isobench_version: "0".to_owned(),
                    name: scenario.name.clone(),
                    question: scenario.question.clone(),
                    scenario_toml: text.to_owned(),
                    overrides: Vec::new(),
                    quick: false,
                    seed: 1,
                    started_utc: String::new(),
                    duration_ns: 1,
                    interrupted: true,
                },
                fingerprint: Fingerprint::default(),
                cases: scenario.cases.iter().map(|case| case.record()).collect(),
                skips: ["a", "b"]
                    .map(|case| Skip { case: case.to_owned(), reason: "the host lacks it".to_owned() })
                    .to_vec(),
                blocks: Vec::new(),
                samples: Vec::new(),
                phases: Vec::new(),
                histograms: Vec::new(),
                enforcement_samples: Vec::new(),
                enforcement: Vec::new(),
            },
            summary: vec![
                row("startup/floor/none/c1", None, ""),
                row("startup/builtin/none/c1", Some(2.0), "disturbed=7%"),
            ],
            checks: vec![check],
            answers: vec!["it takes twice as long".to_owned()],
        }
    }

    #[test]
    fn people_get_answer_figures_skips_verdicts_and_the_place() {
        let text = anstream::adapter::strip_str(&judged(Verdict::Pass).text()).to_string();
        expect![[r#"

            t: What? (interrupted)
              it takes twice as long

              case                     metric   median     95 % interval  ratio        to
              startup/floor/none/c1    exit    1.25 ms  1.2 ms to 1.3 ms
              startup/builtin/none/c1  exit    1.25 ms  1.2 ms to 1.3 ms  2× (2 to 2)  startup/floor/none/c1

              disturbed: others used the machine during samples of 1 of 2 rows, see the flags in summary.csv

              skipped: the host lacks it
                a
                b

              pass          exit max_ratio  startup/builtin/none/c1: 2 <= 10

              report: reports/t/report.html
        "#]]
        .assert_eq(&text);
    }

    #[test]
    fn bounds_in_base_units_are_scaled_and_ratios_are_not() {
        let line = |check: &str, value: Option<f64>, bound: &str| {
            let mut judged = judged(Verdict::Fail);
            let row = &mut judged.checks[0];
            (row.check, row.value, row.bound) = (check.to_owned(), value, bound.to_owned());
            anstream::adapter::strip_str(&verdict_line(row)).to_string()
        };
        let start = "fail          exit max";
        let case = "startup/builtin/none/c1";
        assert_eq!(line("exit max", Some(12.5e6), "<= 5000000"), format!("{start}  {case}: 12.5 ms <= 5 ms"));
        assert_eq!(line("exit max_ratio", Some(12.5), "<= 5"), format!("{start}_ratio  {case}: 12.5 <= 5"));
        assert_eq!(
            line("exit max", None, "<= 5 (no such case)"),
            format!("{start}  {case}: not measured <= 5 ns (no such case)")
        );
    }

    #[test]
    fn limits_are_shown_with_their_errors() {
        let mut judged = judged(Verdict::Pass);
        let row = |setting: &str, achieved: f64, verdict| EnforcementRow {
            case: "combined/builtin/together".to_owned(),
            controller: "cpu".to_owned(),
            setting: setting.to_owned(),
            requested: 0.5,
            achieved,
            accounted: Some(achieved),
            unit: "ratio".to_owned(),
            error_pct: (achieved - 0.5) * 200.0,
            error_ci95_low: (achieved - 0.502) * 200.0,
            error_ci95_high: (achieved - 0.499) * 200.0,
            accounting_error_pct: Some(0.0),
            tolerance_pct: 2.0,
            verdict,
            flags: Flags::default(),
        };
        judged.record.enforcement = vec![row("quota", 0.499, Verdict::Pass), row("other", 0.25, Verdict::Fail)];
        judged.checks = enforcement::evaluate(&judged.record.enforcement, &[]);
        let text = anstream::adapter::strip_str(&judged.text()).to_string();
        let shown: String = text
            .lines()
            .skip_while(|line| !line.contains("tolerance"))
            .take(3)
            // `expect!` takes the indentation that all lines share away.
            .map(|line| format!("{}\n", line.trim_start_matches("  ")))
            .collect();
        expect![[r#"
            case                       setting    requested  achieved              error (95 %)  accounted  tolerance  verdict
            combined/builtin/together  cpu quota       50 %    49.9 %        -0.2 % (-0.6 to 0)     +0.0 %       ±2 %  pass
             cpu other       50 %      25 %  -50.0 % (-50.4 to -49.8)     +0.0 %       ±2 %  fail
        "#]].assert_eq(&shown);
        assert_eq!(judged.ended(), Ended::Failed);
    }

    #[test]
    fn the_ending_follows_the_checks_and_a_run_without_cases_is_an_error() {
        let ended = [Verdict::Pass, Verdict::Fail, Verdict::Inconclusive, Verdict::Skipped]
            .map(|verdict| judged(verdict).ended());
        assert_eq!(ended, [Ended::Pass, Ended::Failed, Ended::Inconclusive, Ended::Pass]);
        let mut empty = judged(Verdict::Pass);
        empty.record.cases.clear();
        assert_eq!(empty.ended(), Ended::Error);
    }
}
