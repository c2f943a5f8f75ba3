//! IPv4 addresses of links.

use std::net::Ipv4Addr;

use super::message::{Batch, CREATE, DUMP, EXCLUSIVE, array_at, attribute, u32_at};
use super::{NetlinkError, Socket};

/// Bytes of a `struct ifaddrmsg`.
const HEADER: usize = 8;

/// An address as the kernel lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The link that has it.
    pub link: u32,
    /// The address.
    pub address: Ipv4Addr,
    /// The length of its subnet's prefix, in bits.
    pub prefix_len: u8,
}

/// Asks for `address/prefix_len` on the link with this index; the kernel adds the route to its subnet.
pub fn add(batch: &mut Batch, link: u32, address: Ipv4Addr, prefix_len: u8) {
    let object = format!("{address}/{prefix_len} on link {link}");
    batch.request(
        (libc::RTM_NEWADDR, CREATE | EXCLUSIVE),
        ("add address", object),
        &header(link, prefix_len),
        |message| {
            message.bytes(libc::IFA_LOCAL, &address.octets()).bytes(libc::IFA_ADDRESS, &address.octets());
            if prefix_len < 31 {
                let broadcast = u32::from(address) | (u32::MAX >> prefix_len);
                message.bytes(libc::IFA_BROADCAST, &broadcast.to_be_bytes());
            }
        },
    );
}

fn header(link: u32, prefix_len: u8) -> [u8; HEADER] {
    let mut header = [libc::AF_INET as u8, prefix_len, 0, libc::RT_SCOPE_UNIVERSE, 0, 0, 0, 0];
    header[4..].copy_from_slice(&link.to_ne_bytes());
    header
}

/// Every IPv4 address in the socket's namespace.
///
/// # Errors
/// When the kernel refuses the dump.
pub fn list(socket: &mut Socket) -> Result<Vec<Address>, NetlinkError> {
    let mut batch = Batch::new();
    batch.request((libc::RTM_GETADDR, DUMP), ("list", "addresses"), &header(0, 0), |_| {});
    let mut found = Vec::new();
    socket.query(batch, |kind, payload| {
        if kind == libc::RTM_NEWADDR {
            found.extend(parse(payload));
        }
    })?;
    Ok(found)
}

fn parse(payload: &[u8]) -> Option<Address> {
    let (family, prefix_len) = (*payload.first()?, *payload.get(1)?);
    let attributes = payload.get(HEADER..)?;
    // IFA_ADDRESS is the other end on a point-to-point link; IFA_LOCAL is always the link's own.
    let value = attribute(attributes, libc::IFA_LOCAL).or_else(|| attribute(attributes, libc::IFA_ADDRESS))?;
    (i32::from(family) == libc::AF_INET).then_some(Address {
        link: u32_at(payload, 4)?,
        address: Ipv4Addr::from(array_at::<4>(value, 0)?),
        prefix_len,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::message::{answers, hex};

    #[test]
    fn an_address_brings_its_broadcast_address() {
        let mut batch = Batch::new();
        add(&mut batch, 2, Ipv4Addr::new(172, 30, 0, 2), 16);
        expect_test::expect![[r#"
            30000000 14000106 00000000 00000000 02100000 02000000 08000200 ac1e0002
            08000100 ac1e0002 08000400 ac1effff
        "#]]
        .assert_eq(&hex(&batch));
    }

    #[test]
    fn what_is_added_is_what_is_listed() {
        let mut batch = Batch::new();
        add(&mut batch, 7, Ipv4Addr::new(10, 0, 0, 1), 31);
        let expected = Address { link: 7, address: Ipv4Addr::new(10, 0, 0, 1), prefix_len: 31 };
        assert_eq!(parse(answers(&batch.bytes).next().unwrap().payload), Some(expected));
    }
}
