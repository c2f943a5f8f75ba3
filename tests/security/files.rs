//! Files that come from a container, go into one, or come in archives: nothing of the host is reached by them, and nothing
//! of the container is run.

use std::error::Error;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use isobench::container::Network;
use isobench::container::files::Root;
use isobench::container::state::Process;
use isobench::image::archive::{self, Selection};
use isobench::image::create::{self, Description, RootSource};
use isobench::image::spec::own_platform;
use isobench::image::{Store, WORKLOAD_PATH};
use tar::EntryType;

use crate::harness::Case;
use crate::shell::{self, Running, spec, start};

type Outcome = Result<(), Box<dyn Error>>;

pub fn cases() -> Vec<Case> {
    let cases: [(&'static str, crate::harness::Body); 9] = [
        ("cve_2018_15664::a_directory_swapped_with_a_link_never_leads_a_copy_to_the_host", a_swapped_directory),
        ("cve_2019_14271::a_copy_loads_nothing_of_the_container", a_copy_loads_nothing),
        ("cve_2019_14271::a_copy_goes_on_while_the_containers_programs_are_hostile", hostile_programs),
        ("archives::a_name_with_dots_leads_nowhere", dots),
        ("archives::an_absolute_name_is_the_roots_own", absolute),
        ("archives::links_lead_nowhere", links),
        ("archives::a_device_is_out_of_reach", devices),
        ("archives::of_an_entry_that_is_there_twice_the_last_holds", twice),
        ("archives::a_loaded_image_is_no_other_way_in", loaded),
    ];
    cases.map(|(name, body)| Case::new(name, body).needs(shell::present(), shell::NEEDED)).into()
}

fn root_of(running: &Running) -> Result<Root, Box<dyn Error>> {
    let init = Process::of(running.container.pid()).ok_or("it has ended")?;
    Ok(Root::running(init, None)?)
}

/// An archive of entries as they are, however hostile: name, kind, and the content or the link's target.
fn archive(entries: &[(&str, EntryType, &str)]) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, kind, content) in entries {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(*kind);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        let data = if *kind == EntryType::Regular { content.as_bytes() } else { b"" };
        if matches!(kind, EntryType::Symlink | EntryType::Link) {
            header.as_old_mut().linkname[..content.len()].copy_from_slice(content.as_bytes());
        }
        if *kind == EntryType::Char {
            header.set_device_major(1)?;
            header.set_device_minor(3)?;
        }
        header.set_size(data.len() as u64);
        header.set_cksum();
        builder.append(&header, data)?;
    }
    Ok(builder.into_inner()?)
}

fn a_swapped_directory() -> Outcome {
    let host = tempfile::tempdir()?;
    fs::write(host.path().join("secret"), "secret")?;
    // Absolute, and up beyond the root: neither leads there.
    for target in [host.path().display().to_string(), format!("../../../../..{}", host.path().display())] {
        let script =
            format!("mkdir /d; ln -s {target} /e; echo ready; exec {WORKLOAD_PATH} {} swap /d /e", crate::ROLE);
        let mut container = start(&spec(&script)?, &Network::None)?;
        assert_eq!(container.line()?, "ready");
        let root = root_of(&container)?;
        let file = archive(&[("written", EntryType::Regular, "x")])?;
        // At least so often, and until a copy each way has met the directory, however the two are scheduled.
        let (mut tries, deadline) = (0, Instant::now() + Duration::from_secs(60));
        let mut copied = (0, 0);
        while (tries < 2000 || copied.0 == 0 || copied.1 == 0) && Instant::now() < deadline {
            tries += 1;
            copied.0 += u32::from(root.write(Path::new("/d"), file.as_slice(), true).is_ok());
            for follow in [false, true] {
                let mut read = Vec::new();
                let outcome = root.read(Path::new("/d/secret"), follow, b"secret", &mut read);
                assert!(outcome.is_err() && read.is_empty(), "the host's file was read");
                let mut whole = Vec::new();
                copied.1 += u32::from(root.read(Path::new("/d"), follow, b"d", &mut whole).is_ok());
                assert!(!whole.windows(6).any(|part| part == b"secret"), "the host's directory was read");
            }
        }
        assert!(tries >= 2000 && copied.0 > 0 && copied.1 > 0, "it was no race: {copied:?} of {tries}");
        drop(root);
        container.container.remove()?;
    }
    assert_eq!(fs::read_dir(host.path())?.count(), 1, "something was written to the host");
    assert_eq!(fs::read(host.path().join("secret"))?, b"secret");
    Ok(())
}

