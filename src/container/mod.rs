//! The built-in container runtime: a validated [`ContainerSpec`] is compiled to a plan, launched, waited for, removed.
//!
//! Used by the `builtin` runtime under test and, by hand, through the command line. The work is split: [`spec`] says
//! what is wanted, [`plan`] compiles it (a pure function), [`launch`] does it with the parent's half (cgroups,
//! network) running beside the child's (mounts).

pub mod capabilities;
pub mod config;
pub mod gc;
mod id_map;
pub mod launch;
pub mod mounts;
pub mod plan;
pub mod seccomp;
pub mod spec;
pub mod state;
pub mod store;
pub mod subid;
pub mod volume;

pub use launch::{Container, ContainerError, Timeline};
pub use spec::{ContainerSpec, Network};
