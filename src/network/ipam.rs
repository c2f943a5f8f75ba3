//! Subnets and the addresses in them: pure bookkeeping, without a look at the kernel.

use std::collections::BTreeSet;
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// Why an address or a subnet could not be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IpamError {
    /// Not a subnet.
    #[error("`{text}` is not a subnet: {problem}")]
    Subnet {
        /// The text.
        text: String,
        /// What is wrong, and what would be right.
        problem: String,
    },
    /// No address is free.
    #[error("subnet {0} is full")]
    Full(Subnet),
    /// The address belongs to another network.
    #[error("{address} is not in subnet {subnet}")]
    Outside {
        /// The address that was asked for.
        address: Ipv4Addr,
        /// The subnet.
        subnet: Subnet,
    },
    /// The address is the subnet's own, or its broadcast address.
    #[error("{address} is no host's address in subnet {subnet}")]
    NotAHost {
        /// The address that was asked for.
        address: Ipv4Addr,
        /// The subnet.
        subnet: Subnet,
    },
    /// The address is taken.
    #[error("{0} is taken")]
    Taken(Ipv4Addr),
}

/// A range of IPv4 addresses with a common prefix, as in `172.30.0.0/16`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Subnet {
    network: Ipv4Addr,
    prefix_len: u8,
}

impl Subnet {
    /// The subnet that an address lies in; a prefix has 32 bits at most.
    #[must_use]
    pub fn around(address: Ipv4Addr, prefix_len: u8) -> Self {
        let prefix_len = prefix_len.min(32);
        Self { network: Ipv4Addr::from(u32::from(address) & mask(prefix_len)), prefix_len }
    }

    /// The address that stands for the whole.
    #[must_use]
    pub fn network(self) -> Ipv4Addr {
        self.network
    }

    /// The length of the common prefix, in bits.
    #[must_use]
    pub fn prefix_len(self) -> u8 {
        self.prefix_len
    }

    /// The common prefix as a mask.
    #[must_use]
    pub fn mask(self) -> Ipv4Addr {
        Ipv4Addr::from(mask(self.prefix_len))
    }

    /// The address that reaches every host.
    #[must_use]
    pub fn broadcast(self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.network) | !mask(self.prefix_len))
    }

    /// The lowest address that a host can have.
    #[must_use]
    pub fn first_host(self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.network).saturating_add(1))
    }

    /// Whether the address lies in it.
    #[must_use]
    pub fn contains(self, address: Ipv4Addr) -> bool {
        u32::from(address) & mask(self.prefix_len) == u32::from(self.network)
    }

    /// Whether the two have an address in common.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.contains(other.network) || other.contains(self.network)
    }
}

fn mask(prefix_len: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix_len)).unwrap_or(0)
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix_len)
    }
}

/// Reads `172.30.0.0/16`. The bits behind the prefix must be zero, so that a slip does not silently move a network.
impl FromStr for Subnet {
    type Err = IpamError;

    fn from_str(text: &str) -> Result<Self, IpamError> {
        let error = |problem: String| IpamError::Subnet { text: text.to_owned(), problem };
        let (address, prefix_len) = text
            .split_once('/')
            .ok_or_else(|| error("write an address and a prefix length, as in 172.30.0.0/16".to_owned()))?;
        let address: Ipv4Addr = address.parse().map_err(|_| error(format!("`{address}` is not an IPv4 address")))?;
        let prefix_len: u8 = prefix_len
            .parse()
            .ok()
            .filter(|length| *length <= 32)
            .ok_or_else(|| error(format!("the prefix length `{prefix_len}` is not a number from 0 to 32")))?;
        let subnet = Self::around(address, prefix_len);
        if subnet.network != address {
            return Err(error(format!("{address} is an address inside of {subnet}; write {subnet}")));
        }
        Ok(subnet)
    }
}

/// Hands out the addresses of one subnet, lowest first.
///
/// The subnet's own address, its broadcast address and the gateway are never given.
#[derive(Debug)]
pub struct Ipam {
    subnet: Subnet,
    gateway: Ipv4Addr,
    taken: BTreeSet<Ipv4Addr>,
    /// No address below is free, so that looking for the lowest does not begin anew each time.
    search_from: Ipv4Addr,
}

