//! What covers the kernel's files, and what is written to them, cannot be led elsewhere by what an image holds.

use std::error::Error;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::symlink;

use isobench::container::spec::{Mount, MountSource, UserMapping};
use isobench::container::{ContainerSpec, Network};

use crate::harness::Case;
use crate::mount_races::bind;
use crate::shell::{self, spec, start};

type Outcome = Result<(), Box<dyn Error>>;

pub fn cases() -> Vec<Case> {
    let cases: [(&'static str, crate::harness::Body); 6] = [
        ("cve_2025_31133::masks_come_from_the_real_null_device", masks_come_from_the_real_null_device),
        ("cve_2025_31133::a_mount_over_the_null_device_takes_no_mask_away", a_mount_over_the_null_device),
        ("cve_2025_52565::a_console_lands_on_the_containers_own_dev", a_console_lands_on_the_containers_own_dev),
        ("cve_2025_52881::nothing_is_mounted_over_the_kernels_files", nothing_is_mounted_over_the_kernels_files),
        ("cve_2025_52881::an_images_proc_is_covered_by_the_real_one", an_images_proc_is_covered),
        ("links::an_image_whose_dev_proc_or_sys_is_a_link_is_refused", an_image_whose_dev_is_a_link),
    ];
    cases.map(|(name, body)| Case::new(name, body).needs(shell::present(), shell::NEEDED)).into()
}

const MASKED: &str = "for p in kcore keys timer_list; do test -e /proc/$p && stat -c '%n %t:%T' /proc/$p; done
    for p in kcore keys timer_list; do test -e /proc/$p && wc -c < /proc/$p; done; true";
const CORE_PATTERN: &str = "/proc/sys/kernel/core_pattern";

/// Every masked file is the null device, 1:3, and empty.
fn assert_masked(lines: &[&str]) {
    let (devices, sizes): (Vec<&str>, Vec<&str>) = lines.iter().partition(|line| line.starts_with('/'));
    assert!(devices.len() >= 2 && devices.iter().all(|line| line.ends_with(" 1:3")), "{lines:?}");
    assert!(sizes.len() == devices.len() && sizes.iter().all(|size| size.trim() == "0"), "{lines:?}");
}

/// A container of an image that has these links on top: path and what it leads to.
fn with_links(script: &str, links: &[(&str, &str)]) -> Result<(tempfile::TempDir, ContainerSpec), Box<dyn Error>> {
    let layer = tempfile::tempdir()?;
    for (link, target) in links {
        let path = layer.path().join(link);
        fs::create_dir_all(path.parent().unwrap_or(layer.path()))?;
        symlink(target, path)?;
    }
    let mut wanted = spec(script)?;
    wanted.root.layers.insert(0, layer.path().to_owned());
    Ok((layer, wanted))
}

/// The image has links in the null device's place that lead to files which the masks would then show for writing.
fn masks_come_from_the_real_null_device() -> Outcome {
    let before = fs::read(CORE_PATTERN)?;
    let script = format!("{MASKED}; echo '|/owned' > {CORE_PATTERN} && echo OWNED; true");
    for target in [CORE_PATTERN, "/proc/sysrq-trigger", "/etc/passwd", "../../../../../../etc/shadow"] {
        let (_layer, mut wanted) = with_links(&script, &[("dev/null", target)])?;
        for namespace in [None, Some(UserMapping { host_start: 100_000, count: 65536 })] {
            wanted.user_namespace = namespace;
            let outcome = start(&wanted, &Network::None)?.finish()?;
            assert_masked(&outcome.lines());
            let refused = ["Read-only file system", "Permission denied"];
            assert!(refused.iter().any(|text| outcome.stderr.contains(text)), "{target}: {outcome:?}");
        }
    }
    assert_eq!(fs::read(CORE_PATTERN)?, before);
    Ok(())
}

fn a_mount_over_the_null_device() -> Outcome {
    let host = tempfile::tempdir()?;
    let file = host.path().join("null");
    fs::write(&file, "not empty\n")?;
    let mut wanted = spec(&format!("cat /dev/null; {MASKED}"))?;
    wanted.mounts = vec![bind(&file, "/dev/null")];
    let outcome = start(&wanted, &Network::None)?.finish()?;
    let lines = outcome.lines();
    assert_eq!(lines[0], "not empty", "{outcome:?}");
    assert_masked(&lines[1..]);
    Ok(())
}

/// A terminal is bound to /dev/console in a container whose image has a link there that leads to the kernel's files.
fn a_console_lands_on_the_containers_own_dev() -> Outcome {
    let terminal = nix::pty::openpty(None, None)?;
    let path = nix::unistd::ttyname(terminal.slave.as_fd())?;
    let before = fs::read(CORE_PATTERN)?;
    let script = format!(
        "stat -c '%F %t' /dev/console; test -L /dev/console && echo LINK
         grep ' /dev/console ' /proc/mounts | wc -l; grep -c ' /proc/sys/kernel/core_pattern ' /proc/mounts
         echo '|/owned' > {CORE_PATTERN} && echo OWNED; {MASKED}"
    );
    for target in [CORE_PATTERN, "/proc/kcore", "pts/../../proc/sysrq-trigger"] {
        let (_layer, mut wanted) = with_links(&script, &[("dev/console", target)])?;
        wanted.mounts = vec![bind(&path, "/dev/console")];
        let outcome = start(&wanted, &Network::None)?.finish()?;
        let lines = outcome.lines();
        assert_eq!(lines[..3], ["character special file 88", "1", "0"], "{outcome:?}");
        assert_masked(&lines[3..]);
    }
    assert_eq!(fs::read(CORE_PATTERN)?, before);
    Ok(())
}

/// Targets that come to /proc or /sys, by themselves or by links of the image or of a volume.
fn nothing_is_mounted_over_the_kernels_files() -> Outcome {
    let (volume, payload) = (tempfile::tempdir()?, tempfile::tempdir()?);
    fs::write(payload.path().join("exec"), "fake")?;
    for (name, to) in
        [("proc", "/proc"), ("attr", "/proc/self/attr"), ("up", "../../../../proc/sys"), ("sys", "/sys/fs")]
    {
        symlink(to, volume.path().join(name))?;
    }
    let fake = payload.path().join("exec");
    let memory = |target: &str| Mount { source: MountSource::Tmpfs { options: String::new() }, ..bind(&fake, target) };
    let attempts = [
        memory("/proc"),
        memory("/volume/proc"),
        memory("/volume/up"),
        bind(payload.path(), "/volume/attr"),
        bind(payload.path(), "/volume/sys"),
        bind(payload.path(), "/proc/self/attr"),
        bind(&fake, "/proc/self/attr/exec"),
        bind(&fake, "/volume/attr/exec"),
        bind(&fake, "/proc/sysrq-trigger"),
        bind(payload.path(), "/proc/1/root/x"),
    ];
    for attempt in attempts {
        let mut wanted = spec("true")?;
        let target = attempt.target.clone();
        wanted.mounts = vec![bind(volume.path(), "/volume"), attempt];
        let error = refusal(&wanted)?;
        let named = error.starts_with("cannot mount ") && error.contains(&format!(" on {target}: "));
        assert!(named, "{target}: {error}");
    }
    Ok(())
}

fn refusal(wanted: &ContainerSpec) -> Result<String, Box<dyn Error>> {
    let error: Box<dyn Error> = match start(wanted, &Network::None) {
        Err(error) => error,
        Ok(mut running) => {
            let error = running.container.wait().err().ok_or("it started")?;
            running.container.remove()?;
            error.into()
        }
    };
    let cause = error.source().map(ToString::to_string).unwrap_or_default();
    Ok(format!("{error}: {cause}"))
}

/// An image that brings files of its own under /proc and /sys.
fn an_images_proc_is_covered() -> Outcome {
    let layer = tempfile::tempdir()?;
    for file in ["proc/self/attr/exec", "proc/fake", "sys/fake", "proc/sys/kernel/core_pattern"] {
        let path = layer.path().join(file);
        fs::create_dir_all(path.parent().ok_or("no parent")?)?;
        fs::write(path, "fake")?;
    }
    let mut wanted = spec("stat -f -c %T /proc /sys; ls /proc/fake /sys/fake; cat /proc/1/comm; true")?;
    wanted.root.layers.insert(0, layer.path().to_owned());
    let outcome = start(&wanted, &Network::None)?.finish()?;
    assert_eq!(outcome.lines(), ["proc", "sysfs", "sh"], "{outcome:?}");
    assert_eq!(outcome.stderr.matches("No such file").count(), 2, "{outcome:?}");
    Ok(())
}

fn an_image_whose_dev_is_a_link() -> Outcome {
    let host = tempfile::tempdir()?;
    let up = format!("{}{}", "../".repeat(40), host.path().display());
    for name in ["dev", "proc", "sys"] {
        for target in [up.as_str(), "/tmp", "/etc", "/"] {
            let (_layer, wanted) = with_links("true", &[(name, target)])?;
            let error = refusal(&wanted)?;
            assert_eq!(error, format!("cannot make the directory /{name}: Not a directory (os error 20)"));
        }
    }
    assert_eq!(fs::read_dir(host.path())?.count(), 0, "something was made on the host");
    Ok(())
}
