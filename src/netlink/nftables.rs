//! nf_tables: tables, chains, rules, maps and their elements, for the `ip` family.
//!
//! A [`Transaction`] is carried out as a whole or not at all. A rule is a list of [`Expression`]s.

use super::expression::Expression;
use super::message::{APPEND, Attributes, Batch, CREATE, DUMP, EXCLUSIVE, attribute, attributes};
use super::{NetlinkError, Socket};

/// NFPROTO_IPV4.
pub(super) const FAMILY: u8 = libc::NFPROTO_IPV4 as u8;

const fn kind(message: i32) -> u16 {
    ((libc::NFNL_SUBSYS_NFTABLES << 8) | message) as u16
}

// Attributes of `linux/netfilter/nf_tables.h`, by the enum that they belong to.
const LIST_ELEM: u16 = 1;
const TABLE_NAME: u16 = 1;
const TABLE_USE: u16 = 3;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_TYPE: u16 = 7;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
const SET_TABLE: u16 = 1;
const SET_NAME: u16 = 2;
const SET_FLAGS: u16 = 3;
const SET_KEY_TYPE: u16 = 4;
const SET_KEY_LENGTH: u16 = 5;
const SET_DATA_TYPE: u16 = 6;
const SET_DATA_LENGTH: u16 = 7;
const SET_ID: u16 = 10;
const SET_IS_MAP: u32 = 8;
const ELEMENTS_TABLE: u16 = 1;
const ELEMENTS_SET: u16 = 2;
const ELEMENTS: u16 = 3;
const ELEMENT_KEY: u16 = 1;
const ELEMENT_DATA: u16 = 2;
pub(super) const DATA_VALUE: u16 = 1;

/// The types of which keys and data are made; `nft` needs them to print a map, the kernel does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataType {
    /// An IPv4 address.
    Ipv4Address,
    /// A transport protocol's number.
    Protocol,
    /// A port.
    Port,
}

impl DataType {
    fn number(self) -> u32 {
        match self {
            Self::Ipv4Address => 7,
            Self::Protocol => 12,
            Self::Port => 13,
        }
    }

    /// A concatenation: six bits a type, the last one lowest.
    fn concatenation(types: &[Self]) -> u32 {
        types.iter().fold(0, |sum, part| (sum << 6) | part.number())
    }
}

/// Where packets pass a base chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// On arrival, before the routing decision.
    Prerouting,
    /// Made by this host, before it is sent.
    Output,
    /// On leaving, after the routing decision.
    Postrouting,
}

impl Hook {
    fn number(self) -> u32 {
        match self {
            Self::Prerouting => libc::NF_INET_PRE_ROUTING as u32,
            Self::Output => libc::NF_INET_LOCAL_OUT as u32,
            Self::Postrouting => libc::NF_INET_POST_ROUTING as u32,
        }
    }
}

/// What the rules of a base chain may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChainType {
    /// Accept and drop.
    Filter,
    /// Set up address translation; asked about the first packet of a flow only.
    Nat,
}

/// A base chain: its policy is to accept.
#[derive(Debug, Clone)]
pub struct Chain<'a> {
    /// The table.
    pub table: &'a str,
    /// The name.
    pub name: &'a str,
    /// What its rules may do.
    pub chain_type: ChainType,
    /// Where packets pass it.
    pub hook: Hook,
    /// Its turn among the chains of that hook; lower is earlier.
    pub priority: i32,
}

/// A map from a key to data, found by hash.
#[derive(Debug, Clone)]
pub struct Map<'a> {
    /// The table.
    pub table: &'a str,
    /// The name.
    pub name: &'a str,
    /// What the key is made of.
    pub key: &'a [DataType],
    /// What the data is made of.
    pub data: &'a [DataType],
}

/// Changes that happen together or not at all.
#[derive(Debug)]
pub struct Transaction {
    batch: Batch,
    maps: u32,
}

impl Default for Transaction {
    fn default() -> Self {
        Self::new()
    }
}

impl Transaction {
    /// A transaction without changes.
    #[must_use]
    pub fn new() -> Self {
        let mut batch = Batch::new();
        bracket(&mut batch, libc::NFNL_MSG_BATCH_BEGIN, "begin");
        Self { batch, maps: 0 }
    }

    /// Carries the changes out.
    ///
    /// # Errors
    /// When the kernel refuses one, which is named; then none has happened.
    pub fn commit(mut self, socket: &mut Socket) -> Result<(), NetlinkError> {
        bracket(&mut self.batch, libc::NFNL_MSG_BATCH_END, "end");
        socket.run(self.batch)
    }

    /// Makes a table, unless there is one of that name.
    pub fn add_table(&mut self, name: &str) -> &mut Self {
        self.ask(libc::NFT_MSG_NEWTABLE, CREATE, ("add table", name), |message| {
            message.text(TABLE_NAME, name);
        })
    }

    /// Deletes a table with all that it holds.
    pub fn delete_table(&mut self, name: &str) -> &mut Self {
        self.ask(libc::NFT_MSG_DELTABLE, 0, ("delete table", name), |message| {
            message.text(TABLE_NAME, name);
        })
    }

