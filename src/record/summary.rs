//! From raw rows to one row a case and metric: the summary, its intervals, its ratios to the baseline.
//!
//! Pure: the same raw rows give the same figures, to the last digit. `cli` calls it after a run and when it renders a
//! run again; `report` and `gate` read the rows.
//!
//! # Flags
//!
//! - `disturbed=7%`: of the measured samples, the share that was taken while the machine was disturbed;
//! - `outliers=3`: samples beyond Tukey's far fences, still part of every figure;
//! - `not_finite=1`: values that are not numbers, which no figure includes;
//! - `few_blocks`: fewer than [`FEW_BLOCKS`] blocks carry an interval (or its absence), so that it is not to lean on;
//! - `unpaired=2`: blocks in which only the case or only its baseline was measured, which no ratio includes;
//! - `zero_baseline`: the baseline was zero in some block, so that there is no ratio;
//! - `interrupted`: the run was ended early.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::metric::{self, METRICS};
use super::{CaseRecord, HistogramRow, RunRecord, Sample};
use crate::stats::blocks::{Blocks, FEW_BLOCKS, PairedRatios};
use crate::stats::bootstrap::{Bootstrap, derive_seed};
use crate::stats::moments::Moments;
use crate::stats::{histogram, quantile};

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
    /// `lower` or `higher`; empty for a metric that this version does not know.
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
///
/// Only measured values count, not those of warm-up blocks. A metric with histograms takes its figures from them, not
/// from the block medians among the samples. A case and metric without any finite value has no row.
#[must_use]
pub fn summarise(run: &RunRecord) -> Vec<SummaryRow> {
    let groups = group(run);
    let mut rows = Vec::new();
    for case in &run.cases {
        let Some(metrics) = groups.get(case.id.as_str()) else { continue };
        let mut metrics: Vec<_> = metrics.iter().collect();
        metrics.sort_by_key(|(name, _)| METRICS.iter().position(|m| m.name == **name).unwrap_or(METRICS.len()));
        for (name, measured) in metrics {
            let baseline = case.baseline.as_deref().filter(|id| *id != case.id);
            let against = baseline.map(|id| (id, groups.get(id).and_then(|metrics| metrics.get(name))));
            rows.extend(row(run, case, name, measured, against));
        }
    }
    rows
}

/// What was measured of one metric in one case.
#[derive(Default)]
struct Measured<'a> {
    samples: Vec<&'a Sample>,
    histograms: Vec<&'a HistogramRow>,
}

/// The measured rows by case and metric.
fn group(run: &RunRecord) -> BTreeMap<&str, BTreeMap<&str, Measured<'_>>> {
    let mut groups: BTreeMap<&str, BTreeMap<&str, Measured<'_>>> = BTreeMap::new();
    for sample in run.samples.iter().filter(|sample| !sample.flags.warmup) {
        groups.entry(&sample.case).or_default().entry(&sample.metric).or_default().samples.push(sample);
    }
    for row in run.histograms.iter().filter(|row| !row.flags.warmup && !row.histogram.is_empty()) {
        groups.entry(&row.case).or_default().entry(&row.metric).or_default().histograms.push(row);
    }
    groups
}

/// The figures that come from the values alone, without regard to blocks.
struct Figures {
    n: u64,
    min: f64,
    p50: f64,
    p90: f64,
    p99: Option<f64>,
    p999: Option<f64>,
    max: f64,
    mean: f64,
    stddev: Option<f64>,
}

/// A percentile is given only where at least one value lies beyond it.
const P99_FROM: u64 = 100;
const P999_FROM: u64 = 1000;

