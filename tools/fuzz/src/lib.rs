// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What the fuzz targets share; this file: those for saved states.

pub mod guest;
pub mod migrating;

use migration::crc::Crc32;
use migration::stream::{section_len, write_setup, SetupRecord, Sink, MAGIC, MAX_SETUP_LEN};

/// Bytes, as a place to write to.
#[derive(Debug, Default)]
pub struct Bytes(pub Vec<u8>);

impl Sink for Bytes {
    type Error = std::convert::Infallible;

    fn put(&mut self, bytes: &[u8]) -> Result<(), Self::Error> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

/// The length that the record at the start of `bytes` says it has, if it is all there.
fn record_len(bytes: &[u8]) -> Option<usize> {
    let number = |at: usize| {
        let field = bytes.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(field)).ok()
    };
    let len = match bytes.get(..2)? == &MAGIC[..2] {
        true => number(12)?,
        false => section_len(0).checked_add(number(4)?)?,
    };
    (section_len(0)..=bytes.len()).contains(&len).then_some(len)
}

/// Makes the checksums of all records right, so that what is behind them is reached.
pub fn with_checksums(stream: &[u8]) -> Vec<u8> {
    let mut fixed = stream.to_vec();
    let mut rest = &mut fixed[..];
    while let Some(len) = record_len(rest) {
        let (record, behind) = rest.split_at_mut(len);
        let (covered, checksum) = record.split_at_mut(len - 4);
        checksum.copy_from_slice(&Crc32::of(covered).to_le_bytes());
        rest = behind;
    }
    fixed
}

/// What was read can be written, and read again as the same.
///
/// # Panics
///
/// If not.
pub fn can_be_written_again(record: &SetupRecord<'_>) {
    let mut out = Bytes::default();
    let written = write_setup(&mut out, record.phase, record.model, record.params());
    assert!(written.is_ok(), "{record:?} cannot be written");
    assert!(out.0.len() <= MAX_SETUP_LEN, "{} bytes", out.0.len());
    let again = SetupRecord::parse(&out.0).expect("what was written is not read");
    assert_eq!((again.phase, again.model), (record.phase, record.model));
    assert!(again.params().eq(record.params()), "{again:?} {record:?}");
}