    /// Makes a base chain, unless there is one like it; EBUSY, EEXIST or EOPNOTSUPP when one of that name is different.
    pub fn add_chain(&mut self, chain: &Chain<'_>) -> &mut Self {
        self.ask(libc::NFT_MSG_NEWCHAIN, CREATE, ("add chain", chain.name), |message| {
            message.text(CHAIN_TABLE, chain.table).text(CHAIN_NAME, chain.name);
            message.text(CHAIN_TYPE, if chain.chain_type == ChainType::Nat { "nat" } else { "filter" });
            message.nest(CHAIN_HOOK, |hook| {
                hook.be32(HOOK_NUMBER, chain.hook.number()).be32(HOOK_PRIORITY, chain.priority as u32);
            });
        })
    }

    /// Deletes the rules of a chain.
    pub fn flush_chain(&mut self, table: &str, name: &str) -> &mut Self {
        self.ask(libc::NFT_MSG_DELRULE, 0, ("delete the rules of chain", name), |message| {
            message.text(RULE_TABLE, table).text(RULE_CHAIN, name);
        })
    }

    /// Deletes a chain with its rules: the kernel by itself deletes an empty one only.
    pub fn delete_chain(&mut self, table: &str, name: &str) -> &mut Self {
        self.flush_chain(table, name);
        self.ask(libc::NFT_MSG_DELCHAIN, 0, ("delete chain", name), |message| {
            message.text(CHAIN_TABLE, table).text(CHAIN_NAME, name);
        })
    }

