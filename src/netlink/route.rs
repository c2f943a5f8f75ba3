//! IPv4 routes of the main table.

use std::net::Ipv4Addr;

use super::message::{Batch, CREATE, DUMP, EXCLUSIVE, array_at, attribute, u32_at};
use super::{NetlinkError, Socket};

/// Bytes of a `struct rtmsg`.
const HEADER: usize = 12;

/// A route as the kernel lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Where it leads; 0.0.0.0 with a prefix of 0 bits is the default route.
    pub destination: Ipv4Addr,
    /// The length of the destination's prefix, in bits.
    pub prefix_len: u8,
    /// The next hop, where there is one.
    pub gateway: Option<Ipv4Addr>,
    /// The link that it leaves by, where there is one (a blackhole route has none).
    pub link: Option<u32>,
}

/// Asks for a default route through `gateway` on the link with this index.
pub fn add_default(batch: &mut Batch, link: u32, gateway: Ipv4Addr) {
    let object = format!("through {gateway} on link {link}");
    let header = header(libc::RTPROT_STATIC, libc::RTN_UNICAST);
    batch.request((libc::RTM_NEWROUTE, CREATE | EXCLUSIVE), ("add default route", object), &header, |message| {
        message.bytes(libc::RTA_GATEWAY, &gateway.octets()).u32(libc::RTA_OIF, link);
    });
}

fn header(protocol: u8, kind: u8) -> [u8; HEADER] {
    let (table, scope) = (libc::RT_TABLE_MAIN, libc::RT_SCOPE_UNIVERSE);
    [libc::AF_INET as u8, 0, 0, 0, table, protocol, scope, kind, 0, 0, 0, 0]
}

/// Every IPv4 route of the main table in the socket's namespace.
///
/// # Errors
/// When the kernel refuses the dump.
pub fn list(socket: &mut Socket) -> Result<Vec<Route>, NetlinkError> {
    let mut batch = Batch::new();
    batch.request((libc::RTM_GETROUTE, DUMP), ("list", "routes"), &header(0, 0), |_| {});
    let mut found = Vec::new();
    socket.query(batch, |kind, payload| {
        if kind == libc::RTM_NEWROUTE {
            found.extend(parse(payload));
        }
    })?;
    Ok(found)
}

fn parse(payload: &[u8]) -> Option<Route> {
    let (family, prefix_len, table) = (*payload.first()?, *payload.get(1)?, *payload.get(4)?);
    let attributes = payload.get(HEADER..)?;
    let address = |kind| attribute(attributes, kind).and_then(|value| array_at::<4>(value, 0)).map(Ipv4Addr::from);
    (i32::from(family) == libc::AF_INET && table == libc::RT_TABLE_MAIN).then(|| Route {
        destination: address(libc::RTA_DST).unwrap_or(Ipv4Addr::UNSPECIFIED),
        prefix_len,
        gateway: address(libc::RTA_GATEWAY),
        link: attribute(attributes, libc::RTA_OIF).and_then(|value| u32_at(value, 0)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::message::{answers, hex};

    #[test]
    fn a_default_route_has_no_destination() {
        let mut batch = Batch::new();
        add_default(&mut batch, 2, Ipv4Addr::new(172, 30, 0, 1));
        expect_test::expect![[r#"
            2c000000 18000106 00000000 00000000 02000000 fe040001 00000000 08000500
            ac1e0001 08000400 02000000
        "#]]
        .assert_eq(&hex(&batch));
        let expected = Route {
            destination: Ipv4Addr::UNSPECIFIED,
            prefix_len: 0,
            gateway: Some(Ipv4Addr::new(172, 30, 0, 1)),
            link: Some(2),
        };
        assert_eq!(parse(answers(&batch.bytes).next().unwrap().payload), Some(expected));
    }
}
