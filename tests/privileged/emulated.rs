//! Tests that need a right clock, and so a processor that is not emulated. Beside the harness, for not all test binaries
//! have such.

use crate::harness::Case;

/// Skips the test where the processor is QEMU's emulation of one (TCG): everything takes 10 to 20 times as long there,
/// by turns.
pub fn timed(case: Case) -> Case {
    let emulated = std::fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| text.contains("QEMU TCG"));
    case.needs(!emulated, "its times mean nothing under QEMU TCG")
}
