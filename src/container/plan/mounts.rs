//! The mounts that a container asks for: binds, volumes, file systems in memory.
//!
//! They come when the host's root is gone: until then it is stacked on the container's, and a path through `/..` would
//! lead into it.

use std::ffi::CString;

use super::{SpecError, Wiring, constant, string};
use crate::container::spec::{ContainerSpec, Mount, MountSource};
use crate::sys::attach::{Attachment, Source};
use crate::sys::mount::attribute;
use crate::sys::plan::{Op, Plan};

/// Every mount, those on a shorter path first, so that none hides another.
pub(super) fn mounts(plan: &mut Plan, spec: &ContainerSpec, wiring: &Wiring) -> Result<(), SpecError> {
    let mut ordered = Vec::new();
    for (index, mount) in spec.mounts.iter().enumerate() {
        let parts = parts(&mount.target)?;
        if ordered.iter().any(|(_, known)| *known == parts) {
            return Err(SpecError::TwoMounts(mount.target.clone()));
        }
        ordered.push((index, parts));
    }
    ordered.sort_by_key(|(_, parts)| parts.len());
    for (index, parts) in ordered {
        let mount = &spec.mounts[index];
        let opened = wiring.opened.binds.get(index).copied().flatten();
        let attachment = Attachment {
            name: name(mount)?,
            source: source(mount, opened)?,
            target: string("a mount's target", &parts.join("/"))?,
        };
        plan.push("mounts", Op::Attach(Box::new(attachment)));
    }
    working_directory(plan, spec)?;
    if spec.read_only_root && !spec.mounts.is_empty() {
        let flags = libc::MS_REMOUNT | libc::MS_BIND | libc::MS_RDONLY | libc::MS_NODEV;
        let target = constant("/");
        plan.push("mounts", Op::Mount { source: None, target, fstype: None, flags, data: None });
    }
    Ok(())
}

/// The working directory is made if it is missing, as docker does, by root and before the root can only be read.
fn working_directory(plan: &mut Plan, spec: &ContainerSpec) -> Result<(), SpecError> {
    // One that goes up again cannot be made by its names; it can be entered if it is there.
    if let Ok(parts) = parts(&spec.working_directory) {
        plan.push("mounts", Op::Directories(string("the working directory", &parts.join("/"))?));
    }
    Ok(())
}

/// The names on the way to a target.
fn parts(target: &str) -> Result<Vec<&str>, SpecError> {
    let parts: Vec<&str> = target.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    if !target.starts_with('/') || parts.is_empty() || parts.contains(&"..") {
        return Err(SpecError::Target(target.to_owned()));
    }
    Ok(parts)
}

fn name(mount: &Mount) -> Result<CString, SpecError> {
    match &mount.source {
        MountSource::Bind { path, .. } => super::path("a mount's source", path),
        MountSource::Tmpfs { .. } => Ok(constant("tmpfs")),
    }
}

fn source(mount: &Mount, opened: Option<(std::os::fd::RawFd, bool)>) -> Result<Source, SpecError> {
    match &mount.source {
        MountSource::Bind { .. } => {
            // A spec that is compiled without its sources (to look at the plan) has none that would work.
            let (fd, directory) = opened.unwrap_or((-1, true));
            Ok(Source::Opened { fd, directory })
        }
        MountSource::Tmpfs { options } => memory(options, mount.read_only),
    }
}

/// From the words of mount(8) to what the kernel takes: flags of the mount, and options of the file system.
fn memory(text: &str, read_only: bool) -> Result<Source, SpecError> {
    const FLAGS: [(&str, &str, u64); 7] = [
        ("ro", "rw", attribute::READ_ONLY),
        ("nosuid", "suid", attribute::NO_SUID),
        ("nodev", "dev", attribute::NO_DEVICES),
        ("noexec", "exec", attribute::NO_EXEC),
        ("noatime", "atime", attribute::NO_ACCESS_TIME),
        ("strictatime", "nostrictatime", attribute::STRICT_ACCESS_TIME),
        ("nodiratime", "diratime", attribute::NO_DIRECTORY_ACCESS_TIME),
    ];
    const OPTIONS: [&str; 6] = ["size", "mode", "uid", "gid", "nr_inodes", "nr_blocks"];
    let mut attributes = attribute::NO_SUID | attribute::NO_DEVICES | attribute::NO_EXEC;
    let mut options = Vec::new();
    for word in text.split(',').filter(|word| !word.is_empty()) {
        if let Some((_, _, bit)) = FLAGS.iter().find(|(set, _, _)| *set == word) {
            attributes |= bit;
        } else if let Some((_, _, bit)) = FLAGS.iter().find(|(_, clear, _)| *clear == word) {
            attributes &= !bit;
        } else {
            let unknown = || SpecError::TmpfsOption(word.to_owned());
            let (key, value) = word.split_once('=').ok_or_else(unknown)?;
            let key = OPTIONS.iter().find(|known| **known == key).ok_or_else(unknown)?;
            options.push((constant(key), string("a mount's option", value)?));
        }
    }
    if read_only {
        attributes |= attribute::READ_ONLY;
    }
    Ok(Source::Memory { options, attributes })
}
