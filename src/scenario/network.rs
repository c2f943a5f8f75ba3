//! `kind = "network"`: every runtime × network × path × test, and the sizes of the flow.
//!
//! A case is called `network/<runtime>/<network>/<path>/<test>`. Where the file lists several values of a further
//! key, a part is added for it, in this order: `/d<duration>`, `/w<warmup>`, `/m<message_size>`, `/s<streams>`, and
//! `/pin` or `/nopin`.

use std::time::Duration;

use super::matrix::{Dimension, plain, product};
use super::read::{self, Table, Wrong};
use super::{Case, CaseKind, NetworkCase, NetworkMode, NetworkTest, RuntimeKind, TrafficPath};

/// The keys that span the matrix and the rest, for `isobench list`: name, values or range, default.
pub(super) const KEYS: &[super::Key] = &[
    ("runtime", "builtin", "\"builtin\"", "the runtime of the container end"),
    ("network", "host, bridge, container", "required", "how the container end is connected"),
    (
        "path",
        "egress, ingress, internal",
        "\"egress\"",
        "container to peer; peer to published port; container to container",
    ),
    ("test", "tcp_stream, tcp_rr, tcp_crr, udp_stream, udp_rr", "required", "the workload"),
    ("duration", "\"10ms\" to \"1h\"", "\"1s\"", "the measured time of one sample"),
    ("warmup", "\"0ms\" to \"1m\"", "\"100ms\"", "how long the flow runs before it"),
    (
        "message_size",
        "1 to \"64M\" (UDP: to 65507, udp_stream from 8)",
        "128K stream, 1 rr and crr, 1400 udp_stream",
        "bytes a write or a request",
    ),
    ("streams", "1 to 256", "1", "parallel flows"),
    ("pin", "true, false", "true", "client and server on different CPUs"),
    ("baseline", "a network mode", "\"host\" where listed", "what ratios are made to"),
];

/// The most that one IPv4 UDP datagram carries: 65535 less the IP and UDP headers.
const MAX_DATAGRAM: u32 = 65_507;

/// The least that a datagram of `udp_stream` carries: the number by which the receiver counts losses.
const MIN_STREAM_DATAGRAM: u32 = 8;

/// What a network case measures, by its test.
pub(super) fn metrics(test: NetworkTest) -> &'static [&'static str] {
    match test {
        NetworkTest::TcpStream => &["throughput", "cpu_per_byte", "retransmits"],
        NetworkTest::TcpRr => &["rtt", "messages", "cpu_per_message", "retransmits"],
        NetworkTest::TcpCrr => &["connects", "cpu_per_message", "retransmits"],
        NetworkTest::UdpStream => &["throughput", "messages", "loss", "cpu_per_byte", "cpu_per_message"],
        NetworkTest::UdpRr => &["rtt", "messages", "loss", "cpu_per_message"],
    }
}

fn default_message_size(test: NetworkTest) -> u32 {
    match test {
        NetworkTest::TcpStream => 128 << 10,
        NetworkTest::TcpRr | NetworkTest::TcpCrr | NetworkTest::UdpRr => 1,
        NetworkTest::UdpStream => 1400,
    }
}

