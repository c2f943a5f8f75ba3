//! Where the data of sparse files lie: GNU's old form in the header and the blocks after it, and pax's forms.

use std::io::BufRead;

use tar::Header;

use super::super::UnpackError;
use super::pax::Pax;
use super::{BLOCK, TarReader, damaged};

/// A run of data in a sparse file; what lies between the runs are holes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Where it lies in the file.
    pub offset: u64,
    /// How long it is, in bytes.
    pub length: u64,
}

/// The most runs that are taken of one file: 16 MiB of them.
const MOST: usize = 1 << 20;

fn too_many() -> UnpackError {
    UnpackError::Limit { what: "pieces of a sparse file", limit: MOST as u64 }
}

fn malformed() -> UnpackError {
    UnpackError::Damaged("a sparse file's map is malformed".to_owned())
}

/// Runs must follow each other, lie in the file and have all the data that were stored.
pub(super) fn check(pieces: &[Piece], size: u64, stored: u64) -> Result<(), UnpackError> {
    let mut end = 0;
    let mut data: u64 = 0;
    for piece in pieces {
        if piece.offset < end {
            return Err(malformed());
        }
        end = piece.offset.checked_add(piece.length).ok_or_else(malformed)?;
        data = data.checked_add(piece.length).ok_or_else(malformed)?;
    }
    if end > size || data != stored { Err(malformed()) } else { Ok(()) }
}

impl<R: BufRead> TarReader<'_, R> {
    /// The map in GNU's header, and in the blocks after it; with the file's length.
    pub(super) fn gnu_sparse(&mut self, header: &Header) -> Result<(Vec<Piece>, u64), UnpackError> {
        let gnu = header.as_gnu().ok_or_else(malformed)?;
        let mut pieces = Vec::new();
        let mut take = |slots: &[tar::GnuSparseHeader]| -> Result<(), UnpackError> {
            for slot in slots.iter().filter(|slot| !slot.is_empty()) {
                if pieces.len() == MOST {
                    return Err(too_many());
                }
                let (offset, length) = (slot.offset().map_err(damaged)?, slot.length().map_err(damaged)?);
                pieces.push(Piece { offset, length });
            }
            Ok(())
        };
        take(&gnu.sparse)?;
        let mut more = gnu.is_extended();
        while more {
            let mut block = tar::GnuExtSparseHeader::new();
            if !self.read_block(block.as_mut_bytes())? {
                return Err(UnpackError::CutShort(self.name.clone()));
            }
            take(block.sparse())?;
            more = block.is_extended();
        }
        Ok((pieces, gnu.real_size().map_err(damaged)?))
    }

    /// The map in pax's records, or at the beginning of the data; with the file's length.
    pub(super) fn pax_sparse(&mut self, pax: &mut Pax) -> Result<Option<(Vec<Piece>, u64)>, UnpackError> {
        let records = &mut pax.sparse;
        let pieces = match records.pieces.take() {
            Some(pieces) => pieces,
            None if records.map_in_data => self.map_in_data()?,
            None => return Ok(None),
        };
        if pieces.len() > MOST {
            return Err(too_many());
        }
        Ok(Some((pieces, records.real_size.ok_or_else(malformed)?)))
    }

    /// Form 1.0: decimal numbers, a line each, the count first; filled up to a block.
    fn map_in_data(&mut self) -> Result<Vec<Piece>, UnpackError> {
        let mut numbers = Numbers::default();
        let mut read = 0;
        while !numbers.complete() || read % BLOCK != 0 {
            if numbers.values.len() > 2 * MOST {
                return Err(too_many());
            }
            let most = BLOCK - read % BLOCK;
            let count = self.data(most, &mut |part| part.iter().try_for_each(|byte| numbers.add(*byte)))?;
            if count == 0 {
                return Err(malformed());
            }
            read += count;
        }
        let (pairs, _) = numbers.values[1..].as_chunks::<2>();
        Ok(pairs.iter().map(|&[offset, length]| Piece { offset, length }).collect())
    }
}

/// Numbers as they are read, a line each; the first says how many pairs follow.
#[derive(Debug, Default)]
struct Numbers {
    values: Vec<u64>,
    present: Option<u64>,
}

impl Numbers {
    fn complete(&self) -> bool {
        let count = self.values.first().copied();
        count.is_some_and(|pairs| (self.values.len() as u64 - 1) / 2 >= pairs)
    }

    fn add(&mut self, byte: u8) -> Result<(), UnpackError> {
        if self.complete() {
            return Ok(()); // what fills the block
        }
        match byte {
            b'\n' => self.values.push(self.present.take().ok_or_else(malformed)?),
            b'0'..=b'9' => {
                let before = self.present.unwrap_or(0).checked_mul(10);
                let value = before.and_then(|value| value.checked_add(u64::from(byte - b'0')));
                self.present = Some(value.ok_or_else(malformed)?);
            }
            _ => return Err(malformed()),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(offset: u64, length: u64) -> Piece {
        Piece { offset, length }
    }

    #[test]
    fn maps_that_lie_are_found() {
        assert!(check(&[piece(0, 2), piece(4, 2), piece(8, 0)], 8, 4).is_ok());
        for (pieces, size, stored) in [
            (vec![piece(4, 2), piece(0, 2)], 8, 4),
            (vec![piece(0, 4), piece(2, 4)], 8, 8),
            (vec![piece(u64::MAX, 2)], u64::MAX, 2),
            (vec![piece(0, 10)], 8, 10),
            (vec![piece(0, 2)], 8, 4),
        ] {
            assert!(check(&pieces, size, stored).is_err(), "{pieces:?}");
        }
    }
}
