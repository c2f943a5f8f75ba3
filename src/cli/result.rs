//! What a run (or a report made again) says at its end: figures, verdicts, where the report lies.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::Ended;
use super::output::{BOLD, DOUBT, ERROR, GOOD, Table};
use crate::gate::Outcome;
use crate::record::summary::SummaryRow;
use crate::record::{CheckRow, RunRecord, Skip, Verdict};
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
            text.push_str(&format!("\n{}", self.figures().render(2)));
        }
        text.push_str(&skips(&self.record.skips));
        if !self.checks.is_empty() {
            text.push('\n');
        }
        for check in &self.checks {
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
            "checks": self.checks,
            "skips": self.record.skips,
        })
    }

    fn figures(&self) -> Table {
        let mut table = Table::titled(&["case", "metric", ">median", ">95 % interval", "ratio", ""]);
        let mut last = "";
        for row in &self.summary {
            let case = if row.case == last { "" } else { row.case.as_str() };
            last = &row.case;
            let interval = match (row.ci95_low, row.ci95_high) {
                (Some(low), Some(high)) => format!("{} to {}", human(low, &row.unit), human(high, &row.unit)),
                _ => "-".to_owned(),
            };
            table.row([case, &row.metric, &human(row.p50, &row.unit), &interval, &ratio(row), &row.flags]);
        }
        table
    }
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

/// `2.1× (2 to 2.3) startup/floor/none/c1`, or nothing.
fn ratio(row: &SummaryRow) -> String {
    let (Some(ratio), Some(to)) = (row.ratio, &row.ratio_to) else { return String::new() };
    let interval = match (row.ratio_ci95_low, row.ratio_ci95_high) {
        (Some(low), Some(high)) => format!(" ({} to {})", significant(low), significant(high)),
        _ => String::new(),
    };
    format!("{}×{interval} {to}", significant(ratio))
}

fn verdict_line(check: &CheckRow) -> String {
    let style = match check.verdict {
        Verdict::Pass => GOOD,
        Verdict::Fail => ERROR,
        Verdict::Inconclusive | Verdict::Skipped => DOUBT,
    };
    let value = check.value.map_or_else(|| "not measured".to_owned(), significant);
    format!(
        "{style}{:<12}{style:#}  {}  {}: {value} {}",
        check.verdict.to_string(),
        check.check,
        check.case,
        check.bound
    )
}
