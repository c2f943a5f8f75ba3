//! The root of a container: its writable layer, the overlay over all layers, and the pivot into it.
//!
//! The staging directory holds what the overlay is mounted from and on. Layers in one directory are named from there,
//! where the working directory is meanwhile; what is in the staging directory is named whole then. Where they are
//! id-mapped, the mounts that the launching process has opened are attached in the staging directory first.

use std::path::Path;

use super::{EMPTY, NODES, OpenedRoot, STAGING, SpecError, Wiring, constant, string};
use crate::container::spec::{ContainerSpec, Writable};
use crate::image::RootFs;
use crate::sys::plan::{Op, Plan};

/// Where the directory of the layers is attached, under the staging directory.
const LAYERS: &str = "layers";
/// Where the directory of the writable layer is.
const DISK: &str = "disk";

/// What the staging directory needs where nothing but names is in it, in bytes.
const NAMES_ONLY: u64 = 64 << 10;

/// The layers that are not in the directory that the others are named from.
pub fn outlying(root: &RootFs) -> Vec<&Path> {
    match root.shortened() {
        Some((_, names)) => names.into_iter().filter(|name| name.is_absolute()).collect(),
        None => root.layers.iter().map(std::path::PathBuf::as_path).collect(),
    }
}

/// The writable layer, the overlay over all layers, and the pivot into it. The old root stays stacked underneath
/// until every mount is made: in a user namespace the kernel lets a new /proc be mounted only beside a visible one.
pub(super) fn root(plan: &mut Plan, spec: &ContainerSpec, wiring: &Wiring) -> Result<(), SpecError> {
    let mapped = wiring.opened.root.as_ref();
    let options = overlay_options(spec, mapped.is_some())?;
    let apart = spec.root.shortened().is_some();
    staging(plan, spec, apart, mapped)?;
    // A root that can only be read is made so at the end where something is still to be made in it.
    let read_only = if spec.read_only_root && spec.mounts.is_empty() { libc::MS_RDONLY } else { 0 };
    plan.push(
        "overlay",
        Op::Mount {
            source: Some(constant("overlay")),
            target: if apart { string("the root", &format!("{STAGING}/root"))? } else { constant("root") },
            fstype: Some(constant("overlay")),
            flags: libc::MS_NODEV | read_only,
            data: Some(string("a layer's path", &options)?),
        },
    );
    if apart {
        plan.push("overlay", Op::Chdir(constant(STAGING)));
    }
    if spec.user_namespace.is_some() {
        // A user namespace may not make device nodes, so the host's are bound in: taken here, while they can be seen.
        for (slot, (name, ..)) in NODES.iter().enumerate() {
            plan.push("dev", Op::TakeMount { source: string("a device", &format!("/dev/{name}"))?, slot });
        }
    }
    plan.push("pivot", Op::Pivot(constant("root")));
    Ok(())
}

/// The staging directory and what is in it.
fn staging(plan: &mut Plan, spec: &ContainerSpec, apart: bool, mapped: Option<&OpenedRoot>) -> Result<(), SpecError> {
    let (bytes, kept): (u64, &[&str]) = match spec.writable {
        Writable::Memory { bytes } => (bytes, &["upper", "work"]),
        Writable::Directory { .. } => (NAMES_ONLY, &[]),
    };
    plan.push(
        "writable",
        Op::Mount {
            source: Some(constant("tmpfs")),
            target: constant(STAGING),
            fstype: Some(constant("tmpfs")),
            flags: libc::MS_NODEV,
            data: Some(string("the writable layer's size", &in_memory(bytes))?),
        },
    );
    if !apart {
        plan.push("writable", Op::Chdir(constant(STAGING)));
    }
    let directory = |name: &str| -> Result<Op, SpecError> {
        let name = if apart { format!("{STAGING}/{name}") } else { name.to_owned() };
        Ok(Op::Directory { path: string("a directory", &name)?, mode: 0o755 })
    };
    for name in kept.iter().chain(&["root", EMPTY]) {
        plan.push("writable", directory(name)?);
    }
    let Some(mapped) = mapped else { return Ok(()) };
    let base = mapped.base.map(|base| (LAYERS.to_owned(), base));
    let others = (0..).map(layer_name).zip(mapped.others.iter().copied());
    for (name, mount) in base.into_iter().chain(others).chain([(DISK.to_owned(), mapped.writable)]) {
        plan.push("writable", directory(&name)?);
        let target = string("a directory", &format!("{STAGING}/{name}"))?;
        plan.push("writable", Op::PlaceOpened { mount, target });
    }
    if apart {
        plan.push("overlay", Op::Chdir(string("a directory", &format!("{STAGING}/{LAYERS}"))?));
    }
    Ok(())
}

