//! What a container is: its namespaces, its root, its rights, its limits, judged by busybox and the kernel's files.

use std::error::Error;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use isobench::cgroup::{Controller, Hierarchy, Limits};
use isobench::container::spec::{Rlimit, UserMapping, Writable};
use isobench::container::{ContainerError, ContainerSpec, Network};
use isobench::sys::launch::ExitStatus;
use isobench::units::Limit;

use crate::harness::Case;
use crate::shell::{self, run, spec, start};

type Outcome = Result<(), Box<dyn Error>>;

pub fn cases() -> Vec<Case> {
    let cases: [(&'static str, crate::harness::Body); 21] = [
        ("container::pid_one_sees_only_its_own", pid_one_sees_only_its_own),
        ("container::parent_sees_the_child_under_another_pid", parent_sees_the_child_under_another_pid),
        ("container::mounts_are_its_own", mounts_are_its_own),
        ("container::host_name_is_its_own", host_name_is_its_own),
        ("container::ipc_is_its_own", ipc_is_its_own),
        ("container::none_has_only_loopback", none_has_only_loopback),
        ("container::cgroup_root_is_its_own", cgroup_root_is_its_own),
        ("container::root_in_a_user_namespace_is_nobody_outside", root_in_a_user_namespace_is_nobody_outside),
        ("container::rights_are_dockers", rights_are_dockers),
        ("container::signals_are_reset", signals_are_reset),
        ("container::rlimits_are_lowered", rlimits_are_lowered),
        ("container::limits_are_what_the_kernel_keeps", limits_are_what_the_kernel_keeps),
        ("container::memory_limit_kills_and_is_told", memory_limit_kills_and_is_told),
        ("container::a_start_without_memory_ends_alone", a_start_without_memory_ends_alone),
        ("container::pids_limit_stops_forks", pids_limit_stops_forks),
        ("container::standard_devices_work", standard_devices_work),
        ("container::exit_codes_and_signals_are_told", exit_codes_and_signals_are_told),
        ("container::missing_and_unusable_programs_are_told_apart", missing_and_unusable_programs_are_told_apart),
        ("container::a_failed_step_is_named", a_failed_step_is_named),
        ("container::read_only_root_cannot_be_written", read_only_root_cannot_be_written),
        ("container::the_writable_layer_is_bounded_and_private", the_writable_layer_is_bounded_and_private),
    ];
    let time = Case::new("container::time_is_its_own_when_asked", time_is_its_own_when_asked)
        .needs(Path::new(OWN_TIME).exists(), "needs time namespaces in the kernel");
    let all = cases.map(|(name, body)| Case::new(name, body)).into_iter().chain([time]);
    all.map(|case| case.needs(shell::present(), shell::NEEDED)).collect()
}

const OWN_TIME: &str = "/proc/self/ns/time";

fn pid_one_sees_only_its_own() -> Outcome {
    let first = run("echo $$; exec ls /proc", &Network::None)?;
    let processes: Vec<&str> = first.lines().into_iter().filter(|name| name.parse::<u32>().is_ok()).collect();
    // The shell said 1, and `ls`, which took its place, sees only itself.
    assert_eq!(processes, ["1", "1"], "{first:?}");
    Ok(())
}

fn parent_sees_the_child_under_another_pid() -> Outcome {
    let mut running = start(&spec("sleep 30 & echo ready; wait")?, &Network::None)?;
    assert_eq!(running.line()?, "ready");
    let pid = running.container.pid();
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let pids: Vec<&str> = line(&status, "NSpid:").split_whitespace().collect();
    assert_eq!(pids, [&pid.to_string(), "1"]);
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    let sleeper = children.split_whitespace().next().ok_or("no child")?.to_owned();
    let status = fs::read_to_string(format!("/proc/{sleeper}/status"))?;
    assert!(line(&status, "NSpid:").ends_with("\t2"), "{status}");
    running.container.remove()?;
    assert!(!fs::exists(format!("/proc/{sleeper}"))?, "a process outlived its PID 1");
    Ok(())
}

fn line<'a>(text: &'a str, name: &str) -> &'a str {
    text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default()
}

