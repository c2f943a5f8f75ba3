//! Ink and text: the units of a sheet, strokes and fills, how wide a text is and where it breaks.
//!
//! Sizes are CSS pixels on a sheet of [`WIDTH`]; plotters knows whole units only, so it draws at [`SCALE`] units a
//! pixel and the view box scales it back. Text widths are estimated (no font is loaded), always on the wide side.

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::ChartError;
use super::palette::{Ink, Look};
use crate::report::escape;

/// The width of every chart in CSS pixels: text of 14 px is still read when a phone shows the chart at two thirds.
pub(super) const WIDTH: f64 = 560.0;
/// Backend units a CSS pixel.
pub(super) const SCALE: f64 = 4.0;
/// The size of all other text.
pub(super) const TEXT_SIZE: f64 = 14.0;

pub(super) type Result<T> = std::result::Result<T, ChartError>;
/// A sheet that SVG is drawn on.
pub(super) type Sheet<'a> = DrawingArea<SVGBackend<'a>, Shift>;

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
pub(super) fn wrap(text: &str, size: f64, width: f64) -> Vec<String> {
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

/// Text in a pen's ink.
pub(super) fn style(pen: Pen, size: f64) -> TextStyle<'static> {
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

/// Writes a line of text, its vertical middle at the point; nothing for an empty one.
pub(super) fn write(root: &Sheet<'_>, at: (f64, f64), words: &str, pen: Pen, size: f64) -> Result<()> {
    if !words.is_empty() {
        root.draw_text(&escape::xml_legal(words), &style(pen, size), (units(at.0), units(at.1)))?;
    }
    Ok(())
}

/// Bars of a second runtime are paler, as its lines are dashed.
pub(super) fn bar_opacity(look: &Look) -> f64 {
    if look.dashed { 0.55 } else { 0.9 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles_wrap_at_words() {
        let lines = wrap("Time to exit of a container by network mode and by runtime, milliseconds", 17.0, WIDTH);
        assert_eq!(lines.len(), 2);
        assert!(lines.iter().all(|line| text_width(line, 17.0) <= WIDTH));
        assert_eq!(wrap("", 17.0, WIDTH), Vec::<String>::new());
    }

    #[test]
    fn long_names_are_clipped() {
        assert_eq!(clip("bridge", 200.0), "bridge");
        assert!(clip(&"name ".repeat(30), 100.0).ends_with('…'));
        assert!(text_width(&clip(&"name ".repeat(30), 100.0), TEXT_SIZE) <= 100.0);
    }
}
