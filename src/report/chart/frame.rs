//! The sheet that every chart is drawn on: title, legend, axes, labels, and strokes in the run's inks.
//!
//! Sizes are CSS pixels on a sheet of [`WIDTH`]; plotters knows whole units only, so it draws at [`SCALE`] units a
//! pixel and the view box scales it back. Text widths are estimated (no font is loaded), always on the wide side.

use plotters::chart::ChartContext;
use plotters::coord::Shift;
use plotters::coord::cartesian::Cartesian2d;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::axis::Axis;
use super::palette::{Ink, Look};
use super::theme::{self, Dress};
use super::{Chart, ChartError};
use crate::report::escape;

/// The width of every chart in CSS pixels: text of 14 px is still read when a phone shows the chart at two thirds.
pub(super) const WIDTH: f64 = 560.0;
const SCALE: f64 = 4.0;
const TITLE_SIZE: f64 = 17.0;
/// The size of all other text.
pub(super) const TEXT_SIZE: f64 = 14.0;
const LEGEND_ROW: f64 = 23.0;
const TABLE_ROW: f64 = 20.0;
const HEAD_ROW: f64 = 17.0;
const TICK_ROW: f64 = 26.0;

/// What surrounds the data.
pub(super) struct Frame {
    /// The file's name without `.svg`.
    pub name: String,
    /// Says what is seen, with units.
    pub title: String,
    /// The same in a sentence or two, with the main figures, for a reader who does not see it.
    pub description: String,
    /// The experiment that it belongs to.
    pub experiment: String,
    /// Series by look.
    pub legend: Vec<Look>,
    /// What the legend's samples look like.
    pub legend_mark: LegendMark,
    /// A table of times as the legend, in place of `legend`.
    pub table: Option<LegendTable>,
    /// What else the reader must know: a line under the chart.
    pub note: Option<String>,
    /// The height of the data's area.
    pub plot_height: f64,
    /// The room for labels on the left.
    pub left: f64,
    /// The room on the right, for values beside marks.
    pub right: f64,
    /// Under the horizontal axis.
    pub x_label: String,
    /// Above the vertical axis, where it has one.
    pub y_label: String,
}

/// A legend with figures: a row a colour, a column a case.
pub(super) struct LegendTable {
    /// The cases.
    pub columns: Vec<String>,
    /// Colour, name, and a text for each column; the last row is the sum.
    pub rows: Vec<(Option<Ink>, String, Vec<String>)>,
}

impl LegendTable {
    /// Names of two words stand on two lines, so that columns stay narrow.
    fn head_lines(&self) -> usize {
        if self.columns.iter().any(|name| name.contains(' ')) { 2 } else { 1 }
    }
}

/// How a legend shows a series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LegendMark {
    /// A piece of line.
    Line,
    /// A filled square.
    Square,
    /// A dot.
    Dot,
}

/// How text is written.
#[derive(Clone, Copy)]
pub(super) struct Pen {
    /// Its ink.
    pub ink: Ink,
    /// Which point of the text the given point is.
    pub anchor: HPos,
    /// Whether it is bold.
    pub bold: bool,
}

impl Pen {
    /// Ordinary text that begins at the point.
    pub(super) const LEFT: Pen = Pen { ink: Ink::TEXT, anchor: HPos::Left, bold: false };
    /// Secondary text that begins at the point.
    pub(super) const NOTE: Pen = Pen { ink: Ink::MUTED, anchor: HPos::Left, bold: false };
    /// Ordinary text that ends at the point.
    pub(super) const RIGHT: Pen = Pen { ink: Ink::TEXT, anchor: HPos::Right, bold: false };
}

type Result<T> = std::result::Result<T, ChartError>;
type Backend<'a> = SVGBackend<'a>;

/// Backend units for CSS pixels.
pub(super) fn units(pixels: f64) -> i32 {
    (pixels * SCALE).round() as i32
}

/// About how wide a text is in CSS pixels, rather too wide than too narrow.
pub(super) fn text_width(text: &str, size: f64) -> f64 {
    text.chars()
        .map(|c| match c {
            'i' | 'j' | 'l' | '.' | ',' | ':' | '\'' | '|' | ' ' | 't' | 'f' | 'r' => 0.38,
            'm' | 'w' | 'M' | 'W' | '–' | '%' => 0.95,
            c if c.is_uppercase() => 0.72,
            _ => 0.62,
        })
        .sum::<f64>()
        * size
}