impl Measured<'_> {
    fn unit(&self) -> &str {
        let of_histogram = self.histograms.first().map(|row| row.unit.as_str());
        of_histogram.or(self.samples.first().map(|sample| sample.unit.as_str())).unwrap_or_default()
    }

    fn finite(&self) -> impl Iterator<Item = &Sample> {
        self.samples.iter().copied().filter(|sample| sample.value.is_finite())
    }

    fn blocks(&self) -> Blocks {
        if self.histograms.is_empty() {
            Blocks::of_samples(self.finite().map(|sample| (sample.block, sample.value)))
        } else {
            Blocks::of_histograms(self.histograms.iter().map(|row| (row.block, &row.histogram)))
        }
    }

    fn figures(&self) -> Option<Figures> {
        if self.histograms.is_empty() { self.figures_of_samples() } else { self.figures_of_histograms() }
    }

    fn figures_of_samples(&self) -> Option<Figures> {
        let mut sorted: Vec<f64> = self.finite().map(|sample| sample.value).collect();
        quantile::sort(&mut sorted);
        let moments: Moments = sorted.iter().copied().collect();
        let n = moments.count();
        let at = |p| quantile::quantile_sorted(&sorted, p);
        Some(Figures {
            n,
            min: moments.min()?,
            p50: at(0.5)?,
            p90: at(0.9)?,
            p99: at(0.99).filter(|_| n >= P99_FROM),
            p999: at(0.999).filter(|_| n >= P999_FROM),
            max: moments.max()?,
            mean: moments.mean()?,
            stddev: moments.stddev(),
        })
    }

    fn figures_of_histograms(&self) -> Option<Figures> {
        // Merging fails only where an index into the counts does not fit a usize, which 64 bits always do.
        let merged = histogram::merge(self.histograms.iter().map(|row| &row.histogram)).ok()??;
        let n = merged.len();
        let at = |p| histogram::quantile(&merged, p);
        Some(Figures {
            n,
            min: merged.min() as f64,
            p50: at(0.5)?,
            p90: at(0.9)?,
            p99: at(0.99).filter(|_| n >= P99_FROM),
            p999: at(0.999).filter(|_| n >= P999_FROM),
            max: merged.max() as f64,
            mean: histogram::mean(&merged)?,
            stddev: histogram::stddev(&merged),
        })
    }

    /// The marks of whatever the figures come from.
    fn disturbed_percent(&self) -> f64 {
        let marks: Vec<bool> = if self.histograms.is_empty() {
            self.samples.iter().map(|sample| sample.flags.disturbed()).collect()
        } else {
            self.histograms.iter().map(|row| row.flags.disturbed()).collect()
        };
        marks.iter().filter(|disturbed| **disturbed).count() as f64 * 100.0 / marks.len().max(1) as f64
    }
}

