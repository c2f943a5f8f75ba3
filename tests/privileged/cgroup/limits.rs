//! Limits: what is asked for, what the kernel's files say, and what happens at them.

use std::error::Error;
use std::fs;
use std::path::PathBuf;

use isobench::cgroup::blkio::{Throttle, ThrottleKind};
use isobench::cgroup::{CgroupError, Controller, Hierarchy, Limits, cpu};
use isobench::container::Network;
use isobench::units::Limit;

use super::{Held, Outcome, check, file, hierarchy, make, usual};
use crate::shell::{spec, start};

/// The first block device of the machine.
fn block_device() -> Result<(u64, u64), Box<dyn Error>> {
    let mut names: Vec<PathBuf> = fs::read_dir("/sys/block")?.flatten().map(|entry| entry.path()).collect();
    names.sort_unstable();
    let numbers = fs::read_to_string(names.first().ok_or("no block device")?.join("dev"))?;
    let (major, minor) = numbers.trim().split_once(':').ok_or("no numbers")?;
    Ok((major.parse()?, minor.parse()?))
}

pub fn limits_are_the_kernels_files() -> Outcome {
    let group = make(true)?;
    let (mut limits, expected) = usual();
    let (major, minor) = block_device()?;
    let throttle = |kind, rate| Throttle { kind, major, minor, rate };
    limits.blkio_throttles = vec![throttle(ThrottleKind::ReadBps, 1 << 20), throttle(ThrottleKind::WriteIops, 300)];
    let rows = group.apply(&limits)?;
    check(&group, &expected)?;
    assert!(rows.iter().all(|row| !row.kept.is_empty()), "{rows:?}");
    match hierarchy(Controller::Blkio).ok_or("no blkio")? {
        Hierarchy::V1 => {
            let read = file(&group, Controller::Blkio, "blkio.throttle.read_bps_device")?;
            assert_eq!(read, format!("{major}:{minor} 1048576"));
            let write = file(&group, Controller::Blkio, "blkio.throttle.write_iops_device")?;
            assert_eq!(write, format!("{major}:{minor} 300"));
        }
        Hierarchy::V2 => {
            let line = file(&group, Controller::Blkio, "io.max")?;
            assert_eq!(line, format!("{major}:{minor} rbps=1048576 wbps=max riops=max wiops=300"));
        }
    }
    Ok(())
}

pub fn limits_change_while_running() -> Outcome {
    let (limits, expected) = usual();
    let mut wanted = spec("sleep 60")?;
    wanted.limits = Some(limits);
    let running = start(&wanted, &Network::None)?;
    let group = running.container.group().ok_or("no group")?;
    check(group, &expected)?;
    let (major, minor) = block_device()?;
    // Up, which on v1 has to raise memory and swap before memory; a throttle; then down again, and the throttle away.
    let changed = |memory: u64, rate| Limits {
        memory: Some(Limit::Value(memory << 20)),
        memory_and_swap: Some(Limit::Value(memory << 20)),
        cpu_shares: Some(2048),
        pids: Some(Limit::Max),
        blkio_throttles: vec![Throttle { kind: ThrottleKind::WriteBps, major, minor, rate }],
        ..Limits::default()
    };
    for (memory, shown, rate) in [(200, "209715200", 1000), (48, "50331648", 0)] {
        group.apply(&changed(memory, rate))?;
        check(
            group,
            &[
                (Controller::Memory, ("memory.limit_in_bytes", shown), ("memory.max", shown)),
                (Controller::Memory, ("memory.memsw.limit_in_bytes", shown), ("memory.swap.max", "0")),
                (Controller::Cpu, ("cpu.shares", "2048"), ("cpu.weight", "200")),
                (Controller::Cpu, ("cpu.cfs_quota_us", "25000"), ("cpu.max", "25000 50000")),
                (Controller::Pids, ("pids.max", "max"), ("pids.max", "max")),
            ],
        )?;
    }
    group.apply(&Limits { cpu_quota: Some(cpu::Quota::UNLIMITED), ..Limits::default() })?;
    check(group, &[(Controller::Cpu, ("cpu.cfs_quota_us", "-1"), ("cpu.max", "max 100000"))])?;
    check(group, &[(Controller::Blkio, ("blkio.throttle.write_bps_device", ""), ("io.max", ""))])?;
    group.apply(&Limits { memory: Some(Limit::Max), memory_and_swap: Some(Limit::Max), ..Limits::default() }).or_else(
        |error| if hierarchy(Controller::Memory) == Some(Hierarchy::V1) { Err(error) } else { Ok(Vec::new()) },
    )?;
    running.container.remove()?;
    Ok(())
}

pub fn wrong_values_are_refused_and_named() -> Outcome {
    let group = make(true)?;
    let told = |limits: Limits| group.apply(&limits).err().map(|error| error.to_string()).unwrap_or_default();
    assert_eq!(
        told(Limits { cpu_shares: Some(1), ..Limits::default() }),
        "cpu_shares cannot be 1: shares go from 2 to 262144"
    );
    let cpus = told(Limits { cpuset_cpus: Some("900".to_owned()), ..Limits::default() });
    assert!(cpus.contains("cpuset.cpus") && cpus.contains("900"), "{cpus}");
    let throttle = Throttle { kind: ThrottleKind::ReadBps, major: 250, minor: 250, rate: 1 };
    let device = told(Limits { blkio_throttles: vec![throttle], ..Limits::default() });
    assert!(device.contains("250:250") && device.starts_with("cannot set blkio "), "{device}");
    let pids = told(Limits { pids: Some(Limit::Value(u64::MAX)), ..Limits::default() });
    assert!(pids.starts_with("cannot set pids pids.max to 18446744073709551615 in "), "{pids}");
    Ok(())
}