/// Breaks a text into lines that fit the width; a single word that does not fit gets a line of its own.
fn wrap(text: &str, size: f64, width: f64) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if text_width(line, size) + text_width(word, size) + size * 0.3 <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// Cuts a text to the width, with an ellipsis where something is missing.
pub(super) fn clip(text: &str, width: f64) -> String {
    if text_width(text, TEXT_SIZE) <= width {
        return text.to_owned();
    }
    let mut kept = String::new();
    for c in text.chars() {
        if text_width(&kept, TEXT_SIZE) + TEXT_SIZE > width {
            break;
        }
        kept.push(c);
    }
    format!("{}…", kept.trim_end())
}

fn style(pen: Pen, size: f64) -> TextStyle<'static> {
    // plotters divides the size by 1.24 when it writes `font-size`.
    let weight = if pen.bold { FontStyle::Bold } else { FontStyle::Normal };
    let font = FontDesc::new(FontFamily::SansSerif, size * SCALE * 1.24, weight);
    font.color(&pen.ink.stand_in(false)).pos(Pos::new(pen.anchor, VPos::Center))
}

/// A line's stroke, `pixels` wide.
pub(super) fn stroke(ink: Ink, dashed: bool, pixels: f64) -> ShapeStyle {
    ink.stand_in(dashed).stroke_width(units(pixels).unsigned_abs())
}

/// A fill; `opacity` from 0 to 1.
pub(super) fn fill(ink: Ink, opacity: f64) -> ShapeStyle {
    ink.stand_in(false).mix(opacity).filled()
}

/// How tick values are written.
pub(super) type Ticks<'a> = &'a dyn Fn(f64) -> String;

/// Draws a frame, its axes with grid lines at the ticks, and whatever `body` puts on the data's area.
///
/// # Errors
/// When plotters refuses, which for an SVG in memory means a fault in the chart.
pub(super) fn draw(
    frame: &Frame,
    (x, y): (Axis, Axis),
    (x_ticks, y_ticks): (Ticks<'_>, Ticks<'_>),
    body: impl FnOnce(&mut Plot<'_, '_>) -> Result<()>,
) -> Result<Chart> {
    // Bold letters are wider by about a sixth.
    let title = wrap(&frame.title, TITLE_SIZE * 1.17, WIDTH - 4.0);
    let legend = legend_rows(&frame.legend);
    let note = frame.note.as_deref().map_or_else(Vec::new, |note| wrap(note, TEXT_SIZE - 1.0, WIDTH - 8.0));
    let table_height = frame
        .table
        .as_ref()
        .map_or(0.0, |table| table.rows.len() as f64 * TABLE_ROW + table.head_lines() as f64 * HEAD_ROW + 14.0);
    let legend_top = 6.0 + title.len() as f64 * 22.0;
    let head = legend_top + legend.len() as f64 * LEGEND_ROW + table_height;
    let y_label_row = if frame.y_label.is_empty() { 6.0 } else { 27.0 };
    let plot_top = head + y_label_row;
    let x_label_row = if frame.x_label.is_empty() { 0.0 } else { 20.0 };
    let below = TICK_ROW + x_label_row;
    let height = (plot_top + frame.plot_height + below + note.len() as f64 * 18.0 + 6.0).ceil();

    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (units(WIDTH).unsigned_abs(), units(height).unsigned_abs()))
            .into_drawing_area();
        for (index, line) in title.iter().enumerate() {
            let bold = Pen { bold: true, ..Pen::LEFT };
            text(&root, (2.0, 14.0 + index as f64 * 22.0), line, bold, TITLE_SIZE)?;
        }
        draw_legend(&root, &legend, frame.legend_mark, legend_top)?;
        if let Some(table) = &frame.table {
            draw_table(&root, table, legend_top)?;
        }
        if !frame.y_label.is_empty() {
            text(&root, (2.0, head + 13.0), &frame.y_label, Pen::NOTE, TEXT_SIZE)?;
        }
        let under = plot_top + frame.plot_height + TICK_ROW;
        let end = Pen { anchor: HPos::Right, ..Pen::NOTE };
        text(&root, (WIDTH - frame.right, under + 8.0), &frame.x_label, end, TEXT_SIZE)?;
        for (index, line) in note.iter().enumerate() {
            let at = (2.0, under + x_label_row + 10.0 + index as f64 * 18.0);
            text(&root, at, line, Pen::NOTE, TEXT_SIZE - 1.0)?;
        }
        let chart =
            axes(&root, frame, plot_top, height - plot_top - frame.plot_height - TICK_ROW, (x, y), (x_ticks, y_ticks))?;
        let mut plot = Plot { root: &root, chart };
        body(&mut plot)?;
        root.present()?;
    }
    let dress = Dress {
        name: &frame.name,
        title: &frame.title,
        description: &frame.description,
        size: (WIDTH, height),
        scale: SCALE,
    };
    Ok(Chart {
        name: frame.name.clone(),
        title: frame.title.clone(),
        experiment: frame.experiment.clone(),
        svg: theme::adapt(&svg, &dress),
    })
}

