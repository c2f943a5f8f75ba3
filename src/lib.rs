//! isobench measures what isolation costs on a Linux machine, and whether the kernel enforces what was asked of it.
//!
//! The crate is one library and one binary. A scenario file becomes cases, the schedule runs them in shuffled
//! blocks, and a run directory with raw samples, summaries, charts and a report comes out:
//!
//! `scenarios/x.toml` → [`scenario`] → cases → [`schedule`] → [`experiment`] (→ [`runtime`] → [`container`] →
//! [`network`], [`cgroup`], [`sys`]) → [`record`] → [`report`] and [`gate`]. One way, no way back.
//!
//! # Layers
//!
//! A module imports lower layers only, and siblings only where the table shows it. `tests/layers.rs` checks it.
//!
//! | layer | module | holds |
//! |---|---|---|
//! | 0 | [`sys`] | the only `unsafe`: clone3, clock page, plan interpreter, namespaces, pidfd |
//! | 0 | [`stats`] | quantiles, bootstrap, outliers; no I/O |
//! | 0 | [`units`], [`fs`] | durations, bytes, rates, limits; atomic writes, locks, errors with paths |
//! | 1 | [`netlink`] | links, addresses, routes, nf_tables, spoken straight to the kernel |
//! | 1 | [`cgroup`] | detect, limits, attach, read back, usage; one file a controller |
//! | 1 | [`image`] | images: store, layers, archives, registries, the embedded `self` image |
//! | 1 | [`record`] | what a run is: samples, phases, summaries, host fingerprint; the run directory |
//! | 1 | [`scenario`] | TOML → validated `Scenario` → `Vec<Case>`; errors point at line and column; → [`record`] |
//! | 2 | [`network`] | the drivers (one file each), IPAM, NAT and published ports, on a given host namespace |
//! | 2 | [`container`] | the built-in runtime: spec → plan → launch → wait → remove; by hand: store, monitor, exec, logs; → [`network`] |
//! | 3 | [`lab`] | hermetic hosts and uplinks |
//! | 3 | [`workload`] | the programs that run inside a container; imports layer 0 only |
//! | 4 | [`runtime`] | what can be put under test, behind one trait: `builtin`, `floor` |
//! | 5 | [`experiment`] | one file a question: what a case does and which metrics it yields |
//! | 5 | [`schedule`] | blocks, warm-up, order, contamination, progress events; → [`experiment`] |
//! | 6 | [`report`] | csv, charts, html, markdown: functions of [`record`]; → [`gate`] |
//! | 6 | [`gate`] | checks and verdicts: functions of [`record`] and [`stats`] |
//! | 7 | [`cli`] | one file a command; the only code that prints |

pub mod cgroup;
pub mod cli;
pub mod container;
pub mod experiment;
pub mod fs;
pub mod gate;
pub mod image;
pub mod lab;
pub mod netlink;
pub mod network;
pub mod record;
pub mod report;
pub mod runtime;
pub mod scenario;
pub mod schedule;
pub mod stats;
pub mod sys;
pub mod units;
pub mod workload;
