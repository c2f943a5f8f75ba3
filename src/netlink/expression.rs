//! The steps of an nf_tables rule: loads, comparisons and acts over the registers of the kernel's small virtual
//! machine.
//!
//! A new kind of step is one more variant of [`Expression`]; `nftables` puts them into rules.

use std::borrow::Cow;

use super::message::Attributes;
use super::nftables::{DATA_VALUE, FAMILY};

const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;

/// A register of 32 bits; a value that is longer, or a concatenation, goes on in the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Register(pub u8);

impl Register {
    fn number(self) -> u32 {
        libc::NFT_REG32_00 as u32 + u32::from(self.0)
    }
}

/// A part of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// The source address of IPv4.
    SourceAddress,
    /// The destination address of IPv4.
    DestinationAddress,
    /// The destination port of TCP and UDP.
    DestinationPort,
}

impl Field {
    /// Base, offset and length in bytes.
    fn place(self) -> (u32, u32, u32) {
        let (network, transport) = (libc::NFT_PAYLOAD_NETWORK_HEADER as u32, libc::NFT_PAYLOAD_TRANSPORT_HEADER as u32);
        match self {
            Self::SourceAddress => (network, 12, 4),
            Self::DestinationAddress => (network, 16, 4),
            Self::DestinationPort => (transport, 2, 2),
        }
    }
}

/// What the kernel knows of a packet beside its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meta {
    /// The index of the link by which it came.
    InputLink,
    /// The index of the link by which it leaves.
    OutputLink,
    /// The transport protocol's number.
    TransportProtocol,
}

/// One step of a rule. A comparison or a look-up that fails ends the rule, and the next rule has its turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expression<'a> {
    /// Loads a fact about the packet.
    Meta(Meta, Register),
    /// Loads a part of the packet.
    Payload(Field, Register),
    /// Loads the kind of address that the destination is for this host (RTN_LOCAL, …).
    DestinationKind(Register),
    /// Loads the status bits of the connection.
    ConnectionStatus(Register),
    /// Ands four bytes in a register with a mask.
    Mask(Register, [u8; 4]),
    /// Goes on when the register holds these bytes.
    Equal(Register, Vec<u8>),
    /// Goes on when the register does not hold these bytes.
    NotEqual(Register, Vec<u8>),
    /// Goes on with the data that the map has for the key in `key`.
    Lookup {
        /// The map.
        map: Cow<'a, str>,
        /// The key's first register.
        key: Register,
        /// The data's first register.
        data: Register,
    },
    /// Sends the flow on to the address in one register and the port in another.
    Dnat(Register, Register),
    /// Gives the flow the source address of the link by which it leaves.
    Masquerade,
    /// Drops the packet.
    Drop,
}

