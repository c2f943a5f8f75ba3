//! System calls: the only module that may say `unsafe`, and each such block says why it is sound.
//!
//! Layer 0: it knows nothing of containers, networks or scenarios. `container` compiles plans for its interpreter,
//! `network` and `lab` hold its namespaces, `runtime` reads its clock.
#![allow(unsafe_code)]

pub mod attach;
pub mod board;
pub mod bpf;
pub mod clock;
mod clone;
mod entry;
pub mod fork;
pub mod guard;
pub mod inherited;
mod interpret;
pub mod launch;
pub mod loopdev;
pub mod mount;
pub mod netns;
pub mod page;
pub mod pidfd;
pub mod plan;
mod raw;
pub mod region;
pub mod sockopt;
pub mod tcp_info;
pub mod terminal;
