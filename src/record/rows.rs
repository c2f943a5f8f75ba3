//! The columns of each table of a run directory: the contract that other programs read by.
//!
//! Columns are only ever added, at the end.

use super::directory::RecordError;
use super::enforcement::EnforcementSample;
use super::metric;
use super::summary::SummaryRow;
use super::table::{Line, ReadRow, Row};
use super::{CheckRow, EnforcementRow, Flags, HistogramRow, PhaseRow, Sample};
use crate::stats::histogram;

const WHOLE: &str = "a whole number";
const NUMBER: &str = "a number";

/// The text of a value that may be absent.
fn or_empty<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(String::new, |value| value.to_string())
}

impl Row for Sample {
    const COLUMNS: &'static [&'static str] =
        &["case", "metric", "unit", "block", "iteration", "value", "start_ns", "flags"];

    fn fields(&self) -> Result<Vec<String>, RecordError> {
        Ok(vec![
            self.case.clone(),
            self.metric.clone(),
            self.unit.clone(),
            self.block.to_string(),
            self.iteration.to_string(),
            self.value.to_string(),
            self.start_ns.to_string(),
            self.flags.to_string(),
        ])
    }
}

impl ReadRow for Sample {
    fn read(line: &Line<'_>) -> Result<Self, RecordError> {
        Ok(Self {
            case: line.case()?,
            metric: line.text("metric").to_owned(),
            unit: unit(line)?,
            block: line.value("block", WHOLE)?,
            iteration: line.value("iteration", WHOLE)?,
            value: line.value("value", NUMBER)?,
            start_ns: line.value("start_ns", WHOLE)?,
            flags: flags(line)?,
        })
    }
}

impl Row for HistogramRow {
    const COLUMNS: &'static [&'static str] =
        &["case", "metric", "unit", "block", "iteration", "count", "histogram", "flags"];

    fn fields(&self) -> Result<Vec<String>, RecordError> {
        let text = histogram::to_text(&self.histogram).map_err(|source| RecordError::Histogram {
            case: self.case.clone(),
            metric: self.metric.clone(),
            source,
        })?;
        Ok(vec![
            self.case.clone(),
            self.metric.clone(),
            self.unit.clone(),
            self.block.to_string(),
            self.iteration.to_string(),
            self.histogram.len().to_string(),
            text,
            self.flags.to_string(),
        ])
    }
}

impl ReadRow for HistogramRow {
    fn read(line: &Line<'_>) -> Result<Self, RecordError> {
        let wrong = |_| line.wrong("histogram", "the base64 text of a V2 HDR histogram");
        let histogram = histogram::from_text(line.text("histogram")).map_err(wrong)?;
        if line.value::<u64>("count", WHOLE)? != histogram.len() {
            return Err(line.wrong("count", &format!("the histogram's own count, {}", histogram.len())));
        }
        Ok(Self {
            case: line.case()?,
            metric: line.text("metric").to_owned(),
            unit: unit(line)?,
            block: line.value("block", WHOLE)?,
            iteration: line.value("iteration", WHOLE)?,
            histogram,
            flags: flags(line)?,
        })
    }
}

/// The column `unit`; of a known metric it must be that metric's own, or every figure would be off by a factor.
fn unit(line: &Line<'_>) -> Result<String, RecordError> {
    let unit = line.text("unit");
    match metric::find(line.text("metric")) {
        Some(metric) if metric.unit != unit => {
            Err(line.wrong("unit", &format!("the unit of {}, {}", metric.name, metric.unit)))
        }
        _ => Ok(unit.to_owned()),
    }
}

fn flags(line: &Line<'_>) -> Result<Flags, RecordError> {
    line.text("flags")
        .parse()
        .map_err(|error: String| line.wrong("flags", &format!("a list of flags joined by `|`: {error}")))
}

impl Row for PhaseRow {
    const COLUMNS: &'static [&'static str] = &["case", "block", "iteration", "phase", "start_ns", "duration_ns"];

    fn fields(&self) -> Result<Vec<String>, RecordError> {
        Ok(vec![
            self.case.clone(),
            self.block.to_string(),
            self.iteration.to_string(),
            self.phase.clone(),
            self.start_ns.to_string(),
            self.duration_ns.to_string(),
        ])
    }
}

impl ReadRow for PhaseRow {
    fn read(line: &Line<'_>) -> Result<Self, RecordError> {
        Ok(Self {
            case: line.case()?,
            block: line.value("block", WHOLE)?,
            iteration: line.value("iteration", WHOLE)?,
            phase: line.text("phase").to_owned(),
            start_ns: line.value("start_ns", WHOLE)?,
            duration_ns: line.value("duration_ns", WHOLE)?,
        })
    }
}

