//! Requested against achieved: a dot a limit on logarithmic axes, the diagonal, and the band of the tolerance.

use super::axis::Axis;
use super::errors::{mark, verdicts};
use super::frame::{self, Frame};
use super::legend::{Legend, Mark};
use super::palette::Ink;
use super::pen::stroke;
use super::{Chart, ChartError, Data, controllers, extent, file_name, settings};
use crate::record::EnforcementRow;
use crate::report::figure::{self, Scale};
use crate::report::limits;

/// One panel a controller, for those that were asked for different amounts.
pub(super) fn charts(data: &Data<'_>) -> Result<Vec<Chart>, ChartError> {
    let mut charts = Vec::new();
    for (controller, unit) in controllers(data.run) {
        let usable = |row: &&EnforcementRow| {
            (row.controller.as_str(), row.unit.as_str()) == (controller, unit)
                && controller != "devices"
                && row.requested > 0.0
                && row.judged_value() > 0.0
        };
        let rows: Vec<&EnforcementRow> = data.run.enforcement.iter().filter(usable).collect();
        if rows.iter().any(|row| row.requested != rows[0].requested) {
            charts.push(chart(controller, unit, &rows)?);
        }
    }
    Ok(charts)
}

fn chart(controller: &str, unit: &str, rows: &[&EnforcementRow]) -> Result<Chart, ChartError> {
    let values = rows.iter().flat_map(|row| [row.requested, row.judged_value()]);
    let (low, high) = extent(values).unwrap_or((1.0, 2.0));
    let air = (high / low).powf(0.06).max(1.1);
    let (low, high) = (low / air, high * air);
    let scale = Scale::of(high / air, unit);
    let axis = Axis::logarithmic(low, high, &scale, 6);
    let tolerance = rows.iter().map(|row| row.tolerance_pct).fold(0.0, f64::max) / 100.0;
    let frame = Frame {
        name: file_name(&[limits::SECTION, "requested", controller, unit]),
        title: format!("{}: requested against achieved", limits::controller(controller)),
        description: describe(rows),
        experiment: limits::SECTION.to_owned(),
        legend: Legend::Series(Mark::Dot, verdicts(rows)),
        note: Some(match tolerance > 0.0 {
            true => format!("Line: as requested. Dashed: ±{} %, the tolerance.", tolerance * 100.0),
            false => "Line: as requested.".to_owned(),
        }),
        plot_height: 300.0,
        left: 52.0,
        right: 18.0,
        x_label: format!("{} (logarithmic)", scale.label("requested")),
        y_label: format!("{} (logarithmic)", scale.label("achieved")),
    };
    let ticks = (&|value: f64| scale.number(value), &|value: f64| scale.number(value));
    frame::draw(&frame, (axis.clone(), axis), (ticks.0, ticks.1), |plot| {
        plot.line(vec![(low, low), (high, high)], stroke(Ink::TEXT, false, 1.2))?;
        if tolerance > 0.0 {
            let (above, below) = (1.0 + tolerance, 1.0 - tolerance);
            let style = stroke(Ink::MUTED, true, 1.0);
            plot.line(vec![(low, low * above), (high / above, high)], style)?;
            plot.line(vec![(low / below, low), (high, high * below)], style)?;
        }
        rows.iter().try_for_each(|row| mark(plot, (row.requested, row.judged_value()), row.verdict))
    })
}

fn describe(rows: &[&EnforcementRow]) -> String {
    let of = |(row, name): (&&EnforcementRow, String)| {
        let value = |value| figure::value(value, &row.unit);
        format!("{name}: {} of {}", value(row.judged_value()), value(row.requested))
    };
    format!("Achieved of requested. {}.", rows.iter().zip(settings(rows)).map(of).collect::<Vec<_>>().join("; "))
}
