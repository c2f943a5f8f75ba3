//! One run at a time on a host: two that measure at once would each find the other's load in its figures, and give the
//! common parent group's weight back under the other. The second waits, and says for whom.
//!
//! The lock is the kernel's, on an open file, so it ends with the process that holds it, however that ends.

use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::fs::{self, FileError, Lock};

/// The file that the run under way has locked; it holds its pid.
const FILE: &str = "/run/isobench/run.lock";
/// How often a waiting run looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Waits until no other run is under way. `None`: the user asked to stop before that.
pub(super) fn take(stop: &AtomicBool) -> Result<Option<Lock>, FileError> {
    take_at(Path::new(FILE), stop, &mut |text| {
        // Where standard error is closed there is no one left to tell.
        let _ = writeln!(anstream::stderr(), "{text}");
    })
}

fn take_at(path: &Path, stop: &AtomicBool, say: &mut dyn FnMut(&str)) -> Result<Option<Lock>, FileError> {
    if let Some(directory) = path.parent() {
        fs::create_dirs(directory)?;
    }
    let mut told = false;
    while !stop.load(Ordering::Relaxed) {
        if let Some(lock) = Lock::try_exclusive(path)? {
            std::fs::write(path, format!("{}\n", std::process::id())).map_err(FileError::new("write", path))?;
            return Ok(Some(lock));
        }
        if !told {
            let pid = fs::read_text(path)?;
            let who = if pid.trim().is_empty() { String::new() } else { format!(" (process {})", pid.trim()) };
            say(&format!("another isobench run{who} is measuring on this host: waiting until it ends"));
            told = true;
        }
        std::thread::sleep(LOOK_AGAIN);
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_waits_and_says_for_whom() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep/run.lock");
        let stop = AtomicBool::new(false);
        let first = take_at(&path, &stop, &mut |text| panic!("{text}")).unwrap().unwrap();
        let mut said = Vec::new();
        // Whoever waits is told; then the user loses patience.
        let second = take_at(&path, &stop, &mut |text| {
            said.push(text.to_owned());
            stop.store(true, Ordering::Relaxed);
        });
        assert!(second.unwrap().is_none());
        let own = std::process::id();
        let expected = format!("another isobench run (process {own}) is measuring on this host: waiting until it ends");
        assert_eq!(said, [expected]);
        drop(first);
        stop.store(false, Ordering::Relaxed);
        assert!(take_at(&path, &stop, &mut |text| panic!("{text}")).unwrap().is_some());
    }
}
