//! `-v`, `--mount` and `--tmpfs`, and the volumes that an image asks for.

use std::path::Path;

use super::values::{OptionsError, boolean, bytes, wrong};
use crate::container::config::{Mount, MountSource};
use crate::container::names;

const VOLUME: &str = "--volume";
const MOUNT: &str = "--mount";
const TMPFS: &str = "--tmpfs";

const PROPAGATIONS: [&str; 6] = ["shared", "slave", "private", "rshared", "rslave", "rprivate"];

/// All mounts of a container, those nearer the root first.
///
/// # Errors
/// When one is wrong, or two have one target.
pub(super) fn all<'a>(
    volumes: &[String],
    mounts: &[String],
    tmpfs: &[String],
    image: impl Iterator<Item = &'a String>,
) -> Result<Vec<Mount>, OptionsError> {
    let mut all: Vec<Mount> = Vec::new();
    let parsed = (volumes.iter().map(|text| (VOLUME, text, volume(text))))
        .chain(mounts.iter().map(|text| (MOUNT, text, mount(text))))
        .chain(tmpfs.iter().map(|text| (TMPFS, text, in_memory(text))));
    for (flag, text, mount) in parsed {
        let mount = mount?;
        if all.iter().any(|other| other.target == mount.target) {
            return Err(wrong(flag, text.clone(), format!("something is mounted at {} already", mount.target)));
        }
        all.push(mount);
    }
    for path in image {
        // The image's own word: what is no path in a container is none of its volumes.
        let Some(target) = clean(path) else { continue };
        if all.iter().all(|mount| mount.target != target) {
            all.push(Mount { source: anonymous()?, target, read_only: false, propagation: String::new() });
        }
    }
    all.sort_by_key(|mount| mount.target.matches('/').count());
    Ok(all)
}

fn anonymous() -> Result<MountSource, OptionsError> {
    let name = names::random_id().map_err(OptionsError::Random)?;
    Ok(MountSource::Volume { name, anonymous: true })
}

/// A target as it is without `.`, `..` and further slashes; `None` for what is relative or the root itself.
fn clean(path: &str) -> Option<String> {
    let mut names: Vec<&str> = Vec::new();
    for name in path.strip_prefix('/')?.split('/') {
        match name {
            "" | "." => {}
            ".." => drop(names.pop()),
            name => names.push(name),
        }
    }
    (!names.is_empty() && !path.contains('\0')).then(|| format!("/{}", names.join("/")))
}

fn target(flag: &'static str, text: &str, path: &str) -> Result<String, OptionsError> {
    let expected = format!("the target `{path}` is no absolute path beneath the container's root");
    clean(path).ok_or_else(|| wrong(flag, text, expected))
}

/// Whether a text can be a volume's name.
fn is_name(text: &str) -> bool {
    text.len() >= 2
        && text.len() <= 255
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
}

/// A path of the host or the name of a volume.
fn source(flag: &'static str, text: &str, source: &str) -> Result<MountSource, OptionsError> {
    if let Some(path) = host_path(flag, text, source)? {
        return Ok(MountSource::Bind { path, create: true });
    }
    if is_name(source) {
        return Ok(MountSource::Volume { name: source.to_owned(), anonymous: false });
    }
    let expected = format!(
        "`{source}` is neither an absolute path nor a volume's name (letters, digits, `_`, `.`, `-`; at least two)"
    );
    Err(wrong(flag, text, expected))
}

/// A path of the host, made absolute where it begins with `.`.
fn host_path(flag: &'static str, text: &str, path: &str) -> Result<Option<String>, OptionsError> {
    if path.starts_with('/') {
        return Ok(Some(path.to_owned()));
    }
    if !(path == "." || path == ".." || path.starts_with("./") || path.starts_with("../")) {
        return Ok(None);
    }
    let absolute = std::path::absolute(path).ok().and_then(|path| path.into_os_string().into_string().ok());
    absolute.map(Some).ok_or_else(|| wrong(flag, text, "the path of this directory is not known or no UTF-8"))
}

