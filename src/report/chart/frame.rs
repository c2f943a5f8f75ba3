//! The sheet that every chart is drawn on: title, legend, axes with their labels, and a note at the foot.

use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::Chart;
use super::axis::Axis;
use super::legend::Legend;
use super::palette::Ink;
use super::pen::{Pen, Result, SCALE, Sheet, TEXT_SIZE, WIDTH, stroke, style, units, wrap, write};
use super::plot::{Context, Plot};
use super::theme::{self, Dress};

const TITLE_SIZE: f64 = 17.0;
const TITLE_ROW: f64 = 22.0;
const TICK_ROW: f64 = 26.0;
const NOTE_ROW: f64 = 18.0;

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
    /// What explains the colours.
    pub legend: Legend,
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
    let layout = Layout::of(frame);
    let mut svg = String::new();
    {
        let size = (units(WIDTH).unsigned_abs(), units(layout.height).unsigned_abs());
        let sheet = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        surround(&sheet, frame, &layout)?;
        let mut plot = Plot::new(&sheet, axes(&sheet, frame, &layout, (x, y), (x_ticks, y_ticks))?);
        body(&mut plot)?;
        sheet.present()?;
    }
    let dress = Dress {
        name: &frame.name,
        title: &frame.title,
        description: &frame.description,
        size: (WIDTH, layout.height),
        scale: SCALE,
    };
    Ok(Chart {
        name: frame.name.clone(),
        title: frame.title.clone(),
        experiment: frame.experiment.clone(),
        svg: theme::adapt(&svg, &dress),
    })
}

/// Where everything lies, in pixels from the top.
struct Layout {
    title: Vec<String>,
    note: Vec<String>,
    legend_top: f64,
    y_label_top: f64,
    plot_top: f64,
    x_label_top: f64,
    note_top: f64,
    height: f64,
}

impl Layout {
    fn of(frame: &Frame) -> Self {
        // Bold letters are wider by about a sixth.
        let title = wrap(&frame.title, TITLE_SIZE * 1.17, WIDTH - 4.0);
        let note = frame.note.as_deref().map_or_else(Vec::new, |note| wrap(note, TEXT_SIZE - 1.0, WIDTH - 8.0));
        let legend_top = 6.0 + title.len() as f64 * TITLE_ROW;
        let y_label_top = legend_top + frame.legend.height();
        let plot_top = y_label_top + if frame.y_label.is_empty() { 6.0 } else { 27.0 };
        let x_label_top = plot_top + frame.plot_height + TICK_ROW;
        let note_top = x_label_top + if frame.x_label.is_empty() { 0.0 } else { 20.0 };
        let height = (note_top + note.len() as f64 * NOTE_ROW + 6.0).ceil();
        Self { title, note, legend_top, y_label_top, plot_top, x_label_top, note_top, height }
    }
}

/// Everything but the axes and the data.
fn surround(sheet: &Sheet<'_>, frame: &Frame, layout: &Layout) -> Result<()> {
    let bold = Pen { bold: true, ..Pen::LEFT };
    for (index, line) in layout.title.iter().enumerate() {
        write(sheet, (2.0, 14.0 + index as f64 * TITLE_ROW), line, bold, TITLE_SIZE)?;
    }
    frame.legend.draw(sheet, layout.legend_top)?;
    write(sheet, (2.0, layout.y_label_top + 13.0), &frame.y_label, Pen::NOTE, TEXT_SIZE)?;
    let right = Pen { anchor: HPos::Right, ..Pen::NOTE };
    write(sheet, (WIDTH - frame.right, layout.x_label_top + 8.0), &frame.x_label, right, TEXT_SIZE)?;
    for (index, line) in layout.note.iter().enumerate() {
        let at = (2.0, layout.note_top + 10.0 + index as f64 * NOTE_ROW);
        write(sheet, at, line, Pen::NOTE, TEXT_SIZE - 1.0)?;
    }
    Ok(())
}

fn axes<'a>(
    sheet: &Sheet<'a>,
    frame: &Frame,
    layout: &Layout,
    (x, y): (Axis, Axis),
    (x_ticks, y_ticks): (Ticks<'_>, Ticks<'_>),
) -> Result<Context<'a>> {
    let mut chart = ChartBuilder::on(sheet)
        .margin_top(units(layout.plot_top))
        .margin_bottom(units(layout.height - layout.x_label_top))
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