/// Reads one `[[experiment]]` of this kind and expands it to its cases.
pub(super) fn expand(mut table: Table<'_, '_>) -> Vec<Case> {
    let second = Duration::from_secs(1);
    let runtimes =
        table.list("runtime", &[RuntimeKind::Builtin], |node| match read::name("runtime", RuntimeKind::ALL)(node)? {
            RuntimeKind::Floor => Err(Wrong::new(
                "the floor has no network to measure: it is a bare clone3 and exec",
                "use \"builtin\"; network = \"host\" is what ratios go to",
            )),
            runtime => Ok(runtime),
        });
    let networks = table.required_list("network", NetworkMode::ALL, |node| {
        match read::name("network mode", NetworkMode::ALL)(node)? {
            NetworkMode::None => Err(Wrong::new(
                "nothing reaches a container with network `none`, so there is no traffic to measure",
                "leave it out; known here are host, bridge, container",
            )),
            network => Ok(network),
        }
    });
    let paths = table.list("path", &[TrafficPath::Egress], read::name("path", TrafficPath::ALL));
    let tests = table.required_list("test", NetworkTest::ALL, read::name("network test", NetworkTest::ALL));
    let durations = table.list("duration", &[second], read::duration(second / 100, second * 3600));
    let warmups = table.list("warmup", &[second / 10], read::duration(Duration::ZERO, second * 60));
    let sizes = table.list("message_size", &[None], |node| read::bytes(1, 64 << 20)(node).map(Some));
    let streams = table.list("streams", &[1], read::whole(1, 256));
    let pins = table.list("pin", &[true], read::boolean);
    let baseline = table.one("baseline", read::name("network mode", NetworkMode::ALL));

    reject_bad_datagrams(&mut table, &tests, &sizes);
    let target = match &baseline {
        Some(found) => Some(found.value),
        None => networks.contains(&NetworkMode::Host).then_some(NetworkMode::Host),
    };
    let lengths = [runtimes.len(), networks.len(), paths.len(), tests.len(), durations.len(), warmups.len()];
    let [r, w, p, t, d, u] = lengths;
    let cases = product([r, w, p, t, d, u, sizes.len(), streams.len(), pins.len()])
        .map(|[r, w, p, t, d, u, m, s, n]| {
            let case = NetworkCase {
                runtime: *runtimes.at(r),
                network: *networks.at(w),
                path: *paths.at(p),
                test: *tests.at(t),
                duration: *durations.at(d),
                warmup: *warmups.at(u),
                message_size: sizes.at(m).unwrap_or_else(|| default_message_size(*tests.at(t))),
                streams: *streams.at(s),
                pin: *pins.at(n),
            };
            let suffix = [
                durations.suffix(d, |duration| format!("d{}", plain(*duration))),
                warmups.suffix(u, |warmup| format!("w{}", plain(*warmup))),
                sizes.suffix(m, |size| format!("m{}", size.unwrap_or_default())),
                streams.suffix(s, |streams| format!("s{streams}")),
                pins.suffix(n, |pin| if *pin { "pin" } else { "nopin" }.to_owned()),
            ]
            .concat();
            let id = |network: NetworkMode| {
                format!("network/{}/{network}/{}/{}{suffix}", case.runtime, case.path, case.test)
            };
            let baseline = target.filter(|target| *target != case.network).map(id);
            Case { id: id(case.network), baseline, kind: CaseKind::Network(case) }
        })
        .collect();

    if let Some(found) = baseline.filter(|found| !networks.contains(&found.value)) {
        table.absent_baseline(found.span, found.value.as_str());
    }
    table.finish();
    cases
}

/// The dimensions of a case beside runtime and network, as text.
pub(super) fn parameters(case: &NetworkCase) -> Vec<(&'static str, String)> {
    vec![
        ("path", case.path.to_string()),
        ("test", case.test.to_string()),
        ("duration", plain(case.duration)),
        ("warmup", plain(case.warmup)),
        ("message_size", case.message_size.to_string()),
        ("streams", case.streams.to_string()),
        ("pin", case.pin.to_string()),
    ]
}

/// A message of the UDP tests is one datagram, and cannot have every size.
fn reject_bad_datagrams(table: &mut Table<'_, '_>, tests: &Dimension<NetworkTest>, sizes: &Dimension<Option<u32>>) {
    let wrong: Vec<_> = (sizes.iter())
        .filter_map(|(size, span)| {
            let size = (*size)?;
            let test = tests.iter().map(|(test, _)| *test).find(|test| match test {
                NetworkTest::UdpStream => !(MIN_STREAM_DATAGRAM..=MAX_DATAGRAM).contains(&size),
                NetworkTest::UdpRr => size > MAX_DATAGRAM,
                NetworkTest::TcpStream | NetworkTest::TcpRr | NetworkTest::TcpCrr => false,
            })?;
            Some((test, size, span.clone()))
        })
        .collect();
    for (test, size, span) in wrong {
        let low = if test == NetworkTest::UdpStream { MIN_STREAM_DATAGRAM } else { 1 };
        let help = format!("from {low} to {MAX_DATAGRAM}, or a second [[experiment]] for the other tests");
        table.problem(span, format!("`message_size`: a datagram of {test} cannot carry {size} bytes"), help);
    }
}
