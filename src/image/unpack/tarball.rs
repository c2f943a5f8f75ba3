//! Reading a tar archive, entry by entry, in one pass: ustar, GNU's long names and sparse files, pax with extended
//! attributes and its three forms of sparse files.

use std::io::{self, BufRead};

use tar::{EntryType, Header};

use super::{Limits, UnpackError, shown};

mod pax;
mod sparse;

use pax::{Pax, Scope};
use sparse::Piece;

/// The unit of an archive, in bytes.
const BLOCK: u64 = 512;

/// What an entry is to become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A file; its data follow.
    File,
    /// A directory.
    Directory,
    /// A symbolic link to the entry's target.
    Symlink,
    /// A further name of the entry's target.
    HardLink,
    /// A character device with major and minor number.
    Char(u32, u32),
    /// A block device.
    Block(u32, u32),
    /// A named pipe.
    Fifo,
}

/// One entry, without its data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The path as the archive has it.
    pub name: Vec<u8>,
    /// What it is to become.
    pub kind: Kind,
    /// What a link points to.
    pub target: Vec<u8>,
    /// The permissions, with set-user-id, set-group-id and sticky bits.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// When it was changed last: seconds since 1970.
    pub mtime: i64,
    /// And nanoseconds.
    pub mtime_ns: u32,
    /// Its length in bytes with holes.
    pub size: u64,
    /// Extended attributes.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where the data lie in a sparse file.
    pub pieces: Option<Vec<Piece>>,
}

/// An archive at the point that was read to.
#[derive(Debug)]
pub struct TarReader<'a, R> {
    input: &'a mut R,
    limits: Limits,
    end_marker: bool,
    /// Bytes of the present entry's data that were not read yet.
    left: u64,
    /// Bytes after them up to the next block.
    padding: u64,
    /// What holds for all entries to come, and how many bytes more may say so.
    globals: Pax,
    globals_left: u64,
    name: Option<String>,
}

impl<'a, R: BufRead> TarReader<'a, R> {
    /// At the beginning of an archive.
    pub fn new(input: &'a mut R, limits: Limits, end_marker: bool) -> Self {
        let (globals, globals_left) = (Pax::default(), limits.header);
        Self { input, limits, end_marker, left: 0, padding: 0, globals, globals_left, name: None }
    }

