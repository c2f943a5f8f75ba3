//! What the `--filter` of several lists have in common.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

/// A label that must be there, with a certain value where one is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Label {
    name: String,
    value: Option<String>,
}

impl Label {
    /// Reads `NAME` or `NAME=VALUE`.
    pub(super) fn parse(text: &str) -> Self {
        match text.split_once('=') {
            Some((name, value)) => Self { name: name.to_owned(), value: Some(value.to_owned()) },
            None => Self { name: text.to_owned(), value: None },
        }
    }

    /// Whether it is among these.
    pub(super) fn is_on(&self, labels: &BTreeMap<String, String>) -> bool {
        let label = labels.get(&self.name);
        label.is_some_and(|has| self.value.as_ref().is_none_or(|value| value == has))
    }
}

/// `true`, `1`, `false` or `0`.
pub(super) fn truth(text: &str) -> Option<bool> {
    match text {
        "true" | "1" => Some(true),
        "false" | "0" => Some(false),
        _ => None,
    }
}

/// A time, or how long before now, as in `24h` or `2026-01-31T12:00:00Z`.
pub(super) fn until(text: &str) -> Option<Timestamp> {
    if let Ok(span) = text.parse::<SignedDuration>() {
        return Timestamp::now().checked_sub(span).ok();
    }
    text.parse::<i64>().ok().and_then(|seconds| Timestamp::from_second(seconds).ok()).or_else(|| text.parse().ok())
}

/// A shell's pattern, where `*` and `?` do not match a slash.
pub(super) fn matches(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern, text) {
        ([], []) => true,
        ([b'*', rest @ ..], _) => {
            matches(rest, text) || (!text.is_empty() && text[0] != b'/' && matches(pattern, &text[1..]))
        }
        ([b'?', pattern @ ..], [c, text @ ..]) => *c != b'/' && matches(pattern, text),
        ([a, pattern @ ..], [b, text @ ..]) => a == b && matches(pattern, text),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, text, fits) in [
            ("busybox", "busybox", true),
            ("busy*", "busybox", true),
            ("*box:1.?", "busybox:1.3", true),
            ("*", "a/b", false),
            ("*/*", "a/b", true),
            ("b", "bb", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), fits, "{pattern} {text}");
        }
    }

    #[test]
    fn a_label_is_known_by_name_and_value() {
        let labels = BTreeMap::from([("a".to_owned(), "1".to_owned())]);
        for (text, on) in [("a", true), ("a=1", true), ("a=2", false), ("b", false), ("", false)] {
            assert_eq!(Label::parse(text).is_on(&labels), on, "{text}");
        }
    }

    #[test]
    fn times_before_which_something_was_made() {
        assert!(until("24h").unwrap() < Timestamp::now());
        assert_eq!(until("0"), Some(Timestamp::UNIX_EPOCH));
        assert_eq!(until("nonsense"), None);
    }
}
