//! How contenders split what they share: two stacked bars a case, as requested and as achieved.

use super::axis::Axis;
use super::frame::{self, Frame};
use super::legend::{Legend, Mark};
use super::palette::{Ink, Look};
use super::pen::{Pen, TEXT_SIZE, WIDTH, clip, fill, text_width};
use super::{Chart, ChartError, Data, file_name};
use crate::record::EnforcementRow;
use crate::report::figure::{self, Scale};
use crate::report::{label, limits};

/// Settings of which each contender has one: `shares/a`, `shares/b`.
const SPLIT: [&str; 2] = ["shares", "weight"];
/// More cases than this are split over several charts.
const CASES: usize = 10;
const ROW: f64 = 25.0;

/// A case's contenders: name, requested and achieved part of the whole.
struct Split<'a> {
    case: &'a str,
    parts: Vec<(&'a str, f64, f64)>,
}

/// One chart a controller.
pub(super) fn charts(data: &Data<'_>) -> Result<Vec<Chart>, ChartError> {
    let mut charts = Vec::new();
    for kind in SPLIT {
        let mut controllers: Vec<(&str, Vec<Split<'_>>)> = Vec::new();
        for case in &data.run.cases {
            let of = |row: &&EnforcementRow| row.case == case.id && contender(row, kind).is_some();
            let rows: Vec<&EnforcementRow> = data.run.enforcement.iter().filter(of).collect();
            let Some(split) = split(&rows, kind) else { continue };
            let controller = rows[0].controller.as_str();
            match controllers.iter_mut().find(|(known, _)| *known == controller) {
                Some((_, splits)) => splits.push(split),
                None => controllers.push((controller, vec![split])),
            }
        }
        for (controller, splits) in &controllers {
            for splits in splits.chunks(CASES) {
                charts.push(chart(controller, kind, splits)?);
            }
        }
    }
    Ok(charts)
}

fn contender<'a>(row: &'a EnforcementRow, kind: &str) -> Option<&'a str> {
    row.setting.strip_prefix(kind)?.strip_prefix('/')
}

fn split<'a>(rows: &[&'a EnforcementRow], kind: &str) -> Option<Split<'a>> {
    let sum = |value: fn(&EnforcementRow) -> f64| rows.iter().map(|row| value(row)).sum::<f64>();
    let (requested, achieved) = (sum(|row| row.requested), sum(|row| row.achieved));
    if rows.len() < 2 || !(requested > 0.0 && achieved > 0.0) {
        return None;
    }
    let part =
        |row: &&'a EnforcementRow| Some((contender(row, kind)?, row.requested / requested, row.achieved / achieved));
    Some(Split { case: &rows[0].case, parts: rows.iter().filter_map(part).collect() })
}

fn chart(controller: &str, kind: &str, splits: &[Split<'_>]) -> Result<Chart, ChartError> {
    let mut contenders: Vec<&str> = Vec::new();
    for (name, _, _) in splits.iter().flat_map(|split| &split.parts) {
        if !contenders.contains(name) {
            contenders.push(name);
        }
    }
    let ink = |name: &str| Ink::contender(contenders.iter().position(|known| *known == name).unwrap_or(0));
    let looks =
        contenders.iter().map(|name| Look { name: (*name).to_owned(), ink: ink(name), dashed: false }).collect();
    let ids: Vec<&str> = splits.iter().map(|split| split.case).collect();
    let names = label::short_ids(&ids);
    let widest = names.iter().map(|name| text_width(name, TEXT_SIZE)).fold(0.0, f64::max);
    let (left, right) = (widest.max(text_width("as requested", TEXT_SIZE)).min(180.0) + 14.0, 18.0);
    let percent = Scale::of(1.0, "ratio");
    let rows = splits.len() * 3;
    let frame = Frame {
        name: file_name(&[limits::SECTION, "split", controller, kind]),
        title: format!("{}: how contenders split by {kind}", limits::controller(controller)),
        description: describe(splits, &names),
        experiment: limits::SECTION.to_owned(),
        legend: Legend::Series(Mark::Bar, looks),
        note: None,
        plot_height: rows as f64 * ROW,
        left,
        right,
        x_label: percent.label("part of the whole"),
        y_label: String::new(),
    };
    let ticks = (&|value: f64| percent.number(value), &|_: f64| String::new());
    let x = Axis::linear(0.0, 1.0, &percent, 5);
    frame::draw(&frame, (x, Axis::rows(rows as f64)), (ticks.0, ticks.1), |plot| {
        for (index, (split, name)) in splits.iter().zip(&names).enumerate() {
            let y = (index * 3) as f64;
            plot.row_label(2.0, y + 0.1, &clip(name, WIDTH - right), Pen { bold: true, ..Pen::LEFT })?;
            for (row, (what, achieved)) in [("requested", false), ("achieved", true)].into_iter().enumerate() {
                let y = y + 1.0 + row as f64;
                plot.row_label(left - 8.0, y, what, Pen::RIGHT)?;
                let mut from = 0.0;
                for (name, asked, got) in &split.parts {
                    let to = from + if achieved { *got } else { *asked };
                    // A hair of the page between two pieces, for readers who do not tell their colours apart.
                    plot.bar((from, (to - 0.003).max(from)), y, 17.0, fill(ink(name), 0.9))?;
                    from = to;
                }
            }
        }
        Ok(())
    })
}

fn describe(splits: &[Split<'_>], names: &[String]) -> String {
    let of = |(split, name): (&Split<'_>, &String)| {
        let part = |(contender, asked, got): &(&str, f64, f64)| {
            format!("{contender} {} of {}", figure::share(*got), figure::share(*asked))
        };
        format!("{name}: {}", split.parts.iter().map(part).collect::<Vec<_>>().join(", "))
    };
    format!("Achieved of requested. {}.", splits.iter().zip(names).map(of).collect::<Vec<_>>().join("; "))
}
