//! The samples in the order in which they were taken: shows drift, warm-up and disturbance.

use std::collections::BTreeMap;

use super::axis::Axis;
use super::frame::{self, Frame};
use super::legend::{Legend, Mark};
use super::palette::{Ink, Look};
use super::pen::{fill, stroke};
use super::plot::Plot;
use super::{Chart, ChartError, Data, Group, extent, file_name, groups, in_brackets};
use crate::record::{CaseRecord, Sample};
use crate::report::figure::Scale;
use crate::report::label;

/// More series than this are split over several charts.
const SERIES: usize = 8;
/// Points a chart at most; beyond it, the extremes and the middle of each block, and whatever was disturbed.
const POINTS: usize = 1200;

/// One chart a metric and facet.
pub(super) fn charts(data: &Data<'_>, experiment: &str) -> Result<Vec<Chart>, ChartError> {
    let mut charts = Vec::new();
    for metric in data.metrics(experiment) {
        let cases: Vec<&CaseRecord> = data.rows(experiment, metric).into_iter().map(|(case, _)| case).collect();
        for group in groups(&cases) {
            for cases in group.cases.chunks(SERIES) {
                let group = Group { facet: group.facet.clone(), cases: cases.to_vec() };
                charts.extend(chart(data, experiment, metric, &group)?);
            }
        }
    }
    Ok(charts)
}

fn chart(data: &Data<'_>, experiment: &str, metric: &str, group: &Group<'_>) -> Result<Option<Chart>, ChartError> {
    let all: Vec<(Look, Vec<&Sample>)> =
        group.cases.iter().map(|case| (data.looks.get(case), data.samples(&case.id, metric))).collect();
    let thinned = all.iter().map(|(_, samples)| samples.len()).sum::<usize>() > POINTS;
    let series: Vec<(Look, Vec<&Sample>)> =
        all.into_iter().map(|(look, samples)| (look, if thinned { thin(&samples) } else { samples })).collect();
    let samples = || series.iter().flat_map(|(_, samples)| samples.iter());
    let values = || samples().map(|sample| sample.value);
    let Some((low, high)) = extent(values()) else { return Ok(None) };
    if high == 0.0 && low == 0.0 {
        return Ok(None);
    }
    let unit = samples().next().map_or("", |sample| sample.unit.as_str());
    let Some((first, last)) = extent(samples().map(|sample| sample.start_ns as f64)) else { return Ok(None) };
    let scale = Scale::of(high, unit);
    let y = Axis::around(low, high, &scale, 5);
    let time = Scale::of(last.max(1e9), "ns");
    // The run begins at 0; a little air keeps the last sample off the edge.
    let start = first.min(0.0);
    let x = Axis::linear(start, last + (last - start).max(1e6) * 0.02, &time, 6);
    let what = label::metric_title(metric);
    let how = if y.is_logarithmic() { " (logarithmic)" } else { "" };
    let frame = Frame {
        name: file_name(&[experiment, metric, "samples", &group.facet]),
        title: format!("{}{}", scale.label(&format!("{what} over time")), in_brackets(&group.facet)),
        description: describe(&series),
        experiment: experiment.to_owned(),
        legend: Legend::Series(Mark::Dot, series.iter().map(|(look, _)| look.clone()).collect()),
        note: note(
            thinned,
            samples().any(|sample| sample.flags.warmup),
            samples().any(|sample| sample.flags.disturbed()),
        ),
        plot_height: 210.0,
        left: 46.0,
        right: 14.0,
        x_label: time.label("time since the run began"),
        y_label: format!("{}{how}", scale.label(&label::lowered(&what))),
    };
    let floor = y.low();
    let (start, end) = (x.low(), x.high());
    let ticks = (&|value: f64| time.number(value), &|value: f64| scale.number(value));
    frame::draw(&frame, (x, y), (ticks.0, ticks.1), |plot| {
        for block in data.run.blocks.iter().filter(|block| block.warmup) {
            let ends = (block.start_ns as f64, block.start_ns.saturating_add(block.duration_ns) as f64);
            plot.band(ends.0, ends.1, fill(Ink::SHADE, 0.22))?;
        }
        plot.line(vec![(start, floor), (end, floor)], stroke(Ink::MUTED, false, 1.0))?;
        for (look, samples) in &series {
            dots(plot, look, samples)?;
        }
        let disturbed = samples().filter(|sample| sample.flags.disturbed()).map(|sample| sample.start_ns as f64);
        plot.rug(disturbed, stroke(Ink::TEXT, false, 1.0))?;
        Ok(())
    })
    .map(Some)
}

fn dots(plot: &mut Plot<'_, '_>, look: &Look, samples: &[&Sample]) -> Result<(), ChartError> {
    for sample in samples {
        let at = (sample.start_ns as f64, sample.value);
        // Hollow: there is a value, but a reader should not lean on it.
        let style = if sample.flags.disturbed() {
            stroke(look.ink, false, 1.2)
        } else {
            fill(look.ink, if sample.flags.warmup { 0.45 } else { 0.8 })
        };
        plot.dot(at, if sample.flags.disturbed() { 2.8 } else { 2.3 }, style)?;
    }
    Ok(())
}

fn note(thinned: bool, warmup: bool, disturbed: bool) -> Option<String> {
    let mut parts = Vec::new();
    if warmup {
        parts.push("Shaded: warm-up, not summarised.");
    }
    if disturbed {
        parts.push("Hollow, with a tick at the foot: the machine was disturbed.");
    }
    if thinned {
        parts.push("Of each block the lowest, the middle and the highest sample are drawn.");
    }
    (!parts.is_empty()).then(|| parts.join(" "))
}

/// The lowest, the middle and the highest sample of each block, and every disturbed one, in time's order.
fn thin<'a>(samples: &[&'a Sample]) -> Vec<&'a Sample> {
    let mut blocks: BTreeMap<u32, Vec<&Sample>> = BTreeMap::new();
    for sample in samples {
        blocks.entry(sample.block).or_default().push(sample);
    }
    let mut kept: Vec<&Sample> = Vec::new();
    for block in blocks.values_mut() {
        block.sort_by(|a, b| a.value.total_cmp(&b.value));
        let picks = [0, block.len() / 2, block.len() - 1];
        let keep = |(index, sample): (usize, &&'a Sample)| {
            (picks.contains(&index) || sample.flags.disturbed()).then_some(*sample)
        };
        kept.extend(block.iter().enumerate().filter_map(keep));
    }
    kept.sort_by_key(|sample| sample.start_ns);
    kept
}

fn describe(series: &[(Look, Vec<&Sample>)]) -> String {
    let of = |(look, samples): &(Look, Vec<&Sample>)| {
        let disturbed = samples.iter().filter(|sample| sample.flags.disturbed()).count();
        format!("{}: {} samples drawn, {disturbed} disturbed", look.name, samples.len())
    };
    format!("Samples over time. {}.", series.iter().map(of).collect::<Vec<_>>().join("; "))
}
