//! The built-in container runtime: a validated [`ContainerSpec`] is compiled to a plan, launched, waited for, removed.
//!
//! Used by the `builtin` runtime under test and, by hand, through the command line. The work is split: [`spec`] says
//! what is wanted, [`plan`] compiles it (a pure function), [`launch`] does it with the parent's half (cgroups,
//! network) running beside the child's (mounts).

pub mod capabilities;
pub mod client;
pub mod config;
pub mod connect;
pub mod etc;
pub mod exec;
pub mod files;
#[cfg(test)]
mod fixture;
pub mod gc;
mod id_map;
pub mod launch;
pub mod layers;
pub mod limits;
mod links;
pub mod log;
pub mod make;
pub mod monitor;
pub mod mounts;
pub mod names;
pub mod plan;
pub mod restart;
pub mod seccomp;
pub mod signal;
pub mod spec;
pub mod state;
pub mod store;
pub mod subid;
pub mod users;
pub mod volume;
pub mod wire;

pub use launch::{Container, ContainerError, Timeline};
pub use spec::{ContainerSpec, Network};