    /// The next entry; what is left of the one before is passed over. `None` at the end.
    ///
    /// # Errors
    /// When the archive is damaged, cut short, or its headers go over the limits.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, UnpackError> {
        let mut long_name = None;
        let mut long_target = None;
        let mut pax = Pax::default();
        let mut budget = self.limits.header;
        loop {
            self.skip_rest()?;
            let Some(header) = self.header()? else {
                let dangling = long_name.is_some() || long_target.is_some() || !pax.is_empty();
                return if dangling { Err(UnpackError::CutShort(None)) } else { Ok(None) };
            };
            let size = length(number(&header.as_old().size)?)?;
            let kind = header.entry_type();
            match kind {
                EntryType::GNULongName => long_name = Some(self.text(size, &mut budget)?),
                EntryType::GNULongLink => long_target = Some(self.text(size, &mut budget)?),
                EntryType::XHeader => pax.add(&self.small(size, &mut budget)?, Scope::Entry)?,
                EntryType::XGlobalHeader => {
                    // They are kept, so all of them together have the budget of one entry's.
                    let mut left = self.globals_left;
                    let records = self.small(size, &mut left)?;
                    self.globals_left = left;
                    self.globals.add(&records, Scope::Archive)?;
                }
                _ => {
                    let pax = self.globals.overlaid(pax);
                    return self.entry(&header, pax, long_name, long_target).map(Some);
                }
            }
        }
    }

    /// Puts together what the headers say.
    fn entry(
        &mut self,
        header: &Header,
        mut pax: Pax,
        long_name: Option<Vec<u8>>,
        long_target: Option<Vec<u8>>,
    ) -> Result<Entry, UnpackError> {
        let name = pax.path.take().or(long_name).unwrap_or_else(|| header.path_bytes().into_owned());
        let target = (pax.linkpath.take().or(long_target))
            .unwrap_or_else(|| header.link_name_bytes().map_or_else(Vec::new, |target| target.into_owned()));
        let name = pax.sparse.name.take().unwrap_or(name);
        for path in [&name, &target] {
            if path.len() > self.limits.path {
                let name = shown(&path[..256.min(path.len())]);
                return Err(UnpackError::Name { name, why: "its path is longer than is allowed" });
            }
        }
        self.name = Some(shown(&name));
        let kind = self.kind(header, &name)?;
        let stored = match pax.size {
            Some(size) => length(size)?,
            None => length(number(&header.as_old().size)?)?,
        };
        // Links and the like have no data, whatever their header says.
        let stored = if matches!(kind, Kind::File) { stored } else { 0 };
        self.left = stored;
        self.padding = stored.next_multiple_of(BLOCK) - stored;
        let mut size = stored;
        let mut pieces = None;
        if header.entry_type() == EntryType::GNUSparse {
            let (map, real) = self.gnu_sparse(header)?;
            (pieces, size) = (Some(map), real);
        } else if let Some((map, real)) = self.pax_sparse(&mut pax)? {
            (pieces, size) = (Some(map), real);
        }
        if let Some(pieces) = &pieces {
            sparse::check(pieces, length(size)?, self.left)?;
        }
        let (mtime, mtime_ns) = match pax.mtime {
            Some(mtime) => mtime,
            None => (number(&header.as_old().mtime)?.cast_signed(), 0),
        };
        let owner = |field: Option<u64>, header: &[u8], what| {
            let id = field.map_or_else(|| number(header), Ok)?;
            u32::try_from(id).map_err(|_| UnpackError::Damaged(format!("{what} {id} is no such number")))
        };
        Ok(Entry {
            uid: owner(pax.uid, &header.as_old().uid, "the user")?,
            gid: owner(pax.gid, &header.as_old().gid, "the group")?,
            mode: (number(&header.as_old().mode)? & 0o7777) as u32,
            name,
            kind,
            target,
            mtime,
            mtime_ns,
            size,
            xattrs: pax.xattrs.into_iter().collect(),
            pieces,
        })
    }

    fn kind(&self, header: &Header, name: &[u8]) -> Result<Kind, UnpackError> {
        let device = || -> Result<(u32, u32), UnpackError> {
            let (major, minor) = match (header.as_ustar(), header.as_gnu()) {
                (Some(fields), _) => (&fields.dev_major, &fields.dev_minor),
                (None, Some(fields)) => (&fields.dev_major, &fields.dev_minor),
                (None, None) => return Ok((0, 0)),
            };
            let part = |field: &[u8]| {
                let part = number(field)?;
                u32::try_from(part).map_err(|_| UnpackError::Damaged(format!("there is no device number {part}")))
            };
            Ok((part(major)?, part(minor)?))
        };
        Ok(match header.entry_type() {
            // Before POSIX a directory was a file whose name ends in a slash.
            EntryType::Regular if name.ends_with(b"/") => Kind::Directory,
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => Kind::File,
            EntryType::Directory => Kind::Directory,
            EntryType::Symlink => Kind::Symlink,
            EntryType::Link => Kind::HardLink,
            EntryType::Char => device().map(|(major, minor)| Kind::Char(major, minor))?,
            EntryType::Block => device().map(|(major, minor)| Kind::Block(major, minor))?,
            EntryType::Fifo => Kind::Fifo,
            other => {
                let name = shown(name);
                return Err(UnpackError::Kind { name, kind: char::from(other.as_byte()) });
            }
        })
    }

    /// The next block as a header; `None` at the end marker, or where the archive ends and need not have one.
    fn header(&mut self) -> Result<Option<Header>, UnpackError> {
        let mut header = Header::new_old();
        if self.read_block(header.as_mut_bytes())? {
            if header.as_bytes().iter().any(|byte| *byte != 0) {
                check_sum(&header)?;
                return Ok(Some(header));
            }
            // The marker is two blocks of zeros; one alone is taken where the end need not be marked.
            let mut second = [0; BLOCK as usize];
            if self.read_block(&mut second)? {
                if second.iter().any(|byte| *byte != 0) {
                    return Err(UnpackError::Damaged("data follow a block of zeros".to_owned()));
                }
                return Ok(None);
            }
        }
        if self.end_marker { Err(UnpackError::CutShort(None)) } else { Ok(None) }
    }

    /// Fills a block; whether there was one. A part of one is an error.
    fn read_block(&mut self, block: &mut [u8]) -> Result<bool, UnpackError> {
        let mut filled = 0;
        while filled < block.len() {
            let available = self.input.fill_buf().map_err(UnpackError::Read)?;
            if available.is_empty() {
                return if filled == 0 { Ok(false) } else { Err(UnpackError::CutShort(self.name.clone())) };
            }
            let count = available.len().min(block.len() - filled);
            block[filled..filled + count].copy_from_slice(&available[..count]);
            self.input.consume(count);
            filled += count;
        }
        Ok(true)
    }

    /// Hands a part of the present entry's data to `take`; `false` when there are none left.
    ///
    /// # Errors
    /// When the archive ends before its entry does, and what `take` says.
    pub fn data(
        &mut self,
        most: u64,
        take: &mut dyn FnMut(&[u8]) -> Result<(), UnpackError>,
    ) -> Result<u64, UnpackError> {
        let wanted = self.left.min(most);
        if wanted == 0 {
            return Ok(0);
        }
        let available = self.input.fill_buf().map_err(UnpackError::Read)?;
        if available.is_empty() {
            return Err(UnpackError::CutShort(self.name.clone()));
        }
        let count = available.len().min(usize::try_from(wanted).unwrap_or(usize::MAX));
        take(&available[..count])?;
        self.input.consume(count);
        self.left -= count as u64;
        Ok(count as u64)
    }

    /// Passes over the rest of the present entry.
    fn skip_rest(&mut self) -> Result<(), UnpackError> {
        while self.left > 0 {
            self.data(u64::MAX, &mut |_| Ok(()))?;
        }
        self.left = std::mem::take(&mut self.padding);
        while self.left > 0 {
            match self.data(u64::MAX, &mut |_| Ok(())) {
                // umoci leaves out what fills the last block.
                Err(UnpackError::CutShort(_)) if !self.end_marker => self.left = 0,
                outcome => drop(outcome?),
            }
        }
        Ok(())
    }

    /// Reads the data of an extended header.
    fn small(&mut self, size: u64, budget: &mut u64) -> Result<Vec<u8>, UnpackError> {
        let limit = self.limits.header;
        *budget = budget.checked_sub(size).ok_or(UnpackError::Limit { what: "bytes of extended headers", limit })?;
        self.left = size;
        self.padding = size.next_multiple_of(BLOCK) - size;
        let mut bytes = Vec::new();
        while self.left > 0 {
            self.data(u64::MAX, &mut |part| {
                bytes.extend_from_slice(part);
                Ok(())
            })?;
        }
        Ok(bytes)
    }

    /// Reads a long name of GNU's, which ends in a NUL.
    fn text(&mut self, size: u64, budget: &mut u64) -> Result<Vec<u8>, UnpackError> {
        let mut bytes = self.small(size, budget)?;
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        bytes.truncate(end);
        Ok(bytes)
    }
}

