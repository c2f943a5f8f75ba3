//! Where a start's time goes: stacked phases of two starts a case that happened, and a table of times as the legend.

use super::axis::Axis;
use super::frame::{self, Frame};
use super::legend::{Legend, Table};
use super::palette::{Ink, Look, PHASES};
use super::pen::{Pen, TEXT_SIZE, clip, fill, text_width};
use super::plot::Plot;
use super::{Chart, ChartError, Data, extent, file_name, groups, in_brackets};
use crate::record::CaseRecord;
use crate::report::figure::{self, Scale};
use crate::report::waterfall::{self, Start, Waterfall};

/// Cases a chart: the columns of the legend.
const CASES: usize = 5;
/// Rows that a case takes: two bars and some air.
const CASE_ROWS: f64 = 2.6;
const ROW: f64 = 20.0;
const OTHER: &str = "other";

/// One chart a facet; split when there are many cases.
pub(super) fn charts(data: &Data<'_>, experiment: &str) -> Result<Vec<Chart>, ChartError> {
    let falls = waterfall::of_run(data.run);
    let fall_of = |case: &CaseRecord| falls.iter().find(|fall| fall.case == case.id);
    let has =
        |case: &&CaseRecord| case.experiment == experiment && fall_of(case).is_some_and(|fall| fall.median.whole > 0.0);
    let cases: Vec<&CaseRecord> = data.run.cases.iter().filter(has).collect();
    let phases = Phases::of(&cases.iter().filter_map(|case| fall_of(case)).collect::<Vec<_>>());
    let mut charts = Vec::new();
    for group in groups(&cases) {
        // Even parts: eight cases make two charts of four, not five and three.
        let parts = group.cases.len().div_ceil(CASES);
        for part in group.cases.chunks(group.cases.len().div_ceil(parts.max(1)).max(1)) {
            let bars: Vec<(Look, &Waterfall)> =
                part.iter().filter_map(|case| Some((data.looks.get(case), fall_of(case)?))).collect();
            charts.push(chart(experiment, &group.facet, &phases, &bars)?);
        }
    }
    Ok(charts)
}

/// The phases with a colour of their own, in the order of time; the shortest ones share one when there are many.
struct Phases {
    named: Vec<String>,
    others: usize,
}

impl Phases {
    fn of(falls: &[&Waterfall]) -> Self {
        let starts = falls.iter().flat_map(|fall| [Some(&fall.median), fall.slow.as_ref()]).flatten();
        let order = waterfall::in_order(starts);
        let longest = |name: &String| falls.iter().filter_map(|fall| fall.time_of(name)).fold(0.0, f64::max);
        let mut by_length: Vec<(f64, &String)> = order.iter().map(|name| (longest(name), name)).collect();
        by_length.sort_by(|a, b| b.0.total_cmp(&a.0));
        let kept: Vec<&String> = by_length.iter().take(PHASES).map(|(_, name)| *name).collect();
        let named: Vec<String> = order.iter().filter(|name| kept.contains(name)).cloned().collect();
        Self { others: order.len() - named.len(), named }
    }

    fn ink(&self, phase: &str) -> Ink {
        self.named.iter().position(|name| name == phase).map_or(Ink::OTHER, Ink::phase)
    }
}

