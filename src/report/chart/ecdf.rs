//! How start-up times are distributed: the share of starts that took at most so long, one curve a case.

use super::axis::Axis;
use super::frame::{self, Frame};
use super::legend::{Legend, Mark};
use super::palette::{Ink, Look};
use super::pen::{Pen, fill, stroke};
use super::{Chart, ChartError, Data, Group, extent, file_name, groups, in_brackets};
use crate::record::CaseRecord;
use crate::report::figure::{self, Scale};
use crate::report::label;

/// Latencies whose every sample is one event, so that the distribution of samples is that of events.
const METRICS: &[&str] = &["exit", "ready"];
/// More curves than this are split over several charts.
const CURVES: usize = 8;
/// Points a curve at most; beyond it, evenly spaced quantiles.
const POINTS: usize = 400;

/// One chart a metric and facet.
pub(super) fn charts(data: &Data<'_>, experiment: &str) -> Result<Vec<Chart>, ChartError> {
    let mut charts = Vec::new();
    for metric in METRICS {
        let cases: Vec<&CaseRecord> = data.rows(experiment, metric).into_iter().map(|(case, _)| case).collect();
        for group in groups(&cases) {
            for cases in group.cases.chunks(CURVES) {
                charts.extend(chart(
                    data,
                    experiment,
                    metric,
                    &Group { facet: group.facet.clone(), cases: cases.to_vec() },
                )?);
            }
        }
    }
    Ok(charts)
}

struct Curve {
    look: Look,
    values: Vec<f64>,
    p50: Option<f64>,
    p99: Option<f64>,
}

fn chart(data: &Data<'_>, experiment: &str, metric: &str, group: &Group<'_>) -> Result<Option<Chart>, ChartError> {
    let curves: Vec<Curve> = group.cases.iter().filter_map(|case| curve(data, case, metric)).collect();
    let Some((low, high)) = extent(curves.iter().flat_map(|curve| curve.values.iter().copied())) else {
        return Ok(None);
    };
    let scale = Scale::of(high.min(low * 100.0), "ns");
    let x = Axis::around(low, high, &scale, 7);
    let how = if x.is_logarithmic() { " (logarithmic)" } else { "" };
    let what = label::lowered(&label::metric_title(metric));
    let frame = Frame {
        name: file_name(&[experiment, metric, &group.facet]),
        title: format!("Share of starts by {}{}", scale.label(&what), in_brackets(&group.facet)),
        description: describe(&curves),
        experiment: experiment.to_owned(),
        legend: Legend::Series(Mark::Line, curves.iter().map(legend_entry).collect()),
        note: Some("Dots mark the median (beside the name) and, from 100 starts on, the 99th percentile.".to_owned()),
        plot_height: 250.0,
        left: 46.0,
        right: 12.0,
        x_label: scale.label(&format!("{what}{how}")),
        y_label: "share of starts".to_owned(),
    };
    let y = Axis::with_ticks(0.0, 1.0, false, vec![0.0, 0.25, 0.5, 0.75, 0.9, 0.99]);
    let end = x.high();
    let start = x.low();
    let ticks = (&|value: f64| scale.number(value), &|value: f64| figure::share(value));
    frame::draw(&frame, (x, y), (ticks.0, ticks.1), |plot| {
        plot.line(vec![(start, 0.0), (end, 0.0)], stroke(Ink::MUTED, false, 1.0))?;
        for curve in &curves {
            plot.line(steps(&curve.values, end), stroke(curve.look.ink, curve.look.dashed, 2.2))?;
        }
        for curve in &curves {
            for (at, share) in [(curve.p50, 0.5), (curve.p99, 0.99)] {
                if let Some(at) = at {
                    plot.dot((at, share), 4.0, fill(curve.look.ink, 1.0))?;
                }
            }
        }
        let single = curves.iter().all(|curve| curve.values.len() < 2);
        if single {
            plot.label((start, 0.5), (8.0, -12.0), "a single start each", Pen::NOTE)?;
        }
        Ok(())
    })
    .map(Some)
}

fn curve(data: &Data<'_>, case: &CaseRecord, metric: &str) -> Option<Curve> {
    let values: Vec<f64> = data.measured(&case.id, metric).into_iter().filter(|value| *value > 0.0).collect();
    if values.is_empty() {
        return None;
    }
    let row = data.row(&case.id, metric);
    Some(Curve {
        look: data.looks.get(case),
        p50: row.map(|row| row.p50).filter(|p50| p50.is_finite()),
        p99: row.and_then(|row| row.p99).filter(|p99| p99.is_finite()),
        values,
    })
}

fn legend_entry(curve: &Curve) -> Look {
    let p50 = curve.p50.map_or_else(String::new, |p50| format!(" {}", figure::value(p50, "ns")));
    Look { name: format!("{}{p50}", curve.look.name), ..curve.look.clone() }
}

fn describe(curves: &[Curve]) -> String {
    let of = |curve: &Curve| {
        let p99 = curve.p99.map_or_else(String::new, |p99| format!(", 99th percentile {}", figure::value(p99, "ns")));
        format!("{}: median {}{p99}", curve.look.name, figure::value(curve.p50, "ns"))
    };
    format!("Cumulative distributions. {}.", curves.iter().map(of).collect::<Vec<_>>().join("; "))
}

/// The empirical distribution as a staircase from 0 to 1, drawn on to the right end.
fn steps(sorted: &[f64], end: f64) -> Vec<(f64, f64)> {
    let n = sorted.len();
    let picks: Vec<usize> =
        if n <= POINTS { (0..n).collect() } else { (0..POINTS).map(|i| i * (n - 1) / (POINTS - 1)).collect() };
    let mut points = Vec::with_capacity(picks.len() * 2 + 2);
    let mut share = 0.0;
    for index in picks {
        points.push((sorted[index], share));
        share = (index + 1) as f64 / n as f64;
        points.push((sorted[index], share));
    }
    points.push((end, share));
    points
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_staircase_begins_at_zero_and_ends_at_one() {
        assert_eq!(steps(&[1.0, 2.0], 3.0), [(1.0, 0.0), (1.0, 0.5), (2.0, 0.5), (2.0, 1.0), (3.0, 1.0)]);
        let many: Vec<f64> = (0..5000).map(f64::from).collect();
        let points = steps(&many, 6000.0);
        assert_eq!(points.len(), POINTS * 2 + 1);
        assert_eq!(points[points.len() - 1], (6000.0, 1.0));
        assert!(points.windows(2).all(|pair| pair[0].0 <= pair[1].0 && pair[0].1 <= pair[1].1));
    }
}
