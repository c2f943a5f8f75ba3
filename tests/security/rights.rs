//! Rights that a container must not get: by namespaces of its own making, by what it inherits, by its groups, by keys.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use isobench::container::capabilities::CapabilitySet;
use isobench::container::spec::{Seccomp, User, UserMapping};
use isobench::container::{ContainerSpec, Network};
use isobench::image::WORKLOAD_PATH;
use isobench::sys::launch::ExitStatus;

use crate::harness::Case;
use crate::shell::{self, spec, start};
use crate::{ROLE, program};

type Outcome = Result<(), Box<dyn Error>>;

pub fn cases() -> Vec<Case> {
    let cases: [(&'static str, crate::harness::Body); 6] = [
        ("cve_2022_0492::release_agent_cannot_be_written", release_agent_cannot_be_written),
        ("cve_2022_29162::inheritable_capabilities_are_empty", inheritable_capabilities_are_empty),
        ("cve_2022_29162::a_file_hands_no_inheritable_capability_on", a_file_hands_no_capability_on),
        ("setgroups::a_user_has_only_its_groups_and_sets_none", a_user_has_only_its_groups),
        ("setgroups::groups_that_are_not_mapped_cannot_be_set", groups_that_are_not_mapped),
        ("setgroups::a_group_that_is_denied_stays_denied", a_group_that_is_denied),
    ];
    let one_call = Case::new("calls::keys_and_user_namespaces_are_refused", keys_and_user_namespaces_are_refused)
        .needs(program::RUNS, "needs an x86-64 processor");
    let all = cases.map(|(name, body)| Case::new(name, body)).into_iter().chain([one_call]);
    all.map(|case| case.needs(shell::present(), shell::NEEDED)).collect()
}

/// Takes the filter away, so that what refuses is the kernel alone.
fn unfiltered(wanted: &mut ContainerSpec) {
    wanted.seccomp = Seccomp::Unconfined;
}

/// The release agents of the host's v1 hierarchies.
fn release_agents() -> Result<BTreeMap<String, String>, Box<dyn Error>> {
    let mut found = BTreeMap::new();
    for line in fs::read_to_string("/proc/mounts")?.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        if fields.get(2) == Some(&"cgroup") {
            let path = format!("{}/release_agent", fields[1]);
            found.extend(fs::read_to_string(&path).ok().map(|content| (path, content)));
        }
    }
    Ok(found)
}

/// As it became known: a user and a cgroup namespace give the right to mount a hierarchy, and its agent is run by the
/// host's root. First as a container is; then without its filter, so that the kernel alone refuses; then without a
/// change of namespace, with the right to mount.
fn release_agent_cannot_be_written() -> Outcome {
    let before = release_agents()?;
    let attack = "mkdir -p /c; for h in memory cpu pids rdma devices; do
            mount -t cgroup -o $h cgroup /c && echo MOUNTED >&2 && echo /owned > /c/release_agent && cat /c/release_agent
        done";
    let script = format!(
        "cat > /attack <<'END'\n{attack}\nEND\n sh /attack; {WORKLOAD_PATH} {ROLE} new-namespaces /attack; echo tried"
    );
    let mut wanted = spec(&script)?;
    let mut tries = vec![wanted.clone()];
    unfiltered(&mut wanted);
    tries.push(wanted.clone());
    wanted.user_namespace = Some(UserMapping { host_start: 100_000, count: 65536 });
    tries.push(wanted.clone());
    // Root of a user namespace with every right over it.
    wanted.capabilities = CapabilitySet(CapabilitySet::docker_default().0 | CapabilitySet::of(&["SYS_ADMIN"]).0);
    tries.push(wanted);
    let mut mounted = Vec::new();
    for wanted in tries {
        let outcome = start(&wanted, &Network::None)?.finish()?;
        assert_eq!(outcome.stdout.trim(), "tried", "{outcome:?}");
        assert_eq!(release_agents()?, before);
        mounted.push(outcome.stderr.contains("MOUNTED"));
    }
    // With the filter not even the mount succeeds.
    assert!(!mounted[0], "a hierarchy was mounted behind the filter");
    // Without it one does, where the host has any, so that it is the agent's file that cannot be had.
    assert!(before.is_empty() || mounted[1..].contains(&true), "no hierarchy was mounted, so no agent was tried");
    Ok(())
}