/// A program that holds this much memory of its own and says `ready`.
fn holding(mebibytes: u32) -> String {
    format!("s=$(head -c {mebibytes}m /dev/zero | tr '\\0' x); echo ready; read line")
}

pub fn a_limit_below_usage_is_refused_or_kills() -> Outcome {
    let mut held = Held::new(&holding(24))?;
    let group = make(true)?;
    group.attach(held.child.id())?;
    held.go()?;
    assert_eq!(held.line()?, "ready");
    let below = Limits {
        memory: Some(Limit::Value(8 << 20)),
        memory_and_swap: Some(Limit::Value(8 << 20)),
        ..Limits::default()
    };
    let outcome = group.apply(&below);
    let memory = group.place(Controller::Memory).ok_or("no memory controller")?;
    match memory.hierarchy {
        Hierarchy::V1 => {
            let error = outcome.err().ok_or("v1 took a limit below what is in use")?;
            assert!(
                matches!(&error, CgroupError::Write { source, .. } if source.raw_os_error() == Some(libc::EBUSY)),
                "{error}"
            );
            assert!(held.child.try_wait()?.is_none(), "it was killed all the same");
        }
        Hierarchy::V2 => {
            outcome?;
            let status = held.child.wait()?;
            assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(libc::SIGKILL));
            let usage = group.usage()?.memory.ok_or("no usage")?;
            assert!(usage.oom_kills >= 1 && usage.current <= 8 << 20, "{usage:?}");
        }
    }
    held.end()?;
    Ok(())
}

pub fn page_cache_is_reclaimed_not_killed() -> Outcome {
    // Files on the container's tmpfs are not cache, so the cache is made by reading a file of the host's disk.
    let directory = tempfile::Builder::new().prefix("isobench-cache-").tempdir_in("/var/tmp")?;
    let path = directory.path().join("file");
    fs::write(&path, vec![1; 48 << 20])?;
    let mut held = Held::new(&format!("cat '{0}' '{0}' | wc -c; read line", path.display()))?;
    let group = make(true)?;
    let limit = Some(Limit::Value(24 << 20));
    group.apply(&Limits { memory: limit, memory_and_swap: limit, ..Limits::default() })?;
    group.attach(held.child.id())?;
    held.go()?;
    assert_eq!(held.line()?, (96u64 << 20).to_string());
    let usage = group.usage()?.memory.ok_or("no usage")?;
    assert_eq!(usage.oom_kills, 0, "{usage:?}");
    assert!(usage.peak.is_none_or(|peak| peak <= 24 << 20), "{usage:?}");
    held.end()
}

pub fn v1_lacks_what_v2_has() -> Outcome {
    let group = make(true)?;
    let error = group.apply(&Limits { memory_min: Some(1), ..Limits::default() }).err().ok_or("taken")?;
    assert_eq!(error.to_string(), "the limit memory.min needs cgroup v2; the memory controller is mounted as v1 here");
    assert!(group.apply(&Limits { memory_oom_group: Some(true), ..Limits::default() }).is_err());
    Ok(())
}

pub fn v2_has_more_limits() -> Outcome {
    let group = make(true)?;
    group.apply(&Limits {
        memory_min: Some(1 << 20),
        memory_low: Some(2 << 20),
        memory_oom_group: Some(true),
        blkio_weight: Some(250),
        ..Limits::default()
    })?;
    for (name, value) in [("memory.min", "1048576"), ("memory.low", "2097152"), ("memory.oom.group", "1")] {
        assert_eq!(file(&group, Controller::Memory, name)?, value, "{name}");
    }
    assert_eq!(file(&group, Controller::Blkio, "io.bfq.weight")?, "default 250");
    // Swap alone is limited, so without a memory limit the sum means nothing.
    let both = Limits { memory_and_swap: Some(Limit::Value(1 << 20)), ..Limits::default() };
    assert!(group.apply(&both).is_err_and(|error| error.to_string().ends_with("so memory needs a limit too")));
    // The whole group goes when one of it is killed.
    let limit = Some(Limit::Value(16 << 20));
    group.apply(&Limits { memory: limit, memory_and_swap: limit, ..Limits::default() })?;
    let mut held = Held::new("sleep 60 > /dev/null & echo ready; tail /dev/zero; echo survived")?;
    group.attach(held.child.id())?;
    held.go()?;
    assert_eq!((held.line()?.as_str(), held.line()?.as_str()), ("ready", ""));
    while !group.processes()?.is_empty() {
        std::thread::yield_now();
    }
    let usage = group.usage()?;
    let memory = usage.memory.ok_or("no usage")?;
    assert!(memory.ooms.is_some_and(|ooms| ooms >= 1) && memory.oom_kills >= 3, "{memory:?}");
    assert!(usage.pressure.and_then(|pressure| pressure.memory).is_some(), "{usage:?}");
    held.end()
}
