//! From what both ends saw to metrics: a pure function.

use crate::experiment::{HistogramObservation, Observation, Observations};
use crate::record::metric::{self, Metric};
use crate::workload::Test;
use crate::workload::result::{ClientResult, LatencyError, ServerResult};

/// Why results cannot become metrics.
#[derive(Debug, thiserror::Error)]
pub(super) enum MetricsError {
    /// The measured time is empty.
    #[error("the measured time is 0 ns long")]
    NoTime,
    /// The two ends do not speak of the same time or test.
    #[error("the two ends measured different things: {client} and {server}")]
    Mismatch {
        /// What the client measured.
        client: String,
        /// What the server measured.
        server: String,
    },
    /// The client's histogram is missing or broken.
    #[error("the client's latencies cannot be read")]
    Latency(#[source] Option<LatencyError>),
}

/// Pushes every metric that the test yields. `beside_ns` is the CPU time beside the two ends, where it is known.
pub(super) fn push(
    client: &ClientResult,
    server: &ServerResult,
    beside_ns: Option<u64>,
    into: &mut Observations,
) -> Result<(), MetricsError> {
    if (client.test, client.window) != (server.test, server.window) {
        let client = format!("{} in {:?}", client.test, client.window);
        return Err(MetricsError::Mismatch { client, server: format!("{} in {:?}", server.test, server.window) });
    }
    // A stream's work is what arrived at the server; an exchange is done when the client has its reply.
    let one_way = matches!(client.test, Test::TcpStream | Test::UdpStream);
    let (bytes, messages) = if one_way { (server.bytes, server.messages) } else { (client.bytes, client.messages) };
    if client.elapsed_ns == 0 {
        return Err(MetricsError::NoTime);
    }
    let seconds = client.elapsed_ns as f64 / 1e9;
    let cpu_ns = beside_ns.map(|beside| (client.cpu.total_ns() + server.cpu.total_ns() + beside) as f64);

    let start_ns = client.window.start_ns;
    let mut value = |name: &str, value: f64| {
        into.values.push(Observation { metric: known(name), iteration: 0, value, start_ns });
    };
    if one_way {
        value("throughput", bytes as f64 * 8.0 / seconds);
    }
    match client.test {
        Test::TcpStream => {}
        Test::TcpCrr => value("connects", messages as f64 / seconds),
        Test::TcpRr | Test::UdpStream | Test::UdpRr => value("messages", messages as f64 / seconds),
    }
    if let Some(loss) = loss(client, server) {
        value("loss", loss);
    }
    if let Some(retransmits) = client.retransmits {
        value("retransmits", retransmits as f64);
    }
    // A window in which nothing came through has rates of zero, and no cost or latency of what was not there.
    if let Some(cpu_ns) = cpu_ns.filter(|_| bytes > 0 && messages > 0) {
        if one_way {
            value("cpu_per_byte", cpu_ns / bytes as f64);
        }
        if client.test != Test::TcpStream {
            value("cpu_per_message", cpu_ns / messages as f64);
        }
    }
    if matches!(client.test, Test::TcpRr | Test::UdpRr) && messages > 0 {
        let latency = client.latency.as_ref().ok_or(MetricsError::Latency(None))?;
        let histogram = latency.decode().map_err(|error| MetricsError::Latency(Some(error)))?;
        value("rtt", histogram.value_at_quantile(0.5) as f64);
        into.histograms.push(HistogramObservation { metric: known("rtt"), iteration: 0, histogram });
    }
    Ok(())
}

/// The part of datagrams (or exchanges) that was lost; `None` over TCP, which loses nothing.
fn loss(client: &ClientResult, server: &ServerResult) -> Option<f64> {
    let (lost, of) = match client.test {
        Test::UdpStream => (server.lost?, server.sent?),
        Test::UdpRr => (client.lost, client.lost + client.messages),
        Test::TcpStream | Test::TcpRr | Test::TcpCrr => return None,
    };
    (of > 0).then(|| lost as f64 / of as f64)
}

fn known(name: &str) -> &'static Metric {
    // The names above are literals, and the tests below push every one of them.
    metric::find(name).expect("a metric of the list")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::result::{CpuTime, LATENCY_BOUNDS_NS, LATENCY_DIGITS, Latency, Window};
    use hdrhistogram::Histogram;
    use std::collections::BTreeMap;

    const WINDOW: Window = Window { start_ns: 500, end_ns: 500_000_500 };

