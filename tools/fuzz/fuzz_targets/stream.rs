// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Saved states: in one piece, byte by byte, and as `vfio-migrate inspect` shows them, they are read as the same.

#![no_main]

use fuzz::{can_be_written_again, with_checksums};
use libfuzzer_sys::fuzz_target;
use migration::stream::{
    Handler, Known, Reader, Refusal, SectionHeader, SetupRecord, MAX_SECTION_LEN,
};
use vfio_migrate::inspect::inspect;

/// Accepts everything, and counts it.
#[derive(Default, Debug, PartialEq)]
struct Count {
    setups: usize,
    sections: usize,
    payload: Vec<u8>,
    ends: usize,
}

impl Handler for Count {
    fn setup(&mut self, record: &SetupRecord<'_>) -> Result<(), Refusal> {
        can_be_written_again(record);
        self.setups += 1;
        Ok(())
    }

    fn section_header(&mut self, _: &SectionHeader) -> Result<Known, Refusal> {
        Ok(Known::Yes)
    }

    fn section(&mut self, _: &SectionHeader, payload: &[u8]) -> Result<(), Refusal> {
        self.sections += 1;
        self.payload.extend_from_slice(payload);
        Ok(())
    }

    fn end(&mut self) -> Result<(), Refusal> {
        self.ends += 1;
        Ok(())
    }
}

fuzz_target!(|input: &[u8]| {
    for input in [input, &with_checksums(input)] {
        read_in_every_way(input);
    }
});

fn read_in_every_way(input: &[u8]) {
    let mut scratch = vec![0; MAX_SECTION_LEN];
    let mut read = |step: usize| {
        let (mut reader, mut count) = (Reader::new(), Count::default());
        let result = input
            .chunks(step)
            .try_for_each(|piece| reader.push(piece, &mut scratch, &mut count))
            .and_then(|()| reader.finish());
        (result, count)
    };
    let whole = read(input.len().max(1));
    assert_eq!(read(1), whole);
    let (result, count) = whole;
    let contents = inspect(&mut &input[..]).expect("reading memory does not fail");
    assert_eq!(contents.damage.map(|(_, error)| error), result.err());
    let records = count.setups + count.sections + count.ends;
    assert_eq!(contents.records.len(), records);
}
