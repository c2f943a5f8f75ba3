//! The kill's timeline: from the first byte touched to the event that tells of the kill, one bar a phase.

use std::collections::BTreeMap;

use super::axis::Axis;
use super::frame::{self, Frame};
use super::legend::{Legend, Mark};
use super::palette::{Ink, Look};
use super::pen::{Pen, TEXT_SIZE, WIDTH, clip, fill, text_width};
use super::{Chart, ChartError, Data, file_name};
use crate::record::PhaseRow;
use crate::report::figure::{self, Scale};
use crate::report::waterfall::KILL;
use crate::report::{label, limits};

/// More cases than this are split over several charts.
const CASES: usize = 12;
const ROW: f64 = 25.0;

/// The block whose whole is the median one: phases with begin and end, in ns from the first.
struct Timeline<'a> {
    case: &'a str,
    spans: Vec<(&'a str, f64, f64)>,
    whole: f64,
}

/// One chart of all cases that end in a kill.
pub(super) fn charts(data: &Data<'_>) -> Result<Vec<Chart>, ChartError> {
    let lines: Vec<Timeline<'_>> = data.run.cases.iter().filter_map(|case| timeline(data, &case.id)).collect();
    lines.chunks(CASES).map(chart).collect()
}

fn timeline<'a>(data: &Data<'a>, case: &'a str) -> Option<Timeline<'a>> {
    let mut takes: BTreeMap<(u32, u32), Vec<&'a PhaseRow>> = BTreeMap::new();
    for row in data.run.phases.iter().filter(|row| row.case == case && !data.warmup.contains(&row.block)) {
        takes.entry((row.block, row.iteration)).or_default().push(row);
    }
    let mut lines: Vec<Timeline<'_>> = takes
        .into_values()
        .filter(|rows| rows.iter().any(|row| row.phase == KILL))
        .filter_map(|rows| {
            let begin = rows.iter().map(|row| row.start_ns).min()?;
            let span = |row: &&'a PhaseRow| {
                let from = (row.start_ns - begin) as f64;
                (row.phase.as_str(), from, from + row.duration_ns as f64)
            };
            let spans: Vec<(&str, f64, f64)> = rows.iter().map(span).collect();
            let whole = spans.iter().map(|(_, _, end)| *end).fold(0.0, f64::max);
            Some(Timeline { case, spans, whole })
        })
        .collect();
    lines.sort_by(|a, b| a.whole.total_cmp(&b.whole));
    let middle = lines.len().checked_sub(1)? / 2;
    Some(lines.swap_remove(middle))
}

fn chart(lines: &[Timeline<'_>]) -> Result<Chart, ChartError> {
    let mut phases: Vec<&str> = Vec::new();
    for (name, _, _) in lines.iter().flat_map(|line| &line.spans) {
        if !phases.contains(name) {
            phases.push(name);
        }
    }
    let ink = |name: &str| Ink::phase(phases.iter().position(|known| *known == name).unwrap_or(0));
    let ids: Vec<&str> = lines.iter().map(|line| line.case).collect();
    let names = label::short_ids(&ids);
    let largest = lines.iter().map(|line| line.whole).fold(0.0, f64::max);
    let scale = Scale::of(largest, "ns");
    let left = (names.iter().map(|name| text_width(name, TEXT_SIZE)).fold(60.0, f64::max) + 14.0).min(190.0);
    let right = lines.iter().map(|line| text_width(&after(line), TEXT_SIZE)).fold(80.0, f64::max) + 14.0;
    let frame = Frame {
        name: file_name(&[limits::SECTION, "kill"]),
        title: scale.label("From the first byte touched to the kill and its event"),
        description: describe(lines, &names),
        experiment: limits::SECTION.to_owned(),
        legend: Legend::Series(
            Mark::Bar,
            phases.iter().map(|name| Look { name: (*name).to_owned(), ink: ink(name), dashed: false }).collect(),
        ),
        note: Some("The block whose whole is the median one; on the right, what came after the touching.".to_owned()),
        plot_height: lines.len() as f64 * ROW + 6.0,
        left,
        right,
        x_label: scale.label("time since the first byte"),
        y_label: String::new(),
    };
    let ticks = (&|value: f64| scale.number(value), &|_: f64| String::new());
    let x = Axis::from_zero(largest, &scale, 5);
    frame::draw(&frame, (x, Axis::rows(lines.len() as f64)), (ticks.0, ticks.1), |plot| {
        for (index, (line, name)) in lines.iter().zip(&names).enumerate() {
            let y = index as f64;
            plot.row_label(left - 8.0, y, &clip(name, left - 10.0), Pen::RIGHT)?;
            for (phase, from, to) in &line.spans {
                plot.bar((*from, *to), y, 16.0, fill(ink(phase), 0.95))?;
            }
            plot.row_label(WIDTH - right + 8.0, y, &after(line), Pen::LEFT)?;
        }
        Ok(())
    })
}

/// How long it took once the touching was over.
fn after(line: &Timeline<'_>) -> String {
    let touched = line.spans.iter().find(|(name, _, _)| *name == "touch").map_or(0.0, |(_, _, end)| *end);
    format!("+{}", figure::value(line.whole - touched, "ns"))
}

fn describe(lines: &[Timeline<'_>], names: &[String]) -> String {
    let of = |(line, name): (&Timeline<'_>, &String)| {
        let span = |(phase, from, to): &(&str, f64, f64)| format!("{phase} {}", figure::value(to - from, "ns"));
        format!("{name}: {}", line.spans.iter().map(span).collect::<Vec<_>>().join(", "))
    };
    format!("Phases. {}.", lines.iter().zip(names).map(of).collect::<Vec<_>>().join("; "))
}
