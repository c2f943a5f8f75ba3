//! `--name value` pairs, for the workloads that are not network tests.

use std::str::FromStr;
use std::time::Duration;

use super::WorkloadError;
use crate::units::{parse_bytes, parse_duration};

/// The pairs of one command line.
pub(super) struct Options<'a> {
    pairs: Vec<(&'a str, &'a str)>,
}

impl<'a> Options<'a> {
    /// Reads the pairs; every name must be a known one.
    pub(super) fn parse(words: &'a [String], known: &[&str]) -> Result<Self, WorkloadError> {
        let mut pairs = Vec::new();
        let mut words = words.iter();
        while let Some(name) = words.next() {
            if !known.contains(&name.as_str()) {
                return Err(usage(format!("unknown option `{name}`; known here are {}", known.join(", "))));
            }
            let value = words.next().ok_or_else(|| usage(format!("`{name}` has no value")))?;
            pairs.push((name.as_str(), value.as_str()));
        }
        Ok(Self { pairs })
    }

    /// The value of an option; `None` where it is not given.
    pub(super) fn text(&self, name: &str) -> Option<&'a str> {
        self.pairs.iter().rev().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }

    /// The value of an option that must be given.
    pub(super) fn required(&self, name: &str) -> Result<&'a str, WorkloadError> {
        self.text(name).ok_or_else(|| usage(format!("{name} is missing")))
    }

    /// A value of a type that reads itself; `what` is what people call it.
    pub(super) fn value<T: FromStr>(&self, name: &str, what: &str) -> Result<Option<T>, WorkloadError> {
        let read = |value: &str| value.parse().map_err(|_| usage(format!("{name}: `{value}` is not {what}")));
        self.text(name).map(read).transpose()
    }

    /// A byte count.
    pub(super) fn bytes(&self, name: &str) -> Result<Option<u64>, WorkloadError> {
        self.text(name).map(|value| parse_bytes(value).map_err(|error| usage(format!("{name}: {error}")))).transpose()
    }

    /// A duration.
    pub(super) fn duration(&self, name: &str) -> Result<Option<Duration>, WorkloadError> {
        self.text(name)
            .map(|value| parse_duration(value).map_err(|error| usage(format!("{name}: {error}"))))
            .transpose()
    }
}

/// Bad arguments.
pub(super) fn usage(message: String) -> WorkloadError {
    WorkloadError::Arguments(message)
}
