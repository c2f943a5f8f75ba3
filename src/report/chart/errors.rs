//! The signed error of each limit: a dot and its interval a setting, against the band of its tolerance.

use super::axis::Axis;
use super::frame::{self, Frame};
use super::legend::{Legend, Mark};
use super::palette::{Ink, Look};
use super::pen::{Pen, TEXT_SIZE, WIDTH, clip, fill, stroke, text_width};
use super::plot::Plot;
use super::{Chart, ChartError, Data, controllers, extent, file_name, settings};
use crate::record::{EnforcementRow, Verdict};
use crate::report::figure::Scale;
use crate::report::limits;
use crate::units::significant;

/// More rows than this are split over several charts.
const ROWS: usize = 26;
const ROW: f64 = 25.0;
/// So many tolerances to each side are drawn at most.
const BEYOND: f64 = 6.0;

/// One chart a controller.
pub(super) fn charts(data: &Data<'_>) -> Result<Vec<Chart>, ChartError> {
    let mut names: Vec<&str> = Vec::new();
    for (controller, _) in controllers(data.run) {
        if !names.contains(&controller) {
            names.push(controller);
        }
    }
    let mut charts = Vec::new();
    for controller in names {
        let of = |row: &&EnforcementRow| row.controller == controller && row.error_pct.is_finite();
        let rows: Vec<&EnforcementRow> = data.run.enforcement.iter().filter(of).collect();
        // Of exact counts the table says all that there is to say.
        if rows.iter().all(|row| row.tolerance_pct == 0.0) {
            continue;
        }
        for rows in rows.chunks(ROWS) {
            charts.push(chart(controller, rows)?);
        }
    }
    Ok(charts)
}

fn chart(controller: &str, rows: &[&EnforcementRow]) -> Result<Chart, ChartError> {
    let names = settings(rows);
    let ends = |row: &&EnforcementRow| [row.error_ci95_low, row.error_ci95_high, row.tolerance_pct, -row.tolerance_pct];
    let (low, high) = extent(rows.iter().flat_map(ends).chain([0.0])).unwrap_or((-1.0, 1.0));
    let percent = Scale::of(1.0, "%");
    // One limit that is far off would push all others together.
    let edge = BEYOND * rows.iter().map(|row| row.tolerance_pct).fold(0.0, f64::max);
    let beyond = edge > 0.0 && (low < -edge || high > edge);
    let (low, high) = if edge > 0.0 { (low.max(-edge), high.min(edge)) } else { (low, high) };
    let x = Axis::around(low, high, &percent, 4);
    let widest = names.iter().map(|name| text_width(name, TEXT_SIZE)).fold(60.0, f64::max);
    let left = (widest + 16.0).min(190.0);
    let right = rows.iter().map(|row| text_width(&limits::error(row), TEXT_SIZE)).fold(90.0, f64::max);
    let frame = Frame {
        name: file_name(&[limits::SECTION, "errors", controller]),
        title: format!("{}: signed error of each limit, with 95 % intervals", limits::controller(controller)),
        description: describe(rows, &names),
        experiment: limits::SECTION.to_owned(),
        legend: Legend::Series(Mark::Dot, verdicts(rows)),
        note: Some(match beyond {
            true => "Shaded: within the tolerance. A mark at the edge lies beyond it.".to_owned(),
            false => "Shaded: within the tolerance.".to_owned(),
        }),
        plot_height: rows.len() as f64 * ROW,
        left,
        right: right + 14.0,
        x_label: "achieved against requested, %".to_owned(),
        y_label: String::new(),
    };
    let ticks = (&|value: f64| signed(value), &|_: f64| String::new());
    frame::draw(&frame, (x, Axis::rows(rows.len() as f64)), (ticks.0, ticks.1), |plot| {
        for (index, (row, name)) in rows.iter().zip(&names).enumerate() {
            let y = index as f64;
            plot.bar((-row.tolerance_pct, row.tolerance_pct), y, ROW - 3.0, fill(Ink::SHADE, 0.22))?;
            plot.row_label(left - 8.0, y, &clip(name, left - 10.0), Pen::RIGHT)?;
            plot.row_label(WIDTH - right - 4.0, y, &limits::error(row), Pen::LEFT)?;
        }
        plot.line(vec![(0.0, -0.5), (0.0, rows.len() as f64 - 0.5)], stroke(Ink::TEXT, false, 1.2))?;
        for (index, row) in rows.iter().enumerate() {
            let ink = Ink::verdict(row.verdict);
            plot.whisker((row.error_ci95_low, row.error_ci95_high), index as f64, stroke(ink, false, 2.0))?;
            mark(plot, (row.error_pct, index as f64), row.verdict)?;
        }
        Ok(())
    })
}

/// A tick's number.
fn signed(value: f64) -> String {
    match significant(value) {
        text if text.starts_with('-') => text.replace('-', "−"),
        text if value > 0.0 => format!("+{text}"),
        text => text,
    }
}

/// A dot for what holds, a larger one for what does not, a ring for what cannot be told.
pub(super) fn mark(plot: &mut Plot<'_, '_>, at: (f64, f64), verdict: Verdict) -> Result<(), ChartError> {
    let ink = Ink::verdict(verdict);
    match verdict {
        Verdict::Pass => plot.dot(at, 4.2, fill(ink, 1.0)),
        Verdict::Fail => plot.dot(at, 6.0, fill(ink, 1.0)),
        Verdict::Inconclusive | Verdict::Skipped => plot.dot(at, 4.6, stroke(ink, false, 2.0)),
    }
}

/// What the colours of the judgements mean, as far as they occur.
pub(super) fn verdicts(rows: &[&EnforcementRow]) -> Vec<Look> {
    let names = [(Verdict::Pass, "holds"), (Verdict::Fail, "does not hold"), (Verdict::Inconclusive, "cannot be told")];
    let seen = |verdict| rows.iter().any(|row| row.verdict == verdict);
    let look =
        |(verdict, name): (Verdict, &str)| Look { name: name.to_owned(), ink: Ink::verdict(verdict), dashed: false };
    names.into_iter().filter(|(verdict, _)| seen(*verdict)).map(look).collect()
}

fn describe(rows: &[&EnforcementRow], names: &[String]) -> String {
    let of = |(row, name): (&&EnforcementRow, &String)| format!("{name} {}", limits::error(row));
    format!("Signed errors. {}.", rows.iter().zip(names).map(of).collect::<Vec<_>>().join("; "))
}
