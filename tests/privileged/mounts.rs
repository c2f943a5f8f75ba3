//! Writable layers on disk, binds, in-memory file systems, id-mapped layers: judged by busybox inside and the host's
//! files outside.

use std::error::Error;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use isobench::container::ContainerSpec;
use isobench::container::Network;
use isobench::container::spec::{Mount, MountSource, UserMapping, Writable};
use nix::mount::MsFlags;
use tempfile::TempDir;

use crate::harness::Case;
use crate::shell::{self, spec, start};

type Outcome = Result<(), Box<dyn Error>>;

pub fn cases() -> Vec<Case> {
    let cases: [(&'static str, crate::harness::Body); 10] = [
        ("mounts::a_bind_shows_the_hosts_directory", a_bind_shows_the_hosts_directory),
        ("mounts::a_read_only_bind_is_so_with_all_below", a_read_only_bind_is_so_with_all_below),
        ("mounts::a_file_is_bound_over_a_file_and_a_dangling_link", a_file_is_bound_over_a_file_and_a_dangling_link),
        ("mounts::inner_targets_come_after_outer_ones", inner_targets_come_after_outer_ones),
        ("mounts::memory_has_its_options", memory_has_its_options),
        ("mounts::devices_directory_can_be_mounted_in", devices_directory_can_be_mounted_in),
        ("mounts::targets_are_made_in_a_read_only_root", targets_are_made_in_a_read_only_root),
        ("mounts::an_error_names_the_mount", an_error_names_the_mount),
        ("mounts::propagation_is_as_asked", propagation_is_as_asked),
        ("mounts::what_cannot_be_id_mapped_is_named", what_cannot_be_id_mapped_is_named),
    ];
    let on_disk: [(&'static str, crate::harness::Body); 2] = [
        ("mounts::a_writable_layer_on_disk_outlives_the_container", a_writable_layer_on_disk_outlives_the_container),
        ("mounts::many_layers_and_a_writable_layer_on_disk", many_layers_and_a_writable_layer_on_disk),
    ];
    let on_disk = on_disk.map(|(name, body)| Case::new(name, body).needs(can_be_upper(), NEEDS_UPPER));
    let mapped: [(&'static str, crate::harness::Body); 2] = [
        ("mounts::id_mapped_layers_are_roots_inside_and_on_disk", id_mapped_layers_are_roots_inside_and_on_disk),
        ("mounts::many_id_mapped_layers", many_id_mapped_layers),
    ];
    let mapped = mapped.map(|(name, body)| Case::new(name, body).needs(can_id_map(), NEEDS_ID_MAP));
    let all = cases.map(|(name, body)| Case::new(name, body)).into_iter().chain(on_disk).chain(mapped);
    all.map(|case| case.needs(shell::present(), shell::NEEDED)).collect()
}

/// What a test says that is skipped without it.
pub const NEEDS_UPPER: &str = "needs temporary files on another file system than an overlay";

/// Whether a temporary directory can be the upper layer of an overlay, and hold a whiteout: not on an overlay.
pub fn can_be_upper() -> bool {
    const OVERLAYFS_SUPER_MAGIC: i64 = 0x794c_7630;
    rustix::fs::statfs(std::env::temp_dir()).is_ok_and(|found| found.f_type != OVERLAYFS_SUPER_MAGIC)
}

/// What a test says that is skipped without it.
pub const NEEDS_ID_MAP: &str = "needs a kernel that can id-map the file systems of temporary files and of images";

/// Whether layers, and volumes in temporary directories, can be id-mapped here.
pub fn can_id_map() -> bool {
    let mapped = |path: &Path| isobench::container::mounts::can_be_id_mapped(path).unwrap_or(false);
    let images = isobench::image::embedded::root_fs().is_ok_and(|root| root.layers.iter().all(|layer| mapped(layer)));
    images && mapped(&std::env::temp_dir())
}

const MAPPING: UserMapping = UserMapping { host_start: 100_000, count: 65536 };

/// A writable layer in a fresh directory, closed to everyone but root, as the store's are.
fn on_disk() -> Result<(TempDir, Writable), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let [upper, work] = ["upper", "work"].map(|name| directory.path().join(name));
    for path in [&upper, &work] {
        fs::create_dir(path)?;
        fs::set_permissions(path, PermissionsExt::from_mode(0o755))?;
    }
    Ok((directory, Writable::Directory { upper, work }))
}

fn bind(path: &Path, target: &str) -> Mount {
    Mount {
        source: MountSource::Bind { path: path.to_owned(), id_mapped: false },
        target: target.to_owned(),
        read_only: false,
        propagation: Default::default(),
        recursive: true,
    }
}

fn memory(options: &str, target: &str) -> Mount {
    Mount { source: MountSource::Tmpfs { options: options.to_owned() }, ..bind(Path::new("/"), target) }
}

fn with(script: &str, mounts: Vec<Mount>) -> Result<ContainerSpec, Box<dyn Error>> {
    let mut wanted = spec(script)?;
    wanted.mounts = mounts;
    Ok(wanted)
}

/// What a script says; it must end well and say nothing of errors.
fn says(wanted: &ContainerSpec) -> Result<Vec<String>, Box<dyn Error>> {
    let outcome = start(wanted, &Network::None)?.finish()?;
    if !outcome.stderr.is_empty() {
        return Err(format!("{outcome:?}").into());
    }
    Ok(outcome.stdout.lines().map(str::to_owned).collect())
}

fn a_writable_layer_on_disk_outlives_the_container() -> Outcome {
    let (directory, writable) = on_disk()?;
    let mut wanted = spec("echo one >> /kept; cat /kept; rm /etc/passwd")?;
    wanted.writable = writable;
    assert_eq!(says(&wanted)?, ["one"]);
    wanted.arguments[2] = "echo two >> /kept; cat /kept; test -e /etc/passwd || echo gone".to_owned();
    assert_eq!(says(&wanted)?, ["one", "two", "gone"]);
    assert_eq!(fs::read_to_string(directory.path().join("upper/kept"))?, "one\ntwo\n");
    wanted.read_only_root = true;
    wanted.arguments[2] = "cat /kept; touch /x 2>/dev/null || echo refused".to_owned();
    assert_eq!(says(&wanted)?, ["one", "two", "refused"]);
    Ok(())
}

/// As many layers as an image may have, in one directory, under the shell's.
fn many_layers() -> Result<(TempDir, Vec<PathBuf>), Box<dyn Error>> {
    let store = tempfile::tempdir()?;
    let mut layers = shell::root()?.layers;
    for number in 0..127 - layers.len() {
        let layer = store.path().join(format!("layer{number:03}"));
        fs::create_dir(&layer)?;
        fs::write(layer.join(format!("from{number:03}")), "x")?;
        layers.push(layer);
    }
    Ok((store, layers))
}

fn many_layers_and_a_writable_layer_on_disk() -> Outcome {
    let (_store, layers) = many_layers()?;
    let (directory, writable) = on_disk()?;
    let mut wanted = spec("ls -d /from* | wc -l; echo x > /new")?;
    let expected = layers.len() - shell::root()?.layers.len();
    wanted.root.layers = layers;
    wanted.writable = writable;
    assert_eq!(says(&wanted)?, [expected.to_string()]);
    assert_eq!(fs::read_to_string(directory.path().join("upper/new"))?, "x\n");
    Ok(())
}

fn a_bind_shows_the_hosts_directory() -> Outcome {
    let host = tempfile::tempdir()?;
    fs::write(host.path().join("given"), "hello\n")?;
    let wanted = with("cat /data/deep/given; echo back > /data/deep/answer", vec![bind(host.path(), "/data/deep")])?;
    assert_eq!(says(&wanted)?, ["hello"]);
    assert_eq!(fs::read_to_string(host.path().join("answer"))?, "back\n");
    // The mount is the container's alone.
    assert!(!fs::read_to_string("/proc/self/mountinfo")?.contains("/data/deep"));
    Ok(())
}

fn a_read_only_bind_is_so_with_all_below() -> Outcome {
    with_own_mounts(read_only_with_all_below)
}

fn read_only_with_all_below() -> Outcome {
    let host = scratch()?;
    let below = host.path().join("below");
    fs::create_dir(&below)?;
    mount_memory(&below)?;
    let script = "touch /data/x; touch /data/below/x; mount | grep -c 'on /data.*(ro'";
    let read_only = Mount { read_only: true, ..bind(host.path(), "/data") };
    let outcome = start(&with(script, vec![read_only.clone()])?, &Network::None)?.finish()?;
    assert_eq!(outcome.stdout, "2\n", "{outcome:?}");
    assert_eq!(outcome.stderr.matches("Read-only file system").count(), 2, "{outcome:?}");
    // Without what is below it the mount point is an empty directory.
    fs::write(below.join("seen"), "")?;
    for (recursive, count) in [(true, "1"), (false, "0")] {
        let mount = Mount { recursive, ..read_only.clone() };
        assert_eq!(says(&with("ls /data/below | wc -l", vec![mount])?)?, [count]);
    }
    Ok(())
}

/// Runs a test in a thread with a mount namespace of its own, so that the machine's mounts stay as they are.
fn with_own_mounts(body: fn() -> Outcome) -> Outcome {
    let run = move || -> Outcome {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)?;
        change(Path::new("/"), MsFlags::MS_REC | MsFlags::MS_PRIVATE)?;
        body()
    };
    let ended = std::thread::spawn(move || run().map_err(|error| error.to_string())).join();
    Ok(ended.map_err(|_| "it panicked")??)
}

fn change(path: &Path, flags: MsFlags) -> nix::Result<()> {
    nix::mount::mount(None::<&str>, path, None::<&str>, flags, None::<&str>)
}

fn mount_memory(path: &Path) -> nix::Result<()> {
    nix::mount::mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::empty(), None::<&str>)
}

