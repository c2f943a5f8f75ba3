//! A whole container start, by runtime and network mode: request to reaped, and everything given back.
//!
//! `cargo bench --bench startup`; needs root. The program inside is the isobench binary that `cargo bench` built.

use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};

use isobench::lab::Lab;
use isobench::runtime::{Network, Runtime, StartRequest, by_kind};
use isobench::scenario::RuntimeKind;

fn request(workload: &str, network: &Network) -> StartRequest {
    StartRequest::new(vec![workload.to_owned()], network.clone())
}

/// Time from the request until the container's first process is reaped; giving back is not counted.
fn start(runtime: &Arc<dyn Runtime>, network: &Network) -> Duration {
    let begin = Instant::now();
    let mut instance = runtime.start(request("stamp", network)).expect("a container");
    instance.wait().expect("its end");
    let elapsed = begin.elapsed();
    instance.remove().expect("everything given back");
    elapsed
}

fn whole_start(c: &mut Criterion) {
    let lab = Lab::new().expect("a lab");
    let bridge = lab.bridge().expect("a bridge");
    let builtin = by_kind(RuntimeKind::Builtin).expect("the builtin runtime");
    let floor = by_kind(RuntimeKind::Floor).expect("the floor");
    let on_bridge = Network::Bridge { network: bridge, ports: Vec::new() };
    let partner = builtin.start(request("hold", &on_bridge)).expect("a partner");
    let shared = Network::Container(partner.netns().expect("its network"));
    let host = Network::Host(lab.host().netns().clone());
    let mut group = c.benchmark_group("start");
    for (name, runtime, network) in [
        ("floor/none", &floor, &Network::None),
        ("builtin/none", &builtin, &Network::None),
        ("builtin/host", &builtin, &host),
        ("builtin/container", &builtin, &shared),
        ("builtin/bridge", &builtin, &on_bridge),
    ] {
        group.bench_function(name, |b| {
            b.iter_custom(|iterations| (0..iterations).map(|_| start(runtime, network)).sum());
        });
    }
    group.finish();
    partner.remove().expect("the partner given back");
    isobench::container::gc::collect().expect("nothing is left");
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).measurement_time(Duration::from_secs(3)).warm_up_time(Duration::from_millis(500));
    targets = whole_start
}
criterion_main!(benches);
