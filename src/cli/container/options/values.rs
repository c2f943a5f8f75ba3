//! Values that several options take, and what is wrong with one.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::fs::FileError;

/// What is wrong with the options of a container.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum OptionsError {
    /// A value is none.
    #[error("{flag} cannot be `{value}`: {expected}")]
    Value {
        /// The option.
        flag: &'static str,
        /// What was given.
        value: String,
        /// What is wrong with it, or what would be right.
        expected: String,
    },
    /// Options that exclude each other, or that need one another.
    #[error("{0}")]
    Conflict(String),
    /// A file that an option names, or that is needed.
    #[error("{flag} names a file that cannot be used")]
    File {
        /// The option.
        flag: &'static str,
        /// Why.
        source: FileError,
    },
    /// Neither the image nor the command line has a program.
    #[error("the image names no program to run; write one after the image")]
    NoCommand,
    /// The kernel's randomness cannot be read.
    #[error(transparent)]
    Random(FileError),
}

/// The error for a value.
pub(super) fn wrong(flag: &'static str, value: impl Into<String>, expected: impl Into<String>) -> OptionsError {
    OptionsError::Value { flag, value: value.into(), expected: expected.into() }
}

/// An error and its causes in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}

/// A whole number in a range.
pub(super) fn number<T>(flag: &'static str, text: &str, range: RangeInclusive<T>) -> Result<T, OptionsError>
where
    T: std::str::FromStr + PartialOrd + std::fmt::Display,
{
    let number = text.parse().ok().filter(|number| !text.starts_with('+') && range.contains(number));
    number.ok_or_else(|| wrong(flag, text, format!("write a whole number from {} to {}", range.start(), range.end())))
}

/// Bytes with docker's suffixes.
pub(super) fn bytes(flag: &'static str, text: &str) -> Result<u64, OptionsError> {
    let parsed = crate::units::parse_bytes(text);
    parsed.map_err(|_| wrong(flag, text, "write bytes, or a number with b, k, m or g, as in 512m (powers of 1024)"))
}

/// A duration as Go has it: numbers with units behind each other, as in `1m30s`; `0` needs none.
pub(super) fn duration(flag: &'static str, text: &str) -> Result<Duration, OptionsError> {
    let error =
        || wrong(flag, text, "write numbers with units, as in 500ms, 30s or 1m30s (units: ns, us, ms, s, m, h)");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    if text.is_empty() {
        return Err(error());
    }
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let is_number = |c: char| c.is_ascii_digit() || c == '.';
        let unit = rest.find(|c| !is_number(c)).ok_or_else(error)?;
        let end = rest[unit..].find(is_number).map_or(rest.len(), |length| unit + length);
        let part = crate::units::parse_duration(&rest[..end]).map_err(|_| error())?;
        total = total.checked_add(part).ok_or_else(error)?;
        rest = &rest[end..];
    }
    Ok(total)
}

/// A word for yes or no, as Go takes it.
pub(super) fn boolean(flag: &'static str, text: &str) -> Result<bool, OptionsError> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(wrong(flag, text, "write true or false")),
    }
}

/// The largest file that an option may name, in bytes.
const LARGEST_FILE: u64 = 1 << 20;

/// The text of a file that an option names.
pub(super) fn file(flag: &'static str, path: &str) -> Result<String, OptionsError> {
    use std::io::{Error, ErrorKind, Read};
    let failed = |source| OptionsError::File { flag, source };
    let opened = std::fs::File::open(path).map_err(FileError::new("open", path)).map_err(failed)?;
    let mut text = String::new();
    let read = opened.take(LARGEST_FILE + 1).read_to_string(&mut text);
    let read = read.and_then(|length| match length as u64 > LARGEST_FILE {
        true => Err(Error::new(ErrorKind::FileTooLarge, "it is larger than 1 MiB")),
        false => Ok(()),
    });
    read.map_err(FileError::new("read", path)).map_err(failed)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_go_s() {
        let ms = |text| duration("--x", text).map(|duration| duration.as_millis());
        assert_eq!(ms("1m30s").unwrap(), 90_000);
        assert_eq!(ms("1.5h").unwrap(), 5_400_000);
        assert_eq!((ms("0").unwrap(), ms("20ms").unwrap(), ms("1s1ms").unwrap()), (0, 20, 1001));
        for bad in ["", "5", "s", "-1s", "1x", "1s5", "1 s 5"] {
            assert!(ms(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn numbers_say_their_range() {
        assert_eq!(number("--x", "7", 1..=9).unwrap(), 7);
        let told = number("--x", "+7", 1..=9).unwrap_err().to_string();
        assert_eq!(told, "--x cannot be `+7`: write a whole number from 1 to 9");
    }
}
