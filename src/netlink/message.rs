//! How a netlink message is laid out: header, family header, attributes that may nest, everything aligned to four.
//!
//! A [`Batch`] is written by `link`, `address`, `route` and `nftables`, and sent by `socket`. The readers at the end
//! take apart what the kernel answers; they never trust a length.

/// Bytes of a `struct nlmsghdr`.
pub(super) const HEADER: usize = 16;
/// Bytes of a `struct nlattr`.
const ATTRIBUTE_HEADER: usize = 4;

pub(super) const REQUEST: u16 = libc::NLM_F_REQUEST as u16;
pub(super) const ACK: u16 = libc::NLM_F_ACK as u16;
pub(super) const DUMP: u16 = libc::NLM_F_DUMP as u16;
pub(super) const ECHO: u16 = libc::NLM_F_ECHO as u16;
pub(super) const CREATE: u16 = libc::NLM_F_CREATE as u16;
pub(super) const EXCLUSIVE: u16 = libc::NLM_F_EXCL as u16;
pub(super) const APPEND: u16 = libc::NLM_F_APPEND as u16;
const NESTED: u16 = libc::NLA_F_NESTED as u16;
const TYPE_MASK: u16 = libc::NLA_TYPE_MASK as u16;

/// What one message of a batch asks for; kept so that a refusal can name it.
#[derive(Debug)]
pub(super) struct Request {
    pub act: &'static str,
    pub object: String,
    /// Where its header begins in the batch.
    pub offset: usize,
    /// An error number that is as good as success.
    pub tolerated: Option<i32>,
}

/// Requests that travel to the kernel in one send, in order.
#[derive(Debug, Default)]
pub struct Batch {
    pub(super) bytes: Vec<u8>,
    pub(super) requests: Vec<Request>,
}

impl Batch {
    /// A batch with nothing in it.
    #[must_use]
    pub fn new() -> Self {
        Self { bytes: Vec::with_capacity(1024), requests: Vec::new() }
    }

    /// Whether nothing is asked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// Lets the last request be refused with this error number, which then counts as success.
    pub(super) fn tolerate(&mut self, errno: i32) {
        if let Some(request) = self.requests.last_mut() {
            request.tolerated = Some(errno);
        }
    }

    /// Appends one message: `kind` and `flags` as in `nlmsghdr`, `family` the bytes of its family header. Errors name
    /// the act and the object. The socket fills in the sequence number and asks for the acknowledgement.
    pub fn request(
        &mut self,
        (kind, flags): (u16, u16),
        (act, object): (&'static str, impl Into<String>),
        family: &[u8],
        attributes: impl FnOnce(&mut Attributes<'_>),
    ) {
        let offset = self.bytes.len();
        self.requests.push(Request { act, object: object.into(), offset, tolerated: None });
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&(flags | REQUEST).to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 8]);
        self.bytes.extend_from_slice(family);
        pad(&mut self.bytes);
        attributes(&mut Attributes { bytes: &mut self.bytes });
        let length = (self.bytes.len() - offset) as u32;
        self.bytes[offset..offset + 4].copy_from_slice(&length.to_ne_bytes());
    }
}

/// Writes the attributes of one message, or of one nest.
#[derive(Debug)]
pub struct Attributes<'a> {
    bytes: &'a mut Vec<u8>,
}