type Context<'a> = ChartContext<'a, Backend<'a>, Cartesian2d<Axis, Axis>>;

fn axes<'a>(
    root: &DrawingArea<Backend<'a>, Shift>,
    frame: &Frame,
    top: f64,
    bottom: f64,
    (x, y): (Axis, Axis),
    (x_ticks, y_ticks): (Ticks<'_>, Ticks<'_>),
) -> Result<Context<'a>> {
    let mut chart = ChartBuilder::on(root)
        .margin_top(units(top))
        .margin_bottom(units(bottom))
        .margin_right(units(frame.right))
        .x_label_area_size(units(TICK_ROW))
        .y_label_area_size(units(frame.left))
        .build_cartesian_2d(x, y)?;
    chart
        .configure_mesh()
        .max_light_lines(0)
        .light_line_style(TRANSPARENT)
        .bold_line_style(stroke(Ink::GRID, false, 1.0))
        .axis_style(TRANSPARENT)
        .set_all_tick_mark_size(units(3.0))
        .x_label_style(style(Pen::NOTE, TEXT_SIZE))
        .y_label_style(style(Pen::NOTE, TEXT_SIZE))
        .x_label_formatter(&|value| x_ticks(*value))
        .y_label_formatter(&|value| y_ticks(*value))
        .draw()?;
    Ok(chart)
}

fn text(root: &DrawingArea<Backend<'_>, Shift>, at: (f64, f64), words: &str, pen: Pen, size: f64) -> Result<()> {
    if !words.is_empty() {
        root.draw_text(&escape::xml_legal(words), &style(pen, size), (units(at.0), units(at.1)))?;
    }
    Ok(())
}