impl Expression<'_> {
    fn name(&self) -> &'static str {
        match self {
            Self::Meta(..) => "meta",
            Self::Payload(..) => "payload",
            Self::DestinationKind(_) => "fib",
            Self::ConnectionStatus(_) => "ct",
            Self::Mask(..) => "bitwise",
            Self::Equal(..) | Self::NotEqual(..) => "cmp",
            Self::Lookup { .. } => "lookup",
            Self::Dnat(..) => "nat",
            Self::Masquerade => "masq",
            Self::Drop => "immediate",
        }
    }

    pub(super) fn write(&self, element: &mut Attributes<'_>) {
        element.text(EXPRESSION_NAME, self.name()).nest(EXPRESSION_DATA, |data| self.write_data(data));
    }

    /// The numbers are the positions in the enums `nft_meta_attributes`, `nft_payload_attributes`, … of nf_tables.h.
    fn write_data(&self, data: &mut Attributes<'_>) {
        match self {
            Self::Meta(key, register) => {
                let key = match key {
                    Meta::InputLink => libc::NFT_META_IIF,
                    Meta::OutputLink => libc::NFT_META_OIF,
                    Meta::TransportProtocol => libc::NFT_META_L4PROTO,
                };
                data.be32(1, register.number()).be32(2, key as u32);
            }
            Self::Payload(field, register) => {
                let (base, offset, length) = field.place();
                data.be32(1, register.number()).be32(2, base).be32(3, offset).be32(4, length);
            }
            Self::DestinationKind(register) => {
                const RESULT_ADDRESS_TYPE: u32 = 3;
                const OF_DESTINATION: u32 = 2;
                data.be32(1, register.number()).be32(2, RESULT_ADDRESS_TYPE).be32(3, OF_DESTINATION);
            }
            Self::ConnectionStatus(register) => {
                data.be32(1, register.number()).be32(2, libc::NFT_CT_STATUS as u32);
            }
            Self::Mask(register, mask) => {
                data.be32(1, register.number()).be32(2, register.number()).be32(3, mask.len() as u32);
                data.nest(4, |value| _ = value.bytes(DATA_VALUE, mask));
                data.nest(5, |value| _ = value.bytes(DATA_VALUE, &[0; 4]));
            }
            Self::Equal(register, bytes) => compare(data, *register, libc::NFT_CMP_EQ, bytes),
            Self::NotEqual(register, bytes) => compare(data, *register, libc::NFT_CMP_NEQ, bytes),
            Self::Lookup { map, key, data: found } => {
                data.text(1, map).be32(2, key.number()).be32(3, found.number());
            }
            Self::Dnat(address, port) => {
                const DESTINATION: u32 = 1;
                data.be32(1, DESTINATION).be32(2, u32::from(FAMILY));
                data.be32(3, address.number()).be32(5, port.number());
            }
            Self::Masquerade => {}
            Self::Drop => {
                data.be32(1, libc::NFT_REG_VERDICT as u32).nest(2, |value| {
                    value.nest(DATA_VERDICT, |verdict| _ = verdict.be32(VERDICT_CODE, libc::NF_DROP as u32));
                });
            }
        }
    }
}

fn compare(data: &mut Attributes<'_>, register: Register, operation: i32, bytes: &[u8]) {
    data.be32(1, register.number()).be32(2, operation as u32);
    data.nest(3, |value| _ = value.bytes(DATA_VALUE, bytes));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::message::{Batch, hex};

    #[test]
    fn every_expression() {
        let first = Register(0);
        let rule = [
            Expression::Meta(Meta::OutputLink, first),
            Expression::NotEqual(first, 3u32.to_ne_bytes().to_vec()),
            Expression::Payload(Field::SourceAddress, first),
            Expression::Mask(first, [255, 255, 0, 0]),
            Expression::Equal(first, vec![172, 30, 0, 0]),
            Expression::DestinationKind(first),
            Expression::ConnectionStatus(first),
            Expression::Lookup { map: "published".into(), key: first, data: first },
            Expression::Dnat(first, Register(1)),
            Expression::Masquerade,
            Expression::Drop,
        ];
        let mut batch = Batch::new();
        batch.request((0, 0), ("add", "rule"), &[], |message| rule.iter().for_each(|step| step.write(message)));
        expect_test::expect![[r#"
            c8010000 00000100 00000000 00000000 09000100 6d657461 00000000 14000280
            08000100 00000008 08000200 00000005 08000100 636d7000 20000280 08000100
            00000008 08000200 00000001 0c000380 08000100 03000000 0c000100 7061796c
            6f616400 24000280 08000100 00000008 08000200 00000001 08000300 0000000c
            08000400 00000004 0c000100 62697477 69736500 34000280 08000100 00000008
            08000200 00000008 08000300 00000004 0c000480 08000100 ffff0000 0c000580
            08000100 00000000 08000100 636d7000 20000280 08000100 00000008 08000200
            00000000 0c000380 08000100 ac1e0000 08000100 66696200 1c000280 08000100
            00000008 08000200 00000003 08000300 00000002 07000100 63740000 14000280
            08000100 00000008 08000200 00000002 0b000100 6c6f6f6b 75700000 24000280
            0e000100 7075626c 69736865 64000000 08000200 00000008 08000300 00000008
            08000100 6e617400 24000280 08000100 00000001 08000200 00000002 08000300
            00000008 08000500 00000009 09000100 6d617371 00000000 04000280 0e000100
            696d6d65 64696174 65000000 1c000280 08000100 00000000 10000280 0c000280
            08000100 00000000
        "#]]
        .assert_eq(&hex(&batch));
    }
}
