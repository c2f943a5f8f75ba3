//! The data's area: strokes, dots, bars and text in data coordinates, on the axes that `frame` has drawn.

use plotters::chart::ChartContext;
use plotters::coord::cartesian::Cartesian2d;
use plotters::prelude::*;

use super::axis::Axis;
use super::pen::{Pen, Result, SCALE, Sheet, TEXT_SIZE, units, write};

/// Axes on a sheet.
pub(super) type Context<'a> = ChartContext<'a, SVGBackend<'a>, Cartesian2d<Axis, Axis>>;

/// The data's area, with strokes in data coordinates.
pub(super) struct Plot<'r, 'a> {
    sheet: &'r Sheet<'a>,
    chart: Context<'a>,
}

impl<'r, 'a> Plot<'r, 'a> {
    /// The area of a chart's axes.
    pub(super) fn new(sheet: &'r Sheet<'a>, chart: Context<'a>) -> Self {
        Self { sheet, chart }
    }
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
        self.sheet.draw(&Rectangle::new([(x0, middle - half), (x1.max(x0 + 1), middle + half)], style))?;
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
            self.sheet.draw(&PathElement::new(line, style))?;
        }
        Ok(())
    }

    /// Short upright ticks at the foot of the data's area.
    pub(super) fn rug(&mut self, at: impl Iterator<Item = f64>, style: ShapeStyle) -> Result<()> {
        let foot = self.chart.y_range().start;
        for x in at {
            let (x, y) = self.chart.backend_coord(&(x, foot));
            self.sheet.draw(&PathElement::new(vec![(x, y), (x, y - units(7.0))], style))?;
        }
        Ok(())
    }

    /// Text beside a point of the data, shifted by pixels.
    pub(super) fn label(&mut self, at: (f64, f64), shift: (f64, f64), words: &str, pen: Pen) -> Result<()> {
        let (x, y) = self.chart.backend_coord(&at);
        self.put((f64::from(x) / SCALE + shift.0, f64::from(y) / SCALE + shift.1), words, pen)
    }

    /// Text at a place on the sheet in pixels from the left, beside a row of the data.
    pub(super) fn row_label(&mut self, left: f64, y: f64, words: &str, pen: Pen) -> Result<()> {
        let (_, y) = self.chart.backend_coord(&(self.chart.x_range().start, y));
        self.put((left, f64::from(y) / SCALE), words, pen)
    }

    fn put(&mut self, at: (f64, f64), words: &str, pen: Pen) -> Result<()> {
        write(self.sheet, at, words, pen, TEXT_SIZE)
    }
}
