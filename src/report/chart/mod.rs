//! Charts: functions from a run and its summary to SVG, drawn with plotters.
//!
//! One chart a file, each left out when there is nothing to show; `frame` is the sheet they share (with `legend`, `plot` and
//! `pen`), `axis` finds round
//! ticks, `palette` fixes who has which colour, `theme` makes the SVG follow light and dark. Called by [`super`].

use std::collections::BTreeSet;

use plotters::drawing::DrawingAreaErrorKind;

use super::label::{self, Place};
use crate::record::summary::SummaryRow;
use crate::record::{CaseRecord, EnforcementRow, RunRecord, Sample};

mod achieved;
mod axis;
mod bars;
mod ecdf;
mod errors;
mod forest;
mod frame;
mod kill;
mod legend;
pub(super) mod palette;
mod pen;
mod percentiles;
mod plot;
mod requested;
mod series;
mod split;
pub(super) mod theme;
mod waterfall;

use palette::Looks;

/// One chart, made.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Chart {
    /// The file's name without `.svg`.
    pub name: String,
    /// What is seen.
    pub title: String,
    /// The experiment that it belongs to.
    pub experiment: String,
    /// The SVG element, in light colours with classes for the dark ones.
    pub svg: String,
}

impl Chart {
    /// The chart as a file of its own.
    pub(super) fn standalone(&self) -> String {
        theme::standalone(&self.svg)
    }
}

/// Plotters refused to draw.
#[derive(Debug, thiserror::Error)]
#[error("cannot draw the chart")]
pub struct ChartError(#[source] DrawingAreaErrorKind<std::io::Error>);

impl From<DrawingAreaErrorKind<std::io::Error>> for ChartError {
    fn from(error: DrawingAreaErrorKind<std::io::Error>) -> Self {
        Self(error)
    }
}

/// The charts of a run.
#[derive(Debug, Default)]
pub(super) struct Charts {
    /// The ones that answer the question, in the order in which they are read.
    pub front: Vec<Chart>,
    /// The raw samples over time.
    pub samples: Vec<Chart>,
}

/// Draws every chart for which there is data.
///
/// # Errors
/// When plotters refuses.
pub(super) fn all(run: &RunRecord, summary: &[SummaryRow]) -> Result<Charts, ChartError> {
    let data = Data::new(run, summary);
    let mut charts = Charts::default();
    for experiment in label::experiments(&run.cases) {
        charts.front.extend(ecdf::charts(&data, experiment)?);
        charts.front.extend(bars::charts(&data, experiment)?);
        charts.front.extend(waterfall::charts(&data, experiment)?);
        charts.front.extend(percentiles::charts(&data, experiment)?);
        charts.front.extend(forest::charts(&data, experiment)?);
        charts.samples.extend(series::charts(&data, experiment)?);
    }
    charts.front.extend(errors::charts(&data)?);
    charts.front.extend(requested::charts(&data)?);
    charts.front.extend(split::charts(&data)?);
    charts.front.extend(kill::charts(&data)?);
    charts.samples.extend(achieved::charts(&data)?);
    let mut taken = BTreeSet::new();
    for chart in charts.front.iter_mut().chain(&mut charts.samples) {
        rename_if_taken(chart, &mut taken);
    }
    Ok(charts)
}

/// Two names may become one when they are made fit for files; the second gets a number, in its ids too.
fn rename_if_taken(chart: &mut Chart, taken: &mut BTreeSet<String>) {
    let mut name = chart.name.clone();
    let mut number = 2;
    while !taken.insert(name.clone()) {
        name = format!("{}-{number}", chart.name);
        number += 1;
    }
    if name != chart.name {
        for end in ["title", "desc"] {
            chart.svg = chart.svg.replace(&format!("{}-{end}", chart.name), &format!("{name}-{end}"));
        }
        chart.name = name;
    }
}

/// A run as charts want it.
struct Data<'a> {
    run: &'a RunRecord,
    summary: &'a [SummaryRow],
    looks: Looks,
    warmup: BTreeSet<u32>,
}

/// The cases of one chart: the same metric and the same facet.
struct Group<'a> {
    /// The facet as a part of a title; empty when the metric has only one.
    facet: String,
    cases: Vec<&'a CaseRecord>,
}

impl<'a> Data<'a> {
    fn new(run: &'a RunRecord, summary: &'a [SummaryRow]) -> Self {
        let warmup = run.blocks.iter().filter(|block| block.warmup).map(|block| block.block).collect();
        Self { run, summary, looks: Looks::of(&run.cases), warmup }
    }