/// A directory of that thread, with a file system in memory on it: its mount goes with the thread.
fn scratch() -> Result<TempDir, Box<dyn Error>> {
    let mut directory = tempfile::tempdir()?;
    mount_memory(directory.path())?;
    directory.disable_cleanup(true);
    Ok(directory)
}

fn a_file_is_bound_over_a_file_and_a_dangling_link() -> Outcome {
    let host = tempfile::tempdir()?;
    let file = host.path().join("hosts");
    fs::write(&file, "own\n")?;
    let layer = tempfile::tempdir()?;
    fs::create_dir(layer.path().join("etc"))?;
    symlink("../run/systemd/resolve/stub", layer.path().join("etc/resolv.conf"))?;
    symlink("../../../../../../etc/shadow", layer.path().join("etc/up"))?;
    let targets = ["/etc/hosts", "/etc/resolv.conf", "/etc/up", "/new/file"];
    let mut wanted = with(
        "cat /etc/hosts /etc/resolv.conf /etc/up /new/file; readlink -f /etc/resolv.conf; readlink -f /etc/up",
        targets.iter().map(|target| bind(&file, target)).collect(),
    )?;
    wanted.root.layers.insert(0, layer.path().to_owned());
    let before = fs::read("/etc/shadow")?;
    let expected = ["own", "own", "own", "own", "/run/systemd/resolve/stub", "/etc/shadow"];
    assert_eq!(says(&wanted)?, expected);
    assert_eq!(fs::read("/etc/shadow")?, before);
    Ok(())
}

