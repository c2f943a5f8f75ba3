//! What one flow's thread counted, and how the counts of several become one. Also how threads are waited for.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use hdrhistogram::Histogram;

use super::WorkloadError;
use super::result::{LATENCY_BOUNDS_NS, Latency};
use super::window::{Cost, CpuTime};
use crate::sys::clock;

/// The counts of one flow, or the sum of several.
#[derive(Debug, Default)]
pub(super) struct Flow {
    /// Payload bytes inside the window.
    pub bytes: u64,
    /// Messages inside the window.
    pub messages: u64,
    /// Requests inside the window that were given up.
    pub lost: u64,
    /// Payload bytes of the whole flow.
    pub total_bytes: u64,
    /// Messages of the whole flow.
    pub total_messages: u64,
    /// Datagrams that were sent inside the window and arrived at any time; `udp_stream`'s server only.
    pub arrived: u64,
    /// The latency of each of `messages`, in ns.
    pub latency: Option<Histogram<u64>>,
    /// What the window cost the flow's thread.
    pub cost: Cost,
}

impl Flow {
    /// Counts one message.
    #[inline]
    pub(super) fn count(&mut self, bytes: usize, inside: bool) {
        self.total_bytes += bytes as u64;
        self.total_messages += 1;
        if inside {
            self.bytes += bytes as u64;
            self.messages += 1;
        }
    }

    /// A flow that records latencies.
    pub(super) fn with_latency() -> Result<Self, WorkloadError> {
        Ok(Self { latency: Some(Latency::histogram()?), ..Self::default() })
    }

    /// Records a latency; one out of bounds counts as the nearer bound.
    #[inline]
    pub(super) fn record(&mut self, ns: u64) {
        if let Some(histogram) = &mut self.latency {
            histogram.saturating_record(ns.max(LATENCY_BOUNDS_NS.0));
        }
    }
}

/// The sum of several flows, and the mean of the kernel's round-trip times.
pub(super) fn sum(flows: Vec<Flow>) -> Flow {
    let mut total = Flow::default();
    let mut retransmits = Some(0);
    let mut rtts = Vec::new();
    let mut cpu = CpuTime::default();
    for flow in flows {
        total.bytes += flow.bytes;
        total.messages += flow.messages;
        total.lost += flow.lost;
        total.total_bytes += flow.total_bytes;
        total.total_messages += flow.total_messages;
        total.arrived += flow.arrived;
        cpu += flow.cost.cpu;
        // One flow that cannot tell makes the sum unknown.
        retransmits = retransmits.zip(flow.cost.retransmits).map(|(sum, own)| sum + own);
        rtts.extend(flow.cost.tcp_rtt_ns);
        match (&mut total.latency, flow.latency) {
            // Equal bounds: adding cannot fail.
            (Some(sum), Some(own)) => sum.add(own).unwrap_or(()),
            (sum @ None, own) => *sum = own,
            (Some(_), None) => {}
        }
    }
    let mean_rtt = (!rtts.is_empty()).then(|| rtts.iter().sum::<u64>() / rtts.len() as u64);
    total.cost = Cost { cpu, retransmits, tcp_rtt_ns: mean_rtt };
    total
}

/// Threads that each run one flow.
///
/// They are not joined but waited for until a deadline: a thread that is stuck in a system call ends with the process,
/// so that no hot path needs a timer of its own.
pub(super) struct Flows {
    outcomes: std::sync::mpsc::Receiver<Result<Flow, WorkloadError>>,
    sender: Sender<Result<Flow, WorkloadError>>,
    running: usize,
}

impl Flows {
    pub(super) fn new() -> Self {
        let (sender, outcomes) = channel();
        Self { outcomes, sender, running: 0 }
    }

    pub(super) fn spawn(
        &mut self,
        body: impl FnOnce() -> Result<Flow, WorkloadError> + Send + 'static,
    ) -> Result<(), WorkloadError> {
        let sender = self.sender.clone();
        thread::Builder::new()
            .stack_size(256 << 10)
            .spawn(move || {
                // No receiver any more: the process is ending.
                let _ = sender.send(body());
            })
            .map_err(WorkloadError::system("start a thread"))?;
        self.running += 1;
        Ok(())
    }

