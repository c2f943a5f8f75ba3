//! Golden plans, and what is refused.

use expect_test::{Expect, expect};

use super::super::spec::{Mount, MountSource, Propagation, Rlimit, UserMapping, Writable};
use super::*;
use crate::image::RootFs;
use crate::sys::attach::Source;
use crate::sys::mount::attribute;
use crate::sys::plan::Step;

fn spec() -> ContainerSpec {
    let root = RootFs { layers: vec!["/top".into(), "/bottom".into()] };
    ContainerSpec::new(root, vec!["program".to_owned(), "argument".to_owned()])
}

const WIRING: Wiring = Wiring {
    parent: Some(9),
    stdio: [5, 6, 7],
    join_network: None,
    await_network: true,
    born_in_group: false,
    doors: Vec::new(),
    terminal: None,
    joins: false,
    guard: None,
    opened: Opened { root: None, binds: Vec::new() },
};

/// The plan as text, one step a line; what a step's own text leaves out is not repeated here.
fn check(spec: &ContainerSpec, wiring: &Wiring, expected: &Expect) {
    let plan = compile(spec, wiring).unwrap();
    let lines: Vec<String> = plan.steps.iter().map(|step| format!("{}: {}\n", step.phase, step.op)).collect();
    expected.assert_eq(&lines.concat());
}

