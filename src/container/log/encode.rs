//! Entries as docker's encoder writes them: what HTML could take for its own is escaped, and each byte that is no UTF-8
//! becomes U+FFFD. Called by [`super::Writer`].

use jiff::Timestamp;

use super::Stream;

/// What follows the text of an entry: the stream and the time.
pub(super) fn tail(stream: Stream, time: Timestamp) -> String {
    format!("\",\"stream\":\"{}\",\"time\":\"{}\"}}\n", stream.as_str(), rfc3339(time))
}

/// Go's RFC3339Nano: as many digits after the point as it takes, none for a whole second.
fn rfc3339(time: Timestamp) -> String {
    let full = format!("{time:.9}");
    match full.strip_suffix('Z').and_then(|text| text.split_once('.')) {
        Some((seconds, fraction)) => match fraction.trim_end_matches('0') {
            "" => format!("{seconds}Z"),
            digits => format!("{seconds}.{digits}Z"),
        },
        None => full,
    }
}

/// Appends an entry of two parts of one text.
pub(super) fn entry(out: &mut Vec<u8>, first: &[u8], second: &[u8], tail: &str) {
    out.extend_from_slice(b"{\"log\":\"");
    if first.is_empty() {
        escape(out, second);
    } else {
        // A character may begin in one and end in the other.
        escape(out, &[first, second].concat());
    }
    out.extend_from_slice(tail.as_bytes());
}

fn escape(out: &mut Vec<u8>, mut bytes: &[u8]) {
    loop {
        match std::str::from_utf8(bytes) {
            Ok(text) => return escape_text(out, text),
            Err(error) => {
                let (text, rest) = bytes.split_at(error.valid_up_to());
                // It has just been seen to be UTF-8.
                escape_text(out, std::str::from_utf8(text).unwrap_or_default());
                out.extend_from_slice(b"\\ufffd");
                bytes = &rest[1..];
            }
        }
    }
}

fn escape_text(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    let mut plain = 0;
    let mut at = 0;
    while at < bytes.len() {
        let (escaped, length) = match bytes[at] {
            b'"' => (Escaped::Text("\\\""), 1),
            b'\\' => (Escaped::Text("\\\\"), 1),
            b'\n' => (Escaped::Text("\\n"), 1),
            b'\r' => (Escaped::Text("\\r"), 1),
            byte @ (0..=0x1f | b'<' | b'>' | b'&') => (Escaped::Byte(byte), 1),
            // U+2028 and U+2029, which JavaScript takes for ends of lines.
            0xe2 if bytes[at..].starts_with(&[0xe2, 0x80, 0xa8]) => (Escaped::Text("\\u2028"), 3),
            0xe2 if bytes[at..].starts_with(&[0xe2, 0x80, 0xa9]) => (Escaped::Text("\\u2029"), 3),
            _ => {
                at += 1;
                continue;
            }
        };
        out.extend_from_slice(&bytes[plain..at]);
        match escaped {
            Escaped::Text(text) => out.extend_from_slice(text.as_bytes()),
            Escaped::Byte(byte) => {
                const DIGITS: &[u8; 16] = b"0123456789abcdef";
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
            }
        }
        at += length;
        plain = at;
    }
    out.extend_from_slice(&bytes[plain..]);
}

enum Escaped {
    Text(&'static str),
    Byte(u8),
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn escaped(bytes: &[u8]) -> String {
        let mut out = Vec::new();
        escape(&mut out, bytes);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn as_docker_escapes() {
        assert_eq!(
            escaped(b"a\"b\\c\n\r\t\x00<&>\x7f"),
            r#"a\"b\\c\n\r\u0009\u0000\u003c\u0026\u003e"#.to_owned() + "\x7f"
        );
        assert_eq!(escaped("é\u{2028}\u{2029}\u{20ac}".as_bytes()), "é\\u2028\\u2029€");
        // One replacement a byte: a cut character, a stray byte, a surrogate.
        assert_eq!(escaped(b"\xe2\x82x\xff\xed\xa0\x80"), r"\ufffd\ufffdx\ufffd\ufffd\ufffd\ufffd");
    }

    #[test]
    fn times_are_go_s() {
        let at = |text: &str| rfc3339(text.parse().unwrap());
        assert_eq!(at("2024-05-06T07:08:09Z"), "2024-05-06T07:08:09Z");
        assert_eq!(at("2024-05-06T07:08:09.5Z"), "2024-05-06T07:08:09.5Z");
        assert_eq!(at("2024-05-06T07:08:09.000000120Z"), "2024-05-06T07:08:09.00000012Z");
    }

    proptest! {
        #[test]
        fn what_is_utf8_comes_back(text in "\\PC*|[\\x00-\\x7f]*", cut in 0usize..100) {
            let (first, second) = text.as_bytes().split_at(cut.min(text.len()));
            let mut out = Vec::new();
            entry(&mut out, first, second, &tail(Stream::Stderr, Timestamp::UNIX_EPOCH));
            let read: serde_json::Value = serde_json::from_slice(&out).unwrap();
            prop_assert_eq!(&read["log"], &serde_json::Value::from(text));
            prop_assert_eq!(&read["stream"], "stderr");
        }

        #[test]
        fn any_bytes_are_one_line_of_json(bytes: Vec<u8>) {
            let mut out = Vec::new();
            entry(&mut out, &[], &bytes, &tail(Stream::Stdout, Timestamp::UNIX_EPOCH));
            prop_assert!(serde_json::from_slice::<serde_json::Value>(&out).is_ok());
            prop_assert_eq!(out.iter().position(|byte| *byte == b'\n'), Some(out.len() - 1));
        }
    }
}