fn inner_targets_come_after_outer_ones() -> Outcome {
    let (outer, inner) = (tempfile::tempdir()?, tempfile::tempdir()?);
    fs::write(outer.path().join("outer"), "")?;
    fs::write(inner.path().join("inner"), "")?;
    let mounts = vec![bind(inner.path(), "/a/b/"), bind(outer.path(), "//a/.")];
    assert_eq!(says(&with("ls /a /a/b", mounts)?)?, ["/a:", "b", "outer", "", "/a/b:", "inner"]);
    // The mount point was made in the outer source, as it would be by hand.
    assert!(outer.path().join("b").is_dir());
    Ok(())
}

fn memory_has_its_options() -> Outcome {
    let mounts = vec![memory("size=1m,mode=750,exec", "/scratch"), Mount { read_only: true, ..memory("", "/fixed") }];
    let script = "stat -c %a /scratch; grep -E ' /(scratch|fixed) ' /proc/mounts | cut -d' ' -f2-4
        head -c 2m /dev/zero 2>/dev/null > /scratch/big; stat -c %s /scratch/big; touch /fixed/x";
    let outcome = start(&with(script, mounts)?, &Network::None)?.finish()?;
    let lines = outcome.lines();
    assert_eq!(lines[0], "750");
    assert!(lines[1].starts_with("/scratch tmpfs rw,nosuid,nodev,relatime,size=1024k,mode=750"), "{outcome:?}");
    assert!(lines[2].starts_with("/fixed tmpfs ro,nosuid,nodev,noexec"), "{outcome:?}");
    assert_eq!(lines[3], (1 << 20).to_string());
    assert!(outcome.stderr.contains("Read-only"), "{outcome:?}");
    Ok(())
}