/// `[SOURCE:]TARGET[:OPTIONS]`
fn volume(text: &str) -> Result<Mount, OptionsError> {
    let parts: Vec<&str> = text.split(':').collect();
    let (from, to, options) = match parts[..] {
        [to] => (None, to, ""),
        [from, to] => (Some(from), to, ""),
        [from, to, options] => (Some(from), to, options),
        _ => return Err(wrong(VOLUME, text, "write SOURCE:TARGET:OPTIONS, SOURCE:TARGET or TARGET")),
    };
    let source = match from {
        Some(from) => source(VOLUME, text, from)?,
        None => anonymous()?,
    };
    let mut mount = Mount { source, target: target(VOLUME, text, to)?, read_only: false, propagation: String::new() };
    let mut mode = None;
    for option in options.split(',').filter(|_| parts.len() == 3) {
        match option {
            "ro" | "rw" if mode.is_none() => {
                mode = Some(option);
                mount.read_only = option == "ro";
            }
            // Labels of SELinux, and hints for other systems than Linux.
            "z" | "Z" | "cached" | "delegated" | "consistent" => {}
            propagation if PROPAGATIONS.contains(&propagation) && mount.propagation.is_empty() => {
                only_binds(VOLUME, text, &mount.source)?;
                mount.propagation = propagation.to_owned();
            }
            _ => {
                let expected = format!(
                    "the option `{option}` is unknown or contradicts another; there are ro, rw, z, Z and {}",
                    PROPAGATIONS.join(", ")
                );
                return Err(wrong(VOLUME, text, expected));
            }
        }
    }
    Ok(mount)
}

fn only_binds(flag: &'static str, text: &str, source: &MountSource) -> Result<(), OptionsError> {
    match source {
        MountSource::Bind { .. } => Ok(()),
        _ => Err(wrong(flag, text, "propagation is for paths of the host only")),
    }
}

/// The keys of `--mount`.
#[derive(Default)]
struct Keys {
    kind: Option<String>,
    source: Option<String>,
    target: Option<String>,
    read_only: bool,
    propagation: String,
    size: Option<u64>,
    mode: Option<String>,
}

/// `type=bind|volume|tmpfs,source=…,target=…,…`
fn mount(text: &str) -> Result<Mount, OptionsError> {
    let keys = keys(text)?;
    let path = keys.target.as_deref().ok_or_else(|| wrong(MOUNT, text, "it has no target; write target=PATH"))?;
    let kind = keys.kind.as_deref().unwrap_or("volume");
    if kind != "tmpfs" && (keys.size.is_some() || keys.mode.is_some()) {
        return Err(wrong(MOUNT, text, "tmpfs-size and tmpfs-mode are for type=tmpfs only"));
    }
    let source = match (kind, keys.source.as_deref().filter(|source| !source.is_empty())) {
        ("bind", Some(source)) => bind(text, source)?,
        ("bind", None) => return Err(wrong(MOUNT, text, "type=bind needs source=PATH")),
        ("volume", None) => anonymous()?,
        ("volume", Some(name)) if is_name(name) => MountSource::Volume { name: name.to_owned(), anonymous: false },
        ("volume", Some(name)) => {
            return Err(wrong(MOUNT, text, format!("`{name}` is no volume's name; write type=bind for a path")));
        }
        ("tmpfs", Some(_)) => return Err(wrong(MOUNT, text, "type=tmpfs has no source")),
        ("tmpfs", None) => {
            let size = keys.size.map(|size| format!("size={size}"));
            let options: Vec<String> = size.into_iter().chain(keys.mode.map(|mode| format!("mode={mode}"))).collect();
            MountSource::Tmpfs { options: options.join(",") }
        }
        _ => return Err(wrong(MOUNT, text, format!("the type `{kind}` is none of bind, volume and tmpfs"))),
    };
    if !keys.propagation.is_empty() {
        only_binds(MOUNT, text, &source)?;
    }
    let target = target(MOUNT, text, path)?;
    Ok(Mount { source, target, read_only: keys.read_only, propagation: keys.propagation })
}

/// A path of the host that must be there.
fn bind(text: &str, source: &str) -> Result<MountSource, OptionsError> {
    let path = host_path(MOUNT, text, source)?;
    let path = path.ok_or_else(|| wrong(MOUNT, text, format!("the source `{source}` is no absolute path")))?;
    if !Path::new(&path).exists() {
        return Err(wrong(MOUNT, text, format!("the source {path} does not exist")));
    }
    Ok(MountSource::Bind { path, create: false })
}