#[test]
fn a_bridged_container() {
    check(
        &spec(),
        &WIRING,
        &expect![[r#"
            isolate: tie the container's life to the launcher's
            isolate: reset signals
            isolate: set the umask
            isolate: change the mount /
            writable: mount tmpfs on /run/isobench/root
            writable: change directory to /run/isobench/root
            writable: make the directory upper
            writable: make the directory work
            writable: make the directory root
            writable: make the directory empty
            overlay: mount overlay on root
            pivot: pivot_root into the container's root
            proc: make the directory /proc
            proc: mount proc on /proc
            sys: make the directory /sys
            sys: mount sysfs on /sys
            dev: make the directory /dev
            dev: mount tmpfs on /dev
            dev: make the device node /dev/null
            dev: make the device node /dev/zero
            dev: make the device node /dev/full
            dev: make the device node /dev/random
            dev: make the device node /dev/urandom
            dev: make the device node /dev/tty
            dev: make the symbolic link /dev/fd
            dev: make the symbolic link /dev/stdin
            dev: make the symbolic link /dev/stdout
            dev: make the symbolic link /dev/stderr
            dev: make the symbolic link /dev/ptmx
            dev: make the symbolic link /dev/core
            devpts: make the directory /dev/pts
            devpts: mount devpts on /dev/pts
            shm: make the directory /dev/shm
            shm: mount tmpfs on /dev/shm
            mqueue: make the directory /dev/mqueue
            mqueue: mount mqueue on /dev/mqueue
            mask: make sure of the device /dev/null
            mask: mask /proc/acpi
            mask: mask /proc/asound
            mask: mask /proc/interrupts
            mask: mask /proc/kcore
            mask: mask /proc/keys
            mask: mask /proc/latency_stats
            mask: mask /proc/sched_debug
            mask: mask /proc/scsi
            mask: mask /proc/timer_list
            mask: mask /sys/firmware
            mask: make /proc/bus read-only
            mask: make /proc/fs read-only
            mask: make /proc/irq read-only
            mask: make /proc/sys read-only
            mask: make /proc/sysrq-trigger read-only
            pivot: change directory to /
            pivot: detach the host's root
            identity: set the host name isobench
            network: bring lo up
            wait_cgroup: wait for Cgroup
            identity: make a cgroup namespace
            wait_network: wait for Network
            confine: start a session
            confine: connect descriptor 0
            confine: connect descriptor 1
            confine: connect descriptor 2
            confine: reduce the capability bounding set
            confine: become user 0:0
            confine: tie the container's life to the launcher's
            confine: close descriptors from 3
            confine: set capabilities
            confine: set the umask
            confine: change directory to /
            confine: set no_new_privs
            seccomp: install the seccomp filter
            exec: execute program
        "#]],
    );
}

#[test]
fn a_user_namespace_binds_devices_and_joins_first() {
    let mut spec = spec();
    spec.user_namespace = Some(UserMapping { host_start: 100_000, count: 65536 });
    spec.mask_paths = false;
    spec.seccomp = Seccomp::Unconfined;
    spec.limits = None;
    spec.rlimits = vec![Rlimit { resource: 7, soft: 100, hard: 200 }];
    let wiring = Wiring { join_network: Some(4), await_network: false, ..WIRING };
    check(
        &spec,
        &wiring,
        &expect![[r#"
        isolate: tie the container's life to the launcher's
        isolate: reset signals
        isolate: set the umask
        network: join the net namespace
        wait_user_map: wait for UserMap
        isolate: become user 0:0
        isolate: tie the container's life to the launcher's
        isolate: change the mount /
        writable: mount tmpfs on /run/isobench/root
        writable: change directory to /run/isobench/root
        writable: make the directory upper
        writable: make the directory work
        writable: make the directory root
        writable: make the directory empty
        overlay: mount overlay on root
        dev: take the mount /dev/null
        dev: take the mount /dev/zero
        dev: take the mount /dev/full
        dev: take the mount /dev/random
        dev: take the mount /dev/urandom
        dev: take the mount /dev/tty
        pivot: pivot_root into the container's root
        proc: make the directory /proc
        proc: mount proc on /proc
        sys: make the directory /sys
        sys: mount tmpfs on /sys
        dev: make the directory /dev
        dev: mount tmpfs on /dev
        dev: make the file /dev/null
        dev: put a mount on /dev/null
        dev: make the file /dev/zero
        dev: put a mount on /dev/zero
        dev: make the file /dev/full
        dev: put a mount on /dev/full
        dev: make the file /dev/random
        dev: put a mount on /dev/random
        dev: make the file /dev/urandom
        dev: put a mount on /dev/urandom
        dev: make the file /dev/tty
        dev: put a mount on /dev/tty
        dev: make the symbolic link /dev/fd
        dev: make the symbolic link /dev/stdin
        dev: make the symbolic link /dev/stdout
        dev: make the symbolic link /dev/stderr
        dev: make the symbolic link /dev/ptmx
        dev: make the symbolic link /dev/core
        devpts: make the directory /dev/pts
        devpts: mount devpts on /dev/pts
        shm: make the directory /dev/shm
        shm: mount tmpfs on /dev/shm
        mqueue: make the directory /dev/mqueue
        mqueue: mount mqueue on /dev/mqueue
        pivot: change directory to /
        pivot: detach the host's root
        identity: set the host name isobench
        identity: make a cgroup namespace
        confine: start a session
        confine: connect descriptor 0
        confine: connect descriptor 1
        confine: connect descriptor 2
        confine: reduce the capability bounding set
        confine: close descriptors from 3
        confine: set rlimit 7 to 100:200
        confine: set capabilities
        confine: set the umask
        confine: change directory to /
        confine: set no_new_privs
        exec: execute program
    "#]],
    );
    assert_eq!(clone_flags(&spec, &wiring) & libc::CLONE_NEWNET as u64, 0);
    assert_ne!(clone_flags(&spec, &wiring) & libc::CLONE_NEWUSER as u64, 0);
}

#[test]
fn a_child_that_is_born_in_its_group_waits_for_none() {
    let steps = |wiring: &Wiring| -> Vec<String> {
        compile(&spec(), wiring).unwrap().steps.iter().map(|step| step.op.to_string()).collect()
    };
    let born = Wiring { born_in_group: true, ..WIRING };
    let (mut attached, born_steps) = (steps(&WIRING), steps(&born));
    attached.retain(|step| step != "wait for Cgroup" && step != "make a cgroup namespace");
    assert_eq!(attached, born_steps);
    let namespace = |wiring| clone_flags(&spec(), wiring) & libc::CLONE_NEWCGROUP as u64;
    assert_eq!((namespace(&WIRING), namespace(&born)), (0, libc::CLONE_NEWCGROUP as u64));
}

/// Each change of user makes the kernel forget the parent-death signal.
#[test]
fn every_change_of_user_is_followed_by_the_tie_to_the_launcher() {
    for (uid, mapping) in [(0, None), (1000, None), (0, Some(100_000)), (1000, Some(100_000))] {
        let mut spec = spec();
        spec.user.uid = uid;
        spec.user_namespace = mapping.map(|host_start| UserMapping { host_start, count: 65536 });
        let steps = compile(&spec, &WIRING).unwrap().steps;
        let ties: Vec<usize> = positions(&steps, |op| matches!(op, Op::DieWithParent { parent: 9 }));
        let users = positions(&steps, |op| matches!(op, Op::User { .. }));
        let expected: Vec<usize> = [0].into_iter().chain(users.iter().map(|user| user + 1)).collect();
        assert_eq!(ties, expected, "{uid} {mapping:?}");
        let close = positions(&steps, |op| matches!(op, Op::CloseFrom(_)));
        assert!(close.len() == 1 && close[0] > ties[ties.len() - 1], "the launcher's descriptor is closed before");
        // A detached container is tied to nobody.
        let steps = compile(&spec, &Wiring { parent: None, ..WIRING }).unwrap().steps;
        assert_eq!(positions(&steps, |op| matches!(op, Op::DieWithParent { .. })), [0; 0]);
    }
}

fn positions(steps: &[Step], is: impl Fn(&Op) -> bool) -> Vec<usize> {
    steps.iter().enumerate().filter(|(_, step)| is(&step.op)).map(|(index, _)| index).collect()
}

#[test]
fn a_program_is_looked_for_along_the_path() {
    let mut spec = spec();
    spec.environment = vec!["PATH=/a:/b/".to_owned()];
    let Ok(Op::Exec { paths, .. }) = exec(&spec, false) else { panic!("no exec") };
    assert_eq!(paths, [c"/a/program".to_owned(), c"/b/program".to_owned()]);
    spec.arguments[0] = "./program".to_owned();
    let Ok(Op::Exec { paths, .. }) = exec(&spec, false) else { panic!("no exec") };
    assert_eq!(paths, [c"./program".to_owned()]);
}

#[test]
fn what_cannot_be_made_is_refused_before_anything_is_touched() {
    let refused = |change: fn(&mut ContainerSpec)| {
        let mut spec = spec();
        change(&mut spec);
        compile(&spec, &WIRING).unwrap_err().to_string()
    };
    assert_eq!(refused(|spec| spec.arguments.clear()), "no program to run: give at least one argument");
    assert_eq!(refused(|spec| spec.root.layers.clear()), "the image has no layer");
    assert_eq!(
        refused(|spec| spec.working_directory = "tmp".to_owned()),
        "the working directory `tmp` is not absolute"
    );
    assert_eq!(refused(|spec| spec.arguments[1] = "a\0b".to_owned()), "an argument holds a NUL byte: \"a\\0b\"");
    assert!(refused(|spec| spec.hostname = "h".repeat(65)).ends_with("longer than 64 bytes"));
    assert!(refused(|spec| spec.root.layers[0] = "/a:b".into()).contains("colon"));
}

#[test]
fn an_overlay_goes_by_the_attributes_that_its_mounter_can_read() {
    let options = |spec: &ContainerSpec| {
        let plan = compile(spec, &WIRING).unwrap();
        let mounts = plan.steps.into_iter().filter_map(|step| match step.op {
            Op::Mount { fstype: Some(kind), data: Some(data), .. } if kind.as_bytes() == b"overlay" => Some(data),
            _ => None,
        });
        mounts.map(|data| data.into_string().unwrap()).collect::<Vec<_>>().concat()
    };
    let mut spec = spec();
    assert_eq!(
        options(&spec),
        "lowerdir=/top:/bottom,upperdir=upper,workdir=work,redirect_dir=off,metacopy=off",
        "an upper layer is one by itself"
    );
    spec.user_namespace = Some(UserMapping { host_start: 100_000, count: 65536 });
    assert_eq!(options(&spec), "lowerdir=/top:/bottom,upperdir=upper,workdir=work,userxattr");
}

/// The steps of these phases, as text.
fn phases(spec: &ContainerSpec, wiring: &Wiring, wanted: &[&str]) -> Vec<String> {
    let steps = compile(spec, wiring).unwrap().steps.into_iter().filter(|step| wanted.contains(&step.phase));
    steps.map(|step| step.op.to_string()).collect()
}

fn mount(source: MountSource, target: &str) -> Mount {
    Mount { source, target: target.to_owned(), read_only: false, propagation: Propagation::default(), recursive: true }
}

#[test]
fn mounts_come_when_the_hosts_root_is_gone_and_short_targets_first() {
    let mut spec = spec();
    spec.read_only_root = true;
    let bind = MountSource::Bind { path: "/host/dir".into(), id_mapped: false };
    spec.mounts = vec![mount(bind, "/a/b/"), mount(MountSource::Tmpfs { options: "size=1m,exec".to_owned() }, "/a")];
    let opened = Opened { root: None, binds: vec![Some((12, true)), None] };
    let wiring = Wiring { opened, ..WIRING };
    let steps = compile(&spec, &wiring).unwrap().steps;
    let mounts = positions(&steps, |op| matches!(op, Op::Attach(_)));
    assert!(mounts[0] > positions(&steps, |op| *op == Op::DetachOldRoot)[0]);
    assert_eq!(
        phases(&spec, &wiring, &["mounts"]),
        ["mount tmpfs on /a", "mount /host/dir on /a/b", "change the mount /"]
    );
    let sources = steps.iter().filter_map(|step| match &step.op {
        Op::Attach(attachment) => Some(attachment.source.clone()),
        _ => None,
    });
    let options = vec![(c"size".to_owned(), c"1m".to_owned())];
    let attributes = attribute::NO_SUID | attribute::NO_DEVICES;
    let expected = [Source::Memory { options, attributes }, Source::Opened { fd: 12, directory: true }];
    assert_eq!(sources.collect::<Vec<_>>(), expected);
    // The root is written to until then.
    let read_only = |op: &Op| {
        matches!(op, Op::Mount { fstype: Some(kind), flags, .. }
        if kind.as_bytes() == b"overlay" && flags & libc::MS_RDONLY != 0)
    };
    assert_eq!(positions(&steps, read_only), [0; 0]);
}

#[test]
fn an_id_mapped_root_is_mounted_from_the_staging_directory() {
    let root = RootFs { layers: vec!["/elsewhere/top".into(), "/store/b".into(), "/store/a".into()] };
    let mut spec = ContainerSpec::new(root, vec!["program".to_owned()]);
    spec.writable = Writable::Directory { upper: "/c/1/upper".into(), work: "/c/1/work".into() };
    let options = |spec: &ContainerSpec, wiring: &Wiring| -> Vec<String> {
        let steps = compile(spec, wiring).unwrap().steps.into_iter();
        let overlay = steps.filter_map(|step| match step.op {
            Op::Mount { fstype: Some(kind), data: Some(data), .. } if kind.as_bytes() == b"overlay" => Some(data),
            _ => None,
        });
        overlay.map(|data| data.into_string().unwrap()).collect()
    };
    assert_eq!(
        options(&spec, &WIRING),
        ["lowerdir=/elsewhere/top:b:a,upperdir=/c/1/upper,workdir=/c/1/work,redirect_dir=off,metacopy=off"]
    );
    assert_eq!(phases(&spec, &WIRING, &["writable"]).len(), 3, "only `root` and `empty` are made");
    spec.user_namespace = Some(UserMapping { host_start: 100_000, count: 65536 });
    let opened =
        Opened { root: Some(OpenedRoot { base: Some(20), others: vec![21], writable: 22 }), binds: Vec::new() };
    let wiring = Wiring { opened, ..WIRING };
    let staging = "/run/isobench/root";
    assert_eq!(
        options(&spec, &wiring),
        [format!("lowerdir={staging}/layer0:b:a,upperdir={staging}/disk/upper,workdir={staging}/disk/work,userxattr")]
    );
    let steps = compile(&spec, &wiring).unwrap().steps;
    let placed = steps.iter().filter_map(|step| match &step.op {
        Op::PlaceOpened { mount, target } => Some((*mount, target.to_str().unwrap().to_owned())),
        _ => None,
    });
    let expected = [(20, "layers"), (21, "layer0"), (22, "disk")].map(|(fd, name)| (fd, format!("{staging}/{name}")));
    assert_eq!(placed.collect::<Vec<_>>(), expected);
    spec.writable = Writable::Directory { upper: "/c/1/upper".into(), work: "/c/2/work".into() };
    assert!(compile(&spec, &wiring).unwrap_err().to_string().ends_with("are not side by side"));
}
