//! The records of pax's extended headers.

use std::collections::BTreeMap;

use super::super::UnpackError;
use super::sparse::Piece;

/// What extended headers say of an entry; what is not in them is up to its own header.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) linkpath: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime: Option<(i64, u32)>,
    pub(super) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(super) sparse: SparseRecords,
    /// Names whose records were deleted by one without a value: a header before does not hold any more.
    deleted: Vec<Vec<u8>>,
}

/// What extended headers are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// The entry that follows.
    Entry,
    /// All entries that follow.
    Archive,
}

/// What they say of a sparse file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct SparseRecords {
    /// Form 1.0: the map stands before the data.
    pub(super) map_in_data: bool,
    pub(super) name: Option<Vec<u8>>,
    pub(super) real_size: Option<u64>,
    /// Forms 0.0 and 0.1.
    pub(super) pieces: Option<Vec<Piece>>,
    offset: Option<u64>,
}

/// The names of records that one without a value deletes.
const DELETABLE: [&[u8]; 6] = [b"path", b"linkpath", b"size", b"uid", b"gid", b"mtime"];

impl Pax {
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// These records with an entry's own over them.
    pub(super) fn overlaid(&self, own: Self) -> Self {
        let mut all = self.clone();
        own.deleted.iter().for_each(|name| all.delete(name));
        all.xattrs.extend(own.xattrs);
        Self {
            path: own.path.or(all.path),
            linkpath: own.linkpath.or(all.linkpath),
            size: own.size.or(all.size),
            uid: own.uid.or(all.uid),
            gid: own.gid.or(all.gid),
            mtime: own.mtime.or(all.mtime),
            xattrs: all.xattrs,
            sparse: own.sparse,
            deleted: own.deleted,
        }
    }

    /// Adds the records `LENGTH NAME=VALUE\n` of one header. The last of a name holds. A map of holes is one file's, so
    /// an archive's has none.
    pub(super) fn add(&mut self, mut records: &[u8], scope: Scope) -> Result<(), UnpackError> {
        while !records.is_empty() {
            let (name, value, rest) = split(records).ok_or_else(|| wrong("a record is malformed"))?;
            if scope == Scope::Entry || !name.starts_with(b"GNU.sparse.") {
                self.set(name, value)?;
            }
            records = rest;
        }
        Ok(())
    }

    /// Takes away what a record of this name said.
    fn delete(&mut self, name: &[u8]) {
        match name {
            b"path" => self.path = None,
            b"linkpath" => self.linkpath = None,
            b"size" => self.size = None,
            b"uid" => self.uid = None,
            b"gid" => self.gid = None,
            b"mtime" => self.mtime = None,
            _ => {}
        }
    }

    fn set(&mut self, name: &[u8], value: &[u8]) -> Result<(), UnpackError> {
        // POSIX: a record without a value deletes those before. An attribute's value may be empty, as GNU tar writes it.
        if value.is_empty() && DELETABLE.contains(&name) {
            self.delete(name);
            if !self.deleted.iter().any(|known| known == name) {
                self.deleted.push(name.to_vec());
            }
            return Ok(());
        }
        match name {
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.linkpath = Some(value.to_vec()),
            b"size" => self.size = Some(number(value)?),
            b"uid" => self.uid = Some(number(value)?),
            b"gid" => self.gid = Some(number(value)?),
            b"mtime" => self.mtime = Some(time(value).ok_or_else(|| wrong("a time is malformed"))?),
            b"GNU.sparse.name" => self.sparse.name = Some(value.to_vec()),
            b"GNU.sparse.major" => self.sparse.map_in_data = number(value)? >= 1,
            b"GNU.sparse.realsize" | b"GNU.sparse.size" => self.sparse.real_size = Some(number(value)?),
            b"GNU.sparse.offset" => self.sparse.offset = Some(number(value)?),
            b"GNU.sparse.numbytes" => {
                let offset = self.sparse.offset.take().ok_or_else(|| wrong("a sparse piece has no offset"))?;
                let piece = Piece { offset, length: number(value)? };
                self.sparse.pieces.get_or_insert_default().push(piece);
            }
            b"GNU.sparse.map" => self.sparse.pieces = Some(map(value)?),
            _ => {
                if let Some(name) = name.strip_prefix(b"SCHILY.xattr.") {
                    self.xattrs.insert(name.to_vec(), value.to_vec());
                }
            }
        }
        Ok(())
    }
}

fn wrong(what: &str) -> UnpackError {
    UnpackError::Damaged(format!("{what} in an extended header"))
}

