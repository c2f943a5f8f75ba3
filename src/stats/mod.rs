//! Statistics: pure functions of numbers, without I/O. Each file cites the literature that it follows.
//!
//! Layer 0. `record` summarises runs with it, `report` draws with it, `workload` ships its histograms by it.
//!
//! What a summary rests on:
//! - a quantile of samples is Hyndman and Fan's type 7 ([`quantile`]); of a histogram it is the inverse of the
//!   empirical distribution, as HDR histograms define it ([`histogram`]);
//! - an interval of a median is the *expanded percentile* bootstrap over blocks ([`blocks`], and [`bootstrap`] says why not BCa);
//! - an outlier lies beyond Tukey's far fences ([`fences`]); it is marked, never removed.

pub mod blocks;
pub mod bootstrap;
pub mod fences;
pub mod histogram;
pub mod moments;
pub mod normal;
pub mod quantile;
pub mod student;
