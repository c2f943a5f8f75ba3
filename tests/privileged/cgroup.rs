//! Control groups against the real kernel: the same tests on v1, hybrid and v2, judged by the kernel's own files and
//! by busybox inside. What only one version has is skipped on the other, visibly.

mod delegation;
mod devices;
mod faults;
mod limits;

use std::error::Error;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use isobench::cgroup::favour::{Favour, MOST_SHARES};
use isobench::cgroup::group::{PARENT, collect_orphans};
use isobench::cgroup::owner::Owner;
use isobench::cgroup::{Controller, Group, Hierarchy, Layout, Limits, cpu, cpuset, freezer, pids};
use isobench::container::Network;
use isobench::sys::launch::ExitStatus;
use isobench::units::Limit;

use crate::harness::Case;
use crate::shell::{self, spec, start};

type Outcome = Result<(), Box<dyn Error>>;

pub fn cases() -> Vec<Case> {
    let everywhere: [(&'static str, crate::harness::Body); 17] = [
        ("cgroup::limits_are_the_kernels_files", limits::limits_are_the_kernels_files),
        ("cgroup::limits_change_while_running", limits::limits_change_while_running),
        ("cgroup::wrong_values_are_refused_and_named", limits::wrong_values_are_refused_and_named),
        ("cgroup::a_limit_below_usage_is_refused_or_kills", limits::a_limit_below_usage_is_refused_or_kills),
        ("cgroup::page_cache_is_reclaimed_not_killed", limits::page_cache_is_reclaimed_not_killed),
        ("cgroup::the_pids_limit_is_exact", the_pids_limit_is_exact),
        ("cgroup::a_frozen_group_stands_still", a_frozen_group_stands_still),
        ("cgroup::the_cpuset_is_what_tasks_see", the_cpuset_is_what_tasks_see),
        ("cgroup::a_quota_throttles_and_is_counted", a_quota_throttles_and_is_counted),
        ("cgroup::the_last_favour_takes_the_weight_back", the_last_favour_takes_the_weight_back),
        ("cgroup::devices_by_every_rule", devices::devices_by_every_rule),
        ("cgroup::device_rules_change_while_running", devices::device_rules_change_while_running),
        ("cgroup::nodes_come_before_the_rules", devices::nodes_come_before_the_rules),
        (
            "cgroup::device_rules_are_widened_or_the_reason_is_told",
            devices::device_rules_are_widened_or_the_reason_is_told,
        ),
        ("cgroup::orphans_are_collected", orphans_are_collected),
        ("cgroup::every_process_is_killed", every_process_is_killed),
        ("cgroup::nothing_stays_after_many_groups", nothing_stays_after_many_groups),
    ];
    let unified = Layout::detect().is_ok_and(|layout| layout.is_unified());
    let on_v2: [(&'static str, crate::harness::Body); 13] = [
        ("cgroup::v2_has_more_limits", limits::v2_has_more_limits),
        ("cgroup::v2_container_is_born_in_its_group", v2_container_is_born_in_its_group),
        ("cgroup::v2_cgroup_namespace_of_a_clone_is_the_childs", v2_cgroup_namespace_of_a_clone_is_the_childs),
        ("cgroup::v2_harness_steps_aside_and_comes_home", delegation::v2_harness_steps_aside_and_comes_home),
        ("cgroup::v2_strangers_are_not_moved", delegation::v2_strangers_are_not_moved),
        ("cgroup::v2_those_left_aside_are_brought_home", delegation::v2_those_left_aside_are_brought_home),
        ("cgroup::v2_first_groups_may_be_made_at_once", delegation::v2_first_groups_may_be_made_at_once),
        ("cgroup::v2_the_verifiers_words_are_told", devices::v2_the_verifiers_words_are_told),
        ("cgroup::v2_what_was_passed_down_is_taken_back", delegation::v2_what_was_passed_down_is_taken_back),
        ("cgroup::v2_a_parent_half_made_is_completed", delegation::v2_a_parent_half_made_is_completed),
        ("cgroups_rs::v2_shares_are_written_unconverted", faults::v2_shares_are_written_unconverted),
        ("cgroups_rs::v2_soft_limit_becomes_a_protection", faults::v2_soft_limit_becomes_a_protection),
        ("cgroups_rs::v2_freezer_state_is_only_the_wish", faults::v2_freezer_state_is_only_the_wish),
    ];
    let on_v1: [(&'static str, crate::harness::Body); 2] = [
        ("cgroup::v1_lacks_what_v2_has", limits::v1_lacks_what_v2_has),
        ("cgroups_rs::v1_delete_sleeps_long", faults::v1_delete_sleeps_long),
    ];
    let all = everywhere.map(|(name, body)| Case::new(name, body));
    let v2 = on_v2.map(|(name, body)| Case::new(name, body).needs(unified, "needs cgroup v2 for every controller"));
    let v1 = on_v1.map(|(name, body)| {
        Case::new(name, body)
            .needs(hierarchy(Controller::Memory) == Some(Hierarchy::V1), "needs the v1 memory controller")
    });
    let v2_at = Layout::detect().ok().and_then(|layout| layout.v2).map(|(mount_point, _)| mount_point);
    let usual_place = v2_at.as_deref() == Some(Path::new("/sys/fs/cgroup"));
    let elsewhere = [
        Case::new("cgroups_rs::v2_io_and_freezer_cannot_be_selected", faults::v2_io_and_freezer_cannot_be_selected)
            .needs(usual_place, "needs cgroup v2 at /sys/fs/cgroup"),
        Case::new(
            "cgroups_rs::v2_is_believed_to_be_at_the_usual_place",
            faults::v2_is_believed_to_be_at_the_usual_place,
        )
        .needs(!usual_place, "needs cgroup v2 elsewhere than at /sys/fs/cgroup"),
        Case::new("cgroups_rs::v1_weight_goes_to_a_file_that_is_gone", faults::v1_weight_goes_to_a_file_that_is_gone)
            .needs(hierarchy(Controller::Blkio) == Some(Hierarchy::V1), "needs the v1 blkio controller"),
    ];
    let cases = all.into_iter().chain(v2).chain(v1).chain(elsewhere);
    cases.map(|case| case.needs(shell::present(), shell::NEEDED)).collect()
}

fn hierarchy(controller: Controller) -> Option<Hierarchy> {
    Layout::detect().ok()?.place(controller).map(|place| place.hierarchy)
}

fn make(default_devices: bool) -> Result<Group, Box<dyn Error>> {
    Ok(Group::create(&Layout::detect()?, default_devices)?)
}

fn file(group: &Group, controller: Controller, name: &str) -> Result<String, Box<dyn Error>> {
    let directory = group.directory(controller).ok_or("no directory")?;
    Ok(fs::read_to_string(directory.join(name))?.trim_end().to_owned())
}

/// A file with its content on v1 and on v2.
type Expected = (Controller, (&'static str, &'static str), (&'static str, &'static str));

/// Compares the kernel's files with what they must hold where the controller is.
pub fn check(group: &Group, expected: &[Expected]) -> Outcome {
    for (controller, v1, v2) in expected {
        let place = group.place(*controller).ok_or("the controller is missing")?;
        let (name, value) = if place.hierarchy == Hierarchy::V1 { v1 } else { v2 };
        assert_eq!(file(group, *controller, name)?, *value, "{name}");
    }
    Ok(())
}

/// What most tests ask for, and the files that must show it.
pub fn usual() -> (Limits, Vec<Expected>) {
    let limits = Limits {
        memory: Some(Limit::Value(64 << 20)),
        memory_and_swap: Some(Limit::Value(96 << 20)),
        memory_soft: Some(Limit::Value(32 << 20)),
        cpu_shares: Some(512),
        cpu_quota: Some(cpu::Quota { quota: Duration::from_millis(25), period: Duration::from_millis(50) }),
        cpuset_cpus: Some("0".to_owned()),
        cpuset_mems: Some("0".to_owned()),
        pids: Some(Limit::Value(20)),
        ..Limits::default()
    };
    let expected = vec![
        (Controller::Memory, ("memory.limit_in_bytes", "67108864"), ("memory.max", "67108864")),
        (Controller::Memory, ("memory.memsw.limit_in_bytes", "100663296"), ("memory.swap.max", "33554432")),
        (Controller::Memory, ("memory.soft_limit_in_bytes", "33554432"), ("memory.high", "33554432")),
        (Controller::Cpu, ("cpu.shares", "512"), ("cpu.weight", "50")),
        (Controller::Cpu, ("cpu.cfs_quota_us", "25000"), ("cpu.max", "25000 50000")),
        (Controller::Cpu, ("cpu.cfs_period_us", "50000"), ("cpu.max", "25000 50000")),
        (Controller::Cpuset, ("cpuset.cpus", "0"), ("cpuset.cpus", "0")),
        (Controller::Cpuset, ("cpuset.mems", "0"), ("cpuset.mems", "0")),
        (Controller::Pids, ("pids.max", "20"), ("pids.max", "20")),
    ];
    (limits, expected)
}

fn the_pids_limit_is_exact() -> Outcome {
    // Seven more beside the shell, and the eighth is refused.
    let mut held = Held::new(
        "for i in 1 2 3 4 5 6 7; do sleep 60 > /dev/null & done; echo seven; read line; sleep 60 > /dev/null & echo no",
    )?;
    let group = make(true)?;
    group.apply(&Limits { pids: Some(Limit::Value(8)), ..Limits::default() })?;
    group.attach(held.child.id())?;
    held.go()?;
    assert_eq!(held.line()?, "seven");
    let place = group.place(Controller::Pids).ok_or("no pids controller")?;
    assert_eq!((group.usage()?.pids, pids::refusals(place)?), (Some(8), 0));
    held.go()?;
    assert_eq!(held.line()?, "", "a ninth task was let in");
    assert!(pids::refusals(place)? >= 1);
    group.kill()?;
    held.end()
}

/// User and system time of a process so far, in clock ticks.
fn ticks(pid: u32) -> Result<u64, Box<dyn Error>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit_once(')').ok_or("no name")?.1.split_whitespace().collect();
    Ok(fields[11].parse::<u64>()? + fields[12].parse::<u64>()?)
}

fn a_frozen_group_stands_still() -> Outcome {
    let mut held = Held::new("while :; do :; done")?;
    let pid = held.child.id();
    let group = make(true)?;
    group.attach(pid)?;
    held.go()?;
    while ticks(pid)? < 3 {
        std::thread::yield_now();
    }
    let place = group.place(Controller::Freezer).ok_or("no freezer")?;
    assert!(!freezer::is_frozen(place)?);
    group.freeze()?;
    assert!(freezer::is_frozen(place)?);
    let (before, used) = (ticks(pid)?, group.usage()?.cpu_ns);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!((ticks(pid)?, group.usage()?.cpu_ns), (before, used), "it ran while frozen");
    group.thaw()?;
    while ticks(pid)? <= before {
        std::thread::yield_now();
    }
    assert!(!freezer::is_frozen(place)?);
    // What is frozen can be killed: v2 by itself, v1 once it is thawed.
    group.freeze()?;
    group.kill()?;
    held.child.wait()?;
    let running = start(&spec("sleep 60")?, &Network::None)?;
    running.container.group().ok_or("no group")?.freeze()?;
    running.container.remove()?;
    Ok(())
}

fn the_cpuset_is_what_tasks_see() -> Outcome {
    for cpus in ["0", "1"] {
        let mut held = Held::new("grep Cpus_allowed_list /proc/self/status | cut -f 2")?;
        let group = make(true)?;
        group.apply(&Limits { cpuset_cpus: Some(cpus.to_owned()), ..Limits::default() })?;
        let place = group.place(Controller::Cpuset).ok_or("no cpuset")?;
        assert_eq!(cpuset::effective_cpus(place)?, cpus);
        group.attach(held.child.id())?;
        held.go()?;
        assert_eq!(held.line()?, cpus);
        held.end()?;
    }
    Ok(())
}

fn a_quota_throttles_and_is_counted() -> Outcome {
    let mut held = Held::new("while :; do :; done")?;
    let group = make(true)?;
    let quota = cpu::Quota { quota: Duration::from_millis(2), period: Duration::from_millis(20) };
    group.apply(&Limits { cpu_quota: Some(quota), ..Limits::default() })?;
    group.attach(held.child.id())?;
    held.go()?;
    let throttled = loop {
        let usage = group.usage()?;
        let throttling = usage.throttling.ok_or("nothing is counted")?;
        // The time is added when the group goes on, so it comes later than the count.
        if throttling.throttled_periods >= 5 && throttling.throttled_ns > 0 {
            break usage;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let throttling = throttled.throttling.ok_or("nothing is counted")?;
    assert!(throttling.periods >= throttling.throttled_periods && throttling.throttled_ns > 0, "{throttling:?}");
    assert!(throttled.cpu_ns.is_some_and(|ns| ns > 0), "{throttled:?}");
    assert_eq!(throttled.pressure.is_some(), group.unified().is_some(), "{throttled:?}");
    group.kill()?;
    held.end()
}

/// A shell outside of any container that begins its script when it is told to, and can be told more.
struct Held {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Held {
    fn new(script: &str) -> Result<Self, Box<dyn Error>> {
        let mut child = Command::new(shell::BUSYBOX)
            .args(["sh", "-c", &format!("read line; {script}")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let stdin = child.stdin.take().ok_or("no stdin")?;
        let stdout = BufReader::new(child.stdout.take().ok_or("no stdout")?);
        Ok(Self { child, stdin, stdout })
    }

    /// Lets a `read` of the script go on.
    fn go(&mut self) -> Outcome {
        Ok(self.stdin.write_all(b"\n")?)
    }

    fn line(&mut self) -> Result<String, Box<dyn Error>> {
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }

    fn end(&mut self) -> Outcome {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The name of an owner that has died: a process that was started, and ended.
fn dead_owner() -> Result<String, Box<dyn Error>> {
    let mut child = Command::new(shell::BUSYBOX).args(["sleep", "60"]).spawn()?;
    let stat = fs::read_to_string(format!("/proc/{}/stat", child.id()))?;
    let ticks = stat.rsplit_once(')').ok_or("no name")?.1.split_whitespace().nth(19).ok_or("no start")?.parse()?;
    let owner = Owner { pid: child.id(), start_ticks: ticks };
    assert!(owner.is_alive());
    child.kill()?;
    child.wait()?;
    assert!(!owner.is_alive());
    Ok(owner.to_string())
}

fn the_last_favour_takes_the_weight_back() -> Outcome {
    let group = make(true)?;
    let place = group.place(Controller::Cpu).ok_or("no cpu controller")?.clone();
    let parent = place.path.parent().ok_or("no parent")?;
    let (file, most, usual) = match place.hierarchy {
        Hierarchy::V1 => (cpu::SHARES, MOST_SHARES.to_string(), "1024"),
        Hierarchy::V2 => (cpu::WEIGHT, cpu::weight(MOST_SHARES).to_string(), "100"),
    };
    let weight = || fs::read_to_string(parent.join(file)).map(|text| text.trim().to_owned());
    let (first, second) = (Favour::of_parent(&group)?, Favour::of_parent(&group)?);
    assert_eq!(weight()?, most);
    drop(first);
    assert_eq!(weight()?, most, "the second user's weight was taken back");
    drop(second);
    assert_eq!(weight()?, usual);
    Ok(())
}

fn orphans_are_collected() -> Outcome {
    let layout = Layout::detect()?;
    let alive = make(true)?;
    let name = format!("{}-7", dead_owner()?);
    let mut held = Held::new("read line")?;
    let mut directories: Vec<PathBuf> = Controller::ALL
        .iter()
        .filter_map(|controller| alive.directory(*controller)?.parent().map(|parent| parent.join(&name)))
        .collect();
    directories.dedup();
    for directory in &directories {
        fs::create_dir(directory)?;
        fs::write(directory.join("cgroup.procs"), held.child.id().to_string())?;
        // One that was paused when its maker died.
        for (state, frozen) in [("freezer.state", "FROZEN"), ("cgroup.freeze", "1")] {
            if directory.join(state).exists() {
                fs::write(directory.join(state), frozen)?;
            }
        }
    }
    let collected = collect_orphans(&layout)?;
    assert!(collected.groups as usize >= directories.len() && collected.processes >= 1, "{collected:?}");
    let status = held.child.wait()?;
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(libc::SIGKILL));
    assert!(directories.iter().all(|directory| !directory.exists()), "{directories:?}");
    let kept = Controller::ALL.iter().filter_map(|controller| alive.directory(*controller));
    assert!(kept.into_iter().all(Path::exists), "a group that is in use was collected");
    Ok(())
}

fn every_process_is_killed() -> Outcome {
    let mut held = Held::new("for i in 1 2 3; do sleep 60 > /dev/null & done; echo ready; wait")?;
    let group = make(true)?;
    group.attach(held.child.id())?;
    held.go()?;
    assert_eq!(held.line()?, "ready");
    assert_eq!(group.processes()?.len(), 4);
    group.kill()?;
    held.child.wait()?;
    while !group.processes()?.is_empty() {
        std::thread::yield_now();
    }
    group.remove()?;
    Ok(())
}

fn nothing_stays_after_many_groups() -> Outcome {
    let mut names = Vec::new();
    let mut parents = Vec::new();
    for _ in 0..20 {
        let group = make(true)?;
        names.push(group.name().to_owned());
        let directories = Controller::ALL.iter().filter_map(|controller| group.directory(*controller));
        parents.extend(directories.filter_map(|path| path.parent().map(Path::to_owned)));
        group.remove()?;
    }
    for parent in parents {
        assert!(names.iter().all(|name| !parent.join(name).exists()), "{}", parent.display());
    }
    Ok(())
}

fn v2_container_is_born_in_its_group() -> Outcome {
    let mut wanted = spec("cat /proc/self/cgroup; read line < /dev/shm/never")?;
    wanted.limits = Some(usual().0);
    let mut running = start(&wanted, &Network::None)?;
    assert_eq!(running.line()?, "0::/");
    let group = running.container.group().ok_or("no group")?;
    check(group, &usual().1)?;
    let outside = fs::read_to_string(format!("/proc/{}/cgroup", running.container.pid()))?;
    assert!(outside.trim().ends_with(&format!("/{PARENT}/{}", group.name())), "{outside}");
    let timeline = running.container.timeline();
    let phases: Vec<&str> = timeline.critical.iter().map(|(name, ..)| *name).collect();
    assert_eq!(&phases[..3], ["prepare", "cgroup", "clone"], "{phases:?}");
    assert!(!phases.contains(&"wait_cgroup"), "{phases:?}");
    assert!(timeline.critical.windows(2).all(|pair| pair[0].2 == pair[1].1), "the phases have gaps: {timeline:?}");
    running.container.remove()?;
    Ok(())
}

/// Why a container that is born in its group needs no step of its own for its cgroup namespace.
fn v2_cgroup_namespace_of_a_clone_is_the_childs() -> Outcome {
    use isobench::sys::launch::Memory;
    use isobench::sys::plan::{Op, Plan};
    use std::os::fd::{AsFd, AsRawFd};
    let group = make(true)?;
    let (mut reader, writer) = std::io::pipe()?;
    let mut plan = Plan::default();
    plan.push("streams", Op::Descriptor { from: writer.as_raw_fd(), to: 1 });
    plan.push(
        "exec",
        Op::Exec {
            paths: vec![std::ffi::CString::new(shell::BUSYBOX)?],
            arguments: vec![c"cat".to_owned(), c"/proc/self/cgroup".to_owned()],
            environment: Vec::new(),
            guarded: false,
        },
    );
    let place = group.open_unified()?.ok_or("no v2 group")?;
    let flags = libc::CLONE_NEWCGROUP as u64;
    let mut child = isobench::sys::launch::launch(plan, flags, Some(place.as_fd()), Memory::Copied)?;
    drop(writer);
    let mut text = String::new();
    std::io::Read::read_to_string(&mut reader, &mut text)?;
    assert_eq!(child.wait()?.status, ExitStatus::Code(0));
    assert_eq!(text.trim(), "0::/", "the namespace is rooted elsewhere");
    Ok(())
}