fn devices_directory_can_be_mounted_in() -> Outcome {
    let mounts = ["/dev/shm", "/dev/mqueue", "/dev/extra"].map(|target| memory("size=128k", target)).to_vec();
    let script = "for m in shm mqueue extra; do grep -c \" /dev/$m tmpfs .*size=128k\" /proc/mounts; done";
    assert_eq!(says(&with(script, mounts)?)?, ["1"; 3]);
    Ok(())
}

fn targets_are_made_in_a_read_only_root() -> Outcome {
    let host = tempfile::tempdir()?;
    fs::write(host.path().join("given"), "hello\n")?;
    let script = "cat /made/here/given; touch /made/here/back; touch /x 2>/dev/null || echo refused";
    let mut wanted = with(script, vec![bind(host.path(), "/made/here")])?;
    wanted.read_only_root = true;
    assert_eq!(says(&wanted)?, ["hello", "refused"]);
    assert!(host.path().join("back").exists());
    Ok(())
}

fn failure(wanted: &ContainerSpec) -> Result<String, Box<dyn Error>> {
    let error: Box<dyn Error> = match start(wanted, &Network::None) {
        Err(error) => error,
        Ok(mut running) => {
            let error = running.container.wait().err().ok_or("it started")?;
            running.container.remove()?;
            error.into()
        }
    };
    let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
    Ok(format!("{error}{cause}"))
}

fn an_error_names_the_mount() -> Outcome {
    let host = tempfile::tempdir()?;
    let refused = |mount: Mount| -> Result<String, Box<dyn Error>> { failure(&with("true", vec![mount])?) };
    let shown = host.path().display();
    assert_eq!(
        refused(bind(&host.path().join("missing"), "/data"))?,
        format!("cannot mount {shown}/missing: No such file or directory (os error 2)")
    );
    assert_eq!(
        refused(bind(host.path(), "/etc/passwd"))?,
        format!("cannot mount {shown} on /etc/passwd: Not a directory (os error 20)")
    );
    for target in ["/proc", "/proc/sys", "/sys/fs/cgroup"] {
        let expected = format!("cannot mount {shown} on {target}: Operation not permitted (os error 1)");
        assert_eq!(refused(bind(host.path(), target))?, expected);
    }
    for (mount, end) in [
        (bind(host.path(), "/"), "and not the root"),
        (bind(host.path(), "data"), "and not the root"),
        (bind(host.path(), "/a/../b"), "and not the root"),
        (memory("swap=1", "/data"), "`swap=1` is no option of an in-memory file system"),
    ] {
        let error = refused(mount)?;
        assert!(error.ends_with(end), "{error}");
    }
    let twice = failure(&with("true", vec![bind(host.path(), "/a"), memory("", "/a/")])?)?;
    assert!(twice.ends_with("`/a/` is the target of more than one mount"), "{twice}");
    Ok(())
}

fn propagation_is_as_asked() -> Outcome {
    with_own_mounts(propagation)
}

fn propagation() -> Outcome {
    let host = scratch()?;
    let as_asked = |word: &str| -> Result<Mount, Box<dyn Error>> {
        Ok(Mount { propagation: word.parse()?, ..bind(host.path(), "/data") })
    };
    let refused = failure(&with("true", vec![as_asked("rshared")?])?)?;
    assert!(refused.contains("is not on a shared mount of the host"), "{refused}");
    change(host.path(), MsFlags::MS_SHARED)?;
    let script = "grep ' /data ' /proc/self/mountinfo | cut -d- -f1 | grep -oE 'shared|master'; true";
    for (word, expected) in [("", vec![]), ("rslave", vec!["master"]), ("rshared", vec!["shared"])] {
        assert_eq!(says(&with(script, vec![as_asked(word)?])?)?, expected, "{word}");
    }
    // What the host mounts later shows in a slave.
    let late = host.path().join("late");
    fs::create_dir(&late)?;
    nix::unistd::mkfifo(&host.path().join("go"), nix::sys::stat::Mode::S_IRWXU)?;
    let script = "echo ready; read x < /data/go; ls /data/late";
    let mut running = start(&with(script, vec![as_asked("rslave")?])?, &Network::None)?;
    assert_eq!(running.line()?, "ready");
    mount_memory(&late)?;
    fs::write(late.join("seen"), "")?;
    fs::write(host.path().join("go"), "\n")?;
    assert_eq!(running.finish()?.stdout, "seen\n");
    Ok(())
}