/// Inside a container: new user, mount and cgroup namespaces, root in them, and a script there.
pub fn new_namespaces(script: &str) -> Outcome {
    use nix::sched::CloneFlags;
    let (user, group) = (nix::unistd::geteuid(), nix::unistd::getegid());
    nix::sched::unshare(CloneFlags::CLONE_NEWUSER)?;
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("0 {user} 1"))?;
    fs::write("/proc/self/gid_map", format!("0 {group} 1"))?;
    nix::sched::unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWCGROUP)?;
    std::process::Command::new("/bin/sh").arg(script).status()?;
    Ok(())
}

fn sets(wanted: &ContainerSpec) -> Result<BTreeMap<String, String>, Box<dyn Error>> {
    let outcome = start(wanted, &Network::None)?.finish()?;
    let of = |line: &str| line.split_once(":\t").map(|(name, value)| (name.to_owned(), value.to_owned()));
    let found: BTreeMap<String, String> = outcome.stdout.lines().filter_map(of).collect();
    if found.contains_key("CapInh") { Ok(found) } else { Err(format!("{outcome:?}").into()) }
}

const NONE: &str = "0000000000000000";

fn users() -> [User; 2] {
    [User::default(), User { uid: 1000, gid: 1000, groups: vec![1000] }]
}

fn inheritable_capabilities_are_empty() -> Outcome {
    for user in users() {
        for namespace in [None, Some(UserMapping { host_start: 100_000, count: 65536 })] {
            for capabilities in [CapabilitySet::docker_default(), CapabilitySet::of(&["NET_RAW", "SYS_ADMIN"])] {
                let mut wanted = spec("cat /proc/self/status")?;
                (wanted.user, wanted.user_namespace, wanted.capabilities) = (user.clone(), namespace, capabilities);
                let found = sets(&wanted)?;
                assert_eq!((found["CapInh"].as_str(), found["CapAmb"].as_str()), (NONE, NONE), "{found:?}");
                assert_eq!(found["CapBnd"], format!("{:016x}", capabilities.0));
            }
        }
    }
    Ok(())
}

/// A file whose inheritable set has NET_RAW gives it to those who have it inheritable: no one here.
fn a_file_hands_no_capability_on() -> Outcome {
    const NET_RAW: u32 = 1 << 13;
    let layer = tempfile::tempdir()?;
    let file = layer.path().join("busybox-inheritable");
    fs::copy(shell::BUSYBOX, &file)?;
    fs::set_permissions(&file, PermissionsExt::from_mode(0o755))?;
    // The second version of the kernel's form: flags, then permitted and inheritable, lower and upper halves.
    let (version_and_effective, halves) = (0x0200_0001_u32, [0, NET_RAW, 0, 0]);
    let value: Vec<u8> = [version_and_effective].into_iter().chain(halves).flat_map(u32::to_le_bytes).collect();
    rustix::fs::setxattr(&file, "security.capability", &value, rustix::fs::XattrFlags::empty())?;
    let mut wanted = spec("/busybox-inheritable cat /proc/self/status")?;
    wanted.root.layers.insert(0, layer.path().to_owned());
    wanted.no_new_privileges = false;
    unfiltered(&mut wanted);
    wanted.user = users()[1].clone();
    let found = sets(&wanted)?;
    assert_eq!((found["CapPrm"].as_str(), found["CapEff"].as_str()), (NONE, NONE), "{found:?}");
    // The same file with NET_RAW in its permitted set gives it, so that the attribute is seen at all.
    let permitted: Vec<u8> = [version_and_effective, NET_RAW, 0, 0, 0].into_iter().flat_map(u32::to_le_bytes).collect();
    rustix::fs::setxattr(&file, "security.capability", &permitted, rustix::fs::XattrFlags::empty())?;
    assert_eq!(sets(&wanted)?["CapPrm"], format!("{NET_RAW:016x}"));
    Ok(())
}

/// Inside a container: sets one group, tells how it went.
pub fn set_groups(group: &str) -> Outcome {
    let outcome = nix::unistd::setgroups(&[nix::unistd::Gid::from_raw(group.parse()?)]);
    println!("{}", outcome.err().map_or("set".to_owned(), |errno| format!("{errno:?}")));
    Ok(())
}

