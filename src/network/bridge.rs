//! (under construction) The bridge driver.

/// A bridge network on one host.
#[derive(Debug)]
pub struct BridgeNetwork {}
