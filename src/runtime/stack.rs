//! Further layers on top of an image, for measuring what their number costs: one small file in each.
//!
//! They are in a directory of the run, under [`crate::image::STORE`], whose name carries its owner, so that
//! [`collect`] finds it should the run be killed.

use std::io;
use std::path::{Path, PathBuf};

use crate::cgroup::owner::Owner;
use crate::fs::{FileError, create_dirs};
use crate::image::STORE;

/// The directory under the store; short, since mount(2) takes one page of options for all layers.
const DIRECTORY: &str = "stack";

/// What the file of a layer holds: one block.
const CONTENT: [u8; 4096] = [b'x'; 4096];

/// Layers of the run. Dropping it removes them.
#[derive(Debug)]
pub struct Stack {
    /// The topmost first.
    pub layers: Vec<PathBuf>,
    _directory: tempfile::TempDir,
}

impl Stack {
    /// Makes so many layers.
    ///
    /// # Errors
    /// When they cannot be written; nothing is left then.
    pub fn new(count: u32) -> Result<Self, FileError> {
        let parent = Path::new(STORE).join(DIRECTORY);
        create_dirs(&parent)?;
        let directory = tempfile::Builder::new()
            .prefix(&format!("{}-", Owner::current()))
            .rand_bytes(3)
            .tempdir_in(&parent)
            .map_err(FileError::new("create a directory in", &parent))?;
        let mut layers = Vec::new();
        for number in (1..=count).rev() {
            let layer = directory.path().join(number.to_string());
            create_dirs(&layer)?;
            let file = layer.join(format!("layer-{number}"));
            std::fs::write(&file, CONTENT).map_err(FileError::new("write", file))?;
            layers.push(layer);
        }
        Ok(Self { layers, _directory: directory })
    }
}

/// Removes the layers of runs that were killed; returns of how many.
///
/// # Errors
/// When they cannot be listed or removed.
pub fn collect() -> Result<u32, FileError> {
    collect_in(&Path::new(STORE).join(DIRECTORY))
}

fn collect_in(parent: &Path) -> Result<u32, FileError> {
    let entries = match std::fs::read_dir(parent) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(FileError::new("list", parent)(error)),
    };
    let mut removed = 0;
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.rsplit_once('-').and_then(|(owner, _)| owner.parse::<Owner>().ok());
        if owner.is_some_and(|owner| !owner.is_alive()) {
            std::fs::remove_dir_all(entry.path()).map_err(FileError::new("remove", entry.path()))?;
            removed += 1;
        }
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_dead_run_left_is_taken_away_and_nothing_else() {
        let parent = tempfile::tempdir().unwrap();
        let dead = Owner { start_ticks: Owner::current().start_ticks + 1, ..Owner::current() };
        for name in [format!("{}-abc", Owner::current()), format!("{dead}-abc"), "other".to_owned()] {
            create_dirs(parent.path().join(name).join("1")).unwrap();
        }
        assert_eq!(collect_in(parent.path()).unwrap(), 1);
        assert!(!parent.path().join(format!("{dead}-abc")).exists());
        assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 2);
        assert_eq!(collect_in(&parent.path().join("none")).unwrap(), 0);
    }
}
