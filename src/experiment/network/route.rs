//! Which end runs where for a network mode and a traffic path, and where the client finds the server. A pure function.

use crate::scenario::{NetworkMode, TrafficPath};

/// The port that a server takes in a namespace of its own, so that it can be published before it runs.
pub(super) const SERVER_PORT: u16 = 5201;

/// Where an end runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// In a container of the runtime under test.
    Container,
    /// As a process in the peer's namespace, the world outside.
    Peer,
}

/// Where a server listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bind {
    /// The peer's address, a free port.
    Peer,
    /// The host's address, a free port.
    Host,
    /// 127.0.0.1, a free port.
    Loopback,
    /// Every address of its namespace, [`SERVER_PORT`].
    Any,
}

/// Where the client finds the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// Where the server says that it listens.
    Bound,
    /// The host's address and the published port.
    Published,
    /// The server container's address on the bridge.
    Container,
}

/// The way of one case's traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Route {
    pub server: Place,
    pub client: Place,
    pub bind: Bind,
    pub target: Target,
}

impl Route {
    /// The way for a mode and a path; the error says why there is none.
    pub(super) fn of(mode: NetworkMode, path: TrafficPath) -> Result<Self, String> {
        use NetworkMode::{Bridge, Container, Host};
        let (server, client, bind, target) = match (mode, path) {
            (NetworkMode::None, _) => {
                return Err(
                    "a container with network mode `none` has no link, so that no traffic can be measured".into()
                );
            }
            (Host | Bridge | Container, TrafficPath::Egress) => {
                (Place::Peer, Place::Container, Bind::Peer, Target::Bound)
            }
            (Host, TrafficPath::Ingress) => (Place::Container, Place::Peer, Bind::Host, Target::Bound),
            (Bridge | Container, TrafficPath::Ingress) => (Place::Container, Place::Peer, Bind::Any, Target::Published),
            (Bridge, TrafficPath::Internal) => (Place::Container, Place::Container, Bind::Any, Target::Container),
            (Host | Container, TrafficPath::Internal) => {
                (Place::Container, Place::Container, Bind::Loopback, Target::Bound)
            }
        };
        Ok(Self { server, client, bind, target })
    }

    /// Whether the server's port is published on the host.
    pub(super) fn publishes(self) -> bool {
        self.target == Target::Published
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traffic_goes_where_its_name_says() {
        for &mode in NetworkMode::ALL {
            for &path in TrafficPath::ALL {
                let Ok(route) = Route::of(mode, path) else {
                    assert_eq!(mode, NetworkMode::None, "{mode} {path}");
                    continue;
                };
                let places = match path {
                    TrafficPath::Egress => (Place::Container, Place::Peer),
                    TrafficPath::Ingress => (Place::Peer, Place::Container),
                    TrafficPath::Internal => (Place::Container, Place::Container),
                };
                assert_eq!((route.client, route.server), places, "{mode} {path}");
                let nat_inwards = path == TrafficPath::Ingress && mode != NetworkMode::Host;
                assert_eq!(route.publishes(), nat_inwards, "{mode} {path}");
            }
        }
        let reason = Route::of(NetworkMode::None, TrafficPath::Internal).unwrap_err();
        assert!(reason.contains("no link"), "{reason}");
    }
}
