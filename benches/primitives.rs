//! What each primitive of isolation costs on its own: namespaces, cgroups, overlay, bridge, published ports.
//!
//! `cargo bench --bench primitives`; needs root. Groups that this host cannot run are named and left out.

use std::ffi::CString;
use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};

use isobench::cgroup::{Controller, Group, Layout, Limits};
use isobench::container::ContainerSpec;
use isobench::container::plan::{self, Wiring};
use isobench::image::{RootFs, embedded};
use isobench::lab::Lab;
use isobench::netlink::nftables::{DataType, Map, Transaction};
use isobench::netlink::socket::{Protocol as NetlinkProtocol, Socket};
use isobench::sys::launch::{Memory, launch};
use isobench::sys::netns::NetNs;
use isobench::sys::plan::{Op, Plan};

/// The static program that does nothing, from the `self` image: what the namespace benches execute.
fn nothing() -> Plan {
    let binary = std::fs::read_link("/proc/self/exe").expect("/proc is mounted");
    let mut plan = Plan::default();
    plan.push(
        "exec",
        Op::Exec {
            paths: vec![CString::new("/bin/true").expect("no NUL")],
            arguments: vec![CString::new(binary.to_string_lossy().into_owned()).expect("no NUL")],
            environment: Vec::new(),
            guarded: false,
        },
    );
    plan
}

/// clone3 + exec + reap with one namespace more than a plain fork.
fn namespaces(c: &mut Criterion) {
    const KINDS: [(&str, i32); 8] = [
        ("none", 0),
        ("mnt", libc::CLONE_NEWNS),
        ("uts", libc::CLONE_NEWUTS),
        ("ipc", libc::CLONE_NEWIPC),
        ("pid", libc::CLONE_NEWPID),
        ("net", libc::CLONE_NEWNET),
        ("cgroup", libc::CLONE_NEWCGROUP),
        ("user", libc::CLONE_NEWUSER),
    ];
    let plan = nothing();
    let all = KINDS.iter().filter(|(name, _)| *name != "user").fold(0, |flags, (_, flag)| flags | flag);
    let mut group = c.benchmark_group("clone");
    for (name, flags) in KINDS.into_iter().chain([("all but user", all)]) {
        group.bench_function(name, |b| {
            b.iter(|| {
                let mut child = launch(plan.clone(), flags as u32 as u64, None, Memory::Copied).expect("clone3");
                child.wait().expect("wait4")
            });
        });
    }
    group.finish();
}

fn plan_compilation(c: &mut Criterion) {
    let root = RootFs { layers: vec!["/layer".into()] };
    let spec = ContainerSpec::new(root, vec!["/isobench".to_owned()]);
    let wiring = Wiring {
        parent: Some(3),
        stdio: [0, 1, 2],
        join_network: None,
        await_network: true,
        born_in_group: false,
        doors: Vec::new(),
        terminal: None,
        joins: false,
        guard: None,
        opened: Default::default(),
    };
    c.bench_function("plan/compile", |b| b.iter(|| plan::compile(black_box(&spec), &wiring).expect("a valid spec")));
}

/// Making, joining and removing a group, one controller at a time and all together.
fn cgroups(c: &mut Criterion) {
    let whole = Layout::detect().expect("/proc is mounted");
    let mut layouts: Vec<(String, Layout)> = Controller::ALL
        .into_iter()
        .filter_map(|controller| {
            let mount_point = whole.v1.get(&controller)?.clone();
            let layout = Layout { v1: [(controller, mount_point)].into(), v2: None };
            Some((controller.to_string(), layout))
        })
        .collect();
    if layouts.is_empty() {
        eprintln!("cgroup: skipped, no v1 controller is mounted here");
        return;
    }
    layouts.push(("all".to_owned(), whole));
    // A child that waits, so that the bench process itself is never moved.
    let mut sleeper = std::process::Command::new("/bin/sleep").arg("3600").spawn().expect("sleep");
    let mut group = c.benchmark_group("cgroup");
    for (name, layout) in &layouts {
        group.bench_function(BenchmarkId::new("create+remove", name), |b| {
            b.iter(|| Group::create(layout, true).and_then(Group::remove).expect("a group"));
        });
        group.bench_function(BenchmarkId::new("attach", name), |b| {
            let groups = [(); 2].map(|()| Group::create(layout, true).expect("a group"));
            let mut turn = 0;
            b.iter(|| {
                turn ^= 1;
                groups[turn].attach(sleeper.id()).expect("attach");
            });
            // Back to where it came from, so that both groups are empty when they are removed.
            for directory in layout.v1.values() {
                std::fs::write(directory.join("cgroup.procs"), sleeper.id().to_string()).expect("move back");
            }
        });
    }
    group.bench_function("limits/memory+cpu+pids", |b| {
        let group = Group::create(&layouts[layouts.len() - 1].1, true).expect("a group");
        let limits = Limits {
            memory: Some(isobench::units::Limit::Value(64 << 20)),
            cpu_shares: Some(512),
            pids: Some(isobench::units::Limit::Value(100)),
            ..Limits::default()
        };
        b.iter(|| group.apply(&limits).expect("limits"));
    });
    group.finish();
    sleeper.kill().and_then(|()| sleeper.wait()).expect("the sleeper ends");
    isobench::container::gc::collect().expect("nothing is left");
}

