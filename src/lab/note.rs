//! What has to be undone on a device if this process is killed: one file a device, `OWNER TEXT`.
//!
//! The kernel keeps a loop device's scheduler, and the device itself, beyond the process that changed or added it. So it
//! is noted before, and `isobench gc` undoes it for owners that are gone. `scheduler` and `loops` use it.

use std::io;
use std::path::{Path, PathBuf};

use crate::cgroup::owner::Owner;
use crate::fs::{self, FileError};

/// A note of this process.
#[derive(Debug)]
pub(super) struct Note {
    path: PathBuf,
}

impl Note {
    /// Writes the note about a device, in place of an older one.
    pub(super) fn write(directory: &str, device: &str, text: &str) -> Result<Self, FileError> {
        fs::create_dirs(directory)?;
        let path = Path::new(directory).join(device);
        fs::write_atomic(&path, format!("{} {text}", Owner::current()).as_bytes())?;
        Ok(Self { path })
    }

    /// Writes the note about a device; `None` where a living process has one.
    pub(super) fn write_new(directory: &str, device: &str, text: &str) -> Result<Option<Self>, FileError> {
        let path = Path::new(directory).join(device);
        let taken = match fs::read_text(&path) {
            Ok(old) => parse(&old).is_some_and(|(owner, _)| owner.is_alive()),
            Err(error) if error.is_not_found() => false,
            Err(error) => return Err(error),
        };
        if taken { Ok(None) } else { Self::write(directory, device, text).map(Some) }
    }

    /// Takes the note away: it is undone.
    pub(super) fn remove(&self) -> Result<(), FileError> {
        fs::remove_if_there(&self.path)
    }
}

fn parse(note: &str) -> Option<(Owner, &str)> {
    let (owner, text) = note.split_once(' ')?;
    Some((owner.parse().ok()?, text.trim()))
}

/// Calls `undo` with the device and the text of each note whose owner is dead, and takes the note away where it says
/// true; returns how many.
///
/// # Errors
/// Everything is tried; the first failure is returned.
pub(super) fn collect<E: From<FileError>>(
    directory: &str,
    mut undo: impl FnMut(&str, &str) -> Result<bool, E>,
) -> Result<u32, E> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(FileError::new("list", directory)(error).into()),
    };
    let (mut collected, mut outcome) = (0, Ok(()));
    for entry in entries.flatten() {
        let done = collect_one(&entry.path(), &mut undo);
        collected += u32::from(matches!(done, Ok(true)));
        outcome = outcome.and(done.map(drop));
    }
    outcome.map(|()| collected)
}

fn collect_one<E: From<FileError>>(
    path: &Path,
    undo: &mut impl FnMut(&str, &str) -> Result<bool, E>,
) -> Result<bool, E> {
    let device = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let note = match fs::read_text(path) {
        Ok(note) => note,
        // Its owner was quicker.
        Err(error) if error.is_not_found() => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    let Some((_, text)) = parse(&note).filter(|(owner, _)| !owner.is_alive()) else { return Ok(false) };
    if !undo(&device, text)? {
        return Ok(false);
    }
    fs::remove_if_there(path)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_dead_left_is_undone_and_what_cannot_be_stays_noted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_str().unwrap();
        let dead = Owner { start_ticks: Owner::current().start_ticks + 1, ..Owner::current() };
        for (device, text) in [("loop1", "none"), ("loop2", "busy"), ("loop3", "")] {
            std::fs::write(directory.path().join(device), format!("{dead} {text}")).unwrap();
        }
        std::fs::write(directory.path().join("loop4"), "nobody").unwrap();
        let own = Note::write(path, "loop5", "none").unwrap();
        let mut seen = Vec::new();
        let undone = collect::<FileError>(path, |device, text| {
            seen.push(format!("{device} {text}"));
            Ok(text != "busy")
        });
        seen.sort();
        assert_eq!((undone.unwrap(), seen), (2, ["loop1 none", "loop2 busy", "loop3 "].map(str::to_owned).to_vec()));
        let left = || std::fs::read_dir(path).unwrap().count();
        assert_eq!(left(), 3);
        own.remove().unwrap();
        assert_eq!(left(), 2);
        assert_eq!(collect::<FileError>("/nonexistent", |_, _| Ok(true)).unwrap(), 0);
    }

    #[test]
    fn a_living_process_keeps_its_note() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_str().unwrap();
        let first = Note::write_new(path, "loop8", "").unwrap().unwrap();
        assert!(Note::write_new(path, "loop8", "").unwrap().is_none());
        first.remove().unwrap();
        std::fs::write(directory.path().join("loop8"), "1-0 ").unwrap();
        assert!(Note::write_new(path, "loop8", "").unwrap().is_some(), "the owner 1-0 is dead");
    }
}
