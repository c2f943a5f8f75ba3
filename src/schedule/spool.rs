//! Rows of a run that goes on, kept outside of the process's memory.
//!
//! A clone that copies the harness's memory takes longer the more of it there is: rows kept in memory would make each
//! start a little slower than the one before, and hundreds of thousands of them make a floor that floats. A memory
//! file that is written and never mapped is no part of what a clone copies.

use std::fs::File;
use std::io::{self, Seek};
use std::marker::PhantomData;

use nix::sys::memfd::{MFdFlags, memfd_create};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Rows of one kind in the order in which they came.
#[derive(Debug)]
pub(super) struct Spool<Row> {
    /// Made with the first row.
    writer: Option<csv::Writer<File>>,
    rows: PhantomData<Row>,
}

impl<Row: Serialize + DeserializeOwned> Spool<Row> {
    pub(super) fn new() -> Self {
        Self { writer: None, rows: PhantomData }
    }

    /// Adds rows.
    ///
    /// # Errors
    /// When there is no memory left for them.
    pub(super) fn extend(&mut self, rows: impl Iterator<Item = Row>) -> io::Result<()> {
        let writer = match &mut self.writer {
            Some(writer) => writer,
            none => none.insert(csv::Writer::from_writer(File::from(memfd_create(c"rows", MFdFlags::MFD_CLOEXEC)?))),
        };
        for row in rows {
            writer.serialize(row).map_err(io::Error::other)?;
        }
        Ok(())
    }

    /// Every row, in order.
    ///
    /// # Errors
    /// When the file cannot be read back.
    pub(super) fn into_rows(self) -> io::Result<Vec<Row>> {
        let Some(writer) = self.writer else { return Ok(Vec::new()) };
        let mut file = writer.into_inner().map_err(|error| io::Error::other(error.to_string()))?;
        file.rewind()?;
        csv::Reader::from_reader(file).into_deserialize().collect::<Result<_, _>>().map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests {
    use super::Spool;
    use crate::record::{Flags, Sample};

    #[test]
    fn rows_come_back_as_they_went() {
        let sample = |iteration, value| Sample {
            case: "startup/floor, \"none\"/c1".to_owned(),
            metric: "exit".to_owned(),
            unit: "ns".to_owned(),
            block: 3,
            iteration,
            value,
            start_ns: u64::MAX,
            flags: Flags { warmup: true, preempted: true, ..Flags::default() },
        };
        let rows = vec![sample(0, 0.1 + 0.2), sample(1, f64::MIN_POSITIVE), sample(2, 1e300), sample(3, -0.0)];
        let mut spool = Spool::new();
        spool.extend(rows[..1].iter().cloned()).unwrap();
        spool.extend(rows[1..].iter().cloned()).unwrap();
        assert_eq!(spool.into_rows().unwrap(), rows);
        assert_eq!(Spool::<Sample>::new().into_rows().unwrap(), []);
    }
}
