//! The built-in container runtime: a validated [`ContainerSpec`] is compiled to a plan, launched, waited for, removed.
//!
//! Used by the `builtin` runtime under test and, by hand, through the command line. The work is split: [`spec`] says
//! what is wanted, [`plan`] compiles it (a pure function), [`launch`] does it with the parent's half (cgroups,
//! network) running beside the child's (mounts).

pub mod capabilities;
pub mod config;
pub mod files;
pub mod gc;
pub mod launch;
pub mod plan;
pub mod seccomp;
pub mod spec;
pub mod state;
pub mod store;

pub use launch::{Container, ContainerError, Timeline};
pub use spec::{ContainerSpec, Network};
