//! Text from files made harmless: for HTML and SVG, and for Markdown.

/// Text for HTML and XML, in elements and in quoted attributes. Characters that XML forbids become U+FFFD.
pub(super) fn html(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(legal(c)),
        }
    }
    out
}

/// Text without the characters that XML 1.0 forbids (section 2.2), for a writer that escapes by itself.
pub(super) fn xml_legal(text: &str) -> String {
    text.chars().map(legal).collect()
}

fn legal(c: char) -> char {
    match c {
        '\t' | '\n' | '\r' => c,
        '\0'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => '\u{fffd}',
        c => c,
    }
}

/// Text for one cell or one line of Markdown: no line breaks, no markup, no table borders, no mentions.
pub(super) fn markdown(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\n' | '\r' | '\t' => out.push(' '),
            '|' | '\\' | '`' | '*' | '_' | '[' | ']' | '~' | '#' => {
                out.push('\\');
                out.push(c);
            }
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            // GitHub would notify a person; the zero-width space keeps the text as it reads.
            '@' if chars.peek().is_some_and(char::is_ascii_alphanumeric) => out.push_str("@\u{200b}"),
            c => out.push(legal(c)),
        }
    }
    out
}

/// A word as a shell takes it: bare when harmless, else in single quotes.
pub(super) fn shell(word: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(bare) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_becomes_text() {
        assert_eq!(html("<a href=\"x\">'&\u{1}"), "&lt;a href=&quot;x&quot;&gt;&#39;&amp;\u{fffd}");
        assert_eq!(markdown("a|b\n`c` <i> @d"), "a\\|b \\`c\\` &lt;i&gt; @\u{200b}d");
    }

    #[test]
    fn words_survive_a_shell() {
        assert_eq!(shell("run.blocks=3"), "run.blocks=3");
        assert_eq!(shell("it's $x"), r"'it'\''s $x'");
        assert_eq!(shell(""), "''");
    }
}