impl Attributes<'_> {
    /// An attribute with these bytes.
    pub fn bytes(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        // An attribute's length is 16 bits wide; nothing here comes near it, and a wrapped one would be misread.
        debug_assert!(value.len() + ATTRIBUTE_HEADER <= usize::from(u16::MAX));
        self.bytes.extend_from_slice(&((value.len() + ATTRIBUTE_HEADER) as u16).to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        pad(self.bytes);
        self
    }

    /// One byte.
    pub fn u8(&mut self, kind: u16, value: u8) -> &mut Self {
        self.bytes(kind, &[value])
    }

    /// 32 bits in the machine's order, as rtnetlink wants.
    pub fn u32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    /// 32 bits in network order, as nf_tables wants.
    pub fn be32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// A text with the zero byte that ends it.
    pub fn text(&mut self, kind: u16, value: &str) -> &mut Self {
        let mut bytes = Vec::with_capacity(value.len() + 1);
        bytes.extend_from_slice(value.as_bytes());
        bytes.push(0);
        self.bytes(kind, &bytes)
    }

    /// An attribute that holds attributes.
    pub fn nest(&mut self, kind: u16, inner: impl FnOnce(&mut Attributes<'_>)) -> &mut Self {
        self.headed_nest(kind | NESTED, &[], inner)
    }

    /// A family header followed by attributes, as in VETH_INFO_PEER.
    pub fn headed(&mut self, kind: u16, header: &[u8], inner: impl FnOnce(&mut Attributes<'_>)) -> &mut Self {
        self.headed_nest(kind, header, inner)
    }

    fn headed_nest(&mut self, kind: u16, header: &[u8], inner: impl FnOnce(&mut Attributes<'_>)) -> &mut Self {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0, 0]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(header);
        pad(self.bytes);
        inner(&mut Attributes { bytes: self.bytes });
        let length = self.bytes.len() - start;
        debug_assert!(length <= usize::from(u16::MAX));
        self.bytes[start..start + 2].copy_from_slice(&(length as u16).to_ne_bytes());
        self
    }
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(align(bytes.len()), 0);
}

const fn align(length: usize) -> usize {
    length.next_multiple_of(4)
}

/// One message of an answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answer<'a> {
    pub kind: u16,
    pub flags: u16,
    pub sequence: u32,
    /// What follows the header.
    pub payload: &'a [u8],
}

/// The messages in a received datagram; ends early at the first that is malformed.
pub(super) fn answers(mut datagram: &[u8]) -> impl Iterator<Item = Answer<'_>> {
    std::iter::from_fn(move || {
        let length = u32_at(datagram, 0)? as usize;
        let answer = Answer {
            kind: u16_at(datagram, 4)?,
            flags: u16_at(datagram, 6)?,
            sequence: u32_at(datagram, 8)?,
            payload: datagram.get(HEADER..length)?,
        };
        datagram = datagram.get(align(length)..).unwrap_or_default();
        Some(answer)
    })
}

/// The attributes in `bytes` as (kind without flags, value); ends early at the first that is malformed.
pub(super) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0)?);
        let kind = u16_at(bytes, 2)? & TYPE_MASK;
        let value = bytes.get(ATTRIBUTE_HEADER..length)?;
        bytes = bytes.get(align(length)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The first attribute of a kind.
pub(super) fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// The text in an attribute, without the zero byte that ends it.
pub(super) fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

pub(super) fn array_at<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..offset.checked_add(N)?)?.try_into().ok()
}

pub(super) fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    array_at(bytes, offset).map(u16::from_ne_bytes)
}

pub(super) fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    array_at(bytes, offset).map(u32::from_ne_bytes)
}

pub(super) fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    array_at(bytes, offset).map(u64::from_ne_bytes)
}

/// Bytes as hex, one message after another and four bytes a word: what the golden tests compare.
#[cfg(test)]
pub(super) fn hex(batch: &Batch) -> String {
    let mut lines = Vec::new();
    for (index, request) in batch.requests.iter().enumerate() {
        let end = batch.requests.get(index + 1).map_or(batch.bytes.len(), |next| next.offset);
        let words = batch.bytes[request.offset..end].chunks(4);
        let words: Vec<String> = words.map(|word| word.iter().map(|byte| format!("{byte:02x}")).collect()).collect();
        lines.extend(words.chunks(8).map(|line| line.join(" ")));
        lines.push(String::new());
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn attributes_are_padded_but_their_length_is_not() {
        let mut batch = Batch::new();
        batch.request((16, ACK), ("add", "x"), &[1, 2], |message| {
            message.text(3, "br0").u8(4, 7).nest(18, |nest| {
                nest.bytes(1, b"abcde");
            });
        });
        expect_test::expect![[r#"
            34000000 10000500 00000000 00000000 01020000 08000300 62723000 05000400
            07000000 10001280 09000100 61626364 65000000
        "#]]
        .assert_eq(&hex(&batch));
    }

    #[test]
    fn messages_follow_each_other() {
        let mut batch = Batch::new();
        batch.request((1, 0), ("a", "x"), &[], |_| {});
        batch.request((2, 0), ("b", "y"), &[], |message| {
            message.be32(1, 0x0102_0304);
        });
        let kinds: Vec<(u16, usize)> = answers(&batch.bytes).map(|m| (m.kind, m.payload.len())).collect();
        assert_eq!(kinds, [(1, 0), (2, 8)]);
        assert_eq!(attribute(answers(&batch.bytes).nth(1).unwrap().payload, 1), Some(&[1, 2, 3, 4][..]));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(values in prop::collection::vec((1u16..64, prop::collection::vec(any::<u8>(), 0..40)), 0..10)) {
            let mut batch = Batch::new();
            batch.request((1, 0), ("a", "x"), &[], |message| {
                message.nest(5, |nest| {
                    for (kind, value) in &values {
                        nest.bytes(*kind, value);
                    }
                });
            });
            let payload = answers(&batch.bytes).next().unwrap().payload;
            let read: Vec<(u16, Vec<u8>)> =
                attributes(attribute(payload, 5).unwrap()).map(|(kind, value)| (kind, value.to_vec())).collect();
            prop_assert_eq!(read, values);
        }

        #[test]
        fn readers_survive_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            for answer in answers(&bytes) {
                attributes(answer.payload).count();
            }
            attributes(&bytes).count();
        }
    }
}