impl Row for EnforcementRow {
    const COLUMNS: &'static [&'static str] = &[
        "case",
        "controller",
        "setting",
        "requested",
        "achieved",
        "accounted",
        "unit",
        "error_pct",
        "error_ci95_low",
        "error_ci95_high",
        "accounting_error_pct",
        "tolerance_pct",
        "verdict",
        "flags",
    ];

    fn fields(&self) -> Result<Vec<String>, RecordError> {
        Ok(vec![
            self.case.clone(),
            self.controller.clone(),
            self.setting.clone(),
            self.requested.to_string(),
            self.achieved.to_string(),
            or_empty(self.accounted),
            self.unit.clone(),
            self.error_pct.to_string(),
            self.error_ci95_low.to_string(),
            self.error_ci95_high.to_string(),
            or_empty(self.accounting_error_pct),
            self.tolerance_pct.to_string(),
            self.verdict.to_string(),
            self.flags.to_string(),
        ])
    }
}

impl Row for EnforcementSample {
    const COLUMNS: &'static [&'static str] = &[
        "case",
        "controller",
        "setting",
        "unit",
        "block",
        "iteration",
        "requested",
        "achieved",
        "accounted",
        "tolerance_pct",
        "start_ns",
        "flags",
    ];

    fn fields(&self) -> Result<Vec<String>, RecordError> {
        Ok(vec![
            self.case.clone(),
            self.controller.clone(),
            self.setting.clone(),
            self.unit.clone(),
            self.block.to_string(),
            self.iteration.to_string(),
            self.requested.to_string(),
            self.achieved.to_string(),
            or_empty(self.accounted),
            self.tolerance_pct.to_string(),
            self.start_ns.to_string(),
            self.flags.to_string(),
        ])
    }
}

impl ReadRow for EnforcementSample {
    fn read(line: &Line<'_>) -> Result<Self, RecordError> {
        Ok(Self {
            case: line.case()?,
            controller: line.text("controller").to_owned(),
            setting: line.text("setting").to_owned(),
            unit: line.text("unit").to_owned(),
            block: line.value("block", WHOLE)?,
            iteration: line.value("iteration", WHOLE)?,
            requested: line.value("requested", NUMBER)?,
            achieved: line.value("achieved", NUMBER)?,
            accounted: line.optional("accounted", NUMBER)?,
            tolerance_pct: line.value("tolerance_pct", NUMBER)?,
            start_ns: line.value("start_ns", WHOLE)?,
            flags: flags(line)?,
        })
    }
}

impl Row for SummaryRow {
    const COLUMNS: &'static [&'static str] = &[
        "case",
        "experiment",
        "runtime",
        "network",
        "metric",
        "unit",
        "better",
        "n",
        "min",
        "p50",
        "p90",
        "p99",
        "p999",
        "max",
        "mean",
        "stddev",
        "ci95_low",
        "ci95_high",
        "ratio_to",
        "ratio",
        "ratio_ci95_low",
        "ratio_ci95_high",
        "flags",
    ];

    fn fields(&self) -> Result<Vec<String>, RecordError> {
        Ok(vec![
            self.case.clone(),
            self.experiment.clone(),
            self.runtime.clone(),
            self.network.clone(),
            self.metric.clone(),
            self.unit.clone(),
            self.better.clone(),
            self.n.to_string(),
            self.min.to_string(),
            self.p50.to_string(),
            self.p90.to_string(),
            or_empty(self.p99),
            or_empty(self.p999),
            self.max.to_string(),
            self.mean.to_string(),
            or_empty(self.stddev),
            or_empty(self.ci95_low),
            or_empty(self.ci95_high),
            or_empty(self.ratio_to.as_deref()),
            or_empty(self.ratio),
            or_empty(self.ratio_ci95_low),
            or_empty(self.ratio_ci95_high),
            self.flags.clone(),
        ])
    }
}

impl Row for CheckRow {
    const COLUMNS: &'static [&'static str] = &["check", "case", "metric", "value", "bound", "verdict"];

    fn fields(&self) -> Result<Vec<String>, RecordError> {
        Ok(vec![
            self.check.clone(),
            self.case.clone(),
            self.metric.clone(),
            or_empty(self.value),
            self.bound.clone(),
            self.verdict.to_string(),
        ])
    }
}