fn setting_groups(wanted: &mut ContainerSpec, group: &str) -> Result<String, Box<dyn Error>> {
    wanted.arguments = [WORKLOAD_PATH, ROLE, "set-groups", group].map(str::to_owned).to_vec();
    Ok(start(wanted, &Network::None)?.finish()?.stdout.trim().to_owned())
}

fn a_user_has_only_its_groups() -> Outcome {
    for groups in [vec![], vec![7, 9]] {
        let mut wanted = spec("sed -n 's/^Groups:[\\t ]*//p' /proc/self/status")?;
        wanted.user = User { uid: 1000, gid: 1000, groups: groups.clone() };
        let seen = start(&wanted, &Network::None)?.finish()?.stdout;
        let expected: Vec<String> = groups.iter().map(u32::to_string).collect();
        assert_eq!(seen.split_whitespace().collect::<Vec<_>>(), expected, "the harness's own groups are no one's");
        for group in ["0", "7", "1000"] {
            assert_eq!(setting_groups(&mut wanted, group)?, "EPERM");
        }
    }
    Ok(())
}

fn groups_that_are_not_mapped() -> Outcome {
    let mut wanted = spec("")?;
    wanted.user_namespace = Some(UserMapping { host_start: 100_000, count: 1000 });
    assert_eq!(setting_groups(&mut wanted, "999")?, "set");
    for group in ["1000", "100000", "4294967294"] {
        assert_eq!(setting_groups(&mut wanted, group)?, "EINVAL", "{group}");
    }
    // A user of it may not, root's mapping or not.
    wanted.user = User { uid: 5, gid: 5, groups: vec![5] };
    assert_eq!(setting_groups(&mut wanted, "5")?, "EPERM");
    Ok(())
}

/// A file that its group may not read stays closed to a member of it, who cannot leave the group by a user namespace.
fn a_group_that_is_denied() -> Outcome {
    let layer = tempfile::tempdir()?;
    let file = layer.path().join("denied");
    fs::write(&file, "secret\n")?;
    std::os::unix::fs::chown(&file, Some(0), Some(7))?;
    fs::set_permissions(&file, PermissionsExt::from_mode(0o604))?;
    for filtered in [true, false] {
        let mut wanted = spec("cat /denied; unshare -U cat /denied; unshare -U -r sh -c 'cat /denied'; true")?;
        wanted.root.layers.insert(0, layer.path().to_owned());
        wanted.user = User { uid: 1000, gid: 1000, groups: vec![7] };
        if !filtered {
            unfiltered(&mut wanted);
        }
        let outcome = start(&wanted, &Network::None)?.finish()?;
        assert_eq!(outcome.stdout, "", "{outcome:?}");
    }
    Ok(())
}

/// A case of the test below: its name, and what is asked and answered.
type Call = (&'static str, u32, [i32; 3], i32, Option<i32>);

/// Each call is one program. With the filter it is refused; without it, it is not, so that the filter is what refuses.
fn keys_and_user_namespaces_are_refused() -> Outcome {
    const NEW_USER: i32 = 0x1000_0000;
    const SIGCHLD: i32 = 17;
    let calls: [Call; 6] = [
        ("keyctl", 250, [0, -3, 0], libc::EPERM, Some(0)), // the session's keyring
        ("add-key", 248, [0, 0, 0], libc::EPERM, Some(libc::EFAULT)),
        ("request-key", 249, [0, 0, 0], libc::EPERM, Some(libc::EFAULT)),
        ("unshare", 272, [NEW_USER, 0, 0], libc::EPERM, Some(0)),
        ("clone", 56, [NEW_USER | SIGCHLD, 0, 0], libc::EPERM, Some(0)),
        ("clone3", 435, [0, 0, 0], libc::ENOSYS, Some(libc::EINVAL)),
    ];
    let layer = tempfile::tempdir()?;
    for (name, number, arguments, ..) in calls {
        program::write(&layer.path().join(name), number, arguments)?;
    }
    for (name, _, _, with_filter, without) in calls {
        for (filtered, expected) in [(true, Some(with_filter)), (false, without)] {
            let mut wanted = spec("")?;
            wanted.root.layers.insert(0, layer.path().to_owned());
            wanted.arguments = vec![format!("/{name}")];
            if !filtered {
                unfiltered(&mut wanted);
            }
            let status = start(&wanted, &Network::None)?.finish()?.status;
            assert_eq!(Some(status), expected.map(ExitStatus::Code), "{name}, filtered: {filtered}");
        }
    }
    Ok(())
}