/// A header whose sum is wrong is no header.
fn check_sum(header: &Header) -> Result<(), UnpackError> {
    let sum: u32 = header
        .as_bytes()
        .iter()
        .enumerate()
        .map(|(at, byte)| match at {
            148..156 => u32::from(b' '),
            _ => u32::from(*byte),
        })
        .sum();
    match number(&header.as_old().cksum) {
        Ok(written) if written == u64::from(sum) => Ok(()),
        _ => Err(UnpackError::Damaged("a header's check sum is wrong, or it is no tar archive".to_owned())),
    }
}

/// A number in a header: octal digits among blanks and NULs, where none stand for 0; or GNU's binary form, which a
/// first bit tells of, and which may be negative.
fn number(field: &[u8]) -> Result<u64, UnpackError> {
    let wrong = || UnpackError::Damaged("a number in a header is malformed".to_owned());
    if let [first, rest @ ..] = field
        && first & 0x80 != 0
    {
        let negative = first & 0x40 != 0;
        let mut value: i128 = if negative { -1 } else { 0 };
        value = (value << 6) | i128::from(first & 0x3f);
        for byte in rest {
            value = (value << 8) | i128::from(*byte);
            if i64::try_from(value).is_err() {
                return Err(wrong());
            }
        }
        return i64::try_from(value).map(i64::cast_unsigned).map_err(|_| wrong());
    }
    let is_blank = |byte: &u8| matches!(byte, b' ' | 0);
    let digits = field.iter().skip_while(|byte| is_blank(byte)).take_while(|byte| !is_blank(byte));
    digits
        .into_iter()
        .try_fold(0_u64, |value, digit| match digit {
            b'0'..=b'7' => value.checked_mul(8).and_then(|value| value.checked_add(u64::from(digit - b'0'))),
            _ => None,
        })
        .ok_or_else(wrong)
}

/// A length that a file can have: not negative, and no more than the kernel counts in 63 bits.
fn length(number: u64) -> Result<u64, UnpackError> {
    if i64::try_from(number).is_err() {
        return Err(UnpackError::Damaged("a length is negative or larger than any file".to_owned()));
    }
    Ok(number)
}

#[allow(clippy::needless_pass_by_value, reason = "made for map_err")]
fn damaged(error: io::Error) -> UnpackError {
    UnpackError::Damaged(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_headers() {
        for (field, value) in [
            (&b"0000644\0"[..], 0o644),
            (b"   644 \0", 0o644),
            (b"\0\0\0\0\0\0\0\0", 0),
            (b"77777777777", 0o77_777_777_777),
            (b"\x80\0\0\0\0\x01\0\0", 65536),
        ] {
            assert_eq!(number(field).unwrap(), value, "{field:?}");
        }
        assert_eq!(number(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe").unwrap().cast_signed(), -2);
        for field in [&b"0000648\0"[..], b"-1\0", b"\x80\x01\0\0\0\0\0\0\0\0\0\0"] {
            assert!(number(field).is_err(), "{field:?}");
        }
    }
}
