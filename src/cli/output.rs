//! What commands print with: styles (taken out by `anstream` when there is no terminal or NO_COLOR is set) and tables.

use std::io::{self, Write};

use clap::ValueEnum;
use clap::builder::styling::{AnsiColor, Style};

use super::error::CliError;

pub(super) const BOLD: Style = Style::new().bold();
pub(super) const DIM: Style = Style::new().dimmed();
pub(super) const GOOD: Style = AnsiColor::Green.on_default().bold();
pub(super) const DOUBT: Style = AnsiColor::Yellow.on_default().bold();
pub(super) const ERROR: Style = AnsiColor::Red.on_default().bold();

/// For whom the result is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(super) enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object on standard output, and nothing else there.
    Json,
}

/// Writes text to standard output.
pub(super) fn print(text: &str) -> Result<(), CliError> {
    write(text).map_err(CliError::Output)
}

fn write(text: &str) -> io::Result<()> {
    let mut stdout = anstream::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// Lines of cells, each column as wide as its widest cell, two spaces between; the last column is not padded.
#[derive(Debug, Default)]
pub(super) struct Table {
    rows: Vec<Vec<String>>,
    right: Vec<bool>,
    titled: bool,
}

impl Table {
    /// A table with column titles; a title that begins with `>` makes its column flush right.
    pub(super) fn titled(titles: &[&str]) -> Self {
        let right = titles.iter().map(|title| title.starts_with('>')).collect();
        let titles = titles.iter().map(|title| title.trim_start_matches('>').to_owned()).collect();
        Self { rows: vec![titles], right, titled: true }
    }

    pub(super) fn row<const N: usize>(&mut self, cells: [&str; N]) {
        self.rows.push(cells.iter().map(|cell| (*cell).to_owned()).collect());
    }

    /// The table, each line indented by `indent` spaces.
    pub(super) fn render(&self, indent: usize) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns)
            .map(|column| self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max())
            .map(|width| width.unwrap_or(0))
            .collect();
        let mut text = String::new();
        for (index, row) in self.rows.iter().enumerate() {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                let padding = " ".repeat(widths[column] - cell.chars().count());
                if column > 0 {
                    line.push_str("  ");
                }
                if self.right.get(column).copied().unwrap_or(false) {
                    line.push_str(&padding);
                    line.push_str(cell);
                } else {
                    line.push_str(cell);
                    line.push_str(&padding);
                }
            }
            let line = line.trim_end();
            let margin = " ".repeat(indent);
            if index == 0 && self.titled {
                text.push_str(&format!("{margin}{DIM}{line}{DIM:#}\n"));
            } else {
                text.push_str(&format!("{margin}{line}\n"));
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::titled(&["name", ">value", "note"]);
        table.row(["a", "1", "x"]);
        table.row(["long", "1000", ""]);
        let plain = anstream::adapter::strip_str(&table.render(2)).to_string();
        assert_eq!(plain, "  name  value  note\n  a         1  x\n  long   1000\n");
    }
}
