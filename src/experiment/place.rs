//! Where the containers of all blocks of a case are started: a lab, and what its network mode needs beside it.

use std::sync::Arc;

use super::ExperimentError;
use crate::lab::Lab;
use crate::network::bridge::BridgeNetwork;
use crate::runtime::{Instance, Network, Runtime, StartRequest};
use crate::scenario::NetworkMode;

/// The place.
pub(super) struct Place {
    /// The container whose network the measured ones share. Dropped first: it lives in what follows.
    partner: Option<Box<dyn Instance>>,
    bridge: Option<Arc<BridgeNetwork>>,
    lab: Lab,
}

impl Place {
    /// Makes the place for containers of a network mode.
    ///
    /// # Errors
    /// When a part of it cannot be made.
    pub(super) fn new(mode: NetworkMode, runtime: &dyn Runtime) -> Result<Self, ExperimentError> {
        let lab = Lab::new().map_err(ExperimentError::while_doing("making a lab"))?;
        let mut place = Self { partner: None, bridge: None, lab };
        if matches!(mode, NetworkMode::Bridge | NetworkMode::Container) {
            let bridge = place.lab.bridge().map_err(ExperimentError::while_doing("making a bridge"))?;
            place.bridge = Some(bridge.clone());
            if mode == NetworkMode::Container {
                let network = Network::Bridge { network: bridge, ports: Vec::new() };
                let partner = runtime.start(StartRequest::new(vec!["hold".to_owned()], network));
                let starting = ExperimentError::while_doing("starting the container whose network is shared");
                place.partner = Some(partner.map_err(starting)?);
            }
        }
        Ok(place)
    }

    /// How a container of this mode is connected here.
    ///
    /// # Errors
    /// When the place was made for another mode.
    pub(super) fn network(&self, mode: NetworkMode) -> Result<Network, ExperimentError> {
        let elsewhere = || ExperimentError::Unsupported(format!("nothing is prepared for the network `{mode}`"));
        match mode {
            NetworkMode::None => Ok(Network::None),
            NetworkMode::Host => Ok(Network::Host(self.lab.host().netns().clone())),
            NetworkMode::Bridge => {
                let network = self.bridge.clone().ok_or_else(elsewhere)?;
                Ok(Network::Bridge { network, ports: Vec::new() })
            }
            NetworkMode::Container => {
                let netns = self.partner.as_ref().ok_or_else(elsewhere)?.netns();
                Ok(Network::Container(netns.map_err(ExperimentError::while_doing("finding the partner's network"))?))
            }
        }
    }

    /// Gives everything back.
    ///
    /// # Errors
    /// When the container whose network is shared cannot be removed.
    pub(super) fn give_back(mut self) -> Result<(), ExperimentError> {
        match self.partner.take() {
            Some(partner) => {
                partner.remove().map_err(ExperimentError::while_doing("removing the container whose network is shared"))
            }
            None => Ok(()),
        }
    }
}