impl Ipam {
    /// Begins with all addresses free but the gateway: the given one, or the subnet's first.
    ///
    /// # Errors
    /// When the subnet has no room for a gateway and one more host, or the gateway is not a host's address in it.
    pub fn new(subnet: Subnet, gateway: Option<Ipv4Addr>) -> Result<Self, IpamError> {
        if subnet.prefix_len > 30 {
            let problem =
                "it has no room for a gateway and a container; the longest prefix that does is /30".to_owned();
            return Err(IpamError::Subnet { text: subnet.to_string(), problem });
        }
        let gateway = gateway.unwrap_or_else(|| subnet.first_host());
        let mut ipam = Self { subnet, gateway, taken: BTreeSet::new(), search_from: subnet.first_host() };
        ipam.allocate_this(gateway)?;
        Ok(ipam)
    }

    /// The subnet.
    #[must_use]
    pub fn subnet(&self) -> Subnet {
        self.subnet
    }

    /// The gateway's address.
    #[must_use]
    pub fn gateway(&self) -> Ipv4Addr {
        self.gateway
    }

    /// How many addresses are given out, the gateway not counted.
    #[must_use]
    pub fn given(&self) -> usize {
        self.taken.len() - 1
    }

    /// Takes the lowest free address.
    ///
    /// # Errors
    /// When none is free.
    pub fn allocate(&mut self) -> Result<Ipv4Addr, IpamError> {
        let mut candidate = self.search_from;
        // Walks the taken addresses beside the candidates, so that a long run of them costs one step each.
        for taken in self.taken.range(candidate..) {
            if *taken != candidate {
                break;
            }
            candidate = next(candidate);
        }
        if candidate >= self.subnet.broadcast() {
            return Err(IpamError::Full(self.subnet));
        }
        self.taken.insert(candidate);
        self.search_from = next(candidate);
        Ok(candidate)
    }

    /// Takes a certain address.
    ///
    /// # Errors
    /// When it is taken, outside of the subnet, or no host's address.
    pub fn allocate_this(&mut self, address: Ipv4Addr) -> Result<(), IpamError> {
        let subnet = self.subnet;
        if !subnet.contains(address) {
            return Err(IpamError::Outside { address, subnet });
        }
        if address == subnet.network || address == subnet.broadcast() {
            return Err(IpamError::NotAHost { address, subnet });
        }
        if self.taken.insert(address) { Ok(()) } else { Err(IpamError::Taken(address)) }
    }

    /// Gives an address back; false when it was not given out.
    pub fn release(&mut self, address: Ipv4Addr) -> bool {
        if address == self.gateway || !self.taken.remove(&address) {
            return false;
        }
        self.search_from = self.search_from.min(address);
        true
    }
}

