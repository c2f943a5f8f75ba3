//! Abilities that are tried and not looked up: namespaces, file systems, nf_tables, network drivers.
//!
//! Each probe runs in a process of its own (`isobench doctor --probe NAME`): a namespace that it makes, and every
//! mount, link and rule inside, ends with that process.

use std::error::Error;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::super::{CliError, Ended, complain};
use super::{Finding, network};

/// What a probe found in its way.
pub(super) type Obstacle = Box<dyn Error + Send + Sync>;

/// One ability.
pub(super) struct Probe {
    pub(super) area: &'static str,
    pub(super) name: &'static str,
    pub(super) without: &'static str,
    pub(super) attempt: fn() -> Result<(), Obstacle>,
}

const NO_CONTAINER: &str = "no container can be started";

const PROBES: &[Probe] = &[
    namespace("mnt", NO_CONTAINER, || enter(CloneFlags::CLONE_NEWNS)),
    namespace("pid", NO_CONTAINER, || enter(CloneFlags::CLONE_NEWPID)),
    namespace("net", NO_CONTAINER, || enter(CloneFlags::CLONE_NEWNET)),
    namespace("ipc", NO_CONTAINER, || enter(CloneFlags::CLONE_NEWIPC)),
    namespace("uts", NO_CONTAINER, || enter(CloneFlags::CLONE_NEWUTS)),
    namespace("cgroup", "containers see the host's cgroup paths", || enter(CloneFlags::CLONE_NEWCGROUP)),
    namespace("user", "cases with a user namespace", || enter(CloneFlags::CLONE_NEWUSER)),
    namespace("time", "cases with a time namespace", || enter(CloneFlags::from_bits_retain(libc::CLONE_NEWTIME))),
    Probe { area: "file systems", name: "overlay", without: NO_CONTAINER, attempt: overlay },
    Probe { area: "file systems", name: "tmpfs", without: NO_CONTAINER, attempt: || scratch().map(drop) },
    Probe { area: "file systems", name: "mqueue", without: "containers have no /dev/mqueue", attempt: mqueue },
];

const fn namespace(name: &'static str, without: &'static str, attempt: fn() -> Result<(), Obstacle>) -> Probe {
    Probe { area: "namespaces", name, without, attempt }
}

fn all() -> impl Iterator<Item = &'static Probe> {
    PROBES.iter().chain(network::PROBES)
}

/// Tries everything, each in a child of its own.
pub(super) fn findings() -> Vec<Finding> {
    let finding = |probe: &Probe| {
        let (works, detail) = match try_in_child(probe.name) {
            Ok(()) => (true, String::new()),
            Err(obstacle) => (false, obstacle),
        };
        Finding { area: probe.area, name: probe.name.to_owned(), works, detail, without: probe.without }
    };
    all().map(finding).collect()
}

fn try_in_child(name: &str) -> Result<(), String> {
    let program = std::env::current_exe().map_err(|error| format!("cannot find this program: {error}"))?;
    let output = Command::new(program)
        .args(["doctor", "--probe", name])
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("cannot start a process to try it in: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    let words: Vec<&str> = complaint.trim().trim_start_matches("error: ").lines().map(str::trim).collect();
    if words.is_empty() { Err(format!("the probe ended with {}", output.status)) } else { Err(words.join(" ")) }
}

/// The child's side: tries one ability, and says what stood in its way.
pub(super) fn serve(name: &str) -> Result<Ended, CliError> {
    let Some(probe) = all().find(|probe| probe.name == name) else {
        return Err(CliError::UnknownProbe(name.to_owned()));
    };
    match (probe.attempt)() {
        Ok(()) => Ok(Ended::Pass),
        Err(obstacle) => {
            complain(&*obstacle);
            Ok(Ended::Failed)
        }
    }
}

/// Leaves a namespace of the host's for a new one.
pub(super) fn enter(namespace: CloneFlags) -> Result<(), Obstacle> {
    unshare(namespace)?;
    Ok(())
}

/// A mount table of our own with an empty tmpfs over the temporary directory.
fn scratch() -> Result<std::path::PathBuf, Obstacle> {
    let none = None::<&str>;
    enter(CloneFlags::CLONE_NEWNS)?;
    // Without this a mount would spread to the host's table where that is shared.
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    let directory = std::env::temp_dir();
    mount(Some("isobench"), &directory, Some("tmpfs"), MsFlags::empty(), none)?;
    Ok(directory)
}

fn overlay() -> Result<(), Obstacle> {
    let directory = scratch()?;
    let part = |name: &str| directory.join(name);
    for name in ["lower", "upper", "work", "merged"] {
        std::fs::create_dir(part(name))?;
    }
    std::fs::write(part("lower/file"), "below")?;
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        part("lower").display(),
        part("upper").display(),
        part("work").display()
    );
    mount(Some("overlay"), &part("merged"), Some("overlay"), MsFlags::empty(), Some(options.as_str()))?;
    std::fs::write(part("merged/file"), "above")?;
    let copied_up = std::fs::read(part("upper/file"))? == b"above" && std::fs::read(part("lower/file"))? == b"below";
    if copied_up { Ok(()) } else { Err("a write did not stay in the upper layer".into()) }
}

fn mqueue() -> Result<(), Obstacle> {
    let directory = scratch()?;
    enter(CloneFlags::CLONE_NEWIPC)?;
    mount(Some("mqueue"), Path::new(&directory), Some("mqueue"), MsFlags::empty(), None::<&str>)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_since_the_child_goes_by_them() {
        let names: std::collections::BTreeSet<&str> = all().map(|probe| probe.name).collect();
        assert_eq!(names.len(), all().count());
    }
}
