//! What the slow ones pay: latency at each percentile, from the recorded histograms, one curve a case.

use hdrhistogram::Histogram;

use super::axis::Axis;
use super::frame::{self, Frame};
use super::legend::{Legend, Mark};
use super::palette::{Ink, Look};
use super::pen::{fill, stroke};
use super::{Chart, ChartError, Data, Group, extent, file_name, groups, in_brackets};
use crate::record::CaseRecord;
use crate::report::figure::{self, Scale};
use crate::report::label;

/// More curves than this are split over several charts.
const CURVES: usize = 8;
/// The marked percentiles, and how many values each needs before it means something.
const MARKS: &[(f64, u64)] = &[(0.5, 1), (0.9, 10), (0.99, 100), (0.999, 1000), (0.9999, 10_000)];

struct Curve {
    look: Look,
    histogram: Histogram<u64>,
}

/// One chart a metric that has histograms, and facet.
pub(super) fn charts(data: &Data<'_>, experiment: &str) -> Result<Vec<Chart>, ChartError> {
    let mut charts = Vec::new();
    for metric in data.metrics(experiment) {
        let recorded = |case: &&CaseRecord| {
            case.experiment == experiment
                && data.run.histograms.iter().any(|row| row.case == case.id && row.metric == metric)
        };
        let cases: Vec<&CaseRecord> = data.run.cases.iter().filter(recorded).collect();
        for group in groups(&cases) {
            for cases in group.cases.chunks(CURVES) {
                let group = Group { facet: group.facet.clone(), cases: cases.to_vec() };
                charts.extend(chart(data, experiment, metric, &group)?);
            }
        }
    }
    Ok(charts)
}

fn chart(data: &Data<'_>, experiment: &str, metric: &str, group: &Group<'_>) -> Result<Option<Chart>, ChartError> {
    let curves: Vec<Curve> = group.cases.iter().filter_map(|case| curve(data, case, metric)).collect();
    let values = |curve: &Curve| points(&curve.histogram).into_iter().map(|(_, value)| value).collect::<Vec<_>>();
    let Some((low, high)) = extent(curves.iter().flat_map(values)) else { return Ok(None) };
    let unit = data.run.histograms.iter().find(|row| row.metric == metric).map_or("", |row| row.unit.as_str());
    let scale = Scale::of(high.min(low.max(1.0) * 100.0), unit);
    let y = Axis::around(low, high, &scale, 6);
    let deepest = curves.iter().map(|curve| nines(depth(curve.histogram.len()))).fold(1.0, f64::max);
    let x_ticks: Vec<f64> =
        MARKS.iter().map(|(quantile, _)| nines(*quantile)).filter(|x| *x <= deepest + 1e-9).collect();
    let x = Axis::with_ticks(0.0, deepest, false, x_ticks);
    let what = label::metric_title(metric);
    let how = if y.is_logarithmic() { " (logarithmic)" } else { "" };
    let frame = Frame {
        name: file_name(&[experiment, metric, "percentiles", &group.facet]),
        title: format!("{}{}", scale.label(&format!("{what} by percentile")), in_brackets(&group.facet)),
        description: describe(&curves, unit),
        experiment: experiment.to_owned(),
        legend: Legend::Series(Mark::Line, curves.iter().map(|curve| curve.look.clone()).collect()),
        note: Some("Read at 99: one of a hundred requests took at least so long.".to_owned()),
        plot_height: 240.0,
        left: 46.0,
        right: 20.0,
        x_label: "percentile, %".to_owned(),
        y_label: format!("{}{how}", scale.label(&label::lowered(&what))),
    };
    let ticks = (&|x: f64| percent(x), &|value: f64| scale.number(value));
    let floor = y.low();
    frame::draw(&frame, (x, y), (ticks.0, ticks.1), |plot| {
        plot.line(vec![(0.0, floor), (deepest, floor)], stroke(Ink::MUTED, false, 1.0))?;
        for curve in &curves {
            plot.line(points(&curve.histogram), stroke(curve.look.ink, curve.look.dashed, 2.2))?;
            for (quantile, needs) in MARKS {
                if curve.histogram.len() >= *needs {
                    let value = curve.histogram.value_at_quantile(*quantile) as f64;
                    plot.dot((nines(*quantile), value), 3.5, fill(curve.look.ink, 1.0))?;
                }
            }
        }
        Ok(())
    })
    .map(Some)
}

fn curve(data: &Data<'_>, case: &CaseRecord, metric: &str) -> Option<Curve> {
    let mut merged = Histogram::<u64>::new(3).ok()?;
    for row in &data.run.histograms {
        let measured = !row.flags.warmup && !data.warmup.contains(&row.block);
        if row.case == case.id && row.metric == metric && measured {
            merged.add(&row.histogram).ok()?;
        }
    }
    (!merged.is_empty()).then(|| Curve { look: data.looks.get(case), histogram: merged })
}

/// The number of nines of a quantile: 1 at 90 %, 2 at 99 %, 3 at 99.9 %; equal steps for each ten times rarer event.
fn nines(quantile: f64) -> f64 {
    -(1.0 - quantile).log10()
}

/// The percentile as a tick's text.
fn percent(nines: f64) -> String {
    let percent = 100.0 * (1.0 - 10f64.powf(-nines));
    let text = format!("{percent:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// How far a curve may go: beyond, less than one value would lie.
fn depth(count: u64) -> f64 {
    MARKS.iter().rev().find(|(_, needs)| count >= *needs).map_or(0.5, |(quantile, _)| *quantile)
}

fn points(histogram: &Histogram<u64>) -> Vec<(f64, f64)> {
    let deepest = nines(depth(histogram.len()));
    let steps = 160;
    (0..=steps)
        .map(|step| deepest * f64::from(step) / f64::from(steps))
        .map(|x| (x, histogram.value_at_quantile(1.0 - 10f64.powf(-x)) as f64))
        .collect()
}

fn describe(curves: &[Curve], unit: &str) -> String {
    let of = |curve: &Curve| {
        let at = |(quantile, _): &(f64, u64)| {
            let value = curve.histogram.value_at_quantile(*quantile) as f64;
            format!("p{} {}", percent(nines(*quantile)), figure::value(value, unit))
        };
        let known: Vec<String> = MARKS.iter().filter(|(_, needs)| curve.histogram.len() >= *needs).map(at).collect();
        format!("{}: {}", curve.look.name, known.join(", "))
    };
    format!("Latency by percentile. {}.", curves.iter().map(of).collect::<Vec<_>>().join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_spaced_by_rarity() {
        let texts: Vec<String> = MARKS.iter().map(|(quantile, _)| percent(nines(*quantile))).collect();
        assert_eq!(texts, ["50", "90", "99", "99.9", "99.99"]);
        assert_eq!(depth(99), 0.9);
        assert_eq!(depth(1000), 0.999);
    }

    #[test]
    fn a_curve_never_falls() {
        let mut histogram = Histogram::<u64>::new(3).unwrap();
        for value in 1..=2000 {
            histogram.record(value).unwrap();
        }
        let points = points(&histogram);
        assert!(points.windows(2).all(|pair| pair[0].1 <= pair[1].1));
        assert!((points[points.len() - 1].1 - 1998.0).abs() < 5.0);
    }
}
