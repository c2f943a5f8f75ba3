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

/// A line's fields, as text.
fn texts(values: &[&dyn ToString]) -> Vec<String> {
    values.iter().map(|value| value.to_string()).collect()
}

impl Row for Sample {
    const COLUMNS: &'static [&'static str] =
        &["case", "metric", "unit", "block", "iteration", "value", "start_ns", "flags"];

    fn fields(&self) -> Result<Vec<String>, RecordError> {
        Ok(texts(&[
            &self.case,
            &self.metric,
            &self.unit,
            &self.block,
            &self.iteration,
            &self.value,
            &self.start_ns,
            &self.flags,
        ]))
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
        Ok(texts(&[
            &self.case,
            &self.metric,
            &self.unit,
            &self.block,
            &self.iteration,
            &self.histogram.len(),
            &text,
            &self.flags,
        ]))
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
        Ok(texts(&[&self.case, &self.block, &self.iteration, &self.phase, &self.start_ns, &self.duration_ns]))
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
        Ok(texts(&[
            &self.case,
            &self.controller,
            &self.setting,
            &self.requested,
            &self.achieved,
            &or_empty(self.accounted),
            &self.unit,
            &self.error_pct,
            &self.error_ci95_low,
            &self.error_ci95_high,
            &or_empty(self.accounting_error_pct),
            &self.tolerance_pct,
            &self.verdict,
            &self.flags,
        ]))
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
        Ok(texts(&[
            &self.case,
            &self.controller,
            &self.setting,
            &self.unit,
            &self.block,
            &self.iteration,
            &self.requested,
            &self.achieved,
            &or_empty(self.accounted),
            &self.tolerance_pct,
            &self.start_ns,
            &self.flags,
        ]))
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
        Ok(texts(&[
            &self.case,
            &self.experiment,
            &self.runtime,
            &self.network,
            &self.metric,
            &self.unit,
            &self.better,
            &self.n,
            &self.min,
            &self.p50,
            &self.p90,
            &or_empty(self.p99),
            &or_empty(self.p999),
            &self.max,
            &self.mean,
            &or_empty(self.stddev),
            &or_empty(self.ci95_low),
            &or_empty(self.ci95_high),
            &or_empty(self.ratio_to.as_deref()),
            &or_empty(self.ratio),
            &or_empty(self.ratio_ci95_low),
            &or_empty(self.ratio_ci95_high),
            &self.flags,
        ]))
    }
}

impl Row for CheckRow {
    const COLUMNS: &'static [&'static str] = &["check", "case", "metric", "value", "bound", "verdict"];

    fn fields(&self) -> Result<Vec<String>, RecordError> {
        Ok(texts(&[&self.check, &self.case, &self.metric, &or_empty(self.value), &self.bound, &self.verdict]))
    }
}
