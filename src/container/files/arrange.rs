//! Where a copy goes and what it is called there: docker's rules, as a pure function.

use std::path::{Path, PathBuf};

use super::{FilesError, base_name, parent};

/// What stands at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// A directory.
    Directory,
    /// Anything else.
    File,
}

/// What is copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Source<'a> {
    /// Its path as it was given.
    pub path: &'a Path,
    /// What stands there.
    pub seen: Seen,
}

/// Where it is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted<'a> {
    /// The path as it was given.
    pub path: &'a Path,
    /// What stands there, behind links; `None` for nothing.
    pub seen: Option<Seen>,
}

/// A copy that can be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrangement {
    /// The directory that it goes into; it is there, or making it fails.
    pub directory: PathBuf,
    /// What the source is called there; empty where the content of a directory goes straight into it.
    pub called: Vec<u8>,
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// Arranges a copy.
///
/// | source | target | goes to |
/// |---|---|---|
/// | file | not there | that name; an error if it ends in `/` |
/// | file | file | that file |
/// | file | directory | the file's name in it |
/// | directory | not there | a directory of that name |
/// | directory | file | an error |
/// | directory | directory | the directory's name in it; with `/.` behind the source, its content in it |
///
/// # Errors
/// When it cannot be.
pub fn arrange(source: Source<'_>, wanted: Wanted<'_>) -> Result<Arrangement, FilesError> {
    let wrong = |text: String| Err(FilesError::Arrangement(text));
    let ends = |path: &Path, ends: &[&str]| ends.iter().any(|end| text(path).ends_with(end));
    if source.seen == Seen::File && ends(source.path, &["/", "/."]) {
        return wrong(format!("{} is no directory", text(source.path)));
    }
    let named = || Arrangement { directory: parent(wanted.path), called: base_name(wanted.path) };
    match (source.seen, wanted.seen) {
        (_, Some(Seen::File)) if ends(wanted.path, &["/", "/."]) => {
            wrong(format!("{} is no directory", text(wanted.path)))
        }
        (Seen::Directory, Some(Seen::File)) => {
            wrong(format!("a directory cannot be copied to {}, which is a file", text(wanted.path)))
        }
        (Seen::File, None) if ends(wanted.path, &["/", "/."]) => {
            wrong(format!("the directory {} must be there", text(wanted.path)))
        }
        (Seen::File | Seen::Directory, None) | (Seen::File, Some(Seen::File)) => Ok(named()),
        (seen, Some(Seen::Directory)) => {
            let name = base_name(source.path);
            let content = seen == Seen::Directory && (name == b"." || ends(source.path, &["/."]));
            let called = if content { Vec::new() } else { name };
            Ok(Arrangement { directory: wanted.path.to_owned(), called })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(source: &str, seen: Seen, wanted: &str, there: Option<Seen>) -> String {
        let source = Source { path: Path::new(source), seen };
        match arrange(source, Wanted { path: Path::new(wanted), seen: there }) {
            Ok(Arrangement { directory, called }) => {
                format!("{} {}", directory.display(), String::from_utf8_lossy(&called))
            }
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn dockers_table() {
        use Seen::{Directory, File};
        for (source, seen, wanted, there, result) in [
            ("/a/f", File, "/b", None, "/ b"),
            ("/a/f", File, "/b/", None, "the directory /b/ must be there"),
            ("/a/f", File, "/b/c", Some(File), "/b c"),
            ("/a/f", File, "/b/c/", Some(File), "/b/c/ is no directory"),
            ("/a/f", File, "/b", Some(Directory), "/b f"),
            ("/a/f/", File, "/b", Some(Directory), "/a/f/ is no directory"),
            ("/a/d", Directory, "/b/c", None, "/b c"),
            ("/a/d/", Directory, "/b/c/", None, "/b c"),
            ("/a/d/.", Directory, "/b/c", None, "/b c"),
            ("/a/d", Directory, "/b", Some(File), "a directory cannot be copied to /b, which is a file"),
            ("/a/d", Directory, "/b", Some(Directory), "/b d"),
            ("/a/d/", Directory, "/b", Some(Directory), "/b d"),
            ("/a/d/.", Directory, "/b", Some(Directory), "/b "),
            (".", Directory, "/b", Some(Directory), "/b "),
            ("/", Directory, "/b", Some(Directory), "/b "),
            ("/a/..", Directory, "/b", Some(Directory), "/b "),
        ] {
            assert_eq!(told(source, seen, wanted, there), result, "{source} to {wanted}");
        }
    }
}