/// The first record: name, value, what follows.
fn split(records: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = records.iter().take(12).position(|byte| *byte == b' ')?;
    let length: usize = std::str::from_utf8(&records[..space]).ok()?.parse().ok()?;
    if length <= space + 1 || length > records.len() || records[length - 1] != b'\n' {
        return None;
    }
    let record = &records[space + 1..length - 1];
    let equals = record.iter().position(|byte| *byte == b'=')?;
    Some((&record[..equals], &record[equals + 1..], &records[length..]))
}

fn number(value: &[u8]) -> Result<u64, UnpackError> {
    let parsed = std::str::from_utf8(value).ok().and_then(|text| text.trim().parse().ok());
    parsed.ok_or_else(|| wrong("a number is malformed"))
}

/// Seconds since 1970 with a fraction, as in `1700000000.25` or `-1.5`: whole seconds before it and the rest in ns.
fn time(value: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(value).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|c| c.is_ascii_digit()) {
        return None;
    }
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let ns: u32 = digits.parse().ok()?;
    if whole.starts_with('-') && ns > 0 {
        return Some((seconds.checked_sub(1)?, 1_000_000_000 - ns));
    }
    Some((seconds, ns))
}

/// `OFFSET,LENGTH,OFFSET,LENGTH,…`
fn map(value: &[u8]) -> Result<Vec<Piece>, UnpackError> {
    let numbers: Vec<u64> = value.split(|byte| *byte == b',').map(number).collect::<Result<_, _>>()?;
    let (pairs, odd) = numbers.as_chunks::<2>();
    if !odd.is_empty() {
        return Err(wrong("a sparse map is malformed"));
    }
    Ok(pairs.iter().map(|&[offset, length]| Piece { offset, length }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_taken_apart() {
        let mut pax = Pax::default();
        let records = b"12 path=a\nb\n30 mtime=1350244992.023960108\n26 SCHILY.xattr.user.x=\0=\n";
        pax.add(records, Scope::Entry).unwrap();
        assert_eq!(pax.path.as_deref(), Some(&b"a\nb"[..]));
        assert_eq!(pax.mtime, Some((1_350_244_992, 23_960_108)));
        assert_eq!(pax.xattrs, BTreeMap::from([(b"user.x".to_vec(), b"\0=".to_vec())]));
    }

    #[test]
    fn lengths_that_lie_are_found() {
        for text in
            [&b"99 path=a\n"[..], b"8 path=a\n", b"0 a=b\n", b"path=a\n", b"9 pathxa\n", b"99999999999999999999 a=b\n"]
        {
            assert!(Pax::default().add(text, Scope::Entry).is_err(), "{}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn the_last_record_of_a_name_holds() {
        let mut pax = Pax::default();
        for _ in 0..100 {
            pax.add(b"25 SCHILY.xattr.user.x=a\n25 SCHILY.xattr.user.x=b\n10 path=a\n", Scope::Archive).unwrap();
        }
        assert_eq!(pax.xattrs, BTreeMap::from([(b"user.x".to_vec(), b"b".to_vec())]));
    }

    #[test]
    fn a_map_of_holes_is_not_for_a_whole_archive() {
        let records = b"22 GNU.sparse.major=1\n25 GNU.sparse.name=there\n22 GNU.sparse.map=0,1\n";
        let mut pax = Pax::default();
        pax.add(records, Scope::Archive).unwrap();
        assert!(pax.is_empty(), "{pax:?}");
        pax.add(records, Scope::Entry).unwrap();
        assert!(pax.sparse.map_in_data);
    }

    #[test]
    fn a_record_without_a_value_deletes_those_before() {
        let mut globals = Pax::default();
        globals.add(b"15 path=global\n8 uid=7\n8 gid=8\n", Scope::Archive).unwrap();
        let mut own = Pax::default();
        own.add(b"10 path=x\n8 path=\n7 uid=\n9 mtime=\n24 SCHILY.xattr.user.x=\n", Scope::Entry).unwrap();
        let all = globals.overlaid(own);
        assert_eq!((all.path, all.uid, all.gid, all.mtime), (None, None, Some(8), None));
        assert_eq!(all.xattrs, BTreeMap::from([(b"user.x".to_vec(), Vec::new())]), "an attribute may be empty");
    }

    #[test]
    fn times_before_1970() {
        assert_eq!(time(b"-1.5"), Some((-2, 500_000_000)));
        assert_eq!(time(b"-3"), Some((-3, 0)));
        assert_eq!(time(b"1.x"), None);
    }
}