fn keys(text: &str) -> Result<Keys, OptionsError> {
    // A field of CSV may be quoted, so that a path can hold a comma.
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(text.as_bytes());
    let record = reader.records().next().and_then(Result::ok).filter(|_| !text.contains('\n'));
    let record = record.ok_or_else(|| wrong(MOUNT, text, "write KEY=VALUE,KEY=VALUE,…"))?;
    let mut keys = Keys::default();
    for field in &record {
        let (key, value) = field.split_once('=').map_or((field, None), |(key, value)| (key, Some(value)));
        let needed = || {
            let value = value.filter(|value| !value.is_empty());
            value.map(str::to_owned).ok_or_else(|| wrong(MOUNT, text, format!("the key `{key}` needs a value")))
        };
        match key {
            "type" => keys.kind = Some(needed()?),
            "source" | "src" => keys.source = Some(value.unwrap_or_default().to_owned()),
            "target" | "destination" | "dst" => keys.target = Some(needed()?),
            "readonly" | "ro" => keys.read_only = value.map_or(Ok(true), |value| boolean(MOUNT, value))?,
            "bind-propagation" => {
                keys.propagation = needed()?;
                if !PROPAGATIONS.contains(&keys.propagation.as_str()) {
                    let expected = format!("bind-propagation is one of {}", PROPAGATIONS.join(", "));
                    return Err(wrong(MOUNT, text, expected));
                }
            }
            "tmpfs-size" => keys.size = Some(bytes(MOUNT, &needed()?)?),
            "tmpfs-mode" => {
                let mode = needed()?;
                let octal = u32::from_str_radix(&mode, 8).is_ok_and(|mode| mode <= 0o7777);
                if !octal || mode.starts_with('+') {
                    return Err(wrong(MOUNT, text, "tmpfs-mode is an octal number up to 7777, as in 1777"));
                }
                keys.mode = Some(mode);
            }
            _ => {
                let expected = format!(
                    "the key `{key}` is unknown; there are type, source, target, readonly, bind-propagation, tmpfs-size \
                     and tmpfs-mode"
                );
                return Err(wrong(MOUNT, text, expected));
            }
        }
    }
    Ok(keys)
}

