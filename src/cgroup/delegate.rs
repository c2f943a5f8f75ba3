//! Room for groups on v2: controllers are passed down a level at a time, and a group that passes them down may hold
//! no processes.
//!
//! At the real root of the hierarchy that rule does not hold, and this only writes `cgroup.subtree_control`. In a
//! container, or wherever else the root that one sees is a group like any other, this process itself often stands in
//! it. Then it steps aside: with what it started and what started it (a shell, say) it moves to a leaf of its own
//! beside the `isobench` group, and [`put_back`] brings everyone home. The leaf's name carries its owner, so that
//! [`collect`] can do the same for a process that died.
//!
//! What is passed down that was not before is taken back with the last group. The kernel keeps the note of it: an
//! empty group under the parent, made before anything is changed, whose name lists the controllers.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use procfs::process::Process;

use super::directory::{create_if_missing, remove_directory};
use super::group::{PARENT, processes};
use super::owner::Owner;
use super::{CgroupError, read, write};

/// What the name of the leaf begins with; the owner follows.
pub const LEAF: &str = "isobench-harness-";

/// What the name of the note begins with; the controllers follow, a `.` before each.
const NOTE: &str = "passed-down";

const SUBTREE: &str = "cgroup.subtree_control";
const PROCESSES: &str = "cgroup.procs";

/// How often the group is looked at again because a process was forked in it meanwhile.
const ROUNDS: u32 = 20;

/// Where this process came from, while it stands aside.
#[derive(Debug)]
struct Aside {
    home: PathBuf,
    leaf: PathBuf,
}

/// A move is of the whole process, whichever thread asks first.
static ASIDE: Mutex<Option<Aside>> = Mutex::new(None);

/// Brings this process back where it came from when it goes out of scope, if it had to step aside. Held by whoever
/// runs a whole session, from before the first container to after the last.
#[derive(Debug, Default)]
pub struct Homecoming(());

impl Homecoming {
    /// Nothing happens before the drop.
    #[must_use]
    pub fn new() -> Self {
        Self(())
    }
}

impl Drop for Homecoming {
    fn drop(&mut self) {
        // Whoever wants to know why not calls `put_back`; what stays is found by `collect` after this process ends.
        let _ = put_back();
    }
}

/// Makes the parent group on v2, with the given controllers passed down to its children. All of it may be there
/// already, or a part.
pub(super) fn prepare(mount_point: &Path, controllers: &[&str]) -> Result<(), CgroupError> {
    let _lock = lock(mount_point)?;
    // Before anything is passed down: with cpu or pids alone the kernel would let the processes stay and make the
    // group a threaded one, in which no container can be.
    make_room(mount_point)?;
    let parent = mount_point.join(PARENT);
    create_if_missing(&parent)?;
    let missing = missing(mount_point, SUBTREE, controllers)?;
    if !missing.is_empty() {
        create_if_missing(&parent.join(format!("{NOTE}.{}", missing.join("."))))?;
    }
    pass_down(mount_point, &missing)?;
    enable(&parent, controllers)
}

/// Passes controllers down to the children of a group, those that are not yet.
pub(super) fn enable(directory: &Path, controllers: &[&str]) -> Result<(), CgroupError> {
    pass_down(directory, &missing(directory, SUBTREE, controllers)?)
}

/// Whether a new group has the controllers; it has not where the parent is just being prepared by somebody else.
pub(super) fn is_complete(group: &Path, controllers: &[&str]) -> Result<bool, CgroupError> {
    Ok(missing(group, "cgroup.controllers", controllers)?.is_empty())
}

fn missing<'a>(directory: &Path, file: &str, wanted: &[&'a str]) -> Result<Vec<&'a str>, CgroupError> {
    let have = read(directory, file)?;
    Ok(wanted.iter().copied().filter(|name| !have.split(' ').any(|have| have == *name)).collect())
}

fn pass_down(directory: &Path, controllers: &[&str]) -> Result<(), CgroupError> {
    controllers.iter().try_for_each(|controller| write(directory, SUBTREE, &format!("+{controller}")))
}

/// Keeps other isobench processes from preparing while this one clears away, and the other way round. Given back when
/// the file is closed.
fn lock(mount_point: &Path) -> Result<File, CgroupError> {
    let file = File::open(mount_point).map_err(CgroupError::file("open", mount_point))?;
    file.lock().map_err(CgroupError::file("lock", mount_point))?;
    Ok(file)
}

/// Takes the parent group away if nothing is left under it, and then what was passed down for it. True when it is
/// gone.
///
/// # Errors
/// When a file cannot be read or written; that the parent is in use is no error.
pub(super) fn clear_away(mount_point: &Path) -> Result<bool, CgroupError> {
    let _lock = lock(mount_point)?;
    let parent = mount_point.join(PARENT);
    let entries = match std::fs::read_dir(&parent) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(CgroupError::file("list", parent)(error)),
    };
    let directories = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let is_note = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(NOTE));
    let (notes, groups): (Vec<PathBuf>, Vec<PathBuf>) = directories.map(|entry| entry.path()).partition(is_note);
    if !groups.is_empty() {
        return Ok(false);
    }
    notes.iter().try_for_each(|note| remove_directory(note))?;
    match std::fs::remove_dir(&parent) {
        // A group came in between: it keeps what it was given, and the note.
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
            notes.iter().try_for_each(|note| create_if_missing(note))?;
            return Ok(false);
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(CgroupError::file("remove the group", parent)(error));
        }
        _ => {}
    }
    for note in &notes {
        let name = note.file_name().unwrap_or_default().to_string_lossy();
        for controller in name.split('.').skip(1) {
            // EBUSY: somebody else's group passes it on by now, and keeps it.
            let _ = write(mount_point, SUBTREE, &format!("-{controller}"));
        }
    }
    Ok(true)
}

