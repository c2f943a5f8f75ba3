//! What happens while a run goes on, for whoever shows it.

use crate::experiment::Observation;

/// One step of a run. Names are case ids; blocks count from 0 with the warm-up blocks first.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Event<'a> {
    /// What the blocks share is about to be made for a case.
    Preparing {
        /// The case.
        case: &'a str,
        /// Its position among all cases, from 0.
        index: usize,
        /// How many cases there are.
        total: usize,
    },
    /// A case cannot be measured here.
    Skipped {
        /// The case.
        case: &'a str,
        /// Why, in words.
        reason: &'a str,
    },
    /// A block begins.
    BlockStarted {
        /// Its number.
        block: u32,
        /// How many blocks there are, warm-up included.
        total: u32,
        /// Whether it is for warming up.
        warmup: bool,
    },
    /// A case is about to be measured.
    CaseStarted {
        /// Its block.
        block: u32,
        /// The case.
        case: &'a str,
    },
    /// A case was measured.
    CaseMeasured {
        /// Its block.
        block: u32,
        /// The case.
        case: &'a str,
        /// What it yielded.
        values: &'a [Observation],
        /// How long it took, in ns.
        duration_ns: u64,
        /// Whether the machine was disturbed meanwhile.
        disturbed: bool,
    },
    /// A block has ended.
    BlockFinished {
        /// Its number.
        block: u32,
        /// How long it took, in ns.
        duration_ns: u64,
    },
    /// Everything that the cases hold is being given back.
    Finishing,
}