    /// Waits for every flow until `deadline_ns` (CLOCK_MONOTONIC); `timeout` is what the caller allowed beyond the test.
    ///
    /// When several fail, the reason that is not "the other end went away" wins: it came first.
    pub(super) fn finish(self, deadline_ns: u64, timeout: Duration) -> Result<Flow, WorkloadError> {
        drop(self.sender);
        let mut flows = Vec::with_capacity(self.running);
        let mut failed: Option<WorkloadError> = None;
        for _ in 0..self.running {
            let left = Duration::from_nanos(deadline_ns.saturating_sub(clock::now_ns()));
            match self.outcomes.recv_timeout(left) {
                Ok(Ok(flow)) => flows.push(flow),
                Ok(Err(error)) => {
                    if failed.as_ref().is_none_or(|known| matches!(known, WorkloadError::PeerGone(_))) {
                        failed = Some(error);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    let doing = "wait for the flows to end".to_owned();
                    return Err(failed.unwrap_or(WorkloadError::TimedOut { doing, after: timeout }));
                }
                // Every sender is gone, and an outcome is missing.
                Err(RecvTimeoutError::Disconnected) => return Err(failed.unwrap_or(WorkloadError::Panicked)),
            }
        }
        match failed {
            Some(error) => Err(error),
            None => Ok(sum(flows)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_add_up() {
        let mut one = Flow::with_latency().unwrap();
        one.count(10, false);
        one.count(10, true);
        one.record(1000);
        one.cost = Cost { cpu: CpuTime { user_ns: 1, system_ns: 2 }, retransmits: Some(3), tcp_rtt_ns: Some(10) };
        let mut two = Flow::with_latency().unwrap();
        two.count(5, true);
        two.record(0);
        two.record(u64::MAX);
        two.cost = Cost { cpu: CpuTime { user_ns: 10, system_ns: 20 }, retransmits: Some(4), tcp_rtt_ns: Some(30) };
        let total = sum(vec![one, two]);
        assert_eq!((total.bytes, total.messages, total.total_bytes, total.total_messages), (15, 2, 25, 3));
        assert_eq!(total.latency.unwrap().len(), 3);
        let cpu = CpuTime { user_ns: 11, system_ns: 22 };
        assert_eq!(total.cost, Cost { cpu, retransmits: Some(7), tcp_rtt_ns: Some(20) });
    }

    #[test]
    fn an_unknown_retransmit_count_makes_the_sum_unknown() {
        let known = Flow { cost: Cost { retransmits: Some(3), ..Cost::default() }, ..Flow::default() };
        assert_eq!(sum(vec![known, Flow::default()]).cost.retransmits, None);
    }

    #[test]
    fn the_first_cause_wins_over_its_consequence() {
        let mut flows = Flows::new();
        flows.spawn(|| Err(WorkloadError::PeerGone("server"))).unwrap();
        flows.spawn(|| Err(WorkloadError::Arguments("cause".to_owned()))).unwrap();
        flows.spawn(|| Ok(Flow::default())).unwrap();
        let error = flows.finish(clock::now_ns() + 10_000_000_000, Duration::from_secs(1)).unwrap_err();
        assert_eq!(error.to_string(), "cause");
    }

    #[test]
    fn a_panic_is_not_a_result() {
        let mut flows = Flows::new();
        flows.spawn(|| panic!("as this test wants it")).unwrap();
        flows.spawn(|| Ok(Flow::default())).unwrap();
        let error = flows.finish(clock::now_ns() + 10_000_000_000, Duration::from_secs(1)).unwrap_err();
        assert_eq!(error.to_string(), "a thread of the workload panicked");
    }

    #[test]
    fn a_stuck_flow_is_left_behind() {
        let (_hold, stuck) = channel::<()>();
        let mut flows = Flows::new();
        flows
            .spawn(move || {
                let _ = stuck.recv();
                Ok(Flow::default())
            })
            .unwrap();
        let error = flows.finish(clock::now_ns(), Duration::from_secs(1)).unwrap_err();
        assert_eq!(error.to_string(), "cannot wait for the flows to end: nothing happened for 1 s");
    }
}