/// Mounting and unmounting an overlay over the `self` image, in a mount namespace of the bench's own.
fn overlay(c: &mut Criterion) {
    use nix::mount::{MntFlags, MsFlags, mount, umount2};
    let layer = embedded::root_fs().expect("the self image").layers.remove(0);
    let directory = tempfile::tempdir().expect("a directory");
    let at = directory.path().to_owned();
    let none: Option<&str> = None;
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).expect("unshare");
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none).expect("a namespace that tells the host nothing");
    mount(Some("tmpfs"), &at, Some("tmpfs"), MsFlags::empty(), none).expect("tmpfs");
    for name in ["upper", "work", "root"] {
        std::fs::create_dir(at.join(name)).expect("a directory");
    }
    let shown = at.display();
    let options = format!("lowerdir={},upperdir={shown}/upper,workdir={shown}/work", layer.display());
    let target = format!("{shown}/root");
    c.bench_function("overlay/mount+umount", |b| {
        b.iter(|| {
            let options = Some(options.as_str());
            mount(Some("overlay"), target.as_str(), Some("overlay"), MsFlags::empty(), options).expect("overlay");
            umount2(target.as_str(), MntFlags::MNT_DETACH).expect("umount");
        });
    });
    umount2(&at, MntFlags::MNT_DETACH).expect("umount");
}

/// Connecting a namespace to a bridge, and publishing one port beside 0, 99 and 999 others.
fn bridge(c: &mut Criterion) {
    let lab = Lab::new().expect("a lab");
    let network = lab.bridge().expect("a bridge");
    let mut group = c.benchmark_group("bridge");
    group.bench_function("attach", |b| {
        b.iter_custom(|iterations| {
            let mut total = Duration::ZERO;
            for _ in 0..iterations {
                let container = NetNs::new().expect("a namespace");
                let begin = Instant::now();
                let endpoint = network.attach(&container, &[]).expect("attach");
                total += begin.elapsed();
                network.detach(&endpoint).expect("detach");
            }
            total
        });
    });
    group.bench_function("attach+detach", |b| {
        b.iter_batched(
            || NetNs::new().expect("a namespace"),
            |container| {
                let endpoint = network.attach(&container, &[]).expect("attach");
                network.detach(&endpoint).expect("detach");
                container
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

/// A published port is one element of a map, whatever the number of others.
fn published_ports(c: &mut Criterion) {
    const PLACE: (&str, &str) = ("bench", "published");
    // As the published ports of a host: protocol and port to address and port, each part in four bytes.
    let key = |port: u16| [[6, 0], [0, 0], port.to_be_bytes(), [0, 0]].concat();
    let target = [172, 30, 0, 2, 0, 80, 0, 0];
    let mut group = c.benchmark_group("nft_map");
    for ports in [1u16, 100, 1000] {
        let namespace = NetNs::new().expect("a namespace");
        let mut socket = Socket::open_in(&namespace, NetlinkProtocol::Netfilter).expect("a netlink socket");
        let mut made = Transaction::new();
        made.add_table(PLACE.0);
        made.add_map(&Map {
            table: PLACE.0,
            name: PLACE.1,
            key: &[DataType::Protocol, DataType::Port],
            data: &[DataType::Ipv4Address, DataType::Port],
        });
        for other in 1..ports {
            made.add_element(PLACE, "port", &key(20_000 + other), &target);
        }
        made.commit(&mut socket).expect("the map");
        group.bench_function(BenchmarkId::new("add+remove", ports), |b| {
            b.iter(|| {
                let mut add = Transaction::new();
                add.add_element(PLACE, "port", &key(20_000), &target);
                add.commit(&mut socket).expect("an element");
                let mut remove = Transaction::new();
                remove.delete_element(PLACE, "port", &key(20_000));
                remove.commit(&mut socket).expect("an element");
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).measurement_time(Duration::from_secs(2)).warm_up_time(Duration::from_millis(500));
    targets = namespaces, plan_compilation, cgroups, overlay, bridge, published_ports
}
criterion_main!(benches);