/// What a program that is linked to a container's libraries, or that looks up names there, would open.
const TRAPS: [&str; 12] = [
    "/etc/passwd",
    "/etc/group",
    "/etc/nsswitch.conf",
    "/etc/ld.so.cache",
    "/etc/ld.so.preload",
    "/lib/libnss_files.so.2",
    "/lib64/libnss_files.so.2",
    "/lib/x86_64-linux-gnu/libnss_files.so.2",
    "/lib/x86_64-linux-gnu/libc.so.6",
    "/usr/lib/libnss_files.so.2",
    "/usr/lib/locale/locale-archive",
    "/usr/bin/tar",
];

fn a_copy_loads_nothing() -> Outcome {
    // Whoever opens a pipe waits for the other end, and can be seen to wait.
    let traps = TRAPS.join(" ");
    let script = format!(
        "mkdir /data; echo mine > /data/f; chown 1000:1000 /data/f
         rm -f {traps}; for f in {traps}; do mkdir -p ${{f%/*}}; mkfifo $f || exit 1; done; echo ready; exec sleep 60"
    );
    let mut container = start(&spec(&script)?, &Network::None)?;
    assert_eq!(container.line()?, "ready");
    let root = root_of(&container)?;
    let inside = PathBuf::from(format!("/proc/{}/root", container.container.pid()));
    let (done, finished) = mpsc::channel();
    let copying = std::thread::spawn(move || -> Result<Vec<u8>, String> {
        let mut archive = Vec::new();
        let copied = root.read(Path::new("/data"), false, b"data", &mut archive);
        let copied = copied.and_then(|()| root.write(Path::new("/"), archive.as_slice(), true));
        let copied = copied.and_then(|()| root.write(Path::new("/data"), archive.as_slice(), false));
        let _ = done.send(());
        copied.map(|()| archive).map_err(|error| error.to_string())
    });
    let ended = finished.recv_timeout(Duration::from_secs(20)).is_ok();
    for trap in TRAPS {
        let path = inside.join(trap.trim_start_matches('/'));
        // A pipe that no one reads cannot be opened for writing without waiting.
        let opened = File::options().write(true).custom_flags(libc::O_NONBLOCK).open(&path);
        let error = opened.err().ok_or_else(|| format!("{trap} of the container was opened"))?;
        assert_eq!(error.raw_os_error(), Some(libc::ENXIO), "{trap}: {error}");
    }
    assert!(ended, "the copy waits for something of the container");
    let copied = copying.join().map_err(|_| "the copy panicked")??;
    assert!(tar::Archive::new(copied.as_slice()).entries()?.count() >= 2);
    let kept = fs::metadata(inside.join("data/f"))?;
    assert_eq!((kept.uid(), kept.gid()), (1000, 1000), "owners are numbers and need no names");
    container.container.remove()?;
    Ok(())
}

fn hostile_programs() -> Outcome {
    let evidence = "/evidence";
    let script = format!(
        "mkdir /data; echo mine > /data/f; for p in tar cp sh ls; do
         printf '#!/bin/busybox sh\\necho run >> {evidence}\\n' > /$p; chmod 755 /$p; /bin/busybox mv /$p /bin/$p; done
         /bin/busybox echo ready; exec /bin/busybox sleep 60"
    );
    let mut container = start(&spec(&script)?, &Network::None)?;
    assert_eq!(container.line()?, "ready");
    let root = root_of(&container)?;
    let mut archive = Vec::new();
    root.read(Path::new("/data/f"), true, b"f", &mut archive)?;
    root.write(Path::new("/tmp"), archive.as_slice(), true)?;
    let mut content = String::new();
    let mut copied = Vec::new();
    root.read(Path::new("/tmp/f"), false, b"f", &mut copied)?;
    for entry in tar::Archive::new(copied.as_slice()).entries()? {
        entry?.read_to_string(&mut content)?;
    }
    assert_eq!(content, "mine\n");
    assert!(root.look(Path::new(evidence), false)?.is_none(), "a program of the container was run");
    container.container.remove()?;
    Ok(())
}

/// A store beside a directory that no archive may reach, and a container to copy into.
struct Place {
    directory: tempfile::TempDir,
    store: Store,
}

impl Place {
    fn new() -> Result<Self, Box<dyn Error>> {
        let directory = tempfile::tempdir()?;
        fs::create_dir(directory.path().join("outside"))?;
        fs::write(directory.path().join("outside/secret"), "secret")?;
        let store = Store::open(directory.path().join("store"))?;
        Ok(Self { directory, store })
    }

    fn outside(&self) -> PathBuf {
        self.directory.path().join("outside")
    }

    /// Makes an image of an archive and unpacks it; its layer.
    fn import(&self, bytes: &[u8]) -> Result<PathBuf, Box<dyn Error>> {
        let path = self.directory.path().join("archive");
        fs::write(&path, bytes)?;
        let id = create::import(&self.store, RootSource::Archive(&path), &Description::of(None))?;
        Ok(self.store.unpack(&self.store.image(&id.to_string())?)?.remove(0))
    }

    /// Loads an image that has the archive as its layer, and unpacks it; its layer.
    fn load(&self, bytes: &[u8]) -> Result<PathBuf, Box<dyn Error>> {
        let digest = isobench::image::digest::Digest::of(bytes);
        let config = format!(
            r#"{{"architecture":"{}","os":"linux","rootfs":{{"type":"layers","diff_ids":["{digest}"]}}}}"#,
            own_platform().architecture
        );
        let mut builder = tar::Builder::new(Vec::new());
        let manifest = r#"[{"Config":"config.json","RepoTags":null,"Layers":["layer.tar"]}]"#;
        for (name, content) in
            [("layer.tar", bytes), ("config.json", config.as_bytes()), ("manifest.json", manifest.as_bytes())]
        {
            let mut header = tar::Header::new_ustar();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, name, content)?;
        }
        let path = self.directory.path().join("image");
        fs::write(&path, builder.into_inner()?)?;
        let selection = Selection { platform: own_platform(), name: None, named: false };
        let loaded = archive::load(&self.store, Some(&path), &selection)?;
        Ok(self.store.unpack(&self.store.image(&loaded[0].id.to_string())?)?.remove(0))
    }

    /// Copies an archive into a running container; what stands there then under some paths.
    fn copy(&self, bytes: &[u8], shown: &str) -> Result<(bool, String), Box<dyn Error>> {
        let script =
            format!("mkdir -p /into/sub; echo ready; while ! [ -e /go ]; do sleep 0.1; done; cd /into; {shown}");
        let mut container = start(&spec(&script)?, &Network::None)?;
        assert_eq!(container.line()?, "ready");
        let root = root_of(&container)?;
        let copied = root.write(Path::new("/into/sub"), bytes, true).is_ok();
        root.write(Path::new("/"), archive(&[("go", EntryType::Regular, "")])?.as_slice(), false)?;
        drop(root);
        Ok((copied, container.finish()?.stdout))
    }

    fn untouched(&self) -> Outcome {
        let names: Vec<_> =
            fs::read_dir(self.outside())?.map(|entry| Ok(entry?.file_name())).collect::<Result<_, std::io::Error>>()?;
        assert_eq!(names, ["secret"], "something was made outside");
        let secret = self.outside().join("secret");
        assert_eq!(fs::read(&secret)?, b"secret");
        assert_eq!(fs::metadata(&secret)?.nlink(), 1, "there is a link to a file outside");
        Ok(())
    }
}

fn dots() -> Outcome {
    let place = Place::new()?;
    let mut up = "../".repeat(8);
    up.push_str(place.outside().to_str().ok_or("a path")?.trim_start_matches('/'));
    for name in ["../escaped", "a/../../escaped", &format!("{up}/f")] {
        let hostile = archive(&[(name, EntryType::Regular, "x")])?;
        assert!(place.import(&hostile).is_err() && place.load(&hostile).is_err(), "{name}");
        let (copied, seen) = place.copy(&hostile, "ls -A . sub")?;
        assert!(!copied, "{name}");
        assert_eq!(seen, ".:\nsub\n\nsub:\n", "{name}");
    }
    place.untouched()
}

fn absolute() -> Outcome {
    let place = Place::new()?;
    let name = format!("{}/f", place.outside().display());
    let hostile = archive(&[(&name, EntryType::Regular, "x")])?;
    for layer in [place.import(&hostile)?, place.load(&hostile)?] {
        assert_eq!(fs::read(layer.join(name.trim_start_matches('/')))?, b"x");
    }
    let (copied, seen) = place.copy(&hostile, &format!("cat sub{name}"))?;
    assert_eq!((copied, seen.as_str()), (true, "x"));
    place.untouched()
}

fn links() -> Outcome {
    let place = Place::new()?;
    let outside = place.outside().display().to_string();
    let secret = format!("{outside}/secret");
    let up = format!("../../../../../../../..{outside}");
    for hostile in [
        // Through a link that came with the archive.
        &[("l", EntryType::Symlink, outside.as_str()), ("l/f", EntryType::Regular, "x")][..],
        &[("l", EntryType::Symlink, up.as_str()), ("l/f", EntryType::Regular, "x")],
        &[("l", EntryType::Symlink, "m"), ("m", EntryType::Symlink, up.as_str()), ("l/f", EntryType::Regular, "x")],
        &[("l/", EntryType::Directory, ""), ("l", EntryType::Symlink, &outside), ("l/f", EntryType::Regular, "x")],
        // A further name of a file outside, and what is then written to it.
        &[("h", EntryType::Link, secret.as_str()), ("h", EntryType::Regular, "x")],
        &[
            ("l", EntryType::Symlink, outside.as_str()),
            ("h", EntryType::Link, "l/secret"),
            ("h", EntryType::Regular, "x"),
        ],
        // A file in the place of a link.
        &[("l", EntryType::Symlink, secret.as_str()), ("l", EntryType::Regular, "x")],
    ] {
        let hostile = archive(hostile)?;
        // Whether it is an error or lands inside: nothing outside changes.
        let _ = (place.import(&hostile), place.load(&hostile), place.copy(&hostile, "true")?);
        place.untouched()?;
    }
    Ok(())
}

fn devices() -> Outcome {
    let place = Place::new()?;
    let hostile = archive(&[("null", EntryType::Char, "")])?;
    let layer = place.import(&hostile)?;
    assert!(layer.join("null").symlink_metadata()?.mode() & libc::S_IFMT == libc::S_IFCHR);
    let store = fs::metadata(place.store.root())?;
    assert_eq!((store.mode() & 0o777, store.uid()), (0o700, 0), "others could come to the device");
    // Out of a container, it does not come to the host unasked.
    let host = tempfile::tempdir()?;
    assert!(Root::of_host()?.write(host.path(), hostile.as_slice(), false).is_err());
    assert_eq!(fs::read_dir(host.path())?.count(), 0);
    Ok(())
}

fn twice() -> Outcome {
    let place = Place::new()?;
    let hostile = archive(&[("f", EntryType::Regular, "first"), ("f", EntryType::Regular, "last")])?;
    for layer in [place.import(&hostile)?, place.load(&hostile)?] {
        assert_eq!(fs::read(layer.join("f"))?, b"last");
    }
    assert_eq!(place.copy(&hostile, "cat sub/f")?, (true, "last".to_owned()));
    Ok(())
}

fn loaded() -> Outcome {
    // A layer that is a link in the archive is the archive's own, and never a file of the host.
    let place = Place::new()?;
    let mut builder = tar::Builder::new(Vec::new());
    let config = r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;
    let manifest = r#"[{"Config":"config.json","RepoTags":null,"Layers":["layer.tar"]}]"#;
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(EntryType::Symlink);
    header.set_size(0);
    builder.append_link(&mut header, "layer.tar", place.outside().join("secret"))?;
    for (name, content) in [("config.json", config), ("manifest.json", manifest)] {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, name, content.as_bytes())?;
    }
    let path = place.directory.path().join("image");
    fs::write(&path, builder.into_inner()?)?;
    let selection = Selection { platform: own_platform(), name: None, named: false };
    assert!(archive::load(&place.store, Some(&path), &selection).is_err());
    // The same in a layout's directory.
    let layout = place.directory.path().join("layout");
    fs::create_dir_all(layout.join("blobs/sha256"))?;
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    symlink(place.outside().join("secret"), layout.join("index.json"))?;
    assert!(archive::load(&place.store, Some(&layout), &selection).is_err());
    place.untouched()
}
