//! What a container uses up is its own.

use std::error::Error;
use std::fs;

use isobench::cgroup::{Controller, Limits};
use isobench::container::Network;
use isobench::container::spec::Writable;
use isobench::units::Limit;

use crate::harness::Case;
use crate::shell::{self, run, spec, start};

type Outcome = Result<(), Box<dyn Error>>;

pub fn cases() -> Vec<Case> {
    let cases: [(&'static str, crate::harness::Body); 3] = [
        ("exhaustion::a_full_writable_layer_is_the_containers_alone", a_full_writable_layer),
        ("exhaustion::full_names_are_the_containers_alone", full_names),
        ("exhaustion::a_fork_bomb_stays_in_its_container", a_fork_bomb),
    ];
    cases.map(|(name, body)| Case::new(name, body).needs(shell::present(), shell::NEEDED)).into()
}

fn a_full_writable_layer() -> Outcome {
    const BYTES: u64 = 16 << 20;
    let mut wanted = spec(
        "dd if=/dev/zero of=/big bs=64k; dd if=/dev/zero of=/dev/shm/big bs=1M; stat -c %s /big /dev/shm/big
         echo x > /more || echo refused; rm /big; echo x > /more && echo well; sleep 30",
    )?;
    wanted.writable = Writable::Memory { bytes: BYTES };
    let mut full = start(&wanted, &Network::None)?;
    let [layer, shared] = [full.line()?, full.line()?].map(|size| size.parse::<u64>().unwrap_or(u64::MAX));
    assert!(layer > BYTES / 2 && layer <= BYTES, "{layer}");
    assert_eq!(shared, 64 << 20);
    // Another container has its own, and the host its.
    assert_eq!(run("head -c 32m /dev/zero > /big; stat -c %s /big", &Network::None)?.stdout, format!("{}\n", 32 << 20));
    fs::write(tempfile::NamedTempFile::new()?.path(), [0; 1 << 20])?;
    let (refused, well) = (full.line()?, full.line()?);
    assert_eq!([refused.as_str(), well.as_str()], ["refused", "well"], "it goes on once there is room");
    full.container.remove()?;
    Ok(())
}

fn full_names() -> Outcome {
    // Empty files use no room but names, which are memory too.
    let script = "i=0; while true > /d$i; do i=$((i+1)); done; echo $i; rm /d0; true > /again && echo well; sleep 60";
    let mut wanted = spec(script)?;
    wanted.writable = Writable::Memory { bytes: 16 << 20 };
    let mut full = start(&wanted, &Network::None)?;
    let made: u64 = full.line()?.parse()?;
    assert!((1000..=4096).contains(&made), "{made} names in the room of 4096 pages");
    assert_eq!(full.line()?, "well");
    assert_eq!(run("true > /x && echo well", &Network::None)?.stdout, "well\n");
    full.container.signal(libc::SIGKILL)?;
    let outcome = full.finish()?;
    assert!(outcome.stderr.contains("No space left on device"), "{outcome:?}");
    Ok(())
}

fn a_fork_bomb() -> Outcome {
    const MOST: u64 = 16;
    let mut wanted = spec("(while :; do sleep 60 & done); echo full; exec sleep 60")?;
    wanted.limits = Some(Limits { pids: Some(Limit::Value(MOST)), ..Limits::default() });
    let mut bomb = start(&wanted, &Network::None)?;
    assert_eq!(bomb.line()?, "full");
    let group = bomb.container.group().ok_or("no group")?;
    let directory = group.directory(Controller::Pids).ok_or("no pids controller")?.to_owned();
    let number =
        |file: &str| -> Result<u64, Box<dyn Error>> { Ok(fs::read_to_string(directory.join(file))?.trim().parse()?) };
    // The subshell that could not fork has ended.
    assert_eq!((number("pids.max")?, number("pids.current")?), (MOST, MOST - 1));
    assert!(std::process::Command::new("/bin/true").status()?.success(), "the host could not fork");
    assert_eq!(run("true & wait; echo well", &Network::None)?.stdout, "well\n");
    bomb.container.signal(libc::SIGKILL)?;
    let outcome = bomb.finish()?;
    assert!(outcome.stderr.contains("can't fork: Resource temporarily unavailable"), "{outcome:?}");
    Ok(())
}
