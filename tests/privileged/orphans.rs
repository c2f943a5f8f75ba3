//! What becomes of things whose harness is killed: containers end with it, loop devices are collected.

use std::collections::BTreeSet;
use std::error::Error;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use isobench::container::launch::Stdio as ContainerStdio;
use isobench::container::spec::UserMapping;
use isobench::container::{Container, ContainerSpec, Network};
use isobench::image::{WORKLOAD_PATH, embedded};
use isobench::lab::disk::Disk;
use isobench::lab::loops::{self, Loop};
use isobench::sys::launch::{pidfd_open, send_signal};
use isobench::sys::{clock, loopdev};
use isobench::workload;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::harness::Case;
use crate::role;

type Outcome = Result<(), Box<dyn Error>>;

/// How long the kernel may take. It takes some milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);

pub fn cases() -> Vec<Case> {
    vec![
        Case::new("orphans::a_container_dies_with_its_launcher", || dies_with_its_launcher("root", 0)),
        Case::new("orphans::a_container_of_another_user_dies_with_its_launcher", || {
            dies_with_its_launcher("user", 1000)
        }),
        Case::new("orphans::a_container_in_a_user_namespace_dies_with_its_launcher", || {
            dies_with_its_launcher("user-namespace", 100_000)
        }),
        Case::new("orphans::a_user_in_a_user_namespace_dies_with_its_launcher", || {
            dies_with_its_launcher("user-in-user-namespace", 101_000)
        }),
        Case::new("orphans::a_loop_device_that_was_added_is_removed", added_loop_device_is_removed)
            .needs(Path::new("/dev/loop-control").exists(), "needs loop devices"),
    ]
}

/// This program in the role of a harness that is killed.
struct Harness(Child);

impl Harness {
    /// Starts it and waits for its first word.
    fn start(arguments: &[&str]) -> Result<(Self, String), Box<dyn Error>> {
        let mut command = Command::new("/proc/self/exe");
        let child =
            command.arg(role::SUBCOMMAND).args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let mut harness = Self(child);
        let mut line = String::new();
        BufReader::new(harness.0.stdout.take().ok_or("no stdout")?).read_line(&mut line)?;
        if line.is_empty() {
            Err(format!("{arguments:?} said nothing").into())
        } else {
            Ok((harness, line.trim().to_owned()))
        }
    }

    fn kill(&mut self) -> Outcome {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for Harness {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// Role: starts a container that holds, says its pid, and waits to be killed.
pub fn launch(kind: &str) -> Outcome {
    let program = [WORKLOAD_PATH, workload::SUBCOMMAND, "hold"].map(str::to_owned).to_vec();
    let mut spec = ContainerSpec::new(embedded::root_fs()?, program);
    // A group would only be left to collect.
    spec.limits = None;
    if kind.ends_with("user-namespace") {
        spec.user_namespace = Some(UserMapping { host_start: 100_000, count: 65536 });
    }
    if kind.starts_with("user") && kind != "user-namespace" {
        (spec.user.uid, spec.user.gid) = (1000, 1000);
    }
    let container = Container::start(&spec, &Network::None, ContainerStdio::default(), clock::now_ns())?;
    println!("{}", container.pid());
    loop {
        nix::unistd::pause();
    }
}

/// The kernel forgets a parent-death signal when a process changes its user, and a container does so on its way.
fn dies_with_its_launcher(kind: &str, uid: u32) -> Outcome {
    let (mut harness, pid) = Harness::start(&["launch", kind])?;
    let pid: u32 = pid.parse()?;
    let pidfd = pidfd_open(pid)?;
    // Its program runs; what is tied later than that is not tied.
    let own_name = Path::new(WORKLOAD_PATH).file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let begin = Instant::now();
    while fs::read_to_string(format!("/proc/{pid}/comm"))?.trim() != own_name {
        assert!(begin.elapsed() < PATIENCE, "the container did not come to its program");
        std::thread::yield_now();
    }
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    assert!(status.contains(&format!("Uid:\t{uid}\t{uid}\t{uid}\t{uid}\n")), "{status}");
    harness.kill()?;
    let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    let ended = poll(&mut fds, PollTimeout::try_from(PATIENCE)?)? == 1;
    if !ended {
        send_signal(pidfd.as_fd(), libc::SIGKILL)?;
    }
    assert!(ended, "the container outlived its launcher");
    Ok(())
}

fn disks() -> Result<BTreeSet<String>, Box<dyn Error>> {
    let names = fs::read_dir("/sys/block")?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    names.collect()
}

/// Disks until one had to be added; it is the last.
fn until_one_is_added() -> Result<Vec<Disk>, Box<dyn Error>> {
    let before = disks()?;
    let mut made = vec![Disk::in_memory(1 << 20)?];
    while made.last().is_some_and(|disk| before.contains(disk.name())) {
        made.push(Disk::in_memory(1 << 20)?);
    }
    Ok(made)
}

/// Role: takes all loop devices and one more, says its name, and waits to be killed.
pub fn take_loop_devices() -> Outcome {
    let disks = until_one_is_added()?;
    println!("{}", disks.last().ok_or("no disk")?.name());
    loop {
        nix::unistd::pause();
    }
}

fn added_loop_device_is_removed() -> Outcome {
    let (before, in_use) = (disks()?, loopdev::present()?);
    // By its own end; the others are in use meanwhile, and stay.
    let mut made = until_one_is_added()?;
    let added = made.pop().ok_or("no disk")?;
    assert!(disks()?.contains(added.name()));
    drop(added);
    assert_eq!(disks()?, before);
    // When it is added for a file that no disk can stand on.
    let refused = Loop::over(fs::File::open("/dev/null")?.as_fd(), false).err().ok_or("a disk over /dev/null")?;
    assert!(refused.to_string().starts_with("cannot set up loop"), "{refused}");
    assert_eq!(refused.source().ok_or("no cause")?.to_string(), "Invalid argument (os error 22)");
    assert_eq!(disks()?, before);
    drop(made);

    // When its maker was killed.
    let (mut harness, name) = Harness::start(&["take-loop-devices"])?;
    harness.kill()?;
    assert!(disks()?.contains(&name), "it went by itself: this test shows nothing");
    loops::collect()?;
    assert_eq!(disks()?, before);
    assert_eq!(loopdev::present()?, in_use);
    Ok(())
}
