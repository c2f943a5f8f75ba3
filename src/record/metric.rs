//! The metrics that experiments yield: name, base unit, which way is better, what it means.
//!
//! The one list: experiments emit by it, scenarios' checks are validated against it, `isobench list` prints it.

/// Which way a metric improves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Better {
    /// Less is better, as for a latency.
    Lower,
    /// More is better, as for a throughput.
    Higher,
}

impl Better {
    /// `lower` or `higher`, as in `summary.csv`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Better::Lower => "lower",
            Better::Higher => "higher",
        }
    }
}

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// The name in files.
    pub name: &'static str,
    /// The experiment that yields it.
    pub experiment: &'static str,
    /// The base unit in files.
    pub unit: &'static str,
    /// Which way it improves.
    pub better: Better,
    /// One sentence for people.
    pub meaning: &'static str,
}

macro_rules! metrics {
    ($($experiment:literal $name:literal $unit:literal $better:ident $meaning:literal;)*) => {
        /// Every metric, by experiment.
        pub const METRICS: &[Metric] = &[$(Metric {
            name: $name, experiment: $experiment, unit: $unit, better: Better::$better, meaning: $meaning,
        }),*];
    };
}

metrics! {
    "startup" "ready" "ns" Lower "from the request to the first instruction of the program in the container";
    "startup" "exit" "ns" Lower "from the request until the exited container's first process was reaped";
    "startup" "teardown" "ns" Lower "from reaping until everything that the container used was given back";
    "startup" "start_rate" "1/s" Higher "containers started, run, reaped and removed a second, over all parallel starters";
    "network" "throughput" "bit/s" Higher "payload bits a second that reached the receiving program";
    "network" "rtt" "ns" Lower "from sending a request until its reply has arrived";
    "network" "connects" "1/s" Higher "connections opened, used for one request and reply, and closed, a second";
    "network" "messages" "1/s" Higher "datagrams or requests a second that reached the receiving program";
    "network" "loss" "ratio" Lower "datagrams sent that did not arrive, as a part of those sent";
    "network" "cpu_per_byte" "ns/B" Lower "CPU time of both ends, the harness and the kernel's softirqs, a payload byte";
    "network" "cpu_per_message" "ns" Lower "CPU time of both ends, the harness and the kernel's softirqs, a message";
    "network" "retransmits" "count" Lower "TCP segments sent again during the measured time";
    "cpu" "harness_cpu" "ratio" Lower "CPU time of the harness itself during the measured time, as a part of one CPU";
    "cpu" "longest_stall" "ns" Lower "the longest time that a container's spinning thread stood still";
    "cpu" "turn" "ns" Lower "how long the lightest container runs once it has the CPU, the median";
    "cpu" "throttled_periods" "count" Lower "periods in which the group used its quota up (nr_throttled)";
    "cpu" "cpu_pressure" "ns" Lower "how long a thread of the container stood still for want of a CPU during the measured time, by the kernel's pressure account; v2 only";
    "cpu" "placement_looks" "count" Higher "how often the threads looked on which CPU they ran";
    "cpu" "wakeup_latency" "ns" Lower "from the instant a sleep ends until the thread runs";
    "memory" "page_touch" "ns" Lower "a first write to a page of anonymous memory, the mean from first to last";
    "memory" "page_read" "ns" Lower "a page read from a file through the page cache, the mean over the file";
    "memory" "charge_batch" "bytes" Lower "the largest step in which the accounted usage rises while single pages are touched";
    "memory" "kill_delay" "ns" Lower "from the last page that was touched below the limit until the killed program was reaped";
    "memory" "oom_event_delay" "ns" Lower "from the last page that was touched below the limit until the kernel's event reached the harness";
    "memory" "soft_excess" "ratio" Lower "memory held above the soft limit, as a part of it; v1 pushes back only when the host is short";
    "memory" "memory_pressure" "ns" Lower "how long a thread of the container stood still for want of memory, by the kernel's pressure account; v2 only";
    "memory" "shrink_time" "ns" Lower "from writing a limit below the usage until the kernel had refused it or made it true";
    "memory" "cache_kept" "ratio" Higher "page cache left after the limit was lowered, as a part of the new limit";
    "pids" "fork_time" "ns" Lower "a fork that succeeds, the mean of those up to the limit";
    "pids" "refused_fork_time" "ns" Lower "a fork that the limit refuses";
    "freezer" "freeze_time" "ns" Lower "from the request until the kernel says that every task is frozen";
    "freezer" "thaw_time" "ns" Lower "from the request until the first thread ran again";
    "freezer" "thaw_all_time" "ns" Lower "from the request until every thread had run again";
    "blkio" "io_throughput" "bytes/s" Higher "bytes a second that the programs' requests carried, all containers together";
    "blkio" "io_operations" "1/s" Higher "requests of the programs done a second, all containers together";
    "blkio" "io_stall" "ns" Lower "the longest that one request took: a throttle lets a budget through and then waits";
    "blkio" "io_cpu_wait" "ns" Lower "how long a thread that does requests was kept from the CPU while they were counted";
    "blkio" "io_charged" "ratio" Higher "bytes charged to the container, as a part of those that its program wrote and synced";
    "blkio" "settling_time" "ns" Lower "from the change of a throttle until the new rate held; all of the time watched where it never did";
    "blkio" "buffered_excess" "times" Lower "bytes or operations a second that a program wrote into the cache, as a multiple of its throttle";
    "blkio" "weight_error" "ratio" Lower "how far the first container's part of the disk is from the part that its weight gives it";
    "accounting" "read_cost" "ns" Lower "the time that one reading of the account takes";
    "interference" "victim_rate" "1/s" Higher "pieces of work, or requests answered, that the measured container does a second";
    "interference" "victim_rtt" "ns" Lower "from sending a request until its reply has arrived, in the measured container";
    "interference" "victim_latency" "ns" Lower "how long a read from the disk takes in the measured container";
    "interference" "neighbour_killed" "ratio" Lower "whether its memory limit had ended the neighbour before the measured container was done";
    "lifecycle" "run" "ns" Lower "from the request to start it until its program has said that it is there";
    "lifecycle" "pause" "ns" Lower "from the request until the kernel says that every task is frozen";
    "lifecycle" "pause_2" "ns" Lower "as `pause`, the second time in one life";
    "lifecycle" "pause_3" "ns" Lower "as `pause`, the third time in one life";
    "lifecycle" "pause_4" "ns" Lower "as `pause`, the fourth time in one life";
    "lifecycle" "unpause" "ns" Lower "from the request until the kernel has taken the word that the tasks may go on";
    "lifecycle" "unpause_2" "ns" Lower "as `unpause`, the second time in one life";
    "lifecycle" "unpause_3" "ns" Lower "as `unpause`, the third time in one life";
    "lifecycle" "unpause_4" "ns" Lower "as `unpause`, the fourth time in one life";
    "lifecycle" "exec" "ns" Lower "from the request to run a program in the running container until that had ended and was reaped";
    "lifecycle" "exec_2" "ns" Lower "as `exec`, the second time in one life";
    "lifecycle" "exec_3" "ns" Lower "as `exec`, the third time in one life";
    "lifecycle" "exec_4" "ns" Lower "as `exec`, the fourth time in one life";
    "lifecycle" "stop" "ns" Lower "from SIGTERM until the container's first process was reaped";
    "lifecycle" "stop_2" "ns" Lower "as `stop`, the second time in one life";
    "lifecycle" "stop_3" "ns" Lower "as `stop`, the third time in one life";
    "lifecycle" "stop_4" "ns" Lower "as `stop`, the fourth time in one life";
    "lifecycle" "restart" "ns" Lower "stopped if it ran, its groups and network given back, and run again";
    "lifecycle" "restart_2" "ns" Lower "as `restart`, the second time in one life";
    "lifecycle" "restart_3" "ns" Lower "as `restart`, the third time in one life";
    "lifecycle" "restart_4" "ns" Lower "as `restart`, the fourth time in one life";
    "lifecycle" "rm" "ns" Lower "ended if it ran, and everything given back that it used";
}

/// A metric that an experiment names.
///
/// # Panics
/// When the list lacks it. It has every name that is used, as each experiment's tests say.
#[must_use]
pub fn named(name: &str) -> &'static Metric {
    find(name).unwrap_or_else(|| panic!("the list of metrics has no `{name}`"))
}

/// Looks a metric up by its name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Metric> {
    METRICS.iter().find(|metric| metric.name == name)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Every name must be in the list, as a metric of the experiment.
    pub(crate) fn listed(experiment: &str, names: &[&str]) {
        for name in names {
            assert_eq!((named(name).name, named(name).experiment), (*name, experiment));
        }
    }

    #[test]
    fn names_are_unique() {
        for (index, metric) in METRICS.iter().enumerate() {
            assert!(METRICS[..index].iter().all(|other| other.name != metric.name), "{}", metric.name);
        }
    }
}
