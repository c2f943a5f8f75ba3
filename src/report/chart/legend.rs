//! Legends: series by mark and name, or a table of figures whose first column explains the colours.

use plotters::prelude::*;

use super::palette::{Ink, Look};
use super::pen::{Pen, Result, Sheet, TEXT_SIZE, WIDTH, clip, fill, stroke, text_width, units, write};

const LEGEND_ROW: f64 = 23.0;
const TABLE_ROW: f64 = 20.0;
const HEAD_ROW: f64 = 17.0;

/// What explains the colours, between the title and the data.
pub(super) enum Legend {
    /// Names beside the marks explain them.
    None,
    /// Series by look.
    Series(Mark, Vec<Look>),
    /// A row a colour, a column a case.
    Table(Table),
}

/// How a legend shows a series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    /// A piece of line.
    Line,
    /// A dot.
    Dot,
    /// A piece of a bar.
    Bar,
}

/// A legend with figures: a row a colour, a column a case.
pub(super) struct Table {
    /// The cases.
    pub columns: Vec<String>,
    /// Colour, name, and a text for each column; the last row is the sum.
    pub rows: Vec<(Option<Ink>, String, Vec<String>)>,
}

impl Table {
    /// Names of two words stand on two lines, so that columns stay narrow.
    fn head_lines(&self) -> usize {
        if self.columns.iter().any(|name| name.contains(' ')) { 2 } else { 1 }
    }
}

impl Legend {
    /// The room that it takes, in pixels.
    pub(super) fn height(&self) -> f64 {
        match self {
            Legend::None => 0.0,
            Legend::Series(_, looks) => rows(looks).len() as f64 * LEGEND_ROW,
            Legend::Table(table) => table.rows.len() as f64 * TABLE_ROW + table.head_lines() as f64 * HEAD_ROW + 14.0,
        }
    }

    /// Draws it with its upper edge at `top`.
    ///
    /// # Errors
    /// When plotters refuses.
    pub(super) fn draw(&self, sheet: &Sheet<'_>, top: f64) -> Result<()> {
        match self {
            Legend::None => Ok(()),
            Legend::Series(mark, looks) => draw_series(sheet, &rows(looks), *mark, top),
            Legend::Table(table) => draw_table(sheet, table, top),
        }
    }
}

/// Legend entries in rows that fit the sheet: each with its distance from the left.
fn rows(looks: &[Look]) -> Vec<Vec<(f64, &Look)>> {
    let mut rows: Vec<Vec<(f64, &Look)>> = Vec::new();
    let mut at = WIDTH;
    for look in looks {
        let width = 24.0 + text_width(&look.name, TEXT_SIZE) + 18.0;
        if at + width - 18.0 > WIDTH || rows.is_empty() {
            rows.push(Vec::new());
            at = 2.0;
        }
        if let Some(row) = rows.last_mut() {
            row.push((at, look));
        }
        at += width;
    }
    rows
}

fn draw_series(sheet: &Sheet<'_>, rows: &[Vec<(f64, &Look)>], mark: Mark, top: f64) -> Result<()> {
    for (row, entries) in rows.iter().enumerate() {
        let y = top + row as f64 * LEGEND_ROW + LEGEND_ROW / 2.0;
        for (x, look) in entries {
            match mark {
                Mark::Line => {
                    let ends = vec![(units(*x), units(y)), (units(x + 18.0), units(y))];
                    sheet.draw(&PathElement::new(ends, stroke(look.ink, look.dashed, 2.5)))?;
                }
                Mark::Bar => {
                    let corners = [(units(x + 3.0), units(y - 6.5)), (units(x + 16.0), units(y + 6.5))];
                    sheet.draw(&Rectangle::new(corners, fill(look.ink, 1.0)))?;
                }
                Mark::Dot => {
                    sheet.draw(&Circle::new((units(x + 9.0), units(y)), units(4.5), fill(look.ink, 1.0)))?;
                }
            }
            write(sheet, (x + 23.0, y), &look.name, Pen::LEFT, TEXT_SIZE)?;
        }
    }
    Ok(())
}

fn draw_table(sheet: &Sheet<'_>, table: &Table, top: f64) -> Result<()> {
    let names =
        table.rows.iter().map(|(_, name, _)| text_width(name, TEXT_SIZE)).fold(60.0, f64::max).min(150.0) + 24.0;
    let column = ((WIDTH - names - 8.0) / table.columns.len().max(1) as f64).min(120.0);
    let right = |index: usize| names + (index + 1) as f64 * column;
    let lines = table.head_lines();
    let bold = Pen { bold: true, ..Pen::RIGHT };
    for (index, name) in table.columns.iter().enumerate() {
        let (first, second) = name.split_once(' ').unwrap_or(("", name));
        let foot = top + lines as f64 * HEAD_ROW - HEAD_ROW / 2.0;
        write(sheet, (right(index), foot - HEAD_ROW), &clip(first, column - 6.0), bold, TEXT_SIZE)?;
        write(sheet, (right(index), foot), &clip(second, column - 6.0), bold, TEXT_SIZE)?;
    }
    let top = top + lines as f64 * HEAD_ROW + 2.0;
    for (row, (ink, name, figures)) in table.rows.iter().enumerate() {
        let y = top + (row as f64 + 0.5) * TABLE_ROW;
        let bold = ink.is_none();
        if let Some(ink) = ink {
            let corners = [(units(2.0), units(y - 6.5)), (units(15.0), units(y + 6.5))];
            sheet.draw(&Rectangle::new(corners, fill(*ink, 1.0)))?;
        }
        write(sheet, (22.0, y), &clip(name, names - 24.0), Pen { bold, ..Pen::LEFT }, TEXT_SIZE)?;
        for (index, figure) in figures.iter().enumerate() {
            write(sheet, (right(index), y), figure, Pen { bold, ..Pen::RIGHT }, TEXT_SIZE)?;
        }
    }
    Ok(())
}
