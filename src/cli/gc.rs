//! `isobench gc`: takes away what a killed isobench could not give back.

use super::{CliError, Ended, output};
use crate::container::{gc, store as containers};
use crate::image::{Store, embedded};
use crate::lab::{loops, scheduler};
use crate::network::machine::{MachineNetworks, Removed};
use crate::runtime::stack;
use crate::sys::netns::NetNs;

pub(super) fn run() -> Result<Ended, CliError> {
    let collected = gc::collect().map_err(|error| CliError::Collect(Box::new(error)))?;
    let schedulers = scheduler::collect().map_err(|error| CliError::Collect(Box::new(error)))?;
    // After their schedulers: a device that is gone has none.
    let devices = loops::collect().map_err(|error| CliError::Collect(Box::new(error)))?;
    let stacks = stack::collect()?;
    let containers = containers()?;
    let networks = unused_networks()?;
    let images = embedded::remove_stale()?;
    let store = Store::existing()?.map(|store| store.tidy()).transpose()?.flatten().unwrap_or_default();
    let mut text = String::new();
    if collected != Default::default() {
        let (groups, processes) = (collected.groups, collected.processes);
        text.push_str(&format!("removed {groups} cgroup directories, ended {processes} processes in them\n"));
    }
    if schedulers > 0 {
        text.push_str(&format!("put back the schedulers of {schedulers} loop devices\n"));
    }
    if devices > 0 {
        text.push_str(&format!("removed {devices} loop devices that were added\n"));
    }
    if stacks > 0 {
        text.push_str(&format!("removed the layers of {stacks} runs\n"));
    }
    if containers.ended > 0 {
        text.push_str(&format!("wrote down the end of {} containers that no one saw ending\n", containers.ended));
    }
    if containers.halves > 0 {
        text.push_str(&format!("removed {} half-made containers and names\n", containers.halves));
    }
    if networks.addresses > 0 {
        text.push_str(&format!("took back the addresses of {} containers\n", networks.addresses));
    }
    if networks.networks > 0 {
        text.push_str("removed the network bridge, which no container is on\n");
    }
    if images > 0 {
        text.push_str(&format!("removed {images} self images of other builds\n"));
    }
    if store != Default::default() {
        let (layers, blobs) = (store.layers, store.blobs);
        text.push_str(&format!("removed {layers} layers and {blobs} blobs that no image needs\n"));
    }
    if text.is_empty() {
        text.push_str("nothing was left behind\n");
    }
    output::print(&text)?;
    Ok(Ended::Pass)
}

/// Settles the containers that outlive their command, where there are any.
fn containers() -> Result<gc::Settled, CliError> {
    let Some(store) = containers::Store::existing()? else { return Ok(gc::Settled::default()) };
    gc::settle(&store).map_err(|error| CliError::Collect(Box::new(error)))
}

/// Takes down what no one uses in the network namespace of this process, and forgets namespaces that are gone.
fn unused_networks() -> Result<Removed, CliError> {
    let removed = MachineNetworks::open(NetNs::current().map_err(CliError::Namespace)?)?.remove_unused()?;
    MachineNetworks::forget_gone()?;
    Ok(removed)
}