    /// Appends a rule to a chain.
    pub fn add_rule(&mut self, table: &str, chain: &str, expressions: &[Expression<'_>]) -> &mut Self {
        self.ask(libc::NFT_MSG_NEWRULE, CREATE | APPEND, ("add a rule to chain", chain), |message| {
            message.text(RULE_TABLE, table).text(RULE_CHAIN, chain).nest(RULE_EXPRESSIONS, |list| {
                for expression in expressions {
                    list.nest(LIST_ELEM, |element| expression.write(element));
                }
            });
        })
    }

    /// Makes a map, unless there is one like it; EEXIST when one of that name is different.
    pub fn add_map(&mut self, map: &Map<'_>) -> &mut Self {
        self.maps += 1;
        let id = self.maps;
        self.ask(libc::NFT_MSG_NEWSET, CREATE, ("add map", map.name), |message| {
            message.text(SET_TABLE, map.table).text(SET_NAME, map.name).be32(SET_FLAGS, SET_IS_MAP);
            // Each part of a concatenation fills a register of four bytes.
            message.be32(SET_KEY_TYPE, DataType::concatenation(map.key)).be32(SET_KEY_LENGTH, map.key.len() as u32 * 4);
            message.be32(SET_DATA_TYPE, DataType::concatenation(map.data));
            message.be32(SET_DATA_LENGTH, map.data.len() as u32 * 4).be32(SET_ID, id);
        })
    }

    /// Adds one element to a map; EEXIST when the key has data already. `what` names it in errors.
    pub fn add_element(&mut self, (table, map): (&str, &str), what: &str, key: &[u8], data: &[u8]) -> &mut Self {
        self.ask(libc::NFT_MSG_NEWSETELEM, CREATE | EXCLUSIVE, ("add map element", what), |message| {
            element(message, (table, map), key, Some(data));
        })
    }

    /// Removes one element from a map; ENOENT when there is none.
    pub fn delete_element(&mut self, (table, map): (&str, &str), what: &str, key: &[u8]) -> &mut Self {
        self.ask(libc::NFT_MSG_DELSETELEM, 0, ("delete map element", what), |message| {
            element(message, (table, map), key, None);
        })
    }

    fn ask(
        &mut self,
        message: i32,
        flags: u16,
        (act, object): (&'static str, &str),
        attributes: impl FnOnce(&mut Attributes<'_>),
    ) -> &mut Self {
        self.batch.request((kind(message), flags), (act, object), &[FAMILY, 0, 0, 0], attributes);
        self
    }
}

fn element(message: &mut Attributes<'_>, (table, map): (&str, &str), key: &[u8], data: Option<&[u8]>) {
    message.text(ELEMENTS_TABLE, table).text(ELEMENTS_SET, map).nest(ELEMENTS, |list| {
        list.nest(LIST_ELEM, |element| {
            element.nest(ELEMENT_KEY, |value| _ = value.bytes(DATA_VALUE, key));
            if let Some(data) = data {
                element.nest(ELEMENT_DATA, |value| _ = value.bytes(DATA_VALUE, data));
            }
        });
    });
}

/// The message that begins or ends a transaction; its resource id says which subsystem it is for.
fn bracket(batch: &mut Batch, message: i32, act: &'static str) {
    let family = [libc::AF_UNSPEC as u8, 0, 0, libc::NFNL_SUBSYS_NFTABLES as u8];
    batch.request((message as u16, 0), (act, "the nf_tables transaction"), &family, |_| {});
}

/// How many chains and maps a table holds; none when there is no such table.
///
/// # Errors
/// When the kernel refuses to tell.
pub fn table_use(socket: &mut Socket, name: &str) -> Result<Option<u32>, NetlinkError> {
    let mut batch = Batch::new();
    batch.request((kind(libc::NFT_MSG_GETTABLE), 0), ("find table", name), &[FAMILY, 0, 0, 0], |message| {
        message.text(TABLE_NAME, name);
    });
    let mut uses = None;
    let asked = socket.query(batch, |_, payload| {
        let value = payload.get(4..).and_then(|attributes| attribute(attributes, TABLE_USE));
        uses = value.and_then(|value| value.try_into().ok()).map(u32::from_be_bytes);
    });
    match asked {
        Err(error) if error.errno() == Some(libc::ENOENT) => Ok(None),
        asked => asked.map(|()| uses),
    }
}

/// An element of a map: its key and its data.
pub type Element = (Vec<u8>, Vec<u8>);

/// The elements of a map; none when there is no such table or map.
///
/// # Errors
/// When the kernel refuses the dump.
pub fn elements(socket: &mut Socket, table: &str, map: &str) -> Result<Vec<Element>, NetlinkError> {
    let mut batch = Batch::new();
    let asked = ("list the elements of map", map);
    batch.request((kind(libc::NFT_MSG_GETSETELEM), DUMP), asked, &[FAMILY, 0, 0, 0], |message| {
        message.text(ELEMENTS_TABLE, table).text(ELEMENTS_SET, map);
    });
    let mut found = Vec::new();
    let listed = socket.query(batch, |answer, payload| {
        if answer == kind(libc::NFT_MSG_NEWSETELEM) {
            found.extend(parse_elements(payload));
        }
    });
    match listed {
        Err(error) if error.errno() == Some(libc::ENOENT) => Ok(Vec::new()),
        listed => listed.map(|()| found),
    }
}

/// The elements in one answer; its header has four bytes.
fn parse_elements(payload: &[u8]) -> Vec<Element> {
    let list = payload.get(4..).and_then(|found| attribute(found, ELEMENTS)).unwrap_or_default();
    let value = |element, kind| attribute(attribute(element, kind)?, DATA_VALUE).map(<[u8]>::to_vec);
    let elements = attributes(list).filter(|(kind, _)| *kind == LIST_ELEM);
    elements.filter_map(|(_, element)| Some((value(element, ELEMENT_KEY)?, value(element, ELEMENT_DATA)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::message::hex;

    fn bytes(fill: impl FnOnce(&mut Transaction)) -> String {
        let mut transaction = Transaction::new();
        fill(&mut transaction);
        hex(&transaction.batch)
    }

    #[test]
    fn a_chain() {
        let chain = Chain {
            table: "isobench",
            name: "pre",
            chain_type: ChainType::Nat,
            hook: Hook::Prerouting,
            priority: -100,
        };
        expect_test::expect![[r#"
            14000000 10000100 00000000 00000000 0000000a

            24000000 000a0104 00000000 00000000 02000000 0d000100 69736f62 656e6368
            00000000

            48000000 030a0104 00000000 00000000 02000000 0d000100 69736f62 656e6368
            00000000 08000300 70726500 08000700 6e617400 14000480 08000100 00000000
            08000200 ffffff9c
        "#]]
        .assert_eq(&bytes(|t| _ = t.add_table("isobench").add_chain(&chain)));
    }

    #[test]
    fn a_map_and_its_elements() {
        let map = Map {
            table: "isobench",
            name: "published",
            key: &[DataType::Protocol, DataType::Port],
            data: &[DataType::Ipv4Address, DataType::Port],
        };
        let (key, data) = ([6, 0, 0, 0, 0x1f, 0x90, 0, 0], [172, 30, 0, 2, 0, 80, 0, 0]);
        let mut added = Transaction::new();
        added.add_element(("isobench", "published"), "tcp 8080", &key, &data);
        let message = &added.batch.bytes[added.batch.requests[1].offset + 16..];
        assert_eq!(parse_elements(message), [(key.to_vec(), data.to_vec())], "what is asked for reads back");
        expect_test::expect![[r#"
            14000000 10000100 00000000 00000000 0000000a

            64000000 090a0104 00000000 00000000 02000000 0d000100 69736f62 656e6368
            00000000 0e000200 7075626c 69736865 64000000 08000300 00000008 08000400
            0000030d 08000500 00000008 08000600 000001cd 08000700 00000008 08000a00
            00000001

            5c000000 0c0a0106 00000000 00000000 02000000 0d000100 69736f62 656e6368
            00000000 0e000200 7075626c 69736865 64000000 28000380 24000180 10000180
            0c000100 06000000 1f900000 10000280 0c000100 ac1e0002 00500000

            4c000000 0e0a0100 00000000 00000000 02000000 0d000100 69736f62 656e6368
            00000000 0e000200 7075626c 69736865 64000000 18000380 14000180 10000180
            0c000100 06000000 1f900000
        "#]]
        .assert_eq(&bytes(|t| {
            t.add_map(&map).add_element(("isobench", "published"), "tcp 8080", &key, &data);
            t.delete_element(("isobench", "published"), "tcp 8080", &key);
        }));
    }
}
