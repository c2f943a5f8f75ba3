//! Where a scenario's words stand, and errors that point at them.
//!
//! A [`Sources`] holds the file and each `--set` override in one range of positions, so that a [`Span`] alone tells
//! which text it lies in. The readers collect [`Problem`]s; [`Sources::report`] turns them into what a person reads.

use std::fmt;
use std::ops::Range;

use crate::fs::FileError;

/// A range of bytes in one of the texts of a [`Sources`].
pub type Span = Range<usize>;

/// Why a scenario cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// The file cannot be read.
    #[error(transparent)]
    Read(#[from] FileError),
    /// The text is not a valid scenario: everything that is wrong with it, in the order of the file.
    #[error("{}", Joined(.0))]
    Invalid(Vec<Diagnostic>),
}

struct Joined<'a>(&'a [Diagnostic]);

impl fmt::Display for Joined<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n\n")?;
            }
            write!(f, "{diagnostic}")?;
        }
        Ok(())
    }
}

/// One thing that is wrong, where it stands, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// The file's name, or the override as it was given (`--set run.blocks=x`).
    pub origin: String,
    /// The line in the file, counted from 1; absent for an override.
    pub line: Option<usize>,
    /// The column in characters, counted from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub help: String,
    /// The line that holds it.
    text: String,
    /// How many characters the carets cover, at least 1.
    width: usize,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = match self.line {
            Some(line) => {
                writeln!(f, "{}:{line}:{}: {}", self.origin, self.column, self.message)?;
                line.to_string()
            }
            None => {
                writeln!(f, "{}: {}", self.origin, self.message)?;
                String::new()
            }
        };
        let gutter = " ".repeat(number.len());
        writeln!(f, "{}", format_args!("  {number} | {}", self.text).to_string().trim_end())?;
        write!(f, "  {gutter} | {}{}", " ".repeat(self.column - 1), "^".repeat(self.width))?;
        if !self.help.is_empty() {
            write!(f, "\n  {gutter} = {}", self.help)?;
        }
        Ok(())
    }
}

/// One thing that is wrong, by its span; see [`Diagnostic`] for the form that people see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) span: Span,
    pub(super) message: String,
    pub(super) help: String,
}

impl Problem {
    pub(super) fn new(span: Span, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { span, message: message.into(), help: help.into() }
    }
}

/// The texts that a scenario is made from: the file first, then the overrides.
#[derive(Debug)]
pub(super) struct Sources {
    texts: Vec<(usize, String, String)>,
}

impl Sources {
    /// Begins with the file's text.
    pub(super) fn new(file_name: &str, text: &str) -> Self {
        Self { texts: vec![(0, file_name.to_owned(), text.to_owned())] }
    }

    /// Adds an override and returns the position of its first byte.
    pub(super) fn add_override(&mut self, text: &str) -> usize {
        let (base, _, last) = &self.texts[self.texts.len() - 1];
        // One position more than the last text has bytes, so that the end of one is not the start of the next.
        let base = base + last.len() + 1;
        self.texts.push((base, format!("--set {text}"), text.to_owned()));
        base
    }

    /// The problems in the order of their places, each once, in the form that people see.
    pub(super) fn report(&self, mut problems: Vec<Problem>) -> ScenarioError {
        problems.sort_by_key(|problem| problem.span.start);
        problems.dedup();
        ScenarioError::Invalid(problems.iter().map(|problem| self.diagnostic(problem)).collect())
    }

    fn diagnostic(&self, problem: &Problem) -> Diagnostic {
        let index = self.texts.partition_point(|(base, ..)| *base <= problem.span.start).saturating_sub(1);
        let (base, origin, text) = &self.texts[index];
        let start = floor_boundary(text, problem.span.start - base);
        let end = floor_boundary(text, problem.span.end.saturating_sub(*base)).max(start);
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
        let line = text[line_start..line_end].trim_end_matches('\r');
        Diagnostic {
            origin: origin.clone(),
            line: (index == 0).then(|| text[..start].matches('\n').count() + 1),
            column: text[line_start..start].chars().count() + 1,
            message: problem.message.clone(),
            help: problem.help.clone(),
            // A tab would be as wide as the terminal likes, and the carets would stand elsewhere.
            text: line.replace('\t', " "),
            width: text[start..end.min(line_end)].trim_end().chars().count().max(1),
        }
    }
}

/// The nearest character boundary at or before `at`.
fn floor_boundary(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|&index| text.is_char_boundary(index)).unwrap_or(0)
}

/// The candidate that was probably meant by `word`, when one is near enough.
pub(super) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| (strsim::normalized_damerau_levenshtein(word, candidate), candidate))
        .filter(|(likeness, _)| *likeness >= 0.6)
        .max_by(|left, right| left.0.total_cmp(&right.0))
        .map(|(_, candidate)| candidate)
}

/// ``did you mean `x`? known are a, b``, or only the second half when nothing is near.
pub(super) fn suggest(word: &str, known: &[&str]) -> String {
    let list = known.join(", ");
    match nearest(word, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`? known are {list}"),
        None => format!("known are {list}"),
    }
}