/// `PATH[:OPTIONS]`
fn in_memory(text: &str) -> Result<Mount, OptionsError> {
    const FLAGS: [&str; 11] =
        ["rw", "ro", "exec", "noexec", "suid", "nosuid", "dev", "nodev", "noatime", "sync", "async"];
    const KEYS: [&str; 6] = ["size", "mode", "uid", "gid", "nr_inodes", "nr_blocks"];
    let (path, options) = text.split_once(':').unwrap_or((text, ""));
    let mut read_only = false;
    let mut kept = Vec::new();
    for option in options.split(',').filter(|option| !option.is_empty()) {
        let known = match option.split_once('=') {
            Some((key, value)) => KEYS.contains(&key) && !value.is_empty(),
            None => FLAGS.contains(&option),
        };
        if !known {
            let expected = format!(
                "the option `{option}` is unknown; there are {} and {}, the latter with =VALUE",
                FLAGS.join(", "),
                KEYS.join(", ")
            );
            return Err(wrong(TMPFS, text, expected));
        }
        match option {
            "ro" => read_only = true,
            "rw" => read_only = false,
            option => kept.push(option),
        }
    }
    let source = MountSource::Tmpfs { options: kept.join(",") };
    Ok(Mount { source, target: target(TMPFS, text, path)?, read_only, propagation: String::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound(path: &str, target: &str, create: bool, read_only: bool, propagation: &str) -> Mount {
        let source = MountSource::Bind { path: path.to_owned(), create };
        Mount { source, target: target.to_owned(), read_only, propagation: propagation.to_owned() }
    }

    #[test]
    fn volumes() {
        assert_eq!(volume("/a:/b").unwrap(), bound("/a", "/b", true, false, ""));
        assert_eq!(volume("/a:/b//c/../d:ro,rslave").unwrap(), bound("/a", "/b/d", true, true, "rslave"));
        let named = volume("data:/b:rw,z").unwrap();
        assert_eq!(named.source, MountSource::Volume { name: "data".to_owned(), anonymous: false });
        let MountSource::Volume { name, anonymous: true } = volume("/data").unwrap().source else { panic!() };
        assert_eq!(name.len(), 64);
        let here = std::env::current_dir().unwrap().join("x");
        assert_eq!(volume("./x:/b").unwrap(), bound(here.to_str().unwrap(), "/b", true, false, ""));
    }

    #[test]
    fn wrong_volumes_say_why() {
        let told = |text| volume(text).unwrap_err().to_string();
        expect_test::expect![[r#"
            --volume cannot be `a:/b`: `a` is neither an absolute path nor a volume's name (letters, digits, `_`, `.`, `-`; at least two)
            --volume cannot be `/a:b`: the target `b` is no absolute path beneath the container's root
            --volume cannot be `/a:/../`: the target `/../` is no absolute path beneath the container's root
            --volume cannot be `/a:/b:ro,rw`: the option `rw` is unknown or contradicts another; there are ro, rw, z, Z and shared, slave, private, rshared, rslave, rprivate
            --volume cannot be `data:/b:shared`: propagation is for paths of the host only
            --volume cannot be `/a:/b:ro:x`: write SOURCE:TARGET:OPTIONS, SOURCE:TARGET or TARGET
        "#]]
        .assert_eq(
            &["a:/b", "/a:b", "/a:/../", "/a:/b:ro,rw", "data:/b:shared", "/a:/b:ro:x"]
                .map(|text| told(text) + "\n")
                .concat(),
        );
    }

    #[test]
    fn mounts_by_keys() {
        assert_eq!(
            mount("type=bind,src=/,dst=/host,ro,bind-propagation=rshared").unwrap(),
            bound("/", "/host", false, true, "rshared")
        );
        assert_eq!(mount("type=bind,\"src=/\",target=/h,readonly=false").unwrap(), bound("/", "/h", false, false, ""));
        let named = mount("source=data,target=/d").unwrap();
        assert_eq!(named.source, MountSource::Volume { name: "data".to_owned(), anonymous: false });
        assert!(matches!(mount("target=/d").unwrap().source, MountSource::Volume { anonymous: true, .. }));
        let memory = mount("type=tmpfs,target=/m,tmpfs-size=1m,tmpfs-mode=1770").unwrap();
        assert_eq!(memory.source, MountSource::Tmpfs { options: "size=1048576,mode=1770".to_owned() });
        for bad in [
            "",
            "type=bind,src=/",
            "type=bind,target=/x",
            "type=bind,src=/none/such,target=/x",
            "type=bind,src=x,target=/x",
            "type=npipe,target=/x",
            "type=tmpfs,src=/x,target=/x",
            "type=volume,src=/x,target=/x",
            "target=/x,tmpfs-size=1m",
            "target=/x,wrong=1",
            "target=/x,bind-propagation=rshared",
            "type=tmpfs,target=/x,tmpfs-mode=9",
        ] {
            assert!(mount(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn file_systems_in_memory() {
        let mount = in_memory("/run:ro,noexec,size=64k,mode=755").unwrap();
        assert!(mount.read_only);
        assert_eq!(mount.source, MountSource::Tmpfs { options: "noexec,size=64k,mode=755".to_owned() });
        assert!(in_memory("/run").is_ok());
        for bad in ["run", "/", "/run:sise=1", "/run:size", "/run:ro=1"] {
            assert!(in_memory(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn one_mount_a_target() {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let image = texts(&["/data/", "/logs", "relative"]);
        let made = all(&texts(&["/a:/deep/er", "/b:/data"]), &[], &texts(&["/run"]), image.iter()).unwrap();
        let targets: Vec<&str> = made.iter().map(|mount| mount.target.as_str()).collect();
        assert_eq!(targets, ["/data", "/run", "/logs", "/deep/er"]);
        let told = all(&texts(&["/a:/x"]), &[], &texts(&["/x/"]), std::iter::empty()).unwrap_err().to_string();
        assert_eq!(told, "--tmpfs cannot be `/x/`: something is mounted at /x already");
    }
}
