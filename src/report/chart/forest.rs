//! What differs from the baseline: a dot and an interval a case, against a line at 1.

use super::axis::Axis;
use super::frame::{self, Frame};
use super::legend::Legend;
use super::palette::{Ink, Look};
use super::pen::{Pen, TEXT_SIZE, WIDTH, clip, fill, stroke, text_width};
use super::plot::Plot;
use super::{Chart, ChartError, Data, extent, file_name, groups, in_brackets};
use crate::record::CaseRecord;
use crate::record::metric::Better;
use crate::record::summary::SummaryRow;
use crate::report::figure::{Ratio, Scale};
use crate::report::label::{self, place};

/// More rows than this are split over several charts.
const ROWS: usize = 26;
/// A metric with more rows than this has a section for each facet.
const SECTION: usize = 8;
const ROW: f64 = 25.0;

struct Dot {
    name: String,
    look: Look,
    ratio: Ratio,
}

struct Section<'a> {
    heading: String,
    metric: &'a str,
    better: Option<Better>,
    dots: Vec<Dot>,
}

/// One chart an experiment, in sections by metric; split when there are many rows.
pub(super) fn charts(data: &Data<'_>, experiment: &str) -> Result<Vec<Chart>, ChartError> {
    let mut sheets: Vec<Vec<Section<'_>>> = Vec::new();
    let mut filled = ROWS;
    let mut baselines: Vec<String> = Vec::new();
    for metric in data.metrics(experiment) {
        let rows: Vec<Row<'_>> = data
            .rows(experiment, metric)
            .into_iter()
            .filter_map(|(case, row)| Ratio::of(row).map(|ratio| (case, row, ratio)))
            .collect();
        for (_, row, _) in &rows {
            let name = baseline_name(data, row);
            if !baselines.contains(&name) {
                baselines.push(name);
            }
        }
        for section in sections(data, metric, &rows) {
            if filled + section.dots.len() + 1 > ROWS {
                sheets.push(Vec::new());
                filled = 0;
            }
            filled += section.dots.len() + 1;
            if let Some(sheet) = sheets.last_mut() {
                sheet.push(section);
            }
        }
    }
    let to = if let [one] = baselines.as_slice() { one.clone() } else { "its baseline".to_owned() };
    sheets.iter().map(|sections| chart(experiment, &to, sections)).collect()
}

type Row<'a> = (&'a CaseRecord, &'a SummaryRow, Ratio);

/// One section a metric; one a facet when the metric has many rows.
fn sections<'a>(data: &Data<'_>, metric: &'a str, rows: &[Row<'_>]) -> Vec<Section<'a>> {
    let Some((_, first, _)) = rows.first() else { return Vec::new() };
    let better = label::better(first);
    let title = label::metric_title(metric);
    let dot = |(case, _, ratio): &Row<'_>, name: String| Dot { name, look: data.looks.get(case), ratio: *ratio };
    let mut sections = Vec::new();
    if rows.len() <= SECTION {
        let dots = rows.iter().zip(names(data, rows)).map(|(row, name)| dot(row, name)).collect();
        sections.push(Section { heading: title, metric, better, dots });
        return sections;
    }
    let cases: Vec<&CaseRecord> = rows.iter().map(|(case, _, _)| *case).collect();
    for group in groups(&cases) {
        let in_group = |row: &&Row<'_>| group.cases.iter().any(|case| case.id == row.0.id);
        let members: Vec<&Row<'_>> = rows.iter().filter(in_group).collect();
        for part in members.chunks(ROWS - 1) {
            let dots = part.iter().map(|row| dot(row, data.looks.get(row.0).name)).collect();
            let heading = format!("{title}{}", in_brackets(&group.facet));
            sections.push(Section { heading, metric, better, dots });
        }
    }
    sections
}

fn baseline_name(data: &Data<'_>, row: &SummaryRow) -> String {
    let case = row.ratio_to.as_deref().and_then(|id| data.case(id));
    case.map_or_else(|| "its baseline".to_owned(), |case| data.looks.get(case).name)
}

/// Series and facet, without the parts of the facet that all rows share.
fn names(data: &Data<'_>, rows: &[Row<'_>]) -> Vec<String> {
    let facets: Vec<String> = rows.iter().map(|(case, _, _)| place(case).facet).collect();
    let facets = if facets.iter().any(|facet| *facet != facets[0]) {
        label::without_common(&facets)
    } else {
        vec![String::new(); facets.len()]
    };
    let name = |((case, _, _), facet): (&(&CaseRecord, _, _), String)| {
        format!("{} {facet}", data.looks.get(case).name).trim().to_owned()
    };
    rows.iter().zip(facets).map(name).collect()
}