fn chart(experiment: &str, facet: &str, phases: &Phases, bars: &[(Look, &Waterfall)]) -> Result<Chart, ChartError> {
    let wholes =
        bars.iter().flat_map(|(_, fall)| [Some(&fall.median), fall.slow.as_ref()]).flatten().map(|start| start.whole);
    let largest = extent(wholes).map_or(0.0, |(_, high)| high);
    let scale = Scale::of(largest, "ns");
    let widest = bars.iter().map(|(look, _)| text_width(&look.name, TEXT_SIZE)).fold(60.0, f64::max);
    let left = (widest + 14.0).min(170.0);
    let rows = bars.len() as f64 * CASE_ROWS;
    let subject = waterfall::subject(experiment);
    let slow = bars.iter().find_map(|(_, fall)| fall.slow.as_ref().map(|_| fall.slow_name()));
    let frame = Frame {
        name: file_name(&[experiment, "waterfall", facet]),
        title: format!("{}{}", scale.label(&format!("Where a {subject}'s time goes")), in_brackets(facet)),
        description: describe(subject, phases, bars),
        experiment: experiment.to_owned(),
        legend: Legend::Table(legend(phases, bars)),
        note: Some(match slow {
            Some("p99") => format!(
                "Upper bar: the {subject} nearest the median (its times are in the table). Lower bar: the one nearest the 99th percentile."
            ),
            Some(_) => format!(
                "Upper bar: the {subject} nearest the median (its times are in the table). Lower bar: the slowest."
            ),
            None => format!("The only {subject} of each case."),
        }),
        plot_height: rows * ROW,
        left,
        right: 78.0,
        x_label: scale.label("time since the request"),
        y_label: String::new(),
    };
    let x = Axis::from_zero(largest, &scale, 6);
    let ticks = (&|value: f64| scale.number(value), &|_: f64| String::new());
    frame::draw(&frame, (x, Axis::rows(rows)), (ticks.0, ticks.1), |plot| {
        for (index, (look, fall)) in bars.iter().enumerate() {
            let y = index as f64 * CASE_ROWS + 0.3;
            plot.row_label(left - 8.0, y, &clip(&look.name, left - 10.0), Pen::RIGHT)?;
            stack(plot, phases, &fall.median, y, 1.0)?;
            if let Some(start) = &fall.slow {
                let note = Pen { ink: Ink::MUTED, ..Pen::RIGHT };
                plot.row_label(left - 8.0, y + 1.0, fall.slow_name(), note)?;
                stack(plot, phases, start, y + 1.0, 0.75)?;
            }
        }
        Ok(())
    })
}

fn stack(plot: &mut Plot<'_, '_>, phases: &Phases, start: &Start, y: f64, opacity: f64) -> Result<(), ChartError> {
    let mut from = 0.0;
    for (name, ns) in start.phases.iter().filter(|(_, ns)| *ns > 0.0) {
        plot.bar((from, from + ns), y, 16.0, fill(phases.ink(name), opacity))?;
        from += ns;
    }
    plot.label((start.whole, y), (7.0, 0.0), &figure::value(start.whole, "ns"), Pen::LEFT)
}

/// A row a phase, a column a case: its time in the median start.
fn legend(phases: &Phases, bars: &[(Look, &Waterfall)]) -> Table {
    let mut rows: Vec<(Option<Ink>, String, Vec<String>)> = Vec::new();
    for name in &phases.named {
        let times = bars.iter().map(|(_, fall)| figure::value(fall.time_of(name), "ns")).collect();
        rows.push((Some(phases.ink(name)), name.clone(), times));
    }
    if phases.others > 0 {
        let times = bars.iter().map(|(_, fall)| figure::value(others(phases, fall), "ns")).collect();
        rows.push((Some(Ink::OTHER), format!("{OTHER} ({})", phases.others), times));
    }
    let wholes = bars.iter().map(|(_, fall)| figure::value(fall.median.whole, "ns")).collect();
    rows.push((None, "whole".to_owned(), wholes));
    Table { columns: bars.iter().map(|(look, _)| look.name.clone()).collect(), rows }
}

/// The time of the phases without a colour of their own; `None` when the case has none of them.
fn others(phases: &Phases, fall: &Waterfall) -> Option<f64> {
    let times: Vec<f64> =
        fall.median.phases.iter().filter(|(name, _)| !phases.named.contains(name)).map(|(_, ns)| *ns).collect();
    (!times.is_empty()).then(|| times.iter().sum())
}

fn describe(subject: &str, phases: &Phases, bars: &[(Look, &Waterfall)]) -> String {
    let of = |(look, fall): &(Look, &Waterfall)| {
        let longest = phases
            .named
            .iter()
            .filter_map(|name| Some((fall.time_of(name)?, name)))
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .map_or_else(String::new, |(ns, name)| {
                format!(", the longest phase {name} with {}", figure::value(ns, "ns"))
            });
        format!("{}: {} in all{longest}", look.name, figure::value(fall.median.whole, "ns"))
    };
    let bars = bars.iter().map(of).collect::<Vec<_>>().join("; ");
    format!("Phases of the {subject} nearest the median. {bars}.")
}
