//! Medians by mode: one bar a case from zero, with its 95 % interval and its value.

use super::axis::Axis;
use super::frame::{self, Frame};
use super::legend::Legend;
use super::palette::{Ink, Look};
use super::pen::{Pen, TEXT_SIZE, bar_opacity, clip, fill, stroke, text_width};
use super::plot::Plot;
use super::{Chart, ChartError, Data, extent, file_name, groups};
use crate::record::CaseRecord;
use crate::record::metric::Better;
use crate::record::summary::SummaryRow;
use crate::report::figure::{self, Scale};
use crate::report::label;

/// Shown otherwise: start-up times as distributions, rare events only in the tables.
const LEFT_OUT: &[&str] = &["exit", "ready", "teardown", "retransmits", "loss"];
/// More bars than this are split over several charts.
const BARS: usize = 24;
const ROW: f64 = 25.0;

enum Row<'a> {
    Heading(String),
    Bar(Look, &'a SummaryRow),
}

/// One chart a metric, in groups by what else tells the cases apart; split when there are many.
pub(super) fn charts(data: &Data<'_>, experiment: &str) -> Result<Vec<Chart>, ChartError> {
    let mut charts = Vec::new();
    for metric in data.metrics(experiment).into_iter().filter(|metric| !LEFT_OUT.contains(metric)) {
        let rows = data.rows(experiment, metric);
        if rows.iter().all(|(_, row)| row.p50 == 0.0) {
            continue;
        }
        let mut sheets: Vec<Vec<Row<'_>>> = vec![Vec::new()];
        for group in grouped(data, &rows) {
            for part in group.chunks(BARS) {
                if sheets.last().is_some_and(|sheet| !sheet.is_empty() && sheet.len() + part.len() > BARS + 2) {
                    sheets.push(Vec::new());
                }
                if let Some(sheet) = sheets.last_mut() {
                    sheet.extend(part.iter().map(|row| match row {
                        Row::Heading(text) => Row::Heading(text.clone()),
                        Row::Bar(look, row) => Row::Bar(look.clone(), row),
                    }));
                }
            }
        }
        // All sheets of a metric share one axis, so that bars can be compared across them.
        let largest = extent(rows.iter().flat_map(|(_, row)| [row.p50, row.ci95_high.unwrap_or(row.p50)]));
        for sheet in sheets.iter().filter(|sheet| !sheet.is_empty()) {
            charts.push(chart(experiment, metric, sheet, largest.map_or(0.0, |(_, high)| high))?);
        }
    }
    Ok(charts)
}

fn grouped<'a>(data: &Data<'a>, rows: &[(&'a CaseRecord, &'a SummaryRow)]) -> Vec<Vec<Row<'a>>> {
    let cases: Vec<&CaseRecord> = rows.iter().map(|(case, _)| *case).collect();
    let groups = groups(&cases);
    let bar = |case: &&CaseRecord| {
        let (_, row) = rows.iter().find(|(other, _)| other.id == case.id)?;
        Some(Row::Bar(data.looks.get(case), row))
    };
    let many = groups.len() > 1;
    groups
        .into_iter()
        .map(|group| {
            let heading = many.then(|| Row::Heading(group.facet.clone()));
            heading.into_iter().chain(group.cases.iter().filter_map(bar)).collect()
        })
        .collect()
}

fn chart(experiment: &str, metric: &str, rows: &[Row<'_>], largest: f64) -> Result<Chart, ChartError> {
    let bars = || rows.iter().filter_map(|row| if let Row::Bar(look, row) = row { Some((look, *row)) } else { None });
    let unit = bars().next().map_or("", |(_, row)| row.unit.as_str());
    let better = bars().next().and_then(|(_, row)| label::better(row));
    let scale = Scale::of(largest, unit);
    let words = rows.iter().map(|row| match row {
        Row::Heading(text) => text.as_str(),
        Row::Bar(look, _) => &look.name,
    });
    let widest = words.map(|name| text_width(name, TEXT_SIZE)).fold(40.0, f64::max);
    let left = (widest + 14.0).min(190.0);
    let figures = bars().map(|(_, row)| text_width(&figure::value(row.p50, &row.unit), TEXT_SIZE)).fold(40.0, f64::max);
    let what = label::metric_title(metric);
    let first_heading =
        rows.iter().find_map(|row| if let Row::Heading(text) = row { Some(text.as_str()) } else { None });
    let direction = match better {
        Some(Better::Lower) => " (less is better)",
        Some(Better::Higher) => " (more is better)",
        None => "",
    };
    let frame = Frame {
        name: file_name(&[experiment, metric]),
        title: scale.label(&format!("{what} by mode")),
        description: describe(rows),
        experiment: experiment.to_owned(),
        legend: Legend::None,
        note: bars()
            .any(|(_, row)| row.ci95_low.is_some())
            .then(|| "Bars are medians, whiskers their 95 % intervals.".to_owned()),
        plot_height: rows.len() as f64 * ROW + if first_heading.is_some() { 0.0 } else { 6.0 },
        left,
        right: figures + 26.0,
        x_label: format!("{}{direction}", scale.label(&label::lowered(&what))),
        y_label: String::new(),
    };
    let x = Axis::from_zero(largest, &scale, 5);
    let ticks = (&|value: f64| scale.number(value), &|_: f64| String::new());
    frame::draw(&frame, (x, Axis::rows(rows.len() as f64)), (ticks.0, ticks.1), |plot| {
        for (index, row) in rows.iter().enumerate() {
            let y = index as f64;
            match row {
                Row::Heading(text) => plot.row_label(2.0, y + 0.1, text, Pen { bold: true, ..Pen::LEFT })?,
                Row::Bar(look, row) => {
                    plot.row_label(left - 8.0, y, &clip(&look.name, left - 10.0), Pen::RIGHT)?;
                    bar(plot, look, row, y)?;
                }
            }
        }
        plot.line(vec![(0.0, -0.5), (0.0, rows.len() as f64 - 0.5)], stroke(Ink::MUTED, false, 1.0))
    })
}

fn bar(plot: &mut Plot<'_, '_>, look: &Look, row: &SummaryRow, y: f64) -> Result<(), ChartError> {
    plot.bar((0.0, row.p50.max(0.0)), y, 15.0, fill(look.ink, bar_opacity(look)))?;
    let mut end = row.p50;
    if let Some((low, high)) = row.ci95_low.zip(row.ci95_high).filter(|(low, high)| low.is_finite() && high.is_finite())
    {
        plot.whisker((low, high), y, stroke(Ink::TEXT, false, 1.5))?;
        end = end.max(high);
    }
    plot.label((end, y), (8.0, 0.0), &figure::value(row.p50, &row.unit), Pen::LEFT)
}

fn describe(rows: &[Row<'_>]) -> String {
    let mut parts = Vec::new();
    let mut heading = "";
    for row in rows {
        match row {
            Row::Heading(text) => heading = text,
            Row::Bar(look, row) => {
                let name = format!("{} {heading}", look.name);
                parts.push(format!("{}: {}", name.trim(), figure::value(row.p50, &row.unit)));
            }
        }
    }
    format!("Medians. {}.", parts.join("; "))
}
