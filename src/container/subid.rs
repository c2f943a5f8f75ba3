//! Ranges of ids for user namespaces: given as numbers, or those that /etc/subuid and /etc/subgid give to a name.

use std::path::Path;

use crate::fs::{FileError, read_text};

/// Why there is no range.
#[derive(Debug, thiserror::Error)]
pub enum SubIdError {
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// A name has no range.
    #[error("{file} has no line for `{name}`, such as `{name}:100000:65536`")]
    Missing {
        /// The file.
        file: String,
        /// The name.
        name: String,
    },
    /// A text or a line is no range.
    #[error("`{0}` is no range of ids: START:COUNT, both numbers, the count at least 1, in all below 4294967295")]
    Range(String),
    /// The range begins with the host's root.
    #[error("the range `{0}` begins with id 0: root inside would be the host's root")]
    Root(String),
    /// Users and groups have different ranges.
    #[error("`{name}` has other ranges in {users} than in {groups}, and a container takes one for both")]
    Differ {
        /// The name.
        name: String,
        /// The file of the users.
        users: String,
        /// That of the groups.
        groups: String,
    },
}

/// The range that `START:COUNT` or a name in /etc/subuid and /etc/subgid stands for: the first id and how many follow
/// each other.
///
/// # Errors
/// When the text is no range and no name with one range for both.
pub fn range(text: &str) -> Result<(u32, u32), SubIdError> {
    range_by(text, Path::new("/etc/subuid"), Path::new("/etc/subgid"))
}

fn range_by(text: &str, users: &Path, groups: &Path) -> Result<(u32, u32), SubIdError> {
    if let Some((start, count)) = text.split_once(':') {
        return check(text, start, count);
    }
    let ranges = [users, groups].map(|file| ranges_of(text, file));
    let [users_ranges, groups_ranges] = ranges;
    let (first, others) = (users_ranges?, groups_ranges?);
    let both = first.iter().copied().find(|range| others.contains(range));
    both.ok_or_else(|| SubIdError::Differ {
        name: text.to_owned(),
        users: users.display().to_string(),
        groups: groups.display().to_string(),
    })
}

/// The ranges of a name in a file; at least one.
fn ranges_of(name: &str, file: &Path) -> Result<Vec<(u32, u32)>, SubIdError> {
    let content = read_text(file)?;
    let mut found = Vec::new();
    for line in content.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
        let mut fields = line.split(':');
        if fields.next() == Some(name) {
            match (fields.next(), fields.next(), fields.next()) {
                (Some(start), Some(count), None) => found.push(check(line, start, count)?),
                _ => return Err(SubIdError::Range(line.to_owned())),
            }
        }
    }
    if found.is_empty() {
        return Err(SubIdError::Missing { file: file.display().to_string(), name: name.to_owned() });
    }
    Ok(found)
}

fn check(text: &str, start: &str, count: &str) -> Result<(u32, u32), SubIdError> {
    let wrong = || SubIdError::Range(text.to_owned());
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let number = |text: &str| text.parse::<u32>().ok().filter(|_| digits(text)).ok_or_else(wrong);
    let (start, count) = (number(start)?, number(count)?);
    // The highest id is none: it says `unchanged` to the kernel.
    if count == 0 || u64::from(start) + u64::from(count) > u64::from(u32::MAX) {
        return Err(wrong());
    }
    if start == 0 {
        return Err(SubIdError::Root(text.to_owned()));
    }
    Ok((start, count))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn among(users: &str, groups: &str, text: &str) -> Result<(u32, u32), String> {
        let directory = tempfile::tempdir().unwrap();
        let files = ["subuid", "subgid"].map(|name| directory.path().join(name));
        std::fs::write(&files[0], users).unwrap();
        std::fs::write(&files[1], groups).unwrap();
        let shown = |error: SubIdError| error.to_string().replace(&format!("{}/", directory.path().display()), "");
        range_by(text, &files[0], &files[1]).map_err(shown)
    }

    #[test]
    fn a_name_or_numbers() {
        let file = "# first\nother:1:2\nme:100000:65536\nme:300000:10\n1000:500000:7\n";
        assert_eq!(among(file, file, "me"), Ok((100_000, 65536)));
        assert_eq!(among(file, "me:300000:10\n", "me"), Ok((300_000, 10)));
        assert_eq!(among(file, file, "1000"), Ok((500_000, 7)));
        assert_eq!(among("", "", "200000:1"), Ok((200_000, 1)));
    }

    #[test]
    fn what_is_no_range() {
        let missing = among("", "", "me").unwrap_err();
        assert_eq!(missing, "subuid has no line for `me`, such as `me:100000:65536`");
        assert!(among("me:1:2", "me:3:4", "me").unwrap_err().contains("other ranges in subuid than in subgid"));
        for text in ["1:0", "a:1", "1:", "4294967290:10", "+1:2", "1:2:3", "me:1"] {
            assert!(among("", "", text).unwrap_err().contains("is no range"), "{text}");
        }
        assert!(among("me:1", "me:1", "me").unwrap_err().contains("is no range"));
        assert!(among("", "", "0:65536").unwrap_err().contains("the host's root"));
    }
}
