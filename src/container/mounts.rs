//! The launching process's half of a container's mounts: it opens every source before the clone, with the attributes
//! that the container is to see. What the child then attaches is what was opened, whatever happens to the paths.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use super::config::{self, Config};
use super::id_map;
use super::launch::ContainerError;
use super::plan::{Opened, OpenedRoot, outlying};
use super::spec::{ContainerSpec, Mount, MountSource, PropagationKind, UserMapping, Writable};
use super::volume::Volumes;
use crate::fs::{FileError, create_dirs};
use crate::sys::mount::{self, Change, attribute};

/// Why a mount could not be prepared.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The source cannot be opened.
    #[error("cannot mount {}", path.display())]
    Open {
        /// The source.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The file system or the kernel cannot show owners by a mapping.
    #[error(
        "the file system of {} cannot be id-mapped by this kernel, which a container with a user namespace needs for its layers and volumes",
        path.display()
    )]
    IdMap {
        /// The source.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The attributes of a mount cannot be changed.
    #[error("cannot change how {} is mounted", path.display())]
    Change {
        /// The source.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A directory cannot be made.
    #[error(transparent)]
    File(#[from] FileError),
    /// A word is no propagation.
    #[error("{0}")]
    Word(String),
    /// The host's mount does not propagate.
    #[error("{} is not on a {wanted} mount of the host, so mounts cannot show that way", path.display())]
    Propagation {
        /// The source.
        path: PathBuf,
        /// What it would have to be on.
        wanted: &'static str,
    },
}

/// A stored container's mounts as the engine takes them. What `-v` names and is missing is made a directory; volumes
/// must be there already ([`super::volume::LockedVolumes::ensure`]).
///
/// # Errors
/// When a propagation is none, or a directory cannot be made.
pub fn of_config(config: &Config, volumes: &Volumes) -> Result<Vec<Mount>, MountError> {
    config.mounts.iter().map(|mount| of_stored(mount, volumes)).collect()
}

fn of_stored(mount: &config::Mount, volumes: &Volumes) -> Result<Mount, MountError> {
    let source = match &mount.source {
        config::MountSource::Bind { path, create } => {
            let path = PathBuf::from(path);
            if *create && !path.exists() {
                create_dirs(&path)?;
            }
            MountSource::Bind { path, id_mapped: false }
        }
        config::MountSource::Volume { name, .. } => MountSource::Bind { path: volumes.data(name), id_mapped: true },
        config::MountSource::Tmpfs { options } => MountSource::Tmpfs { options: options.clone() },
    };
    Ok(Mount {
        source,
        target: mount.target.clone(),
        read_only: mount.read_only,
        propagation: mount.propagation.parse().map_err(MountError::Word)?,
        recursive: true,
    })
}

/// Mounts that are attached nowhere; they go with this value, but for those that a child has attached.
#[derive(Debug, Default)]
pub struct OpenedMounts {
    root: Option<OpenedRootMounts>,
    binds: Vec<Option<(OwnedFd, bool)>>,
}

#[derive(Debug)]
struct OpenedRootMounts {
    base: Option<OwnedFd>,
    others: Vec<OwnedFd>,
    writable: OwnedFd,
}

impl OpenedMounts {
    /// Their descriptors, for the plan.
    #[must_use]
    pub fn descriptors(&self) -> Opened {
        let root = self.root.as_ref().map(|root| OpenedRoot {
            base: root.base.as_ref().map(AsRawFd::as_raw_fd),
            others: root.others.iter().map(AsRawFd::as_raw_fd).collect(),
            writable: root.writable.as_raw_fd(),
        });
        let bind = |bind: &Option<(OwnedFd, bool)>| bind.as_ref().map(|(fd, directory)| (fd.as_raw_fd(), *directory));
        Opened { root, binds: self.binds.iter().map(bind).collect() }
    }
}

/// Opens everything that a spec's mounts and id-mapped layers come from.
///
/// # Errors
/// When a source is missing, or cannot be mounted as asked.
pub fn open(spec: &ContainerSpec) -> Result<OpenedMounts, ContainerError> {
    let root = match (spec.id_mapping(), &spec.writable) {
        (Some(mapping), Writable::Directory { upper, .. }) => Some(open_root(spec, mapping, upper)?),
        _ => None,
    };
    let binds = spec.mounts.iter().map(|mount| open_bind(mount, spec.user_namespace)).collect::<Result<_, _>>()?;
    Ok(OpenedMounts { root, binds })
}

fn open_root(spec: &ContainerSpec, mapping: UserMapping, upper: &Path) -> Result<OpenedRootMounts, ContainerError> {
    let base = spec.root.shortened().map(|(base, _)| id_mapped(base, mapping)).transpose()?;
    let others = outlying(&spec.root).into_iter().map(|layer| id_mapped(layer, mapping)).collect::<Result<_, _>>()?;
    let writable = id_mapped(upper.parent().unwrap_or(upper), mapping)?;
    Ok(OpenedRootMounts { base, others, writable })
}

fn id_mapped(path: &Path, mapping: UserMapping) -> Result<OwnedFd, ContainerError> {
    let opened = open_tree(path, false)?;
    map_ids(&opened, path, mapping)?;
    Ok(opened)
}

fn open_tree(path: &Path, recursive: bool) -> Result<OwnedFd, MountError> {
    mount::open_tree(path, recursive).map_err(|source| MountError::Open { path: path.to_owned(), source })
}

fn map_ids(opened: &OwnedFd, path: &Path, mapping: UserMapping) -> Result<(), ContainerError> {
    let namespace = id_map::namespace(mapping)?;
    let change = Change { id_map: Some(namespace.as_fd()), ..Change::default() };
    let refused = |source| MountError::IdMap { path: path.to_owned(), source };
    Ok(mount::change(opened.as_fd(), false, change).map_err(refused)?)
}

/// Whether the file system that a path is on can be id-mapped by this kernel, as the layers and volumes of a container
/// with a user namespace must be: ext4, XFS and Btrfs can since 5.12 to 5.15, memory since 6.3, an overlay cannot.
///
/// # Errors
/// When the path is not there, or no user namespace can be made.
pub fn can_be_id_mapped(path: &Path) -> Result<bool, ContainerError> {
    match id_mapped(path, UserMapping { host_start: 100_000, count: 65_536 }) {
        Ok(_) => Ok(true),
        Err(ContainerError::Mount(MountError::IdMap { .. })) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The source of a bind, and whether it is a directory; `None` for what needs no source.
fn open_bind(mount: &Mount, user: Option<UserMapping>) -> Result<Option<(OwnedFd, bool)>, ContainerError> {
    let MountSource::Bind { path, id_mapped } = &mount.source else { return Ok(None) };
    check_propagation(mount, path)?;
    let opened = open_tree(path, mount.recursive)?;
    if let Some(mapping) = user.filter(|_| *id_mapped) {
        map_ids(&opened, path, mapping)?;
    }
    let changed = |source| MountError::Change { path: path.clone(), source };
    let propagation = Change { propagation: flag(mount.propagation.kind), ..Change::default() };
    mount::change(opened.as_fd(), mount.propagation.recursive, propagation).map_err(changed)?;
    if mount.read_only {
        let read_only = Change { set: attribute::READ_ONLY, ..Change::default() };
        mount::change(opened.as_fd(), mount.recursive, read_only).map_err(changed)?;
    }
    let directory = rustix::fs::fstat(&opened).map_err(|errno| changed(errno.into()))?;
    let directory = rustix::fs::FileType::from_raw_mode(directory.st_mode) == rustix::fs::FileType::Directory;
    Ok(Some((opened, directory)))
}

fn flag(kind: PropagationKind) -> u64 {
    match kind {
        PropagationKind::Private => libc::MS_PRIVATE,
        PropagationKind::Slave => libc::MS_SLAVE,
        PropagationKind::Shared => libc::MS_SHARED,
    }
}

/// A copy of a mount that is not shared would be given a group of its own, in which nothing ever shows.
fn check_propagation(mount: &Mount, path: &Path) -> Result<(), MountError> {
    let kind = mount.propagation.kind;
    if kind == PropagationKind::Private {
        return Ok(());
    }
    let (shared, receives) =
        mount::propagation(path).map_err(|source| MountError::Open { path: path.to_owned(), source })?;
    let (good, wanted) = match kind {
        PropagationKind::Shared => (shared, "shared"),
        _ => (shared || receives, "shared or slave"),
    };
    if good { Ok(()) } else { Err(MountError::Propagation { path: path.to_owned(), wanted }) }
}