    /// The rows of an experiment's metric that can be drawn.
    fn rows(&self, experiment: &str, metric: &str) -> Vec<(&'a CaseRecord, &'a SummaryRow)> {
        let usable = |row: &&SummaryRow| row.experiment == experiment && row.metric == metric && row.p50.is_finite();
        let with_case = |row: &'a SummaryRow| self.case(&row.case).map(|case| (case, row));
        self.summary.iter().filter(usable).filter_map(with_case).collect()
    }

    fn row(&self, case: &str, metric: &str) -> Option<&'a SummaryRow> {
        self.summary.iter().find(|row| row.case == case && row.metric == metric)
    }

    fn case(&self, id: &str) -> Option<&'a CaseRecord> {
        self.run.cases.iter().find(|case| case.id == id)
    }

    /// The metrics of an experiment, in the order of the metric list.
    fn metrics(&self, experiment: &str) -> Vec<&'a str> {
        label::metrics(self.summary.iter().filter(|row| row.experiment == experiment))
    }

    /// The samples of a case's metric that are numbers, warm-up included.
    fn samples(&self, case: &str, metric: &str) -> Vec<&'a Sample> {
        let fits = |sample: &&Sample| sample.case == case && sample.metric == metric && sample.value.is_finite();
        self.run.samples.iter().filter(fits).collect()
    }

    /// The measured values of a case's metric, in ascending order.
    fn measured(&self, case: &str, metric: &str) -> Vec<f64> {
        let measured = |sample: &&Sample| !sample.flags.warmup && !self.warmup.contains(&sample.block);
        let mut values: Vec<f64> =
            self.samples(case, metric).into_iter().filter(measured).map(|sample| sample.value).collect();
        values.sort_by(f64::total_cmp);
        values
    }
}

/// Splits cases into the groups that share a chart.
fn groups<'a>(cases: &[&'a CaseRecord]) -> Vec<Group<'a>> {
    let mut facets: Vec<String> = Vec::new();
    let mut members: Vec<Vec<&'a CaseRecord>> = Vec::new();
    for case in cases {
        let Place { facet, .. } = label::place(case);
        let index = facets.iter().position(|known| *known == facet).unwrap_or_else(|| {
            facets.push(facet);
            members.push(Vec::new());
            members.len() - 1
        });
        members[index].push(case);
    }
    let names = if facets.len() > 1 { label::without_common(&facets) } else { vec![String::new(); facets.len()] };
    names.into_iter().zip(members).map(|(facet, cases)| Group { facet, cases }).collect()
}

/// The controllers of enforcement rows, in their order; the values are in the units in which each is measured.
fn controllers(run: &RunRecord) -> Vec<(&str, &str)> {
    let mut all: Vec<(&str, &str)> = Vec::new();
    for row in &run.enforcement {
        if !all.contains(&(&row.controller, &row.unit)) {
            all.push((&row.controller, &row.unit));
        }
    }
    all
}

/// `shares/a 2-1`: a setting with what tells its case apart from the others of the chart.
fn settings(rows: &[&EnforcementRow]) -> Vec<String> {
    let ids: Vec<&str> = rows.iter().map(|row| row.case.as_str()).collect();
    let one_case = ids.iter().all(|id| *id == ids[0]);
    let cases = if one_case { vec![String::new(); ids.len()] } else { label::short_ids(&ids) };
    let name = |(row, case): (&&EnforcementRow, String)| {
        // The case often says the setting's name itself.
        if case.split(' ').any(|word| word == row.setting) {
            case
        } else {
            format!("{} {case}", row.setting).trim().to_owned()
        }
    };
    rows.iter().zip(cases).map(name).collect()
}

/// A file name from words: small letters, digits and hyphens.
fn file_name(words: &[&str]) -> String {
    let joined = words.iter().filter(|word| !word.is_empty()).copied().collect::<Vec<_>>().join("-");
    joined.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect()
}

/// ` (egress)` for titles; empty for an empty facet.
fn in_brackets(facet: &str) -> String {
    if facet.is_empty() { String::new() } else { format!(" ({facet})") }
}

/// The smallest and the largest of finite values; `None` when there is none.
fn extent(values: impl IntoIterator<Item = f64>) -> Option<(f64, f64)> {
    values.into_iter().filter(|value| value.is_finite()).fold(None, |extent, value| {
        let (low, high) = extent.unwrap_or((value, value));
        Some((low.min(value), high.max(value)))
    })
}