fn chart(experiment: &str, to: &str, sections: &[Section<'_>]) -> Result<Chart, ChartError> {
    let dots = || sections.iter().flat_map(|section| &section.dots);
    let ends = |dot: &Dot| {
        let (low, high) = dot.ratio.ci.unwrap_or((dot.ratio.at, dot.ratio.at));
        [dot.ratio.at, low, high]
    };
    let (low, high) = extent(dots().flat_map(ends).filter(|end| *end > 0.0).chain([1.0])).unwrap_or((1.0, 1.0));
    let air = (high / low).max(1.05).powf(0.06);
    let plain = Scale::of(1.0, "×");
    let x = Axis::logarithmic(low / air, high * air, &plain, 8);
    let rows: usize = sections.iter().map(|section| section.dots.len() + 1).sum();
    let widest = dots().map(|dot| text_width(&dot.name, TEXT_SIZE)).fold(60.0, f64::max);
    let left = (widest + 16.0).min(180.0);
    let figures = dots().map(|dot| text_width(&figures(dot), TEXT_SIZE)).fold(110.0, f64::max);
    let hollow = dots().any(|dot| dot.ratio.ci.is_none());
    let note = "An interval that reaches over the line at 1: no difference seen.";
    let one_metric = sections.iter().all(|section| section.metric == sections[0].metric);
    let subject = if one_metric { label::metric_title(sections[0].metric) } else { label::experiment(experiment) };
    let frame = Frame {
        name: file_name(&[experiment, "ratios"]),
        title: format!("{subject}: ratio to {to}, with 95 % intervals"),
        description: describe(sections, to),
        experiment: experiment.to_owned(),
        legend: Legend::None,
        note: Some(if hollow { format!("{note} Hollow dots have no interval.") } else { note.to_owned() }),
        plot_height: rows as f64 * ROW,
        left,
        right: figures + 14.0,
        x_label: format!("ratio to {to} (logarithmic)"),
        y_label: String::new(),
    };
    let ticks = (&|value: f64| plain.number(value), &|_: f64| String::new());
    frame::draw(&frame, (x, Axis::rows(rows as f64)), (ticks.0, ticks.1), |plot| {
        let mut y = 0.0;
        for section in sections {
            heading(plot, section, y, figures)?;
            // Not through the headings, which may be long.
            let foot = y + 0.5 + section.dots.len() as f64;
            plot.line(vec![(1.0, y + 0.5), (1.0, foot)], stroke(Ink::TEXT, false, 1.5))?;
            for dot in &section.dots {
                y += 1.0;
                draw_dot(plot, dot, y, (left, figures))?;
            }
            y += 1.0;
        }
        Ok(())
    })
}

fn heading(plot: &mut Plot<'_, '_>, section: &Section<'_>, y: f64, figures: f64) -> Result<(), ChartError> {
    plot.row_label(2.0, y + 0.1, &section.heading, Pen { bold: true, ..Pen::LEFT })?;
    let direction = match section.better {
        Some(Better::Lower) => "← less is better",
        Some(Better::Higher) => "more is better →",
        None => "",
    };
    plot.row_label(WIDTH - figures - 4.0, y + 0.1, direction, Pen::NOTE)
}

fn draw_dot(plot: &mut Plot<'_, '_>, dot: &Dot, y: f64, (left, right): (f64, f64)) -> Result<(), ChartError> {
    plot.row_label(left - 8.0, y, &clip(&dot.name, left - 10.0), Pen::RIGHT)?;
    let mark = match dot.ratio.ci {
        Some(ends) => {
            plot.whisker(ends, y, stroke(dot.look.ink, false, 2.0))?;
            fill(dot.look.ink, 1.0)
        }
        None => stroke(dot.look.ink, false, 2.0),
    };
    plot.dot((dot.ratio.at, y), 4.2, mark)?;
    plot.row_label(WIDTH - right - 4.0, y, &figures(dot), Pen::LEFT)
}

/// `0.94× (0.91–0.96)`.
fn figures(dot: &Dot) -> String {
    let interval = dot.ratio.ci_text().map_or_else(String::new, |text| format!(" ({text})"));
    format!("{}{interval}", dot.ratio.text())
}

fn describe(sections: &[Section<'_>], to: &str) -> String {
    let of = |section: &Section<'_>| {
        let dots = section.dots.iter().map(|dot| format!("{} {}", dot.name, dot.ratio.text()));
        format!("{}: {}", section.heading, dots.collect::<Vec<_>>().join(", "))
    };
    format!("Ratios to {to}. {}.", sections.iter().map(of).collect::<Vec<_>>().join("; "))
}
