//! Room for groups below a root that is a group like any other: the harness steps aside and comes home.

use std::error::Error;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use isobench::cgroup::delegate::{self, LEAF};
use isobench::cgroup::group::{PARENT, collect_orphans};
use isobench::cgroup::{Group, Layout};

use super::{Held, Outcome, check, dead_owner, make, usual};
use crate::shell;

/// A group that plays the root of a delegated hierarchy.
struct Home {
    path: PathBuf,
    layout: Layout,
}

impl Home {
    fn new(name: &str) -> Result<Self, Box<dyn Error>> {
        // Making a group passes the controllers down from the real root.
        drop(make(true)?);
        let (mount_point, names) = Layout::detect()?.v2.ok_or("no v2")?;
        let path = mount_point.join(format!("isobench-test-{name}-{}", std::process::id()));
        fs::create_dir(&path)?;
        Ok(Self { layout: Layout { v2: Some((path.clone(), names)), ..Layout::default() }, path })
    }

    fn read(&self, file: &str) -> Result<String, Box<dyn Error>> {
        Ok(fs::read_to_string(self.path.join(file))?.trim().to_owned())
    }

    fn leaves(&self) -> Result<Vec<PathBuf>, Box<dyn Error>> {
        let directories = fs::read_dir(&self.path)?.flatten().map(|entry| entry.path()).filter(|path| path.is_dir());
        Ok(directories.collect())
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let root = self.path.parent().unwrap_or(&self.path);
        for pid in self.read("cgroup.procs").unwrap_or_default().lines() {
            let _ = fs::write(root.join("cgroup.procs"), pid);
        }
        let _ = fs::remove_dir(self.path.join(PARENT));
        let _ = fs::remove_dir(&self.path);
    }
}

pub fn v2_harness_steps_aside_and_comes_home() -> Outcome {
    let home = Home::new("home")?;
    let own = std::process::id().to_string();
    let child = Held::new("read line")?;
    for pid in [own.clone(), child.child.id().to_string()] {
        fs::write(home.path.join("cgroup.procs"), pid)?;
    }
    let guard = delegate::Homecoming::new();
    let group = Group::create(&home.layout, true)?;
    assert!(delegate::is_aside());
    assert_eq!(home.read("cgroup.procs")?, "");
    assert!(fs::read_to_string("/proc/self/cgroup")?.contains(LEAF));
    group.apply(&usual().0)?;
    check(&group, &usual().1)?;
    assert!(delegate::put_back().is_err(), "it went home under a group in use");
    group.remove()?;
    drop(guard);
    assert!(!delegate::is_aside());
    let mut back: Vec<String> = home.read("cgroup.procs")?.lines().map(str::to_owned).collect();
    back.sort_unstable();
    let mut expected = vec![own, child.child.id().to_string()];
    expected.sort_unstable();
    assert_eq!(back, expected);
    assert_eq!(home.read("cgroup.subtree_control")?, "");
    assert!(home.leaves()?.is_empty(), "{:?}", home.leaves());
    Ok(())
}

/// Starts a process that descends from this one no longer.
fn stranger() -> Result<u32, Box<dyn Error>> {
    let script = "sleep 60 > /dev/null 2>&1 & echo $!";
    let output = Command::new(shell::BUSYBOX).args(["sh", "-c", script]).output()?;
    Ok(String::from_utf8(output.stdout)?.trim().parse()?)
}

pub fn v2_strangers_are_not_moved() -> Outcome {
    let home = Home::new("strangers")?;
    let stranger = stranger()?;
    fs::write(home.path.join("cgroup.procs"), stranger.to_string())?;
    let error = Group::create(&home.layout, true).err().ok_or("it was moved")?.to_string();
    assert!(error.contains(&format!("{stranger} ")) && error.contains("not isobench's"), "{error}");
    assert_eq!(home.read("cgroup.procs")?, stranger.to_string());
    assert!(home.leaves()?.is_empty(), "{:?}", home.leaves());
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(stranger as i32), nix::sys::signal::Signal::SIGKILL)?;
    while !home.read("cgroup.procs")?.is_empty() {
        std::thread::yield_now();
    }
    Ok(())
}

pub fn v2_those_left_aside_are_brought_home() -> Outcome {
    let home = Home::new("left")?;
    let leaf = home.path.join(format!("{LEAF}{}", dead_owner()?));
    fs::create_dir(&leaf)?;
    let child = Held::new("read line")?;
    fs::write(leaf.join("cgroup.procs"), child.child.id().to_string())?;
    fs::write(home.path.join("cgroup.subtree_control"), "+memory +pids")?;
    fs::create_dir(home.path.join(PARENT))?;
    collect_orphans(&home.layout)?;
    assert_eq!(home.read("cgroup.procs")?, child.child.id().to_string());
    assert_eq!(home.read("cgroup.subtree_control")?, "");
    assert!(home.leaves()?.is_empty(), "{:?}", home.leaves());
    Ok(())
}

/// Nothing is left of what was passed down, but for what others had passed down before.
pub fn v2_what_was_passed_down_is_taken_back() -> Outcome {
    let home = Home::new("back")?;
    fs::write(home.path.join("cgroup.subtree_control"), "+memory")?;
    let group = Group::create(&home.layout, true)?;
    let given = home.read("cgroup.subtree_control")?;
    assert!(["memory", "pids", "io", "cpu", "cpuset"].iter().all(|name| given.split(' ').any(|have| have == *name)));
    collect_orphans(&home.layout)?;
    assert_eq!(home.read("cgroup.subtree_control")?, given, "taken from a group in use");
    group.remove()?;
    collect_orphans(&home.layout)?;
    assert_eq!(home.read("cgroup.subtree_control")?, "memory");
    assert!(home.leaves()?.is_empty(), "{:?}", home.leaves());
    Ok(())
}

/// A parent that was left with too few controllers, as by a process that was killed while it prepared it.
pub fn v2_a_parent_half_made_is_completed() -> Outcome {
    let home = Home::new("half")?;
    fs::write(home.path.join("cgroup.subtree_control"), "+memory +pids")?;
    fs::create_dir(home.path.join(PARENT))?;
    let group = Group::create(&home.layout, true)?;
    group.apply(&usual().0)?;
    check(&group, &usual().1)?;
    group.remove()?;
    collect_orphans(&home.layout)?;
    assert_eq!(home.read("cgroup.subtree_control")?, "memory pids");
    Ok(())
}

/// Several starts find no parent at once, or one half made by another; and a collector may come in between.
pub fn v2_first_groups_may_be_made_at_once() -> Outcome {
    let home = Home::new("at-once")?;
    let (limits, expected) = usual();
    for _ in 0..10 {
        std::thread::scope(|scope| {
            let make = || -> Result<(), String> {
                let group = Group::create(&home.layout, true).map_err(|error| format!("{error:?}"))?;
                group.apply(&limits).map_err(|error| format!("{error:?}"))?;
                check(&group, &expected).map_err(|error| error.to_string())?;
                drop(group);
                collect_orphans(&home.layout).map(drop).map_err(|error| format!("{error:?}"))
            };
            let makers: Vec<_> = (0..4).map(|_| scope.spawn(make)).collect();
            makers.into_iter().try_for_each(|maker| maker.join().map_err(|_| "a maker panicked".to_owned())?)
        })?;
    }
    collect_orphans(&home.layout)?;
    assert_eq!(home.read("cgroup.subtree_control")?, "");
    assert!(home.leaves()?.is_empty(), "{:?}", home.leaves());
    Ok(())
}