fn mounts_are_its_own() -> Outcome {
    let before = fs::read_to_string("/proc/self/mountinfo")?;
    let mut running = start(&spec("cat /proc/self/mounts; echo .; echo > /marker; sleep 30")?, &Network::None)?;
    let mut mounts = Vec::new();
    loop {
        match running.line()? {
            end if end == "." => break,
            mount => mounts.push(mount),
        }
    }
    let points: Vec<&str> = mounts.iter().filter_map(|mount| mount.split(' ').nth(1)).collect();
    assert_eq!(&points[..7], ["/", "/proc", "/sys", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue"], "{mounts:#?}");
    assert!(points[7..].iter().all(|point| point.starts_with("/proc/") || point.starts_with("/sys/")), "{points:?}");
    assert!(mounts[0].starts_with("overlay / overlay rw"));
    assert!(mounts[2].starts_with("sysfs /sys sysfs ro,nosuid,nodev,noexec"));
    assert_eq!(fs::read_to_string("/proc/self/mountinfo")?, before, "the host's mount table changed");
    assert!(!fs::exists("/marker")?);
    running.container.remove()?;
    Ok(())
}

fn host_name_is_its_own() -> Outcome {
    let host = fs::read_to_string("/proc/sys/kernel/hostname")?;
    let mut first = spec("hostname; cat /proc/sys/kernel/domainname")?;
    first.hostname = "first".to_owned();
    first.domainname = Some("example".to_owned());
    assert_eq!(start(&first, &Network::None)?.finish()?.stdout, "first\nexample\n");
    assert_eq!(run("hostname", &Network::None)?.stdout, "isobench\n");
    assert_eq!(fs::read_to_string("/proc/sys/kernel/hostname")?, host);
    Ok(())
}

fn ipc_is_its_own() -> Outcome {
    let script = "touch /dev/mqueue/mine /dev/shm/mine; ls /dev/mqueue /dev/shm; sleep 30";
    let mut first = start(&spec(script)?, &Network::None)?;
    assert_eq!(first.line()?, "/dev/mqueue:");
    let second = run("ls -A /dev/mqueue /dev/shm; tail -n +2 /proc/sysvipc/shm", &Network::None)?;
    assert_eq!(second.lines(), ["/dev/mqueue:", "", "/dev/shm:"], "{second:?}");
    let own = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/ipc"));
    assert_ne!(own(first.container.pid())?, own(std::process::id())?);
    first.container.remove()?;
    Ok(())
}

fn time_is_its_own_when_asked() -> Outcome {
    let outside = fs::read_link(OWN_TIME)?;
    for own in [false, true] {
        let mut wanted = spec(&format!("readlink {OWN_TIME}; readlink {OWN_TIME}_for_children"))?;
        wanted.time_namespace = own;
        let outcome = start(&wanted, &Network::None)?.finish()?;
        let inside = outcome.lines();
        assert!(inside.len() == 2 && inside.iter().all(|link| link.starts_with("time:[")), "{outcome:?}");
        for link in inside {
            assert_eq!(Path::new(link) != outside, own, "{link} inside, {} outside", outside.display());
        }
    }
    Ok(())
}

fn none_has_only_loopback() -> Outcome {
    let seen = run(
        "tail -n +3 /proc/net/dev | cut -d: -f1; tail -n +2 /proc/net/route | wc -l; ping -c1 -W1 127.0.0.1 >/dev/null && echo up",
        &Network::None,
    )?;
    assert_eq!(seen.lines().iter().map(|line| line.trim()).collect::<Vec<_>>(), ["lo", "0", "up"], "{seen:?}");
    let outside = run("ping -c1 -W1 198.18.0.1", &Network::None)?;
    assert!(outside.stderr.contains("unreachable"), "{outside:?}");
    Ok(())
}

fn cgroup_root_is_its_own() -> Outcome {
    let mut running = start(&spec("cat /proc/self/cgroup; echo .; sleep 30")?, &Network::None)?;
    let mut inside = Vec::new();
    while let Some(line) = Some(running.line()?).filter(|line| line != ".") {
        inside.push(line);
    }
    let name = running.container.group().ok_or("no group")?.name().to_owned();
    let outside = fs::read_to_string(format!("/proc/{}/cgroup", running.container.pid()))?;
    // A v1 line names its controllers, the v2 line none.
    let v2 = outside.contains("0::/isobench/").then(|| "0::".to_owned());
    let v1 = Controller::ALL.into_iter().map(|one| format!(":{one}:")).filter(|mark| outside.contains(mark));
    for mark in v1.chain(v2) {
        assert!(inside.iter().any(|line| line.ends_with(&format!("{mark}/"))), "{mark}: {inside:?}");
        let host = outside.lines().find(|line| line.contains(&mark)).ok_or("no line")?;
        assert!(host.contains("/isobench/") && host.ends_with(&name), "{host}");
    }
    assert!(outside.contains("isobench"), "{outside}");
    let own = fs::read_to_string("/proc/self/cgroup")?;
    let systemd = |text: &str| text.lines().find(|line| line.contains("name=systemd")).map(str::to_owned);
    assert_eq!(systemd(&own), systemd(&outside), "a hierarchy that was not asked for was joined");
    running.container.remove()?;
    Ok(())
}

fn root_in_a_user_namespace_is_nobody_outside() -> Outcome {
    let mut wanted =
        spec("id -u; echo x > /dev/null && echo written; touch /dev/shm/f && stat -c %u /dev/shm/f; sleep 30")?;
    wanted.user_namespace = Some(UserMapping { host_start: 100_000, count: 65536 });
    let mut running = start(&wanted, &Network::None)?;
    let seen: Vec<String> = (0..3).map(|_| running.line()).collect::<Result<_, _>>()?;
    assert_eq!(seen, ["0", "written", "0"]);
    let status = fs::read_to_string(format!("/proc/{}/status", running.container.pid()))?;
    assert_eq!(line(&status, "Uid:").trim(), "100000\t100000\t100000\t100000");
    assert_eq!(line(&status, "Gid:").trim(), "100000\t100000\t100000\t100000");
    running.container.remove()?;
    Ok(())
}

fn rights_are_dockers() -> Outcome {
    let seen = run("cat /proc/self/status", &Network::None)?.stdout;
    for set in ["CapPrm:", "CapEff:", "CapBnd:"] {
        assert_eq!(line(&seen, set).trim(), "00000000a80425fb", "{set}");
    }
    for set in ["CapInh:", "CapAmb:"] {
        assert_eq!(line(&seen, set).trim(), "0000000000000000", "{set}");
    }
    assert_eq!(line(&seen, "NoNewPrivs:").trim(), "1");
    assert_eq!(line(&seen, "Seccomp:").trim(), "2");
    let mut user = spec("cat /proc/self/status")?;
    user.user.uid = 1000;
    user.user.gid = 1000;
    user.user.groups = vec![5, 7];
    let seen = start(&user, &Network::None)?.finish()?.stdout;
    assert_eq!(line(&seen, "Uid:").trim(), "1000\t1000\t1000\t1000");
    assert_eq!(line(&seen, "Groups:").trim(), "5 7");
    assert_eq!(line(&seen, "CapEff:").trim(), "0000000000000000");
    Ok(())
}

fn signals_are_reset() -> Outcome {
    // Rust's runtime ignores SIGPIPE; the container must not inherit that, nor anything else.
    let seen = run("exec cat /proc/self/status", &Network::None)?.stdout;
    for mask in ["SigBlk:", "SigIgn:"] {
        assert_eq!(line(&seen, mask).trim(), "0000000000000000", "{mask}");
    }
    Ok(())
}

fn rlimits_are_lowered() -> Outcome {
    const RLIMIT_NOFILE: u32 = 7;
    let mut wanted = spec("ulimit -n; ulimit -Hn")?;
    wanted.rlimits = vec![Rlimit { resource: RLIMIT_NOFILE, soft: 100, hard: 200 }];
    assert_eq!(start(&wanted, &Network::None)?.finish()?.lines(), ["100", "200"]);
    // More than the launcher has is what the launcher has.
    wanted.rlimits = vec![Rlimit { resource: RLIMIT_NOFILE, soft: u64::MAX, hard: u64::MAX }];
    let limits = fs::read_to_string("/proc/self/limits")?;
    let own = limits.lines().find(|line| line.starts_with("Max open files")).ok_or("no limit of open files")?;
    let own = own.split_whitespace().nth(4).ok_or("no hard limit")?;
    assert_eq!(start(&wanted, &Network::None)?.finish()?.lines(), [own, own]);
    Ok(())
}

fn limits_are_what_the_kernel_keeps() -> Outcome {
    let (limits, expected) = crate::cgroup::usual();
    let mut wanted = spec("sleep 30")?;
    wanted.limits = Some(limits);
    let running = start(&wanted, &Network::None)?;
    let group = running.container.group().ok_or("no group")?;
    crate::cgroup::check(group, &expected)?;
    for (controller, v1, v2) in expected {
        let place = group.place(controller).ok_or("no place")?;
        let (file, _) = if place.hierarchy == Hierarchy::V1 { v1 } else { v2 };
        assert!(running.container.applied().iter().any(|row| row.setting == file), "{file} was not read back");
    }
    running.container.remove()?;
    Ok(())
}

fn memory_limit_kills_and_is_told() -> Outcome {
    let mut wanted = spec("head -c 200m /dev/zero | tail")?;
    wanted.arguments = ["/bin/tail", "/dev/zero"].map(str::to_owned).to_vec();
    wanted.limits = Some(Limits {
        memory: Some(Limit::Value(24 << 20)),
        memory_and_swap: Some(Limit::Value(24 << 20)),
        ..Limits::default()
    });
    let mut running = start(&wanted, &Network::None)?;
    let reaped = running.container.wait()?;
    assert_eq!(reaped.status, ExitStatus::Signal(libc::SIGKILL));
    let usage = running.container.remove()?.usage.and_then(|usage| usage.memory).ok_or("no memory usage")?;
    assert!(usage.oom_kills >= 1, "{usage:?}");
    assert!(usage.peak.is_none_or(|peak| peak <= 24 << 20), "{usage:?}");
    Ok(())
}

/// The OOM killer ends all who share their memory with its victim: a container that has not come to its exec yet must
/// not share ours. That this test goes on is the proof.
fn a_start_without_memory_ends_alone() -> Outcome {
    let mut killed = 0;
    for kib in [4, 64, 128, 192] {
        let mut wanted = spec("true")?;
        let limit = Some(Limit::Value(kib << 10));
        wanted.limits = Some(Limits { memory: limit, memory_and_swap: limit, ..Limits::default() });
        let mut running = start(&wanted, &Network::None)?;
        if running.container.wait()?.status == ExitStatus::Signal(libc::SIGKILL) {
            let usage = running.container.remove()?.usage.and_then(|usage| usage.memory).ok_or("no memory usage")?;
            assert!(usage.oom_kills >= 1, "{kib} KiB: {usage:?}");
            killed += 1;
        }
    }
    assert!(killed >= 1, "no container ran out of memory");
    Ok(())
}

fn pids_limit_stops_forks() -> Outcome {
    let mut wanted = spec("for i in 1 2 3 4 5 6 7 8 9; do sleep 30 & done; wait")?;
    wanted.limits = Some(Limits { pids: Some(Limit::Value(5)), ..Limits::default() });
    let outcome = start(&wanted, &Network::None)?.finish()?;
    assert!(outcome.stderr.contains("can't fork"), "{outcome:?}");
    Ok(())
}

fn standard_devices_work() -> Outcome {
    let seen = run(
        "for d in null zero full random urandom tty; do stat -c '%n %t:%T %a' /dev/$d; done
         head -c 4 /dev/zero | od -An -tx1; head -c 8 /dev/urandom | wc -c
         echo x > /dev/full || echo full; for l in fd stdin ptmx; do readlink /dev/$l; done; test -c /dev/pts/ptmx && echo ptmx",
        &Network::None,
    )?;
    let expected = [
        "/dev/null 1:3 666",
        "/dev/zero 1:5 666",
        "/dev/full 1:7 666",
        "/dev/random 1:8 666",
        "/dev/urandom 1:9 666",
        "/dev/tty 5:0 666",
        " 00 00 00 00",
        "8",
        "full",
        "/proc/self/fd",
        "/proc/self/fd/0",
        "pts/ptmx",
        "ptmx",
    ];
    assert_eq!(seen.lines(), expected, "{seen:?}");
    Ok(())
}

fn exit_codes_and_signals_are_told() -> Outcome {
    assert_eq!(run("exit 7", &Network::None)?.status, ExitStatus::Code(7));
    let mut running = start(&spec("echo ready; exec sleep 30")?, &Network::None)?;
    running.line()?;
    running.container.signal(libc::SIGKILL)?;
    assert_eq!(running.container.wait()?.status, ExitStatus::Signal(libc::SIGKILL));
    running.container.remove()?;
    Ok(())
}

fn failure(arguments: &[&str]) -> Result<ContainerError, Box<dyn Error>> {
    failure_of(spec("")?, arguments)
}

fn failure_of(mut wanted: ContainerSpec, arguments: &[&str]) -> Result<ContainerError, Box<dyn Error>> {
    wanted.arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
    let mut running = start(&wanted, &Network::None)?;
    let error = running.container.wait().err().ok_or("it started")?;
    running.container.remove()?;
    Ok(error)
}

fn missing_and_unusable_programs_are_told_apart() -> Outcome {
    assert!(matches!(failure(&["nowhere"])?, ContainerError::ProgramNotFound(name) if name == "nowhere"));
    assert!(matches!(failure(&["/bin/nowhere"])?, ContainerError::ProgramNotFound(_)));
    let error = failure(&["/etc/passwd"])?;
    assert!(
        matches!(&error, ContainerError::ProgramNotExecutable { source, .. } if source.raw_os_error() == Some(libc::EACCES)),
        "{error:?}"
    );
    assert!(matches!(failure(&["/etc"])?, ContainerError::ProgramNotExecutable { .. }));
    // The kernel says ENOENT of a script whose interpreter is missing, too.
    let layer = tempfile::tempdir()?;
    let script = layer.path().join("bin/script");
    fs::create_dir(layer.path().join("bin"))?;
    fs::write(&script, "#!/nowhere/interpreter\n")?;
    fs::set_permissions(&script, PermissionsExt::from_mode(0o755))?;
    for name in ["/bin/script", "script"] {
        let mut wanted = spec("")?;
        wanted.root.layers.insert(0, layer.path().to_owned());
        let error = failure_of(wanted, &[name])?;
        assert!(matches!(&error, ContainerError::InterpreterNotFound(program) if program == name), "{error:?}");
    }
    Ok(())
}

fn a_failed_step_is_named() -> Outcome {
    let mut wanted = spec("true")?;
    wanted.root.layers = vec!["/nonexistent".into()];
    let error = match start(&wanted, &Network::None) {
        Err(error) => *error.downcast::<ContainerError>()?,
        Ok(mut running) => {
            let error = running.container.wait().err().ok_or("it started")?;
            running.container.remove()?;
            error
        }
    };
    assert_eq!(error.to_string(), "cannot mount overlay on root");
    assert_eq!(error.source().ok_or("no source")?.to_string(), "No such file or directory (os error 2)");
    let mut wanted = spec("true")?;
    // One that is missing would be made.
    wanted.working_directory = "/dev/null".to_owned();
    let mut running = start(&wanted, &Network::None)?;
    let error = running.container.wait().err().ok_or("it started")?;
    running.container.remove()?;
    assert_eq!(error.to_string(), "cannot change directory to /dev/null");
    Ok(())
}

fn read_only_root_cannot_be_written() -> Outcome {
    let mut wanted = spec("touch /x; touch /dev/shm/x && echo shm")?;
    wanted.read_only_root = true;
    let outcome = start(&wanted, &Network::None)?.finish()?;
    assert!(outcome.stderr.contains("Read-only file system"), "{outcome:?}");
    assert_eq!(outcome.stdout, "shm\n");
    Ok(())
}

fn the_writable_layer_is_bounded_and_private() -> Outcome {
    let mut wanted = spec("dd if=/dev/zero of=/big bs=1M count=20; ls -la /big | wc -l")?;
    wanted.writable = Writable::Memory { bytes: 8 << 20 };
    let outcome = start(&wanted, &Network::None)?.finish()?;
    assert!(outcome.stderr.contains("No space left on device"), "{outcome:?}");
    let next = run("test -e /big || echo gone", &Network::None)?;
    assert_eq!(next.stdout, "gone\n");
    Ok(())
}
