//! (under construction) The bridge driver.

/// A bridge network on one host.
#[derive(Debug)]
pub struct BridgeNetwork {}

/// A container's place on a bridge (under construction).
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Its address.
    pub address: std::net::Ipv4Addr,
    /// Its published ports.
    pub ports: Vec<super::PortMapping>,
}

impl BridgeNetwork {
    /// (under construction)
    pub fn attach(&self, _: &crate::sys::netns::NetNs, _: &[super::PortMapping]) -> Result<Endpoint, super::NetworkError> {
        Err(super::NetworkError)
    }
    /// (under construction)
    pub fn detach(&self, _: &Endpoint) -> Result<(), super::NetworkError> {
        Ok(())
    }
}