fn id_mapped_layers_are_roots_inside_and_on_disk() -> Outcome {
    let (directory, writable) = on_disk()?;
    fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o700))?;
    let (volume, plain) = (tempfile::tempdir()?, tempfile::tempdir()?);
    fs::set_permissions(plain.path(), PermissionsExt::from_mode(0o777))?;
    let script = "stat -c '%u:%g' /bin/busybox /etc/passwd / /volume /plain
        echo x >> /etc/passwd; touch /volume/new /plain/new; chown 7:8 /volume/new; rm /etc/group
        mkdir /made; chown 1000:1000 /made; stat -c '%u:%g' /plain/new /volume/new /etc/passwd; echo done; sleep 30";
    let mapped = |path: &Path, target: &str, id_mapped| Mount {
        source: MountSource::Bind { path: path.to_owned(), id_mapped },
        ..bind(path, target)
    };
    let mounts = vec![mapped(volume.path(), "/volume", true), mapped(plain.path(), "/plain", false)];
    let mut wanted = with(script, mounts)?;
    wanted.writable = writable;
    wanted.user_namespace = Some(MAPPING);
    let mut running = start(&wanted, &Network::None)?;
    let mut seen = Vec::new();
    while let Some(line) = Some(running.line()?).filter(|line| line != "done" && !line.is_empty()) {
        seen.push(line);
    }
    let nobody = "65534:65534";
    assert_eq!(seen, ["0:0", "0:0", "0:0", "0:0", nobody, "0:0", "7:8", "0:0"]);
    let status = fs::read_to_string(format!("/proc/{}/status", running.container.pid()))?;
    let line =
        |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim().to_owned();
    assert_eq!(line("Uid:"), "100000\t100000\t100000\t100000");
    assert_eq!(line("Gid:"), "100000\t100000\t100000\t100000");
    running.container.remove()?;
    let owner = |path: PathBuf| fs::symlink_metadata(path).map(|data| (data.uid(), data.gid()));
    assert_eq!(owner(directory.path().join("upper/etc/passwd"))?, (0, 0));
    assert_eq!(owner(directory.path().join("upper/made"))?, (1000, 1000));
    assert_eq!(owner(volume.path().join("new"))?, (7, 8));
    // A plain bind is not mapped, as docker has it: root inside is nobody there.
    assert_eq!(owner(plain.path().join("new"))?, (100_000, 100_000));
    // The same layer without a user namespace, and back: nothing was changed in owner.
    wanted.arguments[2] = "stat -c '%u:%g' /etc/passwd /made; test -e /etc/group || echo gone".to_owned();
    wanted.mounts.clear();
    for namespace in [Some(MAPPING), None, Some(UserMapping { host_start: 300_000, count: 70_000 })] {
        wanted.user_namespace = namespace;
        assert_eq!(says(&wanted)?, ["0:0", "1000:1000", "gone"], "{namespace:?}");
    }
    Ok(())
}

fn many_id_mapped_layers() -> Outcome {
    let (_store, layers) = many_layers()?;
    let (_directory, writable) = on_disk()?;
    let mut wanted = spec("ls -d /from* | wc -l; stat -c %u /from000")?;
    let expected = layers.len() - shell::root()?.layers.len();
    wanted.root.layers = layers;
    wanted.writable = writable;
    wanted.user_namespace = Some(MAPPING);
    assert_eq!(says(&wanted)?, [expected.to_string(), "0".to_owned()]);
    Ok(())
}

fn what_cannot_be_id_mapped_is_named() -> Outcome {
    let source = MountSource::Bind { path: "/proc/sys".into(), id_mapped: true };
    let mut wanted = with("true", vec![Mount { source, ..bind(Path::new("/"), "/data") }])?;
    // Without a user namespace there is nothing to map.
    assert_eq!(says(&wanted)?, [""; 0]);
    wanted.user_namespace = Some(MAPPING);
    let error = failure(&wanted)?;
    assert!(error.starts_with("the file system of /proc/sys cannot be id-mapped by this kernel"), "{error}");
    assert!(error.ends_with("(os error 22)"), "{error}");
    Ok(())
}
