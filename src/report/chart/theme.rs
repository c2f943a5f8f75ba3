//! Makes plotters' SVG fit a page: colours that follow light and dark, one font for all, a name for screen readers.

use std::fmt::Write as _;

use super::palette::{INKS, Ink};
use crate::report::escape;

/// The fonts of every system, best first; no font is loaded.
pub(super) const FONTS: &str =
    "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'Noto Sans', 'DejaVu Sans', Arial, sans-serif";

/// The colours of the dark page as CSS rules; the light ones stand in the SVG itself.
///
/// A presentation attribute is weaker than any CSS rule, so `fill="#1f2328" class="f-ink"` is dark grey wherever CSS
/// is not understood or the page is light, and takes the rule's colour where the page is dark.
pub(in crate::report) fn dark_css() -> String {
    let mut css = String::from("@media (prefers-color-scheme: dark) {\n");
    for (class, _, dark) in INKS {
        let _ = writeln!(css, ".f-{class} {{ fill: {dark} }} .s-{class} {{ stroke: {dark} }}");
    }
    css.push_str("}\n");
    css
}

/// What [`adapt`] puts on the SVG.
pub(super) struct Dress<'a> {
    /// Makes the ids of title and description unique on a page that holds many charts.
    pub name: &'a str,
    /// What is seen.
    pub title: &'a str,
    /// The same for a reader who does not see it.
    pub description: &'a str,
    /// Width and height in CSS pixels.
    pub size: (f64, f64),
    /// Backend units a CSS pixel.
    pub scale: f64,
}

/// Rewrites what plotters wrote; the only place that knows the text form of its SVG.
///
/// plotters has fixed colours and writes each as `fill="#RRGGBB"` or `stroke="#RRGGBB"`. The charts are drawn with
/// stand-in colours (see [`Ink::stand_in`]), and here each becomes the light page's colour plus a class by which
/// [`dark_css`] finds it. Text is escaped by plotters (`"` is `&quot;`), so such an attribute can only be one.
/// The font moves to the root, the background stays transparent, and the root gets a view box to scale by, a title
/// and a description.
pub(super) fn adapt(svg: &str, dress: &Dress<'_>) -> String {
    let body = svg.split_once(">\n").map_or("", |(_, body)| body);
    let mut out = String::with_capacity(svg.len());
    let (width, height) = dress.size;
    let name = escape::html(dress.name);
    let _ = write!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {} {}\" \
         role=\"img\" aria-labelledby=\"{name}-title {name}-desc\" font-family=\"{FONTS}\">\n\
         <title id=\"{name}-title\">{}</title>\n<desc id=\"{name}-desc\">{}</desc>\n",
        (width * dress.scale).round(),
        (height * dress.scale).round(),
        escape::html(dress.title),
        escape::html(dress.description),
    );
    let mut rest = body;
    while let Some(index) = rest.find("=\"#F10") {
        let (before, after) = rest.split_at(index);
        let hex = after.get(3..9).unwrap_or("");
        let attribute = if before.ends_with("fill") { "f" } else { "s" };
        out.push_str(before);
        match Ink::from_stand_in(hex) {
            Some((ink, dashed)) => {
                let _ = write!(out, "=\"{}\" class=\"{attribute}-{}\"", ink.light(), ink.class());
                if dashed && attribute == "s" {
                    let dash = dress.scale * 5.0;
                    let _ = write!(out, " stroke-dasharray=\"{dash} {}\"", dress.scale * 3.0);
                }
            }
            None => out.push_str(after.get(..10).unwrap_or("")),
        }
        rest = after.get(10..).unwrap_or("");
    }
    out.push_str(rest);
    out.replace(" opacity=\"1\"", "").replace(" font-family=\"sans-serif\"", "").replace("\n</text>", "</text>")
}

/// An adapted SVG as a file of its own: with the dark colours inside.
///
/// `color-scheme` makes a browser that opens the file paint a dark canvas behind it; without, the light ink of the dark
/// scheme would stand on white.
pub(super) fn standalone(svg: &str) -> String {
    let style = format!("<style>\nsvg {{ color-scheme: light dark }}\n{}</style>\n", dark_css());
    svg.replacen("</desc>\n", &format!("</desc>\n{style}"), 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stand_ins_become_colours_and_classes() {
        let svg = "<svg width=\"8\">\n<line opacity=\"1\" stroke=\"#F10105\"/>\n<rect opacity=\"0.5\" fill=\"#F10000\" \
                   stroke=\"none\"/>\n<text font-family=\"sans-serif\" fill=\"#F10001\">\n=&quot;#F1000\n</text>\n</svg>\n";
        let dress = Dress { name: "n", title: "a <b>", description: "d", size: (2.0, 1.0), scale: 4.0 };
        expect_test::expect![[r##"
            <svg xmlns="http://www.w3.org/2000/svg" width="2" height="1" viewBox="0 0 8 4" role="img" aria-labelledby="n-title n-desc" font-family="system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'Noto Sans', 'DejaVu Sans', Arial, sans-serif">
            <title id="n-title">a &lt;b&gt;</title>
            <desc id="n-desc">d</desc>
            <line stroke="#0072b2" class="s-m-host" stroke-dasharray="20 12"/>
            <rect opacity="0.5" fill="#1f2328" class="f-ink" stroke="none"/>
            <text fill="#59636e" class="f-muted">
            =&quot;#F1000</text>
            </svg>
        "##]]
        .assert_eq(&adapt(svg, &dress));
    }
}
