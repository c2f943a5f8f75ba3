//! Typed access to the raw tree: every key is asked for by name, and what no one asked for is an unknown key.
//!
//! A reader never stops at the first mistake: it notes a [`Problem`] and hands back the default, so that one look at
//! the output shows everything that is wrong with a file.

use std::fmt;
use std::time::Duration;

use super::RuntimeKind;
use super::matrix::Dimension;
use super::raw::{Entry, Node, Value};
use super::source::{Problem, Span, suggest};
use crate::units;

/// What is wrong with one value, and what would be right.
pub(super) struct Wrong {
    message: String,
    help: String,
}

impl Wrong {
    pub(super) fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { message: message.into(), help: help.into() }
    }

    /// The value has another type than `expected`, as in `a whole number`.
    pub(super) fn type_of(node: &Node, expected: &str, example: &str) -> Self {
        Self::new(format!("expected {expected}, found {}", node.value.type_name()), format!("write it as in {example}"))
    }
}

/// A value and where it stands; for a default, where its table stands.
#[derive(Debug, Clone)]
pub(super) struct Found<T> {
    pub(super) value: T,
    pub(super) span: Span,
}

/// One table that is being read.
pub(super) struct Table<'a, 'p> {
    title: &'static str,
    span: Span,
    entries: &'a [Entry],
    asked: Vec<&'static str>,
    problems: &'p mut Vec<Problem>,
}

impl<'a, 'p> Table<'a, 'p> {
    /// Begins to read a node as a table; `title` is how people call it, as in `[run]`.
    pub(super) fn new(title: &'static str, node: &'a Node, problems: &'p mut Vec<Problem>) -> Self {
        let entries = match &node.value {
            Value::Table(entries) => entries.as_slice(),
            other => {
                let message = format!("expected the table {title}, found {}", other.type_name());
                problems.push(Problem::new(node.span.clone(), message, format!("write {title} on a line of its own")));
                &[]
            }
        };
        Self { title, span: node.span.clone(), entries, asked: Vec::new(), problems }
    }

    /// Where the table stands.
    pub(super) fn span(&self) -> Span {
        self.span.clone()
    }

    /// Notes a problem at a place.
    pub(super) fn problem(&mut self, span: Span, message: impl Into<String>, help: impl Into<String>) {
        self.problems.push(Problem::new(span, message, help));
    }

