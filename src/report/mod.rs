//! Reports: functions from a run, its summary and its checks to bytes: charts, one HTML page, a Markdown comment.
//!
//! Everything derived comes in as rows; nothing here measures, summarises or judges. `answer` says in words what was
//! found, `table` and `chart` decide what is shown, `html` and `markdown` write it down. Called by the command line
//! after a run, and again for a run directory that is read back.

use std::path::Path;

use crate::fs::{self, FileError};
use crate::record::summary::SummaryRow;
use crate::record::{CheckRow, RunRecord};

mod answer;
mod chart;
mod escape;
mod figure;
#[cfg(test)]
mod fixture;
mod html;
mod interference;
mod label;
mod limits;
mod markdown;
mod method;
mod table;
#[cfg(test)]
mod tests;
mod verdict;
mod waterfall;

pub use chart::ChartError;

/// Why a report could not be written.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// A file could not be written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A chart could not be drawn.
    #[error(transparent)]
    Chart(#[from] ChartError),
}

/// Everything that is rendered of a run, in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// File name (as in `startup-exit.svg`) and SVG text of each chart.
    pub charts: Vec<(String, String)>,
    /// The page `report.html`.
    pub html: String,
    /// The comment `summary.md`.
    pub markdown: String,
}

/// The answer to the scenario's question in plain words: sentences without a full stop, as the reports begin with.
#[must_use]
pub fn answers(run: &RunRecord, summary: &[SummaryRow]) -> Vec<String> {
    answer::answer(run, summary).parts.into_iter().flat_map(|part| part.sentences).collect()
}

/// Renders a run without touching a file.
///
/// # Errors
/// When plotters refuses to draw a chart.
pub fn to_memory(run: &RunRecord, summary: &[SummaryRow], checks: &[CheckRow]) -> Result<Rendered, ChartError> {
    let charts = chart::all(run, summary)?;
    let files = charts.front.iter().chain(&charts.samples);
    Ok(Rendered {
        charts: files.map(|chart| (format!("{}.svg", chart.name), chart.standalone())).collect(),
        html: html::render(run, summary, checks, &charts),
        markdown: markdown::render(run, summary, checks),
    })
}

/// Writes `charts/*.svg`, `report.html` and `summary.md` into a run directory, which is made if it is missing.
///
/// Charts of an earlier rendering that this one does not have are removed, so that a reader never sees a stale one.
///
/// # Errors
/// When a chart cannot be drawn or a file cannot be written.
pub fn render(run: &RunRecord, summary: &[SummaryRow], checks: &[CheckRow], dir: &Path) -> Result<(), ReportError> {
    let rendered = to_memory(run, summary, checks)?;
    let charts = dir.join("charts");
    fs::create_dirs(&charts)?;
    for (name, svg) in &rendered.charts {
        fs::write_atomic(charts.join(name), svg.as_bytes())?;
    }
    remove_stale(&charts, &rendered.charts)?;
    fs::write_atomic(dir.join("report.html"), rendered.html.as_bytes())?;
    fs::write_atomic(dir.join("summary.md"), rendered.markdown.as_bytes())?;
    Ok(())
}

fn remove_stale(dir: &Path, charts: &[(String, String)]) -> Result<(), FileError> {
    for entry in std::fs::read_dir(dir).map_err(FileError::new("list", dir))? {
        let path = entry.map_err(FileError::new("list", dir))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("");
        if name.ends_with(".svg") && !charts.iter().any(|(kept, _)| kept == name) {
            std::fs::remove_file(&path).map_err(FileError::new("remove", &path))?;
        }
    }
    Ok(())
}
