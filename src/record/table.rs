//! CSV tables with named columns: writing rows, and reading them with errors that point at line and column.
//!
//! [`rows`](super::rows) says which columns each kind of row has; [`directory`](super::directory) names the files.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use csv::StringRecord;

use super::directory::RecordError;

/// What can be a line of a table.
pub(super) trait Row {
    /// The columns, in order.
    const COLUMNS: &'static [&'static str];

    /// The fields, one a column.
    ///
    /// # Errors
    /// When a value has no text.
    fn fields(&self) -> Result<Vec<String>, RecordError>;
}

/// What can be read back from a line.
pub(super) trait ReadRow: Row + Sized {
    /// The row of a line.
    ///
    /// # Errors
    /// At the first field that is not what it should be.
    fn read(line: &Line<'_>) -> Result<Self, RecordError>;
}

/// A table as text, with its header also when there are no rows.
///
/// # Errors
/// When a value has no text.
pub(super) fn to_csv<R: Row>(rows: &[R]) -> Result<Vec<u8>, RecordError> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(R::COLUMNS).map_err(RecordError::Encode)?;
    for row in rows {
        writer.write_record(row.fields()?).map_err(RecordError::Encode)?;
    }
    writer.into_inner().map_err(|error| RecordError::Encode(error.into_error().into()))
}

/// The rows of a table's text. Columns are found by name: further ones, of a later version, do no harm.
///
/// # Errors
/// When the text is not CSV, a column is missing, or a field is not what it should be.
pub(super) fn from_csv<R: ReadRow>(text: &str, path: &Path, cases: &BTreeSet<&str>) -> Result<Vec<R>, RecordError> {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let malformed = |source: csv::Error| RecordError::Csv {
        path: path.to_owned(),
        line: source.position().map_or(1, csv::Position::line),
        source,
    };
    let header = reader.headers().map_err(malformed)?.clone();
    let position = |column: &&str| {
        header.iter().position(|name| name == *column).ok_or_else(|| RecordError::MissingColumn {
            path: path.to_owned(),
            column: (*column).to_owned(),
            header: R::COLUMNS.join(","),
        })
    };
    let columns = R::COLUMNS.iter().map(position).collect::<Result<Vec<usize>, _>>()?;
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record.map_err(malformed)?;
        rows.push(R::read(&Line { path, names: R::COLUMNS, columns: &columns, record: &record, cases })?);
    }
    Ok(rows)
}

/// One line of a table that is being read.
pub(super) struct Line<'a> {
    path: &'a Path,
    names: &'static [&'static str],
    columns: &'a [usize],
    record: &'a StringRecord,
    cases: &'a BTreeSet<&'a str>,
}

impl Line<'_> {
    /// The text of a column: one of the row's own, by name.
    pub(super) fn text(&self, column: &str) -> &str {
        let index = self.names.iter().position(|name| *name == column).map(|index| self.columns[index]);
        index.and_then(|index| self.record.get(index)).unwrap_or_default()
    }

    /// The value of a column.
    ///
    /// # Errors
    /// When the text is not such a value; `expected` says what would be right, as in `a whole number`.
    pub(super) fn value<T: FromStr>(&self, column: &str, expected: &str) -> Result<T, RecordError> {
        self.text(column).parse().map_err(|_| self.wrong(column, expected))
    }

    /// The value of a column that may be empty.
    ///
    /// # Errors
    /// As for [`Line::value`].
    pub(super) fn optional<T: FromStr>(&self, column: &str, expected: &str) -> Result<Option<T>, RecordError> {
        if self.text(column).is_empty() { Ok(None) } else { self.value(column, expected).map(Some) }
    }

    /// The column `case`, which must name one of the run's cases.
    ///
    /// # Errors
    /// When it does not.
    pub(super) fn case(&self) -> Result<String, RecordError> {
        let id = self.text("case");
        if self.cases.contains(id) { Ok(id.to_owned()) } else { Err(self.wrong("case", "a case id of run.json")) }
    }

    /// The error of a field that is not what it should be.
    pub(super) fn wrong(&self, column: &str, expected: &str) -> RecordError {
        let index = self.names.iter().position(|name| *name == column).map_or(0, |index| self.columns[index]);
        RecordError::Field(Box::new(FieldError {
            path: self.path.to_owned(),
            line: self.record.position().map_or(0, csv::Position::line),
            number: index + 1,
            column: column.to_owned(),
            text: self.text(column).to_owned(),
            expected: expected.to_owned(),
        }))
    }
}

/// A field that is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}:{line}: column {number} ({column}): `{}` is not {expected}", path.display(), shortened(text))]
pub struct FieldError {
    /// The file.
    pub path: PathBuf,
    /// The line, counted from 1.
    pub line: u64,
    /// The column's position, counted from 1.
    pub number: usize,
    /// The column's name.
    pub column: String,
    /// What stands there.
    pub text: String,
    /// What would be right, as in `a whole number`.
    pub expected: String,
}

/// A histogram's text can have thousands of characters, of which an error shows the first.
fn shortened(text: &str) -> String {
    if text.chars().count() <= 60 {
        return text.to_owned();
    }
    let start: String = text.chars().take(40).collect();
    format!("{start}…")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::record::{Flags, PhaseRow, Sample};

    fn round_trip<R: ReadRow>(rows: &[R], case: &str) -> Vec<R> {
        let text = String::from_utf8(to_csv(rows).unwrap()).unwrap();
        from_csv(&text, Path::new("x.csv"), &BTreeSet::from([case])).unwrap()
    }

    proptest! {
        #[test]
        fn any_text_and_any_number_survive(
            case in any::<String>(), text in any::<String>(), block in any::<u32>(), start_ns in any::<u64>(),
            value in any::<f64>().prop_filter("a NaN equals nothing", |value| !value.is_nan()), bits in any::<[bool; 6]>(),
        ) {
            let [warmup, steal, pressure, preempted, outlier, starved] = bits;
            let flags = Flags { warmup, steal, pressure, preempted, outlier, starved };
            let (metric, unit, iteration) = (format!("no known metric {text}"), text.clone(), block / 2);
            let sample = Sample { case: case.clone(), metric, unit, block, iteration, value, start_ns, flags };
            prop_assert_eq!(round_trip(std::slice::from_ref(&sample), &case), [sample]);
            let phase = PhaseRow { case: case.clone(), block, iteration, phase: text, start_ns, duration_ns: start_ns / 3 };
            prop_assert_eq!(round_trip(&[phase.clone(), phase.clone()], &case), [phase.clone(), phase]);
        }
    }

    #[test]
    fn a_number_that_is_none_survives_as_one() {
        let sample = crate::record::fixture::sample("a", "rtt", 1, 0, f64::NAN);
        assert!(round_trip(&[sample], "a")[0].value.is_nan());
    }
}
