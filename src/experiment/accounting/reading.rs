//! One reading of a container's account: the controller's files, or the counters of eth0.

use crate::cgroup::{Controller, Group, blkio, cpu, memory};
use crate::experiment::ExperimentError;
use crate::runtime::Instance;
use crate::sys::clock;

/// The link of a bridged container.
const LINK: &str = "eth0";

/// Where the account of a case is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Account {
    Cpu,
    Memory,
    Block { device: (u32, u32) },
    Network,
}

/// What the account said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Reading {
    /// When it was begun.
    pub begin_ns: u64,
    /// When it was done.
    pub end_ns: u64,
    /// ns, or bytes.
    pub first: u64,
    /// Operations or packets, where there are any.
    pub second: u64,
}

impl Reading {
    /// What was charged from `earlier` to `self`.
    pub(super) fn since(self, earlier: Self) -> Self {
        Self {
            first: self.first.saturating_sub(earlier.first),
            second: self.second.saturating_sub(earlier.second),
            ..self
        }
    }
}

impl Account {
    /// Reads it. A container without the controller is charged for nothing.
    pub(super) fn read(self, instance: Option<&dyn Instance>) -> Result<Reading, ExperimentError> {
        fn failed<E: Into<Box<dyn std::error::Error + Send + Sync>>>() -> impl FnOnce(E) -> ExperimentError {
            ExperimentError::while_doing("reading the account")
        }
        let group = instance.and_then(Instance::group);
        let place = |controller| group.and_then(|group: &Group| group.place(controller));
        let begin_ns = clock::now_ns();
        let (first, second) = match self {
            Self::Cpu => (place(Controller::Cpuacct).map(cpu::usage_ns).transpose().map_err(failed())?.unwrap_or(0), 0),
            Self::Memory => {
                let usage = place(Controller::Memory).map(memory::usage).transpose().map_err(failed())?;
                (usage.map_or(0, |usage| usage.current), 0)
            }
            Self::Block { device } => {
                let usage = place(Controller::Blkio).map(|place| blkio::usage_of(place, device));
                let usage = usage.transpose().map_err(failed())?.unwrap_or_default();
                (usage.write_bytes, usage.write_operations)
            }
            Self::Network => {
                let pid = instance.map_or(0, Instance::pid);
                let path = format!("/proc/{pid}/net/dev");
                let text = crate::fs::read_text(path).map_err(failed())?;
                sent(&text).ok_or_else(|| failed()(format!("the container has no {LINK}")))?
            }
        };
        Ok(Reading { begin_ns, end_ns: clock::now_ns(), first, second })
    }
}

/// Bytes and packets that eth0 has sent, out of /proc/net/dev: the ninth and tenth number behind the name.
fn sent(text: &str) -> Option<(u64, u64)> {
    let line = text.lines().find_map(|line| line.trim_start().strip_prefix(LINK)?.strip_prefix(':'))?;
    let mut numbers = line.split_whitespace().skip(8).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_is_the_ninth_number() {
        let text = "Inter-| Receive\n face |bytes\n    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n  eth0: 10 2 0 0 0 0 0 0 420 7 0 0 0 0 0 0\n";
        assert_eq!(sent(text), Some((420, 7)));
        assert_eq!(sent("  eth01: 1\n"), None);
    }
}