/// Names use memory too, which the size does not count. The kernel's own proportion for a file system in memory is one a
/// page; without a number here it would be half the machine's pages, whatever the size.
fn in_memory(bytes: u64) -> String {
    const PAGE: u64 = 4096;
    const FEWEST: u64 = 1024;
    format!("mode=755,size={bytes},nr_inodes={}", (bytes / PAGE).max(FEWEST))
}

/// Where a layer is attached that is not in the directory of the others.
fn layer_name(number: usize) -> String {
    format!("layer{number}")
}

/// The layers by the names that the overlay is given.
fn layer_names(root: &RootFs, mapped: bool) -> Vec<String> {
    let names = match root.shortened() {
        Some((_, names)) => names,
        None => root.layers.iter().map(std::path::PathBuf::as_path).collect(),
    };
    let mut others = 0;
    let name = |name: &Path| match name.is_absolute() && mapped {
        true => {
            others += 1;
            format!("{STAGING}/{}", layer_name(others - 1))
        }
        false => name.to_string_lossy().into_owned(),
    };
    names.into_iter().map(name).collect()
}

/// The upper and the work directory by the names that the overlay is given.
fn writable_names(spec: &ContainerSpec, mapped: bool) -> Result<[String; 2], SpecError> {
    let staging = if spec.root.shortened().is_some() { format!("{STAGING}/") } else { String::new() };
    let Writable::Directory { upper, work } = &spec.writable else {
        return Ok(["upper", "work"].map(|name| format!("{staging}{name}")));
    };
    if upper.parent().is_none() || upper.parent() != work.parent() || !upper.is_absolute() {
        return Err(SpecError::Writable(upper.clone()));
    }
    let name = |path: &Path| match path.file_name() {
        Some(name) if mapped => format!("{STAGING}/{DISK}/{}", name.to_string_lossy()),
        _ => path.to_string_lossy().into_owned(),
    };
    Ok([name(upper), name(work)])
}

/// The options of the overlay.
fn overlay_options(spec: &ContainerSpec, mapped: bool) -> Result<String, SpecError> {
    let layers = layer_names(&spec.root, mapped);
    let [upper, work] = writable_names(spec, mapped)?;
    let taken = |path: &&String| path.contains([':', ',']);
    if let Some(bad) = layers.iter().chain([&upper, &work]).find(taken) {
        return Err(SpecError::LayerPath(bad.clone()));
    }
    // Which attributes tell of hidden directories: a user namespace may not read the trusted ones. Redirects and copies
    // of attributes alone, which make an upper layer that is none by itself, it cannot have; elsewhere the machine's
    // settings may ask for them. (Every kernel with clone3 knows these words.)
    let features = match spec.user_namespace {
        Some(_) => "userxattr",
        None => "redirect_dir=off,metacopy=off",
    };
    let options = format!("lowerdir={},upperdir={upper},workdir={work},{features}", layers.join(":"));
    // The kernel takes one page, and cuts off what is more without a word.
    const MOST: usize = 4095;
    if options.len() > MOST {
        return Err(SpecError::TooManyLayers { layers: layers.len(), bytes: options.len() });
    }
    Ok(options)
}