fn row(
    run: &RunRecord,
    case: &CaseRecord,
    name: &str,
    measured: &Measured<'_>,
    against: Option<(&str, Option<&Measured<'_>>)>,
) -> Option<SummaryRow> {
    let figures = measured.figures()?;
    let blocks = measured.blocks();
    let bootstrap = |figure| Bootstrap::new(derive_seed(run.meta.seed, &[&case.id, name, figure]));
    let interval = blocks.median_interval(&bootstrap("median"));
    let paired =
        against.and_then(|(_, baseline)| Some(PairedRatios::new(&blocks.medians(), &baseline?.blocks().medians())));
    let ratio_interval = paired.as_ref().and_then(|paired| paired.median_interval(&bootstrap("ratio")));
    Some(SummaryRow {
        case: case.id.clone(),
        experiment: case.experiment.clone(),
        runtime: case.runtime.clone(),
        network: case.network.clone(),
        metric: name.to_owned(),
        unit: measured.unit().to_owned(),
        better: metric::find(name).map_or("", |metric| metric.better.as_str()).to_owned(),
        n: figures.n,
        min: figures.min,
        p50: figures.p50,
        p90: figures.p90,
        p99: figures.p99,
        p999: figures.p999,
        max: figures.max,
        mean: figures.mean,
        stddev: figures.stddev,
        ci95_low: interval.map(|interval| interval.low),
        ci95_high: interval.map(|interval| interval.high),
        ratio_to: against.map(|(id, _)| id.to_owned()),
        ratio: paired.as_ref().and_then(PairedRatios::median),
        ratio_ci95_low: ratio_interval.map(|interval| interval.low),
        ratio_ci95_high: ratio_interval.map(|interval| interval.high),
        flags: flags(run, measured, blocks.len(), paired.as_ref()),
    })
}

fn flags(run: &RunRecord, measured: &Measured<'_>, blocks: usize, paired: Option<&PairedRatios>) -> String {
    let mut words = Vec::new();
    let mut counted = |word: &str, count: usize| {
        if count > 0 {
            words.push(format!("{word}={count}"))
        }
    };
    counted("outliers", measured.samples.iter().filter(|sample| sample.flags.outlier).count());
    counted("not_finite", measured.samples.len() - measured.finite().count());
    if let Some(paired) = paired.filter(|paired| !paired.ratios.is_empty()) {
        counted("unpaired", paired.unpaired);
    }
    let disturbed = measured.disturbed_percent();
    if disturbed > 0.0 {
        words.insert(0, format!("disturbed={:.0}%", disturbed.max(1.0)));
    }
    let pairs = paired.map(|paired| paired.ratios.len()).filter(|pairs| *pairs > 0);
    if blocks.min(pairs.unwrap_or(blocks)) < FEW_BLOCKS {
        words.push("few_blocks".to_owned());
    }
    if paired.is_some_and(|paired| paired.zero_baseline) {
        words.push("zero_baseline".to_owned());
    }
    if run.meta.interrupted {
        words.push("interrupted".to_owned());
    }
    words.join("|")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::fixture::{case, empty_run, histogram, sample};
    use crate::record::{Flags, mark_outliers};

    fn only(rows: &[SummaryRow]) -> &SummaryRow {
        assert_eq!(rows.len(), 1, "{rows:?}");
        &rows[0]
    }

    #[test]
    fn samples_become_one_row_and_warm_up_counts_for_nothing() {
        let mut run = empty_run(6);
        run.cases = vec![case("a", None)];
        run.samples.push(sample("a", "rtt", 0, 0, 1e9));
        run.samples.extend((1..=6).flat_map(|b| (0..2).map(move |i| sample("a", "rtt", b, i, f64::from(b * 10 + i)))));
        let rows = summarise(&run);
        let row = only(&rows);
        assert_eq!((row.n, row.min, row.max), (12, 10.0, 61.0));
        assert_eq!((row.p50, row.mean), (35.5, 35.5));
        assert_eq!((row.unit.as_str(), row.better.as_str()), ("ns", "lower"));
        assert_eq!(
            (row.experiment.as_str(), row.runtime.as_str(), row.network.as_str()),
            ("network", "builtin", "bridge")
        );
        assert!(row.ci95_low.unwrap() < 35.5 && row.ci95_high.unwrap() > 35.5);
        assert_eq!((row.p99, &row.ratio_to, row.ratio), (None, &None, None));
        assert_eq!(row.flags, "");
    }

    #[test]
    fn high_percentiles_need_enough_values() {
        for (n, p99, p999) in [(99, false, false), (100, true, false), (999, true, false), (1000, true, true)] {
            let mut run = empty_run(6);
            run.cases = vec![case("a", None), case("h", None)];
            run.samples.extend((0..n).map(|i| sample("a", "rtt", 1 + i % 6, i, f64::from(i))));
            run.histograms.push(histogram("h", 1, (0..u64::from(n)).map(|i| i + 1)));
            for row in summarise(&run) {
                assert_eq!((row.n, row.p99.is_some(), row.p999.is_some()), (u64::from(n), p99, p999), "{}", row.case);
            }
        }
    }

    #[test]
    fn ratios_pair_inside_blocks_and_say_what_was_left_out() {
        let mut run = empty_run(8);
        run.cases = vec![case("host", None), case("bridge", Some("host"))];
        for block in 1..=8 {
            // The machine becomes slower from block to block; the ratio does not.
            let drift = f64::from(block);
            run.samples.push(sample("bridge", "throughput", block, 0, 50.0 / drift));
            if block != 3 {
                run.samples.push(sample("host", "throughput", block, 0, 100.0 / drift));
            }
        }
        let rows = summarise(&run);
        assert_eq!((rows[0].case.as_str(), rows[0].ratio, rows[0].ratio_to.as_deref()), ("host", None, None));
        let bridge = &rows[1];
        assert_eq!((bridge.ratio_to.as_deref(), bridge.ratio), (Some("host"), Some(0.5)));
        assert_eq!((bridge.ratio_ci95_low, bridge.ratio_ci95_high), (Some(0.5), Some(0.5)));
        assert_eq!(bridge.flags, "unpaired=1");
        assert!(bridge.ci95_low.unwrap() < bridge.ci95_high.unwrap());
    }

    #[test]
    fn a_missing_or_zero_baseline_has_no_ratio() {
        let mut run = empty_run(6);
        run.cases = vec![case("host", None), case("bridge", Some("host")), case("lost", Some("skipped"))];
        for block in 1..=6 {
            run.samples.push(sample("host", "retransmits", block, 0, 0.0));
            run.samples.push(sample("bridge", "retransmits", block, 0, 2.0));
            run.samples.push(sample("lost", "retransmits", block, 0, 2.0));
        }
        let rows = summarise(&run);
        assert_eq!((rows[1].ratio, rows[1].flags.as_str()), (None, "zero_baseline"));
        assert_eq!((rows[2].ratio, rows[2].ratio_to.as_deref()), (None, Some("skipped")));
        assert_eq!(rows[2].flags, "");
    }

    #[test]
    fn histograms_are_merged_and_their_block_medians_are_not_samples() {
        let mut run = empty_run(6);
        run.cases = vec![case("host", None), case("bridge", Some("host"))];
        for block in 0..=6 {
            for (id, scale) in [("host", 10), ("bridge", 20)] {
                let row = histogram(id, block, (1..=201).map(|i| i * scale + u64::from(block)));
                run.samples.push(sample(id, "rtt", block, 0, row.histogram.value_at_quantile(0.5) as f64));
                run.histograms.push(row);
            }
        }
        let rows = summarise(&run);
        assert_eq!((rows[0].n, rows[1].n), (6 * 201, 6 * 201));
        assert!((rows[0].p50 / 1013.0 - 1.0).abs() < 2e-3, "{}", rows[0].p50);
        assert!((rows[0].mean / 1013.5 - 1.0).abs() < 1e-3, "{}", rows[0].mean);
        assert!(rows[0].p999.is_some() && rows[0].max >= 2016.0);
        assert!(rows[0].ci95_low.unwrap() <= rows[0].p50 && rows[0].p50 <= rows[0].ci95_high.unwrap());
        assert!((rows[1].ratio.unwrap() / 2.0 - 1.0).abs() < 1e-2);
    }

    #[test]
    fn flags_tell_what_a_reader_should_know() {
        let mut run = empty_run(3);
        run.meta.interrupted = true;
        run.cases = vec![case("a", None)];
        run.samples.extend((0..150).map(|i| sample("a", "rtt", 1 + i % 3, i, f64::from(i % 10))));
        run.samples[0].flags = Flags { steal: true, preempted: true, ..Flags::default() };
        run.samples[1].value = 1e6;
        run.samples[2].value = f64::NAN;
        mark_outliers(&mut run.samples);
        let rows = summarise(&run);
        assert_eq!(only(&rows).flags, "disturbed=1%|outliers=1|not_finite=1|few_blocks|interrupted");
        assert_eq!((only(&rows).n, only(&rows).max), (149, 1e6));
    }

    #[test]
    fn one_block_has_no_interval_and_one_value_no_spread() {
        let mut run = empty_run(1);
        run.cases = vec![case("a", None), case("b", Some("a"))];
        run.samples = vec![sample("a", "rtt", 1, 0, 4.0), sample("b", "rtt", 1, 0, 8.0)];
        let rows = summarise(&run);
        assert_eq!((rows[0].n, rows[0].p50, rows[0].stddev, rows[0].ci95_low), (1, 4.0, None, None));
        assert_eq!((rows[1].ratio, rows[1].ratio_ci95_low, rows[1].flags.as_str()), (Some(2.0), None, "few_blocks"));
    }

    #[test]
    fn rows_follow_the_cases_and_the_metric_list() {
        let mut run = empty_run(1);
        run.cases = vec![case("z", None), case("never-ran", None), case("a", None)];
        for name in ["brand_new", "retransmits", "ready", "throughput"] {
            run.samples.push(sample("a", name, 1, 0, 1.0));
            run.samples.push(sample("z", name, 1, 0, 1.0));
        }
        run.samples.push(sample("never-ran", "ready", 1, 0, f64::INFINITY));
        let names: Vec<String> = summarise(&run).iter().map(|row| format!("{} {}", row.case, row.metric)).collect();
        let order = ["ready", "throughput", "retransmits", "brand_new"];
        let expected: Vec<String> = ["z", "a"].iter().flat_map(|id| order.map(|name| format!("{id} {name}"))).collect();
        assert_eq!(names, expected);
        assert_eq!(summarise(&run)[3].better, "");
    }

    #[test]
    fn the_same_run_gives_the_same_figures() {
        let mut run = empty_run(20);
        run.cases = vec![case("a", None), case("b", Some("a"))];
        for block in 1..=20u32 {
            run.samples.push(sample("a", "rtt", block, 0, f64::from(block * 7919 % 101) + 1.0));
            run.samples.push(sample("b", "rtt", block, 0, f64::from(block * 104_729 % 97) + 1.0));
        }
        let first = summarise(&run);
        run.samples.reverse();
        assert_eq!(summarise(&run), first);
        run.meta.seed = 2;
        assert_ne!(summarise(&run), first);
    }
}