    fn results(test: Test) -> (ClientResult, ServerResult) {
        let (low, high) = LATENCY_BOUNDS_NS;
        let mut histogram = Histogram::<u64>::new_with_bounds(low, high, LATENCY_DIGITS).unwrap();
        histogram.record_n(20_000, 90).unwrap();
        histogram.record_n(90_000, 10).unwrap();
        let client = ClientResult {
            test,
            window: WINDOW,
            elapsed_ns: WINDOW.elapsed_ns(),
            bytes: 1000,
            messages: 100,
            lost: 25,
            total_bytes: 2000,
            total_messages: 200,
            retransmits: (!test.is_udp()).then_some(3),
            tcp_rtt_ns: None,
            latency: Some(Latency::encode(&histogram).unwrap()),
            cpu: CpuTime { user_ns: 100, system_ns: 200 },
        };
        let server = ServerResult {
            test,
            window: WINDOW,
            elapsed_ns: WINDOW.elapsed_ns(),
            bytes: 800,
            messages: 80,
            total_bytes: 2000,
            total_messages: 200,
            sent: (test == Test::UdpStream).then_some(100),
            lost: (test == Test::UdpStream).then_some(15),
            cpu: CpuTime { user_ns: 30, system_ns: 40 },
        };
        (client, server)
    }

    fn pushed(test: Test, beside_ns: Option<u64>) -> (BTreeMap<&'static str, f64>, Observations) {
        let (client, server) = results(test);
        let mut into = Observations::default();
        push(&client, &server, beside_ns, &mut into).unwrap();
        assert!(into.values.iter().all(|value| value.start_ns == 500 && value.metric.experiment == "network"));
        (into.values.iter().map(|value| (value.metric.name, value.value)).collect(), into)
    }

    #[test]
    fn a_tcp_stream_is_what_arrived() {
        let (values, into) = pushed(Test::TcpStream, Some(30));
        let expected = BTreeMap::from([("throughput", 12_800.0), ("retransmits", 3.0), ("cpu_per_byte", 0.5)]);
        assert_eq!(values, expected);
        assert!(into.histograms.is_empty());
    }

    #[test]
    fn exchanges_are_what_the_client_completed() {
        let (values, into) = pushed(Test::TcpRr, Some(30));
        assert_eq!(values["messages"], 200.0);
        assert_eq!(values["cpu_per_message"], 4.0);
        assert!((values["rtt"] - 20_000.0).abs() < 20.0);
        assert_eq!(into.histograms[0].histogram.len(), 100);
        assert_eq!(values.keys().copied().collect::<Vec<_>>(), ["cpu_per_message", "messages", "retransmits", "rtt"]);

        let (values, _) = pushed(Test::TcpCrr, Some(30));
        assert_eq!(values, BTreeMap::from([("connects", 200.0), ("retransmits", 3.0), ("cpu_per_message", 4.0)]));

        let (values, _) = pushed(Test::UdpRr, Some(30));
        assert_eq!(values["loss"], 0.2);
        assert!(!values.contains_key("retransmits"));
    }

    #[test]
    fn datagrams_have_rate_loss_and_both_costs() {
        let (values, _) = pushed(Test::UdpStream, Some(30));
        let expected = BTreeMap::from([
            ("throughput", 12_800.0),
            ("messages", 160.0),
            ("loss", 0.15),
            ("cpu_per_byte", 0.5),
            ("cpu_per_message", 5.0),
        ]);
        assert_eq!(values, expected);
    }

    #[test]
    fn unknown_cpu_time_gives_no_cpu_metric() {
        for &test in Test::ALL {
            assert!(pushed(test, None).0.keys().all(|name| !name.starts_with("cpu")));
        }
    }

    #[test]
    fn a_window_without_payload_has_rates_of_zero_and_no_cost() {
        for &test in Test::ALL {
            let (mut client, mut server) = results(test);
            (client.bytes, client.messages, server.bytes, server.messages) = (0, 0, 0, 0);
            let mut into = Observations::default();
            push(&client, &server, Some(30), &mut into).unwrap();
            for value in &into.values {
                let name = value.metric.name;
                assert!(["throughput", "connects", "messages", "loss", "retransmits"].contains(&name), "{name}");
                assert!(value.value == 0.0 || ["loss", "retransmits"].contains(&name), "{name}");
            }
            assert!(into.histograms.is_empty());
        }
    }

    #[test]
    fn no_time_is_an_error_and_so_is_a_mismatch() {
        let (mut client, mut server) = results(Test::TcpStream);
        let mut into = Observations::default();
        client.elapsed_ns = 0;
        assert!(matches!(push(&client, &server, None, &mut into), Err(MetricsError::NoTime)));
        server.window.end_ns += 1;
        assert!(matches!(push(&client, &server, None, &mut into), Err(MetricsError::Mismatch { .. })));
        assert_eq!(into, Observations::default());
    }
}