    /// The entry of a key, which from now on is a known one.
    pub(super) fn entry(&mut self, key: &'static str) -> Option<&'a Entry> {
        if !self.asked.contains(&key) {
            self.asked.push(key);
        }
        self.entries.iter().find(|entry| entry.key == key)
    }

    /// One value; `None` when it is absent or wrong.
    pub(super) fn one<T>(&mut self, key: &'static str, read: impl Fn(&Node) -> Result<T, Wrong>) -> Option<Found<T>> {
        let entry = self.entry(key)?;
        self.value(&entry.node, key, &read).map(|value| Found { value, span: entry.node.span.clone() })
    }

    /// One value that must be there.
    pub(super) fn required<T>(
        &mut self,
        key: &'static str,
        example: &str,
        read: impl Fn(&Node) -> Result<T, Wrong>,
    ) -> Option<Found<T>> {
        if !self.entries.iter().any(|entry| entry.key == key) {
            self.asked.push(key);
            let message = format!("{} lacks `{key}`", self.title);
            self.problem(self.span(), message, format!("add {key} = {example}"));
            return None;
        }
        self.one(key, read)
    }

    /// A dimension of a matrix: a scalar is a list of one; absent means `default`; empty or with a value twice is wrong.
    pub(super) fn list<T: Clone + PartialEq + fmt::Debug>(
        &mut self,
        key: &'static str,
        default: &[T],
        read: impl Fn(&Node) -> Result<T, Wrong>,
    ) -> Dimension<T> {
        let Some(entry) = self.entry(key) else { return Dimension::unlisted(default, self.span()) };
        let Value::Array(items) = &entry.node.value else {
            let values: Vec<T> = self.value(&entry.node, key, &read).into_iter().collect();
            return Dimension::unlisted(if values.is_empty() { default } else { &values }, entry.node.span.clone());
        };
        if items.is_empty() {
            self.problem(
                entry.node.span.clone(),
                format!("`{key}` is an empty list, so that there is nothing to run"),
                "name at least one value",
            );
        }
        let mut dimension = Dimension::listed();
        for item in items {
            let Some(value) = self.value(item, key, &read) else { continue };
            if dimension.contains(&value) {
                self.problem(item.span.clone(), format!("`{key}` holds this value twice"), "name each value once");
            } else {
                dimension.push(value, item.span.clone());
            }
        }
        if dimension.is_empty() { Dimension::unlisted(default, entry.node.span.clone()) } else { dimension }
    }

    /// A dimension that has no default; where it is missing, one value stands in so that reading can go on.
    pub(super) fn required_list<T: Copy + PartialEq + fmt::Debug + fmt::Display>(
        &mut self,
        key: &'static str,
        all: &[T],
        read: impl Fn(&Node) -> Result<T, Wrong>,
    ) -> Dimension<T> {
        if !self.entries.iter().any(|entry| entry.key == key) {
            let names: Vec<String> = all.iter().map(ToString::to_string).collect();
            let help = format!("add {key} = [...] with one or more of {}", names.join(", "));
            self.problem(self.span(), format!("{} lacks `{key}`", self.title), help);
        }
        self.list(key, &all[..1], read)
    }

    /// Notes that a baseline is named which the experiment does not measure.
    pub(super) fn absent_baseline(&mut self, span: Span, name: &str) {
        let message = format!("the baseline `{name}` is not among the cases of this experiment");
        self.problem(span, message, format!("add \"{name}\" to the list, or name one that is in it"));
    }

    /// One item of a list; `None` when it is wrong.
    pub(super) fn item<T>(&mut self, node: &Node, key: &str, read: impl Fn(&Node) -> Result<T, Wrong>) -> Option<T> {
        self.value(node, key, read)
    }

    fn value<T>(&mut self, node: &Node, key: &str, read: impl Fn(&Node) -> Result<T, Wrong>) -> Option<T> {
        match read(node) {
            Ok(value) => Some(value),
            Err(wrong) => {
                self.problem(node.span.clone(), format!("`{key}`: {}", wrong.message), wrong.help);
                None
            }
        }
    }

    /// Ends the table: every key that was not asked for is unknown.
    pub(super) fn finish(self) {
        for entry in self.entries {
            if !self.asked.contains(&entry.key.as_str()) {
                let message = format!("unknown key `{}` in {}", entry.key, self.title);
                self.problems.push(Problem::new(entry.key_span.clone(), message, suggest(&entry.key, &self.asked)));
            }
        }
    }
}

/// Reads a string that is not blank.
pub(super) fn text(node: &Node) -> Result<String, Wrong> {
    match &node.value {
        Value::String(text) if text.trim().is_empty() => {
            Err(Wrong::new("the text is empty", "write at least one word"))
        }
        Value::String(text) => Ok(text.clone()),
        _ => Err(Wrong::type_of(node, "a string", "\"text\"")),
    }
}

/// Reads a boolean.
pub(super) fn boolean(node: &Node) -> Result<bool, Wrong> {
    match node.value {
        Value::Boolean(value) => Ok(value),
        _ => Err(Wrong::type_of(node, "a boolean", "true or false")),
    }
}

/// Reads a whole number between two bounds, both included.
pub(super) fn whole(low: u32, high: u32) -> impl Fn(&Node) -> Result<u32, Wrong> {
    move |node| match node.value {
        Value::Integer(value) => u32::try_from(value)
            .ok()
            .filter(|value| (low..=high).contains(value))
            .ok_or_else(|| Wrong::new(format!("{value} is out of range"), format!("from {low} to {high}"))),
        _ => Err(Wrong::type_of(node, "a whole number", &low.max(1).to_string())),
    }
}

/// Reads a seed: a whole number that is not negative.
pub(super) fn seed(node: &Node) -> Result<u64, Wrong> {
    match node.value {
        Value::Integer(value) => u64::try_from(value)
            .map_err(|_| Wrong::new(format!("{value} is out of range"), format!("from 0 to {}", i64::MAX))),
        _ => Err(Wrong::type_of(node, "a whole number", "1")),
    }
}

/// Reads a duration such as `"250ms"`, between two bounds, both included.
pub(super) fn duration(low: Duration, high: Duration) -> impl Fn(&Node) -> Result<Duration, Wrong> {
    move |node| {
        let Value::String(text) = &node.value else {
            return Err(Wrong::type_of(node, "a duration with its unit", "\"250ms\", \"1.5s\" or \"2m\""));
        };
        let value = units::parse_duration(text).map_err(|_| {
            Wrong::new(
                format!("`{text}` is not a duration"),
                "write a number and a unit, as in \"250ms\", \"1.5s\" or \"2m\"",
            )
        })?;
        if (low..=high).contains(&value) {
            return Ok(value);
        }
        Err(Wrong::new(format!("{text} is out of range"), format!("from {low:?} to {high:?}")))
    }
}

/// Reads a byte count, as a number or as in `"64K"`, between two bounds, both included.
pub(super) fn bytes(low: u32, high: u32) -> impl Fn(&Node) -> Result<u32, Wrong> {
    move |node| {
        let value = match &node.value {
            Value::Integer(value) => u64::try_from(*value).ok(),
            Value::String(text) => Some(units::parse_bytes(text).map_err(|_| {
                Wrong::new(format!("`{text}` is not a byte count"), "write it as in 4096, \"64K\" or \"16MiB\"")
            })?),
            _ => return Err(Wrong::type_of(node, "a byte count", "4096 or \"64K\"")),
        };
        value
            .and_then(|value| u32::try_from(value).ok())
            .filter(|value| (low..=high).contains(value))
            .ok_or_else(|| Wrong::new("the byte count is out of range", format!("from {low} to {high}")))
    }
}

/// Reads one of the names of an enum; `what` is what people call it, as in `network mode`.
pub(super) fn name<T: Copy + fmt::Display + 'static>(
    what: &'static str,
    all: &'static [T],
) -> impl Fn(&Node) -> Result<T, Wrong> {
    move |node| {
        let names: Vec<String> = all.iter().map(ToString::to_string).collect();
        let Value::String(text) = &node.value else {
            return Err(Wrong::type_of(node, &format!("the name of a {what}"), &format!("\"{}\"", names[0])));
        };
        match names.iter().position(|name| name == text) {
            Some(index) => Ok(all[index]),
            None => {
                let known: Vec<&str> = names.iter().map(String::as_str).collect();
                Err(Wrong::new(format!("unknown {what} `{text}`"), suggest(text, &known)))
            }
        }
    }
}

/// Reads a runtime that puts its containers in control groups.
pub(super) fn grouped_runtime(node: &Node) -> Result<RuntimeKind, Wrong> {
    match name("runtime", RuntimeKind::ALL)(node)? {
        RuntimeKind::Floor => {
            Err(Wrong::new("the floor has no control groups: it is a bare clone3 and exec", "use \"builtin\""))
        }
        runtime => Ok(runtime),
    }
}

/// Reads a finite number above 0.
pub(super) fn positive(node: &Node) -> Result<f64, Wrong> {
    let value = match node.value {
        Value::Integer(value) => value as f64,
        Value::Float(value) => value,
        _ => return Err(Wrong::type_of(node, "a number", "0.5")),
    };
    if value.is_finite() && value > 0.0 {
        return Ok(value);
    }
    Err(Wrong::new(format!("{value} is out of range"), "a finite number above 0"))
}