/// The address behind; never asked of the highest, which is a broadcast address.
fn next(address: Ipv4Addr) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(address).saturating_add(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn subnet(text: &str) -> Subnet {
        text.parse().unwrap()
    }

    fn address(text: &str) -> Ipv4Addr {
        text.parse().unwrap()
    }

    #[test]
    fn subnets_are_read_strictly() {
        assert_eq!(subnet("172.30.0.0/16").to_string(), "172.30.0.0/16");
        assert_eq!(subnet("0.0.0.0/0").broadcast(), Ipv4Addr::BROADCAST);
        let errors: Vec<String> = ["172.30.0.0", "x/8", "10.0.0.0/33", "10.0.0.0/-1", "172.30.0.5/16"]
            .iter()
            .map(|text| text.parse::<Subnet>().unwrap_err().to_string())
            .collect();
        expect_test::expect![[r#"
            `172.30.0.0` is not a subnet: write an address and a prefix length, as in 172.30.0.0/16
            `x/8` is not a subnet: `x` is not an IPv4 address
            `10.0.0.0/33` is not a subnet: the prefix length `33` is not a number from 0 to 32
            `10.0.0.0/-1` is not a subnet: the prefix length `-1` is not a number from 0 to 32
            `172.30.0.5/16` is not a subnet: 172.30.0.5 is an address inside of 172.30.0.0/16; write 172.30.0.0/16"#]]
        .assert_eq(&errors.join("\n"));
    }

    #[test]
    fn overlap_is_containment_of_either() {
        assert!(subnet("10.0.0.0/8").overlaps(subnet("10.1.0.0/16")));
        assert!(subnet("10.1.0.0/16").overlaps(subnet("10.0.0.0/8")));
        assert!(!subnet("10.1.0.0/16").overlaps(subnet("10.2.0.0/16")));
        assert!(subnet("0.0.0.0/0").overlaps(subnet("10.2.3.4/32")));
    }

    #[test]
    fn the_lowest_free_address_comes_first() {
        let mut ipam = Ipam::new(subnet("10.0.0.0/24"), None).unwrap();
        assert_eq!(ipam.gateway(), address("10.0.0.1"));
        ipam.allocate_this(address("10.0.0.3")).unwrap();
        assert_eq!(ipam.allocate(), Ok(address("10.0.0.2")));
        assert_eq!(ipam.allocate(), Ok(address("10.0.0.4")));
        assert!(ipam.release(address("10.0.0.2")));
        assert!(!ipam.release(address("10.0.0.2")));
        assert_eq!(ipam.allocate(), Ok(address("10.0.0.2")));
        assert_eq!(ipam.given(), 3);
    }

    #[test]
    fn a_full_subnet_is_refused() {
        let mut ipam = Ipam::new(subnet("10.0.0.0/30"), None).unwrap();
        assert_eq!(ipam.allocate(), Ok(address("10.0.0.2")));
        assert_eq!(ipam.allocate(), Err(IpamError::Full(subnet("10.0.0.0/30"))));
        assert!(ipam.release(address("10.0.0.2")));
        assert_eq!(ipam.allocate(), Ok(address("10.0.0.2")));
        assert!(Ipam::new(subnet("10.0.0.0/31"), None).is_err());
    }

    #[test]
    fn the_end_of_all_addresses_is_no_special_case() {
        let mut ipam = Ipam::new(subnet("255.255.255.252/30"), Some(address("255.255.255.254"))).unwrap();
        assert_eq!(ipam.allocate(), Ok(address("255.255.255.253")));
        assert!(ipam.allocate().is_err());
    }

    #[test]
    fn the_gateway_is_kept_back_wherever_it_is() {
        let mut ipam = Ipam::new(subnet("10.0.0.0/29"), Some(address("10.0.0.3"))).unwrap();
        let given: Vec<u8> = std::iter::from_fn(|| ipam.allocate().ok()).map(|a| a.octets()[3]).collect();
        assert_eq!(given, [1, 2, 4, 5, 6]);
        assert!(!ipam.release(address("10.0.0.3")));
        assert_eq!(ipam.allocate_this(address("10.0.0.3")), Err(IpamError::Taken(address("10.0.0.3"))));
    }

    #[test]
    fn impossible_addresses_are_refused() {
        let mut ipam = Ipam::new(subnet("10.0.0.0/24"), None).unwrap();
        for (text, expected) in [
            ("10.0.1.1", "10.0.1.1 is not in subnet 10.0.0.0/24"),
            ("10.0.0.0", "10.0.0.0 is no host's address in subnet 10.0.0.0/24"),
            ("10.0.0.255", "10.0.0.255 is no host's address in subnet 10.0.0.0/24"),
            ("10.0.0.1", "10.0.0.1 is taken"),
        ] {
            assert_eq!(ipam.allocate_this(address(text)).unwrap_err().to_string(), expected);
        }
        assert!(Ipam::new(subnet("10.0.0.0/24"), Some(address("10.0.1.1"))).is_err());
    }

    proptest! {
        /// Against the plainest model: a set, and a search from the bottom.
        #[test]
        fn it_behaves_as_a_set_that_is_searched_from_the_bottom(steps in prop::collection::vec((0u8..3, 0u8..16), 0..80)) {
            let base = u32::from(address("10.0.0.0"));
            let mut ipam = Ipam::new(subnet("10.0.0.0/28"), None).unwrap();
            let mut model: BTreeSet<u32> = [1].into();
            for (act, host) in steps {
                let host = u32::from(host);
                let this = Ipv4Addr::from(base + host);
                match act {
                    0 => {
                        let expected = (1..15).find(|host| !model.contains(host));
                        prop_assert_eq!(ipam.allocate().ok(), expected.map(|host| Ipv4Addr::from(base + host)));
                        model.extend(expected);
                    }
                    1 => {
                        let possible = (1..15).contains(&host) && model.insert(host);
                        prop_assert_eq!(ipam.allocate_this(this).is_ok(), possible);
                    }
                    _ => prop_assert_eq!(ipam.release(this), host != 1 && model.remove(&host)),
                }
                prop_assert_eq!(ipam.given(), model.len() - 1);
            }
        }
    }
}
