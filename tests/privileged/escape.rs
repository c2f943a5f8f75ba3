//! Ways out of a container that must be closed, each tried from inside as root, by busybox or, for calls that it does not
//! make, by this program.

use std::error::Error;
use std::fs;
use std::os::fd::AsRawFd;
use std::process::{Child, Command};

use isobench::cgroup::Limits;
use isobench::cgroup::devices::{Kind, Rule};
use isobench::container::Network;
use isobench::container::capabilities::CapabilitySet;
use isobench::image::WORKLOAD_PATH;
use nix::sys::ptrace;
use nix::unistd::Pid;

use crate::harness::Case;
use crate::role;
use crate::shell::{self, run, spec, start};

type Outcome = Result<(), Box<dyn Error>>;

pub fn cases() -> Vec<Case> {
    let cases: [(&'static str, crate::harness::Body); 11] = [
        ("escape::kernel_files_cannot_be_written", kernel_files_cannot_be_written),
        ("escape::masked_paths_are_empty", masked_paths_are_empty),
        ("escape::a_block_device_cannot_be_made", a_block_device_cannot_be_made),
        ("escape::a_device_that_is_not_permitted_cannot_be_opened", a_device_that_is_not_permitted_cannot_be_opened),
        ("escape::nothing_can_be_mounted", nothing_can_be_mounted),
        ("escape::no_namespace_can_be_made", no_namespace_can_be_made),
        ("escape::processes_outside_cannot_be_touched", processes_outside_cannot_be_touched),
        ("escape::processes_outside_cannot_be_traced", processes_outside_cannot_be_traced),
        ("escape::no_descriptor_leaks", no_descriptor_leaks),
        ("escape::the_root_is_the_top", the_root_is_the_top),
        ("escape::release_agent_cannot_be_set", release_agent_cannot_be_set),
    ];
    cases.map(|(name, body)| Case::new(name, body).needs(shell::present(), shell::NEEDED)).into()
}

/// Every attempt fails with one of these texts; the shell goes on after each.
fn refused(script: &str, attempts: usize, texts: &[&str]) -> Outcome {
    let outcome = run(script, &Network::None)?;
    let refusals = outcome.stderr.lines().filter(|line| texts.iter().any(|text| line.contains(text))).count();
    assert_eq!(refusals, attempts, "{outcome:#?}");
    assert!(!outcome.stdout.contains("SUCCESS"), "{outcome:#?}");
    Ok(())
}

fn kernel_files_cannot_be_written() -> Outcome {
    // Writing `h` to sysrq-trigger would only print help: harmless should it succeed.
    let script = "echo h > /proc/sysrq-trigger && echo SUCCESS
        echo 1 > /proc/sys/kernel/printk && echo SUCCESS
        echo x > /proc/sys/kernel/core_pattern && echo SUCCESS
        echo 1 > /sys/kernel/profiling && echo SUCCESS
        echo 1 > /proc/irq/default_smp_affinity && echo SUCCESS";
    refused(script, 5, &["Read-only file system", "nonexistent directory", "Permission denied"])
}

fn masked_paths_are_empty() -> Outcome {
    let outcome = run(
        "for p in kcore keys timer_list interrupts sched_debug latency_stats; do
             test -e /proc/$p && wc -c < /proc/$p; done
         for p in /proc/acpi /proc/scsi /sys/firmware; do test -e $p && ls -A $p && touch $p/x; done",
        &Network::None,
    )?;
    assert!(outcome.lines().len() >= 3, "{outcome:?}");
    assert!(outcome.lines().iter().all(|line| *line == "0"), "{outcome:?}");
    assert!(outcome.stderr.lines().all(|line| line.contains("Read-only")), "{outcome:?}");
    Ok(())
}

fn a_block_device_cannot_be_made() -> Outcome {
    let script = "mknod /tmp/loop b 7 0 && echo SUCCESS
        mknod /tmp/disk b 254 0 && echo SUCCESS
        mknod /tmp/mem c 1 1 && echo SUCCESS
        mknod /tmp/kmsg c 1 11 && echo SUCCESS";
    refused(script, 4, &["Operation not permitted"])?;
    // What is permitted can be made, so that the refusals above are the device rules' doing.
    assert_eq!(run("mknod /tmp/null c 1 3 && echo made", &Network::None)?.stdout, "made\n");
    Ok(())
}

fn a_device_that_is_not_permitted_cannot_be_opened() -> Outcome {
    // Making the node is permitted here, so that the refusal comes at the open.
    let mut wanted = spec("mknod /dev/kmsg c 1 11 && echo made; head -c 1 /dev/kmsg && echo SUCCESS")?;
    let only_make =
        Rule { allow: true, kind: Kind::Char, major: Some(1), minor: Some(11), read: false, write: false, mknod: true };
    wanted.limits = Some(Limits { devices: vec![only_make], ..Limits::default() });
    let outcome = start(&wanted, &Network::None)?.finish()?;
    assert_eq!(outcome.stdout, "made\n", "{outcome:?}");
    assert!(outcome.stderr.contains("Operation not permitted"), "{outcome:?}");
    Ok(())
}

fn nothing_can_be_mounted() -> Outcome {
    let script = "mkdir /m; mount -t tmpfs tmpfs /m && echo SUCCESS
        mount -t proc proc /m && echo SUCCESS
        mount -o bind / /m && echo SUCCESS
        mount -o remount,rw /sys && echo SUCCESS
        umount /proc/kcore && echo SUCCESS";
    refused(script, 5, &["ermission denied", "not permitted"])
}

fn no_namespace_can_be_made() -> Outcome {
    let script = "unshare -m true && echo SUCCESS
        unshare -U true && echo SUCCESS
        unshare -n true && echo SUCCESS
        nsenter -t 1 -m true && echo SUCCESS
        chroot /tmp /nowhere 2>/dev/null; hostname other && echo SUCCESS";
    refused(script, 5, &["not permitted"])
}

fn processes_outside_cannot_be_touched() -> Outcome {
    let outside = std::process::id();
    let script = format!(
        "test -e /proc/{outside}/status && echo SUCCESS
         kill -0 {outside} && echo SUCCESS
         ls /proc/1/root/work /proc/1/cwd/work 2>/dev/null && echo SUCCESS; true"
    );
    let outcome = run(&script, &Network::None)?;
    assert!(!outcome.stdout.contains("SUCCESS"), "{outcome:?}");
    assert!(outcome.stderr.contains("No such process"), "{outcome:?}");
    Ok(())
}

/// A process that would let itself be traced; ended on drop.
struct Outside(Child);

impl Drop for Outside {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Role, inside: tries to trace a process by both calls there are, and says what the kernel said.
pub fn trace(pid: &str) -> Outcome {
    let pid = Pid::from_raw(pid.parse()?);
    for (call, outcome) in [("attach", ptrace::attach(pid)), ("seize", ptrace::seize(pid, ptrace::Options::empty()))] {
        println!("{call} {}", outcome.map_or_else(|errno| format!("{errno:?}"), |()| "SUCCESS".to_owned()));
    }
    Ok(())
}

fn processes_outside_cannot_be_traced() -> Outcome {
    let mut outside = Outside(Command::new("sleep").arg("60").spawn()?);
    let pid = outside.0.id().to_string();
    let attempt = |capabilities| -> Result<Vec<String>, Box<dyn Error>> {
        let mut wanted = spec("")?;
        wanted.arguments = [WORKLOAD_PATH, role::SUBCOMMAND, "trace", &pid].map(str::to_owned).to_vec();
        wanted.capabilities = capabilities;
        let outcome = start(&wanted, &Network::None)?.finish()?;
        assert!(outcome.stderr.is_empty(), "{outcome:?}");
        Ok(outcome.lines().into_iter().map(str::to_owned).collect())
    };
    // By default the filter refuses the call, whoever is meant.
    let ordinary = CapabilitySet::docker_default();
    assert_eq!(attempt(ordinary)?, ["attach EPERM", "seize EPERM"]);
    // With the right to trace, the filter lets the call through; then there is no such process inside.
    let tracer = CapabilitySet(ordinary.0 | CapabilitySet::of(&["SYS_PTRACE"]).0);
    assert_eq!(attempt(tracer)?, ["attach ESRCH", "seize ESRCH"]);
    assert!(outside.0.try_wait()?.is_none(), "the process outside had ended");
    Ok(())
}

fn no_descriptor_leaks() -> Outcome {
    // Descriptors that a careless caller left open across exec: a directory of the host and a high number.
    let host = fs::File::open("/")?;
    nix::fcntl::fcntl(&host, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty()))?;
    let high = nix::fcntl::fcntl(&host, nix::fcntl::FcntlArg::F_DUPFD(900))?;
    assert!(high >= 900 && host.as_raw_fd() > 2);
    let outcome = run("exec ls -l /proc/self/fd", &Network::None)?;
    let links: Vec<&str> = outcome.lines().into_iter().filter(|line| !line.starts_with("total")).collect();
    // 0, 1, 2 and the one with which `ls` reads the directory.
    assert_eq!(links.len(), 4, "{outcome:#?}");
    nix::unistd::close(high)?;
    Ok(())
}

fn the_root_is_the_top() -> Outcome {
    let outcome = run(
        "cd /; cd ../../../..; pwd; ls -id / /.. | awk '{print $1}' | uniq | wc -l
         readlink /proc/self/cwd; readlink /proc/1/root; ls /run/isobench 2>/dev/null && echo SUCCESS; true",
        &Network::None,
    )?;
    assert_eq!(outcome.lines(), ["/", "1", "/", "/"], "{outcome:?}");
    let mut wanted = spec("pwd")?;
    wanted.working_directory = "/proc/self/fd/7".to_owned();
    assert!(start(&wanted, &Network::None)?.finish().is_err(), "a working directory behind a descriptor was taken");
    Ok(())
}

fn release_agent_cannot_be_set() -> Outcome {
    let script = "mkdir /c; mount -t cgroup -o rdma cgroup /c && echo SUCCESS
        mount -t cgroup2 cgroup2 /c && echo SUCCESS
        unshare -Ur true && echo SUCCESS
        find / -name release_agent 2>/dev/null | grep -q . && echo SUCCESS; true";
    refused(script, 3, &["ermission denied", "not permitted"])
}
