//! What the workloads print: one JSON object a line on standard output. The experiments parse these types.

use std::net::SocketAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2Serializer};
use serde::{Deserialize, Serialize};

pub use super::block::BlockResult;
use super::burn::BurnResult;
pub use super::consume::{Consumed, Resting};
use super::doze::DozeResult;
use super::roam::RoamResult;
pub use super::window::{CpuTime, Window};
use super::{Test, WorkloadError};

/// The smallest and the largest latency that a histogram holds, in ns; others count as the nearer one.
pub const LATENCY_BOUNDS_NS: (u64, u64) = (1, 60_000_000_000);

/// Significant decimal digits of a latency in a histogram.
pub const LATENCY_DIGITS: u8 = 3;

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Line {
    /// A server waits for its client.
    Ready(Ready),
    /// A client's flows stand and begin to warm up.
    Window(Window),
    /// A client is done.
    Client(ClientResult),
    /// A server is done.
    Server(ServerResult),
    /// A burner is done.
    Burn(BurnResult),
    /// A dozer is done.
    Doze(DozeResult),
    /// A roamer is done.
    Roam(RoamResult),
    /// `block` is done.
    Block(BlockResult),
    /// `consume` rests.
    Resting(Resting),
    /// `consume` is done.
    Consumed(Consumed),
    /// The program failed; its exit code is 1 (2 for bad arguments).
    Error(Failure),
}

/// Where a server listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// The bound address; the same port serves TCP and, for the UDP tests, UDP.
    pub address: SocketAddr,
}

/// What a client saw inside the window, over all its flows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClientResult {
    /// Which test.
    pub test: Test,
    /// The measured time.
    pub window: Window,
    /// The window's length in ns.
    pub elapsed_ns: u64,
    /// Payload bytes handed to the kernel (streams), or of completed requests (the others).
    pub bytes: u64,
    /// Writes (`tcp_stream`), datagrams sent (`udp_stream`), or exchanges completed (the others).
    pub messages: u64,
    /// Requests without a reply in time (`udp_rr`).
    pub lost: u64,
    /// Payload bytes of the whole flow, warm-up included.
    pub total_bytes: u64,
    /// Messages of the whole flow, warm-up included.
    pub total_messages: u64,
    /// TCP segments sent again by this end (`tcp_crr`: by its network namespace); absent for UDP.
    pub retransmits: Option<u64>,
    /// The kernel's smoothed round-trip time at the end in ns, the mean over flows; `tcp_stream` and `tcp_rr` only.
    pub tcp_rtt_ns: Option<u64>,
    /// Latencies in ns of what `messages` counts, for the request tests: HDR V2, uncompressed, base64.
    pub latency: Option<Latency>,
    /// CPU time of the flows' threads.
    pub cpu: CpuTime,
}

/// What a server saw inside the window, over all its flows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServerResult {
    /// Which test.
    pub test: Test,
    /// The measured time, as the client gave it.
    pub window: Window,
    /// The window's length in ns.
    pub elapsed_ns: u64,
    /// Payload bytes that arrived in this program.
    pub bytes: u64,
    /// Reads (`tcp_stream`), datagrams (`udp_stream`), or requests answered (the others).
    pub messages: u64,
    /// Payload bytes of the whole flow, warm-up included.
    pub total_bytes: u64,
    /// Messages of the whole flow, warm-up included.
    pub total_messages: u64,
    /// Datagrams that the client sent inside the window, as it told (`udp_stream`).
    pub sent: Option<u64>,
    /// How many of `sent` never arrived, inside the window or after it.
    pub lost: Option<u64>,
    /// CPU time of the flows' threads.
    pub cpu: CpuTime,
}

/// Why a workload failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The error and its causes, joined by `: `.
    pub message: String,
}

/// A histogram of latencies in ns, as it travels: HDR V2, uncompressed, base64.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Latency(String);

/// A text that is not such a histogram.
#[derive(Debug, thiserror::Error)]
#[error("the latency histogram is not HDR V2 in base64")]
pub struct LatencyError(#[source] Box<dyn std::error::Error + Send + Sync>);

impl Latency {
    /// An empty histogram, to be filled and packed.
    pub(super) fn histogram() -> Result<Histogram<u64>, WorkloadError> {
        let (shortest, longest) = LATENCY_BOUNDS_NS;
        let made = Histogram::new_with_bounds(shortest, longest, LATENCY_DIGITS).map_err(std::io::Error::other);
        made.map_err(WorkloadError::system("make a histogram"))
    }

    /// Packs a histogram.
    ///
    /// # Errors
    /// When it is too large to serialise, which [`LATENCY_BOUNDS_NS`] rules out.
    pub fn encode(histogram: &Histogram<u64>) -> Result<Self, LatencyError> {
        let mut bytes = Vec::new();
        V2Serializer::new().serialize(histogram, &mut bytes).map_err(|error| LatencyError(error.into()))?;
        Ok(Self(STANDARD.encode(bytes)))
    }

    /// Unpacks it.
    ///
    /// # Errors
    /// When the text is something else.
    pub fn decode(&self) -> Result<Histogram<u64>, LatencyError> {
        let bytes = STANDARD.decode(&self.0).map_err(|error| LatencyError(error.into()))?;
        Deserializer::new().deserialize(&mut bytes.as_slice()).map_err(|error| LatencyError(error.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    fn client() -> ClientResult {
        let mut histogram =
            Histogram::new_with_bounds(LATENCY_BOUNDS_NS.0, LATENCY_BOUNDS_NS.1, LATENCY_DIGITS).unwrap();
        histogram.record_n(25_000, 3).unwrap();
        ClientResult {
            test: Test::TcpRr,
            window: Window { start_ns: 100, end_ns: 1100 },
            elapsed_ns: 1000,
            bytes: 3,
            messages: 3,
            lost: 0,
            total_bytes: 5,
            total_messages: 5,
            retransmits: Some(0),
            tcp_rtt_ns: Some(31_000),
            latency: Some(Latency::encode(&histogram).unwrap()),
            cpu: CpuTime { user_ns: 1, system_ns: 2 },
        }
    }

    #[test]
    fn lines_are_tagged_and_survive_a_round_trip() {
        let ready = Line::Ready(Ready { address: "10.0.0.2:5201".parse().unwrap() });
        expect![[r#"{"event":"ready","address":"10.0.0.2:5201"}"#]].assert_eq(&serde_json::to_string(&ready).unwrap());
        let window = Line::Window(Window { start_ns: 1, end_ns: 2 });
        expect![[r#"{"event":"window","start_ns":1,"end_ns":2}"#]].assert_eq(&serde_json::to_string(&window).unwrap());
        let line = Line::Client(client());
        let text = serde_json::to_string(&line).unwrap();
        assert!(!text.contains('\n'));
        assert_eq!(serde_json::from_str::<Line>(&text).unwrap(), line);
    }

    #[test]
    fn histograms_survive_the_journey() {
        let histogram = client().latency.unwrap().decode().unwrap();
        assert_eq!(histogram.len(), 3);
        assert!(histogram.equivalent(histogram.value_at_quantile(0.5), 25_000));
        assert!(Latency("@".into()).decode().is_err());
        assert!(Latency("AAAA".into()).decode().is_err());
    }
}
