//! How a container that is run by hand is connected: in the namespace in which the command was run, which plays the host.

use super::config::NetworkMode;
use super::make::MakeError;
use super::spec::{self, Network};
use super::state::Process;
use super::store::{Store, Stored};
use crate::sys::netns::NetNs;

/// The network of a container, and its name.
///
/// # Errors
/// When the network or the other container is not there.
pub(super) fn network(store: &Store, stored: &Stored) -> Result<(Network, Option<String>), MakeError> {
    Ok(match &stored.config.network {
        NetworkMode::None => (Network::None, None),
        NetworkMode::Host => (Network::Host(host()?), None),
        NetworkMode::Container(name) => (Network::Container(of_container(store, name)?), None),
        NetworkMode::Bridge(name) => return Err(MakeError::Value(format!("no network {name}"))),
    })
}

/// The namespace in which commands are run.
fn host() -> Result<NetNs, MakeError> {
    NetNs::current().map_err(|source| MakeError::Namespace { what: "host's", source })
}

/// That of a running container.
fn of_container(store: &Store, name: &str) -> Result<NetNs, MakeError> {
    let other = store.find(name)?;
    let state = other.state()?;
    let Some(init) = state.init.filter(|init: &Process| state.status.is_up() && init.is_alive()) else {
        return Err(other.refuse("share the network of", state.status, "; start it first").into());
    };
    NetNs::of_pid(init.pid).map_err(|source| MakeError::Namespace { what: "other container's", source })
}

/// Gives back the place on the network of a container whose monitor died.
///
/// # Errors
/// When the kernel refuses.
pub(super) fn disconnect(_store: &Store, _stored: &Stored) -> Result<(), MakeError> {
    Ok(())
}

/// Writes what the container sees as /etc/hosts, /etc/hostname and /etc/resolv.conf.
///
/// # Errors
/// When a file cannot be written.
pub(super) fn write_names(_stored: &Stored, _network: &Network) -> Result<(), MakeError> {
    Ok(())
}

/// The binds of these files.
pub(super) fn names(_stored: &Stored) -> Vec<spec::Mount> {
    Vec::new()
}
