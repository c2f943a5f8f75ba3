//! Volumes: filled from images, mounted in containers, on the real kernel.

use std::error::Error;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use isobench::container::Network;
use isobench::container::spec::{Mount, MountSource, UserMapping, Writable};
use isobench::container::store::Store;
use isobench::container::volume::{Seed, Volumes};
use isobench::image::RootFs;

use crate::harness::Case;
use crate::mounts;
use crate::shell::{self, spec, start};

type Outcome = Result<(), Box<dyn Error>>;

pub fn cases() -> Vec<Case> {
    vec![
        Case::new("volumes::an_empty_volume_is_filled_from_the_image", an_empty_volume_is_filled_from_the_image)
            .needs(mounts::can_be_upper(), mounts::NEEDS_UPPER),
        Case::new("volumes::a_single_layer_fills_a_volume", a_single_layer_fills_a_volume),
        Case::new("volumes::containers_share_one_with_and_without_a_user_namespace", containers_share_one)
            .needs(shell::present(), shell::NEEDED)
            .needs(mounts::can_id_map(), mounts::NEEDS_ID_MAP),
    ]
}

fn an_empty_volume_is_filled_from_the_image() -> Outcome {
    let directory = tempfile::tempdir()?;
    let volumes = Volumes::of(&Store::open(directory.path().join("store"))?);
    let [top, bottom] = ["top", "bottom"].map(|name| directory.path().join(name));
    fs::create_dir_all(bottom.join("var/data/sub"))?;
    fs::create_dir_all(top.join("var/data"))?;
    fs::write(bottom.join("var/data/sub/file"), "below")?;
    fs::write(bottom.join("var/data/changed"), "old")?;
    fs::write(top.join("var/data/changed"), "new")?;
    fs::write(bottom.join("var/data/hidden"), "")?;
    nix::sys::stat::mknod(
        &top.join("var/data/hidden"),
        nix::sys::stat::SFlag::S_IFCHR,
        nix::sys::stat::Mode::empty(),
        0,
    )?;
    fs::hard_link(top.join("var/data/changed"), top.join("var/data/same"))?;
    std::os::unix::fs::chown(top.join("var/data/changed"), Some(7), Some(8))?;
    std::os::unix::fs::chown(top.join("var/data"), Some(1000), Some(1001))?;
    fs::set_permissions(top.join("var/data"), PermissionsExt::from_mode(0o1770))?;
    symlink("/var/../../../var/data", top.join("link"))?;
    symlink("../../../../../../../../etc", top.join("out"))?;
    let root = RootFs { layers: vec![top.clone(), bottom] };
    let locked = volumes.lock()?;
    for (name, target) in [("plain", "/var/data"), ("linked", "/link")] {
        let data = locked.ensure(name, false, Some(Seed { root: &root, target }))?;
        let text = |file: &str| fs::read_to_string(data.join(file)).unwrap_or_default();
        assert_eq!((text("sub/file"), text("changed"), text("same")), ("below".into(), "new".into(), "new".into()));
        assert!(!data.join("hidden").exists());
        let of = |file: &str| fs::metadata(data.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert_eq!((of("").uid(), of("").gid(), of("").mode() & 0o7777), (1000, 1001, 0o1770));
        assert_eq!((of("changed").uid(), of("changed").ino()), (7, of("same").ino()));
    }
    // A link out of the image leads nowhere: the image has no /etc.
    let data = locked.ensure("out", false, Some(Seed { root: &root, target: "/out" }))?;
    assert_eq!(fs::read_dir(&data)?.count(), 0);
    // One that holds something is left alone; one that is empty by now is filled.
    fs::write(data.join("own"), "")?;
    locked.ensure("out", false, Some(Seed { root: &root, target: "/var/data" }))?;
    assert_eq!(fs::read_dir(&data)?.count(), 1);
    fs::remove_file(data.join("own"))?;
    locked.ensure("out", false, Some(Seed { root: &root, target: "/var/data" }))?;
    assert_eq!(fs::read_dir(&data)?.count(), 3);
    // This very thread's mounts are as they were.
    assert!(!fs::read_to_string("/proc/thread-self/mountinfo")?.contains(STAGING_ROOT));
    Ok(())
}

const STAGING_ROOT: &str = "/run/isobench/root/root";

fn a_single_layer_fills_a_volume() -> Outcome {
    let directory = tempfile::tempdir()?;
    let layer = directory.path().join("layer");
    fs::create_dir_all(layer.join("data/a/b"))?;
    fs::write(layer.join("data/a/b/file"), vec![7; 3 << 20])?;
    let volumes = Volumes::of(&Store::open(directory.path().join("store"))?);
    let root = RootFs { layers: vec![layer] };
    let data = volumes.lock()?.ensure("data", false, Some(Seed { root: &root, target: "/data" }))?;
    assert_eq!(fs::read(data.join("a/b/file"))?, vec![7; 3 << 20]);
    Ok(())
}

fn containers_share_one() -> Outcome {
    let directory = tempfile::tempdir()?;
    let volumes = Volumes::of(&Store::open(directory.path().join("store"))?);
    let root = shell::root()?;
    let data = volumes.lock()?.ensure("etc", false, Some(Seed { root: &root, target: "/etc" }))?;
    let says = |script: &str, namespace: Option<UserMapping>| -> Result<String, Box<dyn Error>> {
        let mut wanted = spec(script)?;
        let [upper, work] = ["upper", "work"].map(|name| directory.path().join(name));
        for path in [&upper, &work] {
            let _ = fs::remove_dir_all(path);
            fs::create_dir(path)?;
        }
        wanted.writable = Writable::Directory { upper, work };
        wanted.user_namespace = namespace;
        wanted.mounts = vec![Mount {
            source: MountSource::Bind { path: data.clone(), id_mapped: true },
            target: "/shared".to_owned(),
            read_only: false,
            propagation: Default::default(),
            recursive: true,
        }];
        let outcome = start(&wanted, &Network::None)?.finish()?;
        assert_eq!(outcome.stderr, "");
        Ok(outcome.stdout)
    };
    let mapping = UserMapping { host_start: 100_000, count: 65536 };
    assert_eq!(says("stat -c %u /shared/passwd; echo one >> /shared/log", Some(mapping))?, "0\n");
    assert_eq!(says("stat -c %u /shared/log; echo two >> /shared/log", None)?, "0\n");
    let other = UserMapping { host_start: 300_000, count: 65536 };
    assert_eq!(says("stat -c %u /shared/log; cat /shared/log", Some(other))?, "0\none\ntwo\n");
    assert_eq!(fs::metadata(data.join("log"))?.uid(), 0);
    assert!(Path::new(&data).join("passwd").exists());
    Ok(())
}
