//! Memory: does the limit hold, who is killed for it and when, what is reclaimed instead, and is what is charged what
//! was touched?
//!
//! | setting | what is done | what must come out |
//! |---|---|---|
//! | `limit` | anonymous memory is touched page by page beyond the limit | it is killed at the limit, to the page, and the kernel says so |
//! | `no-swap`, `swap` | the same, without and with as much swap as memory | the same, and at the sum of both |
//! | `cache` | a file four times the limit is written and read | cache is reclaimed, nobody is killed, every page comes back whole |
//! | `soft` | twice the soft limit is touched | v2 slows it down; v1 does nothing, and has no verdict |
//! | `shrink`, `shrink-cache` | the limit is set to half of what is in use | v1 refuses it and v2 kills; page cache gives way on both |

use std::sync::Arc;

use super::subject::{Subject, need};
use super::{EnforcementObservation, Experiment, ExperimentError, Observation, Observations, Stop};
use crate::cgroup::{Controller, Hierarchy, memory};
use crate::record::metric;
use crate::runtime::Runtime;
use crate::scenario::{MemoryCase, MemorySetting};
use crate::sys::region::{page_size, pages_a_table};

mod cache;
mod file;
mod limit;
mod shrink;
mod soft;

/// One case of the experiment.
pub struct Memory {
    case: MemoryCase,
    runtime: Arc<dyn Runtime>,
    hierarchy: Hierarchy,
}

impl Memory {
    /// An experiment for a case, with the runtime that the case names.
    #[must_use]
    pub fn new(case: MemoryCase, runtime: Arc<dyn Runtime>) -> Self {
        Self { case, runtime, hierarchy: Hierarchy::V1 }
    }

    /// The limit as the kernel keeps it, in whole pages.
    fn limit_pages(&self) -> u64 {
        self.case.limit / page_size()
    }
}

impl Experiment for Memory {
    fn prepare(&mut self) -> Result<(), ExperimentError> {
        let place = need(Controller::Memory)?;
        self.hierarchy = place.hierarchy;
        match self.case.setting {
            MemorySetting::NoSwap | MemorySetting::Swap => limit::need_swap(&place, &self.case),
            MemorySetting::Cache | MemorySetting::ShrinkCache => file::DiskFile::make().map(drop),
            MemorySetting::Limit | MemorySetting::Soft | MemorySetting::Shrink => Ok(()),
        }
    }

    fn measure(&mut self, into: &mut Observations, stop: Stop<'_>) -> Result<(), ExperimentError> {
        match self.case.setting {
            MemorySetting::Limit | MemorySetting::NoSwap | MemorySetting::Swap => limit::measure(self, into, stop),
            MemorySetting::Cache => cache::measure(self, into, stop),
            MemorySetting::Soft => soft::measure(self, into, stop),
            MemorySetting::Shrink => shrink::anonymous(self, into, stop),
            MemorySetting::ShrinkCache => shrink::cached(self, into, stop),
        }
    }

    fn finish(&mut self) -> Result<(), ExperimentError> {
        Ok(())
    }
}

/// Reads the controller's account, where the runtime made a group.
fn usage(subject: &Subject) -> Result<Option<memory::Usage>, ExperimentError> {
    let place = subject.place(Controller::Memory);
    place.map(memory::usage).transpose().map_err(ExperimentError::while_doing("reading the memory controller"))
}

/// What is charged before the workload begins, in bytes: its code, stacks, page tables, and what the kernel keeps for
/// two processes. Taken once nothing more can be reclaimed and no charge lies in stock. 0 without a group.
///
/// This is the one part of what counts as achieved that comes from the controller: the kernel tells no one else. It
/// is some 150 KiB, and an error in it would be an error of the whole of its own size.
fn baseline(subject: &Subject) -> Result<u64, ExperimentError> {
    let Some(place) = subject.place(Controller::Memory) else { return Ok(0) };
    memory::settle(place).map_err(ExperimentError::while_doing("letting the memory controller settle"))?;
    Ok(usage(subject)?.map_or(0, |usage| usage.current))
}

/// The page tables for so many pages from the begin of one, in pages, beyond those for the first.
fn further_tables(pages: u64) -> u64 {
    let mut tables = 0;
    let mut mapped = pages;
    // Three levels below the root, which the process has anyway.
    for _ in 0..3 {
        mapped = mapped.div_ceil(pages_a_table());
        tables += mapped.saturating_sub(1);
    }
    tables
}

/// A row of the memory controller.
fn row(setting: String, unit: &'static str, requested: f64, achieved: f64, start_ns: u64) -> EnforcementObservation {
    EnforcementObservation {
        controller: "memory",
        setting,
        unit,
        iteration: 0,
        requested,
        achieved,
        accounted: None,
        tolerance_pct: 0.0,
        start_ns,
    }
}

fn value(name: &str, value: f64, start_ns: u64) -> Observation {
    Observation { metric: metric::named(name), iteration: 0, value, start_ns }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_in_the_list() {
        let names = "page_touch page_read charge_batch kill_delay oom_event_delay soft_excess shrink_time cache_kept";
        metric::tests::listed("memory", &names.split(' ').collect::<Vec<_>>());
    }

    #[test]
    fn a_table_is_needed_for_every_full_one() {
        let table = pages_a_table();
        let seen = [1, table, table + 1, 10 * table, 10 * table + 1].map(further_tables);
        assert_eq!(seen, [0, 0, 1, 9, 10]);
        // The table of tables is full too.
        assert_eq!(further_tables(table * table + 1), table + 1);
    }
}