/// Legend entries in rows that fit the sheet: each with its distance from the left.
fn legend_rows(looks: &[Look]) -> Vec<Vec<(f64, &Look)>> {
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

fn draw_legend(
    root: &DrawingArea<Backend<'_>, Shift>,
    rows: &[Vec<(f64, &Look)>],
    mark: LegendMark,
    top: f64,
) -> Result<()> {
    for (row, entries) in rows.iter().enumerate() {
        let y = top + row as f64 * LEGEND_ROW + LEGEND_ROW / 2.0;
        for (x, look) in entries {
            match mark {
                LegendMark::Line => {
                    let ends = vec![(units(*x), units(y)), (units(x + 18.0), units(y))];
                    root.draw(&PathElement::new(ends, stroke(look.ink, look.dashed, 2.5)))?;
                }
                LegendMark::Square => {
                    let corners = [(units(x + 2.0), units(y - 7.0)), (units(x + 16.0), units(y + 7.0))];
                    root.draw(&Rectangle::new(corners, fill(look.ink, bar_opacity(look))))?;
                }
                LegendMark::Dot => {
                    root.draw(&Circle::new((units(x + 9.0), units(y)), units(4.5), fill(look.ink, 1.0)))?;
                }
            }
            text(root, (x + 23.0, y), &look.name, Pen::LEFT, TEXT_SIZE)?;
        }
    }
    Ok(())
}

fn draw_table(root: &DrawingArea<Backend<'_>, Shift>, table: &LegendTable, top: f64) -> Result<()> {
    let names =
        table.rows.iter().map(|(_, name, _)| text_width(name, TEXT_SIZE)).fold(60.0, f64::max).min(150.0) + 24.0;
    let column = ((WIDTH - names - 8.0) / table.columns.len().max(1) as f64).min(120.0);
    let right = |index: usize| names + (index + 1) as f64 * column;
    let lines = table.head_lines();
    let bold = Pen { bold: true, ..Pen::RIGHT };
    for (index, name) in table.columns.iter().enumerate() {
        let (first, second) = name.split_once(' ').unwrap_or(("", name));
        let foot = top + lines as f64 * HEAD_ROW - HEAD_ROW / 2.0;
        text(root, (right(index), foot - HEAD_ROW), &clip(first, column - 6.0), bold, TEXT_SIZE)?;
        text(root, (right(index), foot), &clip(second, column - 6.0), bold, TEXT_SIZE)?;
    }
    let top = top + lines as f64 * HEAD_ROW + 2.0;
    for (row, (ink, name, figures)) in table.rows.iter().enumerate() {
        let y = top + (row as f64 + 0.5) * TABLE_ROW;
        let bold = ink.is_none();
        if let Some(ink) = ink {
            let corners = [(units(2.0), units(y - 6.5)), (units(15.0), units(y + 6.5))];
            root.draw(&Rectangle::new(corners, fill(*ink, 1.0)))?;
        }
        text(root, (22.0, y), &clip(name, names - 24.0), Pen { bold, ..Pen::LEFT }, TEXT_SIZE)?;
        for (index, figure) in figures.iter().enumerate() {
            text(root, (right(index), y), figure, Pen { bold, ..Pen::RIGHT }, TEXT_SIZE)?;
        }
    }
    Ok(())
}

/// Bars of a second runtime are paler, as its lines are dashed.
pub(super) fn bar_opacity(look: &Look) -> f64 {
    if look.dashed { 0.55 } else { 0.9 }
}

/// The data's area, with strokes in data coordinates.
pub(super) struct Plot<'r, 'a> {
    root: &'r DrawingArea<Backend<'a>, Shift>,
    chart: Context<'a>,
}

impl Plot<'_, '_> {
    /// A line through points.
    pub(super) fn line(&mut self, points: Vec<(f64, f64)>, style: ShapeStyle) -> Result<()> {
        self.chart.draw_series(std::iter::once(PathElement::new(points, style)))?;
        Ok(())
    }

    /// A filled rectangle between two corners, its vertical middle at `y` and `height` pixels high.
    pub(super) fn bar(&mut self, (from, to): (f64, f64), y: f64, height: f64, style: ShapeStyle) -> Result<()> {
        let (x0, middle) = self.chart.backend_coord(&(from, y));
        let (x1, _) = self.chart.backend_coord(&(to, y));
        let half = units(height / 2.0);
        self.root.draw(&Rectangle::new([(x0, middle - half), (x1.max(x0 + 1), middle + half)], style))?;
        Ok(())
    }

    /// A filled rectangle over the whole height.
    pub(super) fn band(&mut self, from: f64, to: f64, style: ShapeStyle) -> Result<()> {
        let y = self.chart.y_range();
        self.chart.draw_series(std::iter::once(Rectangle::new([(from, y.start), (to, y.end)], style)))?;
        Ok(())
    }

    /// A dot, or a ring when the style is not filled.
    pub(super) fn dot(&mut self, at: (f64, f64), radius: f64, style: ShapeStyle) -> Result<()> {
        self.chart.draw_series(std::iter::once(Circle::new(at, units(radius), style)))?;
        Ok(())
    }

    /// A horizontal interval with upright ends.
    pub(super) fn whisker(&mut self, (low, high): (f64, f64), y: f64, style: ShapeStyle) -> Result<()> {
        let (x0, middle) = self.chart.backend_coord(&(low, y));
        let (x1, _) = self.chart.backend_coord(&(high, y));
        let end = units(4.0);
        for line in [
            vec![(x0, middle), (x1, middle)],
            vec![(x0, middle - end), (x0, middle + end)],
            vec![(x1, middle - end), (x1, middle + end)],
        ] {
            self.root.draw(&PathElement::new(line, style))?;
        }
        Ok(())
    }

    /// Short upright ticks at the foot of the data's area.
    pub(super) fn rug(&mut self, at: impl Iterator<Item = f64>, style: ShapeStyle) -> Result<()> {
        let foot = self.chart.y_range().start;
        for x in at {
            let (x, y) = self.chart.backend_coord(&(x, foot));
            self.root.draw(&PathElement::new(vec![(x, y), (x, y - units(7.0))], style))?;
        }
        Ok(())
    }

    /// Text beside a point of the data, shifted by pixels.
    pub(super) fn label(&mut self, at: (f64, f64), shift: (f64, f64), words: &str, pen: Pen) -> Result<()> {
        let (x, y) = self.chart.backend_coord(&at);
        self.write((f64::from(x) / SCALE + shift.0, f64::from(y) / SCALE + shift.1), words, pen)
    }

    /// Text at a place on the sheet in pixels from the left, beside a row of the data.
    pub(super) fn row_label(&mut self, left: f64, y: f64, words: &str, pen: Pen) -> Result<()> {
        let (_, y) = self.chart.backend_coord(&(self.chart.x_range().start, y));
        self.write((left, f64::from(y) / SCALE), words, pen)
    }

    fn write(&mut self, at: (f64, f64), words: &str, pen: Pen) -> Result<()> {
        text(self.root, at, words, pen, TEXT_SIZE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles_wrap_at_words() {
        let lines = wrap("Time to exit of a container by network mode and by runtime, milliseconds", TITLE_SIZE, WIDTH);
        assert_eq!(lines.len(), 2);
        assert!(lines.iter().all(|line| text_width(line, TITLE_SIZE) <= WIDTH));
        assert_eq!(wrap("", TITLE_SIZE, WIDTH), Vec::<String>::new());
    }

    #[test]
    fn long_names_are_clipped() {
        assert_eq!(clip("bridge", 200.0), "bridge");
        assert!(clip(&"name ".repeat(30), 100.0).ends_with('…'));
        assert!(text_width(&clip(&"name ".repeat(30), 100.0), TEXT_SIZE) <= 100.0);
    }
}