/// Empties a group of this process and its kin, where the kernel asks for it.
fn make_room(home: &Path) -> Result<(), CgroupError> {
    // The real root has no type and may hold processes.
    if !home.join("cgroup.type").exists() {
        return Ok(());
    }
    let mut aside = ASIDE.lock().unwrap_or_else(PoisonError::into_inner);
    for _ in 0..ROUNDS {
        let found = processes(home)?;
        if found.is_empty() {
            return Ok(());
        }
        let (kin, others): (Vec<u32>, Vec<u32>) = found.into_iter().partition(|pid| is_kin(*pid));
        if !others.is_empty() {
            return Err(CgroupError::Occupied { path: home.to_owned(), processes: names(&others) });
        }
        let leaf = home.join(format!("{LEAF}{}", Owner::current()));
        create_if_missing(&leaf)?;
        aside.get_or_insert_with(|| Aside { home: home.to_owned(), leaf: leaf.clone() });
        move_all(&kin, &leaf)?;
    }
    Err(CgroupError::Busy { path: home.to_owned(), tries: ROUNDS })
}

/// Moves processes; one that has ended meanwhile is no error.
fn move_all(pids: &[u32], to: &Path) -> Result<(), CgroupError> {
    for pid in pids {
        match write(to, PROCESSES, &pid.to_string()) {
            Err(CgroupError::File { source, .. }) if source.raw_os_error() == Some(libc::ESRCH) => {}
            other => other?,
        }
    }
    Ok(())
}

/// Whether a process is this one, one that it descends from, or one that descends from it.
fn is_kin(pid: u32) -> bool {
    let own = std::process::id();
    descends(own, pid) || descends(pid, own)
}

fn descends(mut pid: u32, from: u32) -> bool {
    loop {
        if pid == from {
            return true;
        }
        let parent = i32::try_from(pid).ok().and_then(|pid| Process::new(pid).ok()?.stat().ok());
        match parent.and_then(|stat| u32::try_from(stat.ppid).ok()) {
            Some(parent) if parent != 0 => pid = parent,
            _ => return false,
        }
    }
}

/// `PID NAME` of the first few; the kernel shows pid 0 for a process of an outer pid namespace.
fn names(pids: &[u32]) -> String {
    const SHOWN: usize = 5;
    let name = |pid: &u32| {
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm"));
        format!("{pid} {}", name.as_deref().map_or("?", str::trim))
    };
    let mut text = pids.iter().take(SHOWN).map(name).collect::<Vec<_>>().join(", ");
    if pids.len() > SHOWN {
        text.push_str(&format!(" and {} more", pids.len() - SHOWN));
    }
    text
}

/// Brings this process and its kin back where they were before it had to step aside; does nothing if it had not.
///
/// # Errors
/// While groups of another isobench process are in use beside; then this process stays where it is, and the call can
/// be made again.
pub fn put_back() -> Result<(), CgroupError> {
    let mut aside = ASIDE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(Aside { home, leaf }) = &*aside {
        go_home(home, leaf)?;
    }
    *aside = None;
    Ok(())
}

/// Whether this process stands aside now.
#[must_use]
pub fn is_aside() -> bool {
    ASIDE.lock().unwrap_or_else(PoisonError::into_inner).is_some()
}

/// The way of [`make_room`] and [`prepare`] back. Everything that the group passes down was passed down after it had
/// been emptied, for a group with processes cannot: so all of it is taken back.
fn go_home(home: &Path, leaf: &Path) -> Result<(), CgroupError> {
    if !clear_away(home)? {
        return Err(CgroupError::Busy { path: home.join(PARENT), tries: 1 });
    }
    for controller in read(home, SUBTREE)?.split_whitespace() {
        write(home, SUBTREE, &format!("-{controller}"))?;
    }
    for _ in 0..ROUNDS {
        let left = processes(leaf)?;
        if left.is_empty() {
            return remove_directory(leaf);
        }
        move_all(&left, home)?;
    }
    Err(CgroupError::Busy { path: leaf.to_owned(), tries: ROUNDS })
}

/// Clears the parent away if it is not in use, and brings home those whose isobench has died while it stood aside.
pub(super) fn collect(mount_point: &Path) -> Result<(), CgroupError> {
    if !clear_away(mount_point)? {
        // A living isobench has groups here. Its end, or the next call, will do.
        return Ok(());
    }
    let entries = std::fs::read_dir(mount_point).map_err(CgroupError::file("list", mount_point))?;
    let mut outcome = Ok(());
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix(LEAF).and_then(|owner| owner.parse::<Owner>().ok());
        if owner.is_some_and(|owner| !owner.is_alive()) {
            outcome = outcome.and(go_home(mount_point, &entry.path()));
        }
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kin_are_this_process_its_parents_and_its_children() {
        let own = std::process::id();
        assert!(is_kin(own) && is_kin(std::os::unix::process::parent_id()));
        let mut child = std::process::Command::new("/bin/sleep").arg("60").spawn().unwrap();
        assert!(is_kin(child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
        // The kernel's own threads descend from pid 2; outside of any pid namespace it is not ours.
        assert!(!is_kin(u32::MAX));
    }

    #[test]
    fn others_are_named() {
        let own = std::process::id();
        let comm = std::fs::read_to_string("/proc/self/comm").unwrap();
        assert_eq!(names(&[own]), format!("{own} {}", comm.trim()));
        assert!(names(&[0; 7]).ends_with("0 ? and 2 more"));
    }
}
