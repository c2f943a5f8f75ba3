//! From what a container is to be ([`Config`]) to what the engine starts ([`ContainerSpec`] and [`Network`]), and back: what
//! it holds of the machine is given back here.

use std::path::PathBuf;

use super::capabilities::{self, CapabilitySet};
use super::config::{Config, MountSource, SeccompChoice};
use super::connect::ConnectError;
use super::etc::EtcError;
use super::limits::{self, LimitsError};
use super::seccomp::profile;
use super::spec::{self, ContainerSpec, Network, Seccomp, User, UserMapping, Writable};
use super::store::{Hidden, Store, StoreError, Stored};
use super::users::{self, UserError};
use super::volume::{VolumeError, Volumes};
use super::{connect, etc, layers};
use crate::cgroup::devices::Kind;
use crate::cgroup::{CgroupError, Layout, View};
use crate::fs::FileError;
use crate::image::{self, Image, ImageError, RootFs};
use crate::sys::guard;
use crate::sys::netns::NetNs;

/// Why a container cannot be made of its configuration.
#[derive(Debug, thiserror::Error)]
pub enum MakeError {
    /// The image is not there.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Who it runs as.
    #[error(transparent)]
    User(#[from] UserError),
    /// The image's user files cannot be read.
    #[error("cannot read who the image's users are")]
    Layers(#[from] layers::LayersError),
    /// A limit or device.
    #[error(transparent)]
    Limits(#[from] LimitsError),
    /// The seccomp profile.
    #[error(transparent)]
    Seccomp(#[from] profile::ProfileError),
    /// A control group.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// A volume.
    #[error(transparent)]
    Volume(#[from] VolumeError),
    /// A network.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// A network could not be left.
    #[error(transparent)]
    Network(#[from] crate::network::NetworkError),
    /// The files that tell of names.
    #[error(transparent)]
    Etc(#[from] EtcError),
    /// A file of the host.
    #[error(transparent)]
    File(#[from] FileError),
    /// The host's namespace cannot be opened.
    #[error("cannot open the host's network namespace")]
    Namespace(#[source] std::io::Error),
    /// A word that is not known.
    #[error("{0}")]
    Value(String),
    /// There is no stub for this machine.
    #[error(
        "containers of images cannot be run by hand on this architecture yet: there is no stub to execute their programs by"
    )]
    Architecture,
}

/// What a start needs.
#[derive(Debug)]
pub struct Made {
    /// The container.
    pub spec: ContainerSpec,
    /// How it is connected.
    pub network: Network,
}

/// A program in a container, where it differs from the container's own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Program {
    /// The program and its arguments.
    pub arguments: Vec<String>,
    /// `NAME=value` each, beside and over the container's.
    pub environment: Vec<String>,
    /// Where it starts.
    pub directory: Option<String>,
    /// Who it runs as.
    pub user: Option<String>,
    /// Whether it may do everything.
    pub privileged: bool,
    /// Whether it has a terminal.
    pub terminal: bool,
}

/// The image of a container.
///
/// # Errors
/// When it is not there or cannot be unpacked.
pub fn open_image(config: &Config) -> Result<Image, MakeError> {
    let name = config.image_id.as_ref().unwrap_or(&config.image);
    let owner = format!("the container {}", config.name);
    Ok(Image::open(&image::Store::of_machine()?, name, &owner)?)
}

/// The whole container.
///
/// # Errors
/// When something that it names is not there, or a value is none.
pub fn container(store: &Store, stored: &Stored, image: &Image) -> Result<Made, MakeError> {
    let config = &stored.config;
    let directories: Vec<PathBuf> = std::iter::once(stored.upper()).chain(image.root.layers.iter().cloned()).collect();
    let program = Program { arguments: config.arguments(), terminal: config.tty, ..Program::default() };
    let mut spec = program_of(config, &directories, &program)?;
    spec.root = image.root.clone();
    if config.init {
        spec.root.layers.insert(0, image::embedded::workload_layer()?);
        let init = [image::WORKLOAD_PATH, "__init", "--"].map(str::to_owned);
        spec.arguments.splice(0..0, init);
    }
    let (upper, work) = (stored.upper(), stored.directory.join("work"));
    spec.writable = Writable::Directory { upper, work };
    spec.read_only_root = config.read_only;
    spec.hostname.clone_from(&config.hostname);
    spec.domainname.clone_from(&config.domainname);
    spec.mounts = mounts(store, config)?;
    spec.limits = Some(group_limits(config)?);
    spec.devices = limits::device_nodes(&config.devices)?;
    if config.security.privileged {
        spec.devices.extend(host_devices()?);
    }
    spec.kept_as = Some(config.id.clone());
    let prepared = connect::prepare(config, store, host()?)?;
    // First, so that a bind of the user's own may go over one.
    spec.mounts.splice(0..0, names(stored, &prepared)?);
    Ok(Made { spec, network: prepared.network })
}

/// A further program in a running container: of its spec, what [`super::exec::start`] reads.
///
/// # Errors
/// When the user is none of the container's, or a value is none.
pub fn program(stored: &Stored, init: u32, program: &Program) -> Result<ContainerSpec, MakeError> {
    program_of(&stored.config, &[PathBuf::from(format!("/proc/{init}/root"))], program)
}

/// What a program has of its own: names of users are looked up in these directories, the topmost first.
fn program_of(config: &Config, directories: &[PathBuf], program: &Program) -> Result<ContainerSpec, MakeError> {
    if !guard::SUPPORTED {
        return Err(MakeError::Architecture);
    }
    let mut spec = ContainerSpec::new(RootFs { layers: Vec::new() }, program.arguments.clone());
    let user = program.user.as_ref().unwrap_or(&config.user);
    let etc = users::Etc::read(directories)?;
    let identity = users::resolve(&etc, user, &config.groups)?;
    let mut environment = config.environment.clone();
    for variable in &program.environment {
        set(&mut environment, variable);
    }
    if program.terminal && !has(&environment, "TERM") {
        environment.push("TERM=xterm".to_owned());
    }
    if !has(&environment, "HOME") {
        environment.push(format!("HOME={}", identity.home));
    }
    spec.environment = environment;
    spec.user = User::from(identity);
    spec.working_directory = program.directory.clone().unwrap_or_else(|| config.working_directory.clone());
    spec.user_namespace = config.user_namespace.map(|(host_start, count)| UserMapping { host_start, count });
    let privileged = config.security.privileged || program.privileged;
    spec.capabilities = capabilities(config, privileged)?;
    spec.no_new_privileges = config.security.no_new_privileges;
    spec.mask_paths = !privileged;
    spec.seccomp = match &config.security.seccomp {
        _ if privileged => Seccomp::Unconfined,
        SeccompChoice::Default => Seccomp::Default,
        SeccompChoice::Unconfined => Seccomp::Unconfined,
        SeccompChoice::Profile(text) => Seccomp::Filter(profile::compile(text, spec.capabilities)?),
    };
    spec.rlimits = limits::rlimits(&config.ulimits)?;
    spec.terminal = program.terminal;
    spec.guarded = true;
    Ok(spec)
}

fn has(environment: &[String], name: &str) -> bool {
    environment.iter().any(|variable| variable.split_once('=').is_some_and(|(known, _)| known == name))
}

/// Sets a variable in the place of one of the same name.
fn set(environment: &mut Vec<String>, variable: &str) {
    let name = variable.split_once('=').map_or(variable, |(name, _)| name);
    environment.retain(|known| known.split_once('=').is_none_or(|(known, _)| known != name));
    environment.push(variable.to_owned());
}

/// The default set with what is added and dropped, in docker's order: `ALL` first, and what is named after that. No one
/// can give what this process does not have itself.
fn capabilities(config: &Config, privileged: bool) -> Result<CapabilitySet, MakeError> {
    let named = |names: &[String]| -> Result<(bool, u64), MakeError> {
        let mut bits = 0;
        for name in names.iter().filter(|name| *name != "ALL") {
            let set = CapabilitySet::of(&[name]);
            if set.0 == 0 {
                return Err(MakeError::Value(format!("there is no capability `{name}`")));
            }
            bits |= set.0;
        }
        Ok((names.iter().any(|name| name == "ALL"), bits))
    };
    let every = u64::MAX >> (63 - capabilities::last());
    let (add_all, added) = named(&config.security.cap_add)?;
    let (drop_all, dropped) = named(&config.security.cap_drop)?;
    let begin = match (privileged || add_all, drop_all) {
        (true, false) => every,
        (true, true) | (false, true) => 0,
        (false, false) => CapabilitySet::docker_default().0,
    };
    let wanted =
        if privileged { every } else { (begin | added) & !(dropped & !added) & if add_all { !dropped } else { !0 } };
    Ok(CapabilitySet(wanted & capabilities::own()))
}

fn group_limits(config: &Config) -> Result<crate::cgroup::Limits, MakeError> {
    let mut compiled = limits::compile(&config.limits)?;
    compiled.devices = if config.security.privileged {
        limits::parse_rule("a *:* rwm")?
    } else {
        limits::device_rules(&config.devices, &config.device_rules)?
    };
    Ok(compiled)
}

fn mounts(store: &Store, config: &Config) -> Result<Vec<spec::Mount>, MakeError> {
    let volumes = Volumes::of(store);
    let compile = |mount: &super::config::Mount| -> Result<spec::Mount, MakeError> {
        let source = match &mount.source {
            MountSource::Bind { path, create } => {
                if *create && !std::path::Path::new(path).exists() {
                    crate::fs::create_dirs(path)?;
                }
                spec::MountSource::Bind { path: path.into(), id_mapped: false }
            }
            MountSource::Volume { name, .. } => spec::MountSource::Bind { path: volumes.data(name), id_mapped: true },
            MountSource::Tmpfs { options } => spec::MountSource::Tmpfs { options: options.clone() },
        };
        let propagation = mount.propagation.parse().map_err(MakeError::Value)?;
        Ok(spec::Mount {
            source,
            target: mount.target.clone(),
            read_only: mount.read_only,
            propagation,
            recursive: true,
        })
    };
    config.mounts.iter().map(compile).collect()
}

/// Every device right under the host's /dev, for a container that may use them all.
fn host_devices() -> Result<Vec<spec::DeviceNode>, MakeError> {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let mut nodes = Vec::new();
    for entry in std::fs::read_dir("/dev").map_err(FileError::new("list", "/dev"))?.flatten() {
        let (Ok(name), Ok(data)) = (entry.file_name().into_string(), entry.metadata()) else { continue };
        let kind = match data.file_type() {
            kind if kind.is_block_device() => Kind::Block,
            kind if kind.is_char_device() => Kind::Char,
            _ => continue,
        };
        // Those every container has, and the terminal, which is its own.
        if ["null", "zero", "full", "random", "urandom", "tty", "ptmx", "console"].contains(&name.as_str()) {
            continue;
        }
        let (major, minor) = (rustix::fs::major(data.rdev()), rustix::fs::minor(data.rdev()));
        nodes.push(spec::DeviceNode { name, kind, major, minor });
    }
    Ok(nodes)
}

/// Makes the volumes that a new container names; one that is empty gets what the image has in its place.
///
/// # Errors
/// When one cannot be made or filled.
pub fn volumes(store: &Store, stored: &Stored, image: &Image) -> Result<(), MakeError> {
    let locked = Volumes::of(store).lock()?;
    for mount in &stored.config.mounts {
        if let MountSource::Volume { name, anonymous } = &mount.source {
            let seed = super::volume::Seed { root: &image.root, target: &mount.target };
            locked.ensure(name, *anonymous, Some(seed))?;
        }
    }
    Ok(())
}

/// The directories of a running container's groups: those of v1, and that of v2.
///
/// # Errors
/// When the hierarchies cannot be found.
pub fn groups(config: &Config) -> Result<(Vec<PathBuf>, Option<PathBuf>), MakeError> {
    let layout = Layout::detect()?;
    let Some(view) = View::existing(&config.id, &layout) else { return Ok((Vec::new(), None)) };
    let unified = view.unified().map(PathBuf::from);
    let v1 = view.distinct().into_iter().filter(|path| Some(*path) != unified.as_deref()).map(PathBuf::from).collect();
    Ok((v1, unified))
}

/// Writes what the container sees as /etc/hosts, /etc/hostname and /etc/resolv.conf, and binds them; one that shares
/// another's network shares these files.
fn names(stored: &Stored, prepared: &connect::Prepared) -> Result<Vec<spec::Mount>, MakeError> {
    let directory = match &prepared.shares {
        Some(other) => other.directory.clone(),
        None => {
            let files = etc::Files::of(&stored.config, prepared.place, &etc::HostFiles::read()?)?;
            for (name, content) in
                [("hosts", &files.hosts), ("hostname", &files.hostname), ("resolv.conf", &files.resolv_conf)]
            {
                let path = stored.directory.join(name);
                // In place: what a running container has bound is this very file.
                std::fs::write(&path, content).map_err(FileError::new("write", &path))?;
            }
            stored.directory.clone()
        }
    };
    let taken = |target: &str| stored.config.mounts.iter().any(|mount| mount.target == target);
    let bind = |name: &str| spec::Mount {
        source: spec::MountSource::Bind { path: directory.join(name), id_mapped: true },
        target: format!("/etc/{name}"),
        read_only: false,
        propagation: spec::Propagation::default(),
        recursive: false,
    };
    let binds = ["hosts", "hostname", "resolv.conf"].map(bind);
    Ok(binds.into_iter().filter(|mount| !taken(&mount.target)).collect())
}

/// The network namespace in which commands are run, which plays the host.
pub(super) fn host() -> Result<NetNs, MakeError> {
    NetNs::current().map_err(MakeError::Namespace)
}

/// Removes a container that does not run: its files, its image's lease, and the volumes that were made for it alone where
/// `volumes` says so.
///
/// # Errors
/// When something cannot be removed; it can be tried again.
pub fn remove(store: &Store, stored: &Stored, volumes: bool) -> Result<(), MakeError> {
    finish_removal(store, stored, store.hide(stored)?, volumes)
}

/// The second half of a removal, after [`Store::hide`].
///
/// # Errors
/// When something cannot be removed; `gc` takes away what is left.
pub fn finish_removal(store: &Store, stored: &Stored, hidden: Hidden, volumes: bool) -> Result<(), MakeError> {
    let config = &stored.config;
    let purged = hidden.purge();
    if let Some(images) = config.image_id.as_ref().map(|_| image::Store::of_machine()).transpose()? {
        images.unpin(&config.id)?;
    }
    let named = config.mounts.iter().any(|mount| matches!(mount.source, MountSource::Volume { anonymous: true, .. }));
    if volumes && named {
        Volumes::of(store).lock()?.remove_anonymous_of(config)?;
    }
    Ok(purged?)
}
