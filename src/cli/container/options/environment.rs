//! Variables and labels, from the command line, from files and from the image.

use std::collections::BTreeMap;

use super::values::{OptionsError, file, wrong};

/// What docker puts before everything.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The variables that were asked for: those of the files, then those of the command line. One without `=` is to be
/// taken from this process, and where this has none, to be taken away. A file's line without `=` that this process has
/// not is passed over.
pub(super) fn asked(files: &[String], given: &[String]) -> Result<Vec<String>, OptionsError> {
    const FLAG: &str = "--env";
    let own = |name: &str| std::env::var_os(name).map(|value| format!("{name}={}", value.to_string_lossy()));
    let mut variables = Vec::new();
    for path in files {
        for line in lines("--env-file", path)? {
            if line.contains('=') { variables.push(line) } else { variables.extend(own(&line)) }
        }
    }
    for variable in given {
        if variable.is_empty() || variable.starts_with('=') || variable.contains('\0') {
            return Err(wrong(FLAG, variable.clone(), "write NAME=VALUE, or NAME to take it from here"));
        }
        let taken = if variable.contains('=') { None } else { own(variable) };
        variables.push(taken.unwrap_or_else(|| variable.clone()));
    }
    Ok(variables)
}

/// The lines of a file of variables or labels, without comments.
fn lines(flag: &'static str, path: &str) -> Result<Vec<String>, OptionsError> {
    let text = file(flag, path)?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let mut lines = Vec::new();
    for line in text.lines().map(str::trim_start).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let name = line.split_once('=').map_or(line, |(name, _)| name);
        if name.is_empty() || name.contains(char::is_whitespace) || line.contains('\0') {
            return Err(wrong(flag, path, format!("its line `{line}` has no name, or one with white space")));
        }
        lines.push(line.to_owned());
    }
    Ok(lines)
}

/// All variables as docker orders them: its own, what was asked for, what the image has; of one name the first place and
/// the value of whom it was asked of.
pub(super) fn merge(hostname: &str, tty: bool, asked: &[String], image: &[String]) -> Vec<String> {
    let mut merged = vec![format!("PATH={PATH}"), format!("HOSTNAME={hostname}")];
    if tty {
        merged.push("TERM=xterm".to_owned());
    }
    let is_asked = |variable: &&String| asked.iter().any(|other| name(other) == name(variable));
    for variable in asked.iter().chain(image.iter().filter(|variable| !is_asked(variable))) {
        let place = merged.iter().position(|other| name(other) == name(variable));
        match (place, variable.contains('=')) {
            (Some(place), true) => merged[place].clone_from(variable),
            (Some(place), false) => drop(merged.remove(place)),
            (None, true) => merged.push(variable.clone()),
            (None, false) => {}
        }
    }
    merged
}

fn name(variable: &str) -> &str {
    variable.split_once('=').map_or(variable, |(name, _)| name)
}

/// The labels: the image's, over them those of the files, over them those of the command line.
pub(super) fn labels(
    image: &BTreeMap<String, String>,
    files: &[String],
    given: &[String],
) -> Result<BTreeMap<String, String>, OptionsError> {
    let mut labels = image.clone();
    let mut add = |text: &str| {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        labels.insert(name.to_owned(), value.to_owned());
    };
    for path in files {
        lines("--label-file", path)?.iter().for_each(|line| add(line));
    }
    for label in given {
        if label.is_empty() || label.starts_with('=') {
            return Err(wrong("--label", label.clone(), "write NAME=VALUE or NAME"));
        }
        add(label);
    }
    Ok(labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn what_is_asked_for_comes_before_the_image() {
        let merged =
            merge("box", true, &texts(&["A=1", "PATH=/mine", "GONE", "A=2"]), &texts(&["A=0", "B=3", "GONE=4"]));
        assert_eq!(merged, ["PATH=/mine", "HOSTNAME=box", "TERM=xterm", "A=2", "B=3"]);
        assert_eq!(merge("b", false, &texts(&["PATH"]), &texts(&["PATH=/image"])), ["HOSTNAME=b"]);
        assert_eq!(merge("b", false, &[], &texts(&["PATH=/image"])), ["PATH=/image", "HOSTNAME=b"]);
    }

    #[test]
    fn variables_of_files_and_of_this_process() {
        let place = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&place, "\u{feff}# note\n  A= b c \n\nISOBENCH_NOT_SET\nPATH\n#\n").unwrap();
        let path = place.path().to_str().unwrap().to_owned();
        let asked = asked(std::slice::from_ref(&path), &texts(&["X=", "ISOBENCH_NOT_SET"])).unwrap();
        assert_eq!((asked[0].as_str(), asked.len()), ("A= b c ", 4));
        assert!(asked[1].starts_with("PATH=/"));
        assert_eq!(asked[2..], ["X=", "ISOBENCH_NOT_SET"]);
        std::fs::write(&place, "A B=c\n").unwrap();
        let told = super::asked(&[path], &[]).unwrap_err().to_string();
        assert!(
            told.starts_with("--env-file cannot be") && told.ends_with("has no name, or one with white space"),
            "{told}"
        );
        assert!(super::asked(&[], &texts(&["=x"])).is_err());
        assert!(matches!(super::asked(&texts(&["/none"]), &[]), Err(OptionsError::File { .. })));
    }

    #[test]
    fn labels_are_laid_over_the_images() {
        let image = BTreeMap::from([("a".to_owned(), "1".to_owned()), ("b".to_owned(), "2".to_owned())]);
        let merged = labels(&image, &[], &texts(&["b=3=4", "c"])).unwrap();
        let merged: Vec<(&str, &str)> = merged.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(merged, [("a", "1"), ("b", "3=4"), ("c", "")]);
    }
}
