//! Names that change while a container is started.

use std::error::Error;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

use isobench::container::Network;
use isobench::container::spec::{Mount, MountSource};
use isobench::image::WORKLOAD_PATH;
use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::harness::Case;
use crate::shell::{self, spec, start};

type Outcome = Result<(), Box<dyn Error>>;

pub fn cases() -> Vec<Case> {
    let case = Case::new(
        "cve_2021_30465::a_link_swapped_in_a_shared_volume_never_leads_a_mount_to_the_host",
        a_link_swapped_in_a_shared_volume,
    );
    vec![case.needs(shell::present(), shell::NEEDED)]
}

/// Inside a container: exchanges two names until it is killed.
pub fn swap(one: &str, other: &str) -> Outcome {
    loop {
        renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE)?;
    }
}

pub fn bind(path: &Path, target: &str) -> Mount {
    Mount {
        source: MountSource::Bind { path: path.to_owned(), id_mapped: false },
        target: target.to_owned(),
        read_only: false,
        propagation: Default::default(),
        recursive: true,
    }
}

/// The second container's mount goes to `/volume/dir/inner`; the first one swaps `dir` with a link to a directory of the
/// host all the while. Wherever the mount lands it must be inside the second container, and nothing may be made in the
/// host's directory on the way.
fn a_link_swapped_in_a_shared_volume() -> Outcome {
    let (volume, payload, host) = (tempfile::tempdir()?, tempfile::tempdir()?, tempfile::tempdir()?);
    fs::create_dir_all(volume.path().join("dir/inner"))?;
    // Both forms: as an absolute path, and up beyond any root.
    let up = format!("{}{}", "../".repeat(40), host.path().display());
    symlink(up, volume.path().join("link"))?;
    fs::write(payload.path().join("payload"), "")?;
    fs::write(host.path().join("host-only"), "")?;
    let mut attacker = spec("")?;
    attacker.arguments =
        [WORKLOAD_PATH, crate::ROLE, "swap", "/volume/dir", "/volume/link"].map(str::to_owned).to_vec();
    attacker.mounts = vec![bind(volume.path(), "/volume")];
    let attacker = start(&attacker, &Network::None)?;
    let script = format!(
        "test -e {}/host-only && echo ESCAPED
         cut -d' ' -f5 /proc/self/mountinfo | grep 'inner$'",
        host.path().display()
    );
    let mut victim = spec(&script)?;
    victim.mounts = vec![bind(volume.path(), "/volume"), bind(payload.path(), "/volume/dir/inner")];
    let (mut direct, mut followed, mut failed) = (0, 0, 0);
    let until = Instant::now() + Duration::from_secs(60);
    // Until the race was lost and won often enough, but not without end on a machine that has other things to do.
    while (direct < 50 || followed < 50) && Instant::now() < until {
        let seen = start(&victim, &Network::None).and_then(shell::Running::finish);
        assert_eq!(fs::read_dir(host.path())?.count(), 1, "something was made on the host: {seen:?}");
        match seen {
            // Names that change too fast can make a start fail, which harms no one.
            Err(_) => failed += 1,
            Ok(outcome) => {
                assert!(!outcome.stdout.contains("ESCAPED"), "{outcome:?}");
                match outcome.stdout.contains(&*host.path().to_string_lossy()) {
                    true => followed += 1,
                    false => direct += 1,
                }
            }
        }
    }
    attacker.container.remove()?;
    assert!(direct > 0 && followed > 0, "no race: {direct} direct, {followed} by the link, {failed} failed");
    assert!(!fs::exists(host.path().join("inner"))?);
    Ok(())
}
