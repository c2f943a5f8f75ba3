//! What was achieved in each block, in percent of what was requested, over time; with the blocks that were throttled.

use super::axis::Axis;
use super::frame::{self, Frame};
use super::legend::{Legend, Mark};
use super::palette::{Ink, Look};
use super::pen::{fill, stroke};
use super::{Chart, ChartError, Data, controllers, extent, file_name, settings};
use crate::record::EnforcementRow;
use crate::record::enforcement::EnforcementSample;
use crate::report::figure::Scale;
use crate::report::limits;

/// More series than this are split over several charts.
const SERIES: usize = 8;
/// A metric that begins so tells of throttling.
const THROTTLING: &str = "throttl";

type Series<'a> = (Look, Vec<(&'a EnforcementSample, f64)>);

/// One chart a controller, in parts of so many series.
pub(super) fn charts(data: &Data<'_>) -> Result<Vec<Chart>, ChartError> {
    let mut charts = Vec::new();
    for (controller, unit) in controllers(data.run) {
        let of = |row: &&EnforcementRow| {
            (row.controller.as_str(), row.unit.as_str()) == (controller, unit) && row.requested > 0.0
        };
        let rows: Vec<&EnforcementRow> = data.run.enforcement.iter().filter(of).collect();
        // Of exact counts the table says all that there is to say.
        let rows: Vec<&EnforcementRow> = rows.into_iter().filter(|row| row.tolerance_pct > 0.0).collect();
        for rows in rows.chunks(SERIES) {
            charts.extend(chart(data, controller, rows)?);
        }
    }
    Ok(charts)
}

fn chart(data: &Data<'_>, controller: &str, rows: &[&EnforcementRow]) -> Result<Option<Chart>, ChartError> {
    let series: Vec<Series<'_>> = rows
        .iter()
        .zip(settings(rows))
        .enumerate()
        .map(|(index, (row, name))| of_row(data, row, name, index))
        .collect();
    let points = || series.iter().flat_map(|(_, points)| points);
    let tolerance = rows.iter().map(|row| row.tolerance_pct).fold(0.0, f64::max);
    let values = points().map(|(_, value)| *value).chain([100.0 - tolerance, 100.0 + tolerance]);
    let times = || points().map(|(sample, _)| sample.start_ns as f64);
    let (Some((low, high)), Some((_, last))) = (extent(values), extent(times())) else { return Ok(None) };
    let percent = Scale::of(1.0, "%");
    let time = Scale::of(last.max(1e9), "ns");
    let y = Axis::around(low, high, &percent, 5);
    let x = Axis::linear(0.0, last + last.max(1e6) * 0.02, &time, 6);
    let throttled = throttled(data, rows);
    let frame = Frame {
        name: file_name(&[limits::SECTION, "achieved", controller]),
        title: format!("{}: achieved in each block, % of requested", limits::controller(controller)),
        description: describe(&series),
        experiment: limits::SECTION.to_owned(),
        legend: Legend::Series(Mark::Dot, series.iter().map(|(look, _)| look.clone()).collect()),
        note: Some(note(points().any(|(sample, _)| sample.flags.warmup), !throttled.is_empty())),
        plot_height: 210.0,
        left: 46.0,
        right: 14.0,
        x_label: time.label("time since the run began"),
        y_label: "achieved, % of requested".to_owned(),
    };
    let (start, end, floor) = (x.low(), x.high(), y.low());
    let ticks = (&|value: f64| time.number(value), &|value: f64| percent.number(value));
    frame::draw(&frame, (x, y), (ticks.0, ticks.1), |plot| {
        for block in data.run.blocks.iter().filter(|block| block.warmup) {
            let ends = (block.start_ns as f64, block.start_ns.saturating_add(block.duration_ns) as f64);
            plot.band(ends.0, ends.1.min(end), fill(Ink::SHADE, 0.22))?;
        }
        plot.line(vec![(start, 100.0), (end, 100.0)], stroke(Ink::TEXT, false, 1.2))?;
        for edge in [100.0 - tolerance, 100.0 + tolerance].into_iter().filter(|_| tolerance > 0.0) {
            plot.line(vec![(start, edge), (end, edge)], stroke(Ink::MUTED, true, 1.0))?;
        }
        plot.line(vec![(start, floor), (end, floor)], stroke(Ink::MUTED, false, 1.0))?;
        for (look, points) in &series {
            for (sample, value) in points {
                let opacity = if sample.flags.warmup { 0.45 } else { 0.9 };
                plot.dot((sample.start_ns as f64, *value), 3.0, fill(look.ink, opacity))?;
            }
        }
        plot.rug(throttled.into_iter(), stroke(Ink::TEXT, false, 1.0))
    })
    .map(Some)
}

fn of_row<'a>(data: &Data<'a>, row: &EnforcementRow, name: String, index: usize) -> Series<'a> {
    let fits = |sample: &&EnforcementSample| {
        (&sample.case, &sample.controller, &sample.setting) == (&row.case, &row.controller, &row.setting)
            && sample.requested > 0.0
            && sample.judged_value().is_finite()
    };
    let point = |sample: &'a EnforcementSample| (sample, 100.0 * sample.judged_value() / sample.requested);
    let points = data.run.enforcement_samples.iter().filter(fits).map(point).collect();
    (Look { name, ink: Ink::contender(index), dashed: false }, points)
}

/// When these cases were throttled, where a metric tells of it.
fn throttled(data: &Data<'_>, rows: &[&EnforcementRow]) -> Vec<f64> {
    let samples = data.run.samples.iter().filter(|sample| sample.metric.starts_with(THROTTLING) && sample.value > 0.0);
    samples
        .filter(|sample| rows.iter().any(|row| row.case == sample.case))
        .map(|sample| sample.start_ns as f64)
        .collect()
}

fn note(warmup: bool, throttled: bool) -> String {
    let mut parts = vec!["Dashed: the tolerance."];
    if warmup {
        parts.push("Shaded: warm-up, not judged.");
    }
    if throttled {
        parts.push("Ticks at the foot: the controller throttled.");
    }
    parts.join(" ")
}

fn describe(series: &[Series<'_>]) -> String {
    let of = |(look, points): &Series<'_>| format!("{}: {} blocks drawn", look.name, points.len());
    format!("Achieved over time. {}.", series.iter().map(of).collect::<Vec<_>>().join("; "))
}
