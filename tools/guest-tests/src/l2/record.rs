// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Numbered records for a serial port with a loop-back at its far end: what is sent must come back, once, in order, unchanged.
//!
//! Everything in a record follows from its port and number, so the receiver knows each byte before it comes. What comes
//! instead is told apart by the check sum: a valid record with another number was lost, doubled or reordered; anything
//! else is damage.
//!
//! | offset | size | content |
//! |---|---|---|
//! | 0 | 2 | [`MAGIC`] |
//! | 2 | 1 | port |
//! | 3 | 1 | length of the payload in bytes, 1 to [`MAX_PAYLOAD`] |
//! | 4 | 4 | sequence number, little-endian, from 0 |
//! | 8 | n | payload |
//! | 8 + n | 4 | CRC-32 (IEEE) of everything from offset 2 to here, little-endian |

use std::collections::BTreeSet;
use std::fmt;

/// First bytes of every record.
pub const MAGIC: [u8; 2] = [0xa5, 0x3c];
/// Bytes before the payload.
pub const HEADER: usize = 8;
/// Most bytes of payload.
pub const MAX_PAYLOAD: usize = 8;
/// Most bytes of a record.
pub const MAX_RECORD: usize = HEADER + MAX_PAYLOAD + CRC;
/// Bytes of the check sum.
const CRC: usize = 4;
/// How many missing numbers are remembered, to tell a late record from a doubled one.
const MISSING: usize = 4096;

/// The bytes of record `sequence` of `port`.
pub fn record(port: u8, sequence: u32) -> Vec<u8> {
    // Lengths and content vary, so that record borders wander over the borders of the FIFOs and every byte value occurs.
    let length = 1 + (sequence as usize * 7 + usize::from(port)) % MAX_PAYLOAD;
    let mut bytes = Vec::with_capacity(HEADER + length + CRC);
    bytes.extend_from_slice(&MAGIC);
    bytes.push(port);
    bytes.push(length as u8);
    bytes.extend_from_slice(&sequence.to_le_bytes());
    let mut mix = sequence.wrapping_mul(0x9e37_79b9) ^ u32::from(port).wrapping_mul(0x85eb_ca6b);
    for _ in 0..length {
        mix = mix.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        bytes.push((mix >> 24) as u8);
    }
    let sum = crc32fast::hash(&bytes[MAGIC.len()..]);
    bytes.extend_from_slice(&sum.to_le_bytes());
    bytes
}

/// The sending side: an endless stream of records, taken in pieces of any size.
#[derive(Debug)]
pub struct Sender {
    port: u8,
    /// Number of the record after those in progress.
    next: u32,
    /// Bytes of the records in progress that were not sent yet.
    rest: Vec<u8>,
    sent: u64,
}

impl Sender {
    /// A stream for `port` that starts at record 0.
    pub fn new(port: u8) -> Self {
        Self {
            port,
            next: 0,
            rest: Vec::new(),
            sent: 0,
        }
    }

    /// The bytes to send next, never none: the rest of the record in progress, or a new one. [`Sender::advance`] says how
    /// many were sent.
    pub fn peek(&mut self) -> &[u8] {
        if self.rest.is_empty() {
            self.rest = record(self.port, self.next);
            self.next = self.next.wrapping_add(1);
        }
        &self.rest
    }

    /// As [`Sender::peek`], but at least `size` bytes, of as many records as it takes.
    pub fn peek_many(&mut self, size: usize) -> &[u8] {
        while self.rest.len() < size {
            let more = record(self.port, self.next);
            self.rest.extend_from_slice(&more);
            self.next = self.next.wrapping_add(1);
        }
        &self.rest
    }

    /// The bytes that complete the records in progress; none at a border between records.
    pub fn rest(&self) -> &[u8] {
        &self.rest
    }

    /// Takes `count` bytes, at most what [`Sender::peek`] gave, out of the stream: they were sent.
    pub fn advance(&mut self, count: usize) {
        self.rest.drain(..count);
        self.sent += count as u64;
    }

    /// Bytes sent so far.
    pub fn bytes(&self) -> u64 {
        self.sent
    }

    /// Records begun so far; once [`Sender::rest`] is empty, records sent.
    pub fn records(&self) -> u32 {
        self.next
    }
}

/// What went wrong with a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Numbers `first` to `last` did not come (and may still come late).
    Lost {
        /// First missing number.
        first: u32,
        /// Last missing number.
        last: u32,
    },
    /// This number came again.
    Doubled(u32),
    /// This number came after a later one.
    Reordered(u32),
    /// A valid record of another port.
    OtherPort {
        /// The port in the record.
        port: u8,
        /// Its number.
        sequence: u32,
    },
    /// So many bytes in front of record `before` belong to no valid record.
    Damaged {
        /// Number of bytes.
        bytes: usize,
        /// The number expected at that place.
        before: u32,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Lost { first, last } => write!(f, "lost records {first} to {last}"),
            Fault::Doubled(sequence) => write!(f, "record {sequence} came twice"),
            Fault::Reordered(sequence) => write!(f, "record {sequence} came late"),
            Fault::OtherPort { port, sequence } => {
                write!(f, "record {sequence} of port {port} came out here")
            }
            Fault::Damaged { bytes, before } => write!(
                f,
                "{bytes} damaged bytes where record {before} was expected"
            ),
        }
    }
}

/// The receiving side.
#[derive(Debug)]
pub struct Checker {
    port: u8,
    expected: u32,
    buffer: Vec<u8>,
    verified: u32,
    received: u64,
    missing: BTreeSet<u32>,
}

impl Checker {
    /// Expects record 0 of `port`.
    pub fn new(port: u8) -> Self {
        Self {
            port,
            expected: 0,
            buffer: Vec::new(),
            verified: 0,
            received: 0,
            missing: BTreeSet::new(),
        }
    }

    /// Records that came as expected.
    pub fn verified(&self) -> u32 {
        self.verified
    }

    /// Bytes received.
    pub fn bytes(&self) -> u64 {
        self.received
    }

    /// Takes received bytes; hands each fault to `report`.
    pub fn take(&mut self, bytes: &[u8], mut report: impl FnMut(Fault)) {
        self.received += bytes.len() as u64;
        self.buffer.extend_from_slice(bytes);
        loop {
            let expected = record(self.port, self.expected);
            if self.buffer.starts_with(&expected) {
                self.buffer.drain(..expected.len());
                self.expected += 1;
                self.verified += 1;
                continue;
            }
            let short = self.buffer.len() < expected.len() && expected.starts_with(&self.buffer);
            if short || !self.resynchronise(&mut report) {
                return;
            }
        }
    }

    /// Finds the next valid record in a stream that is not as expected; false if more bytes are needed.
    fn resynchronise(&mut self, report: &mut impl FnMut(Fault)) -> bool {
        let mut skipped = 0;
        while skipped < self.buffer.len() {
            match parse(&self.buffer[skipped..]) {
                Parsed::Record {
                    port,
                    sequence,
                    size,
                } => {
                    if skipped > 0 {
                        report(Fault::Damaged {
                            bytes: skipped,
                            before: self.expected,
                        });
                    }
                    self.buffer.drain(..skipped);
                    if port == self.port && sequence == self.expected {
                        return true;
                    }
                    self.buffer.drain(..size);
                    self.classify(port, sequence, report);
                    return true;
                }
                Parsed::Short => break,
                Parsed::No => skipped += 1,
            }
        }
        // Where a record may begin, wait for its end; bytes in front of it can be nothing any more.
        if skipped > MAX_RECORD {
            report(Fault::Damaged {
                bytes: skipped,
                before: self.expected,
            });
            self.buffer.drain(..skipped);
        }
        false
    }

    /// Reports a valid record that is not the expected one, and goes on after it.
    fn classify(&mut self, port: u8, sequence: u32, report: &mut impl FnMut(Fault)) {
        if port != self.port {
            report(Fault::OtherPort { port, sequence });
        } else if sequence > self.expected {
            report(Fault::Lost {
                first: self.expected,
                last: sequence - 1,
            });
            self.missing
                .extend((self.expected..sequence).take(MISSING.saturating_sub(self.missing.len())));
            self.expected = sequence + 1;
        } else if self.missing.remove(&sequence) {
            report(Fault::Reordered(sequence));
        } else {
            report(Fault::Doubled(sequence));
        }
    }
}

/// What the beginning of some bytes is.
enum Parsed {
    /// A valid record.
    Record {
        port: u8,
        sequence: u32,
        size: usize,
    },
    /// Perhaps a record, but its end is missing.
    Short,
    /// No record.
    No,
}

fn parse(bytes: &[u8]) -> Parsed {
    let begin = bytes.len().min(MAGIC.len());
    if bytes[..begin] != MAGIC[..begin] {
        return Parsed::No;
    }
    let Some(header) = bytes.get(..HEADER) else {
        return Parsed::Short;
    };
    let length = usize::from(header[3]);
    if length == 0 || length > MAX_PAYLOAD {
        return Parsed::No;
    }
    let size = HEADER + length + CRC;
    let Some(whole) = bytes.get(..size) else {
        return Parsed::Short;
    };
    let (body, sum) = whole.split_at(size - CRC);
    if crc32fast::hash(&body[MAGIC.len()..]).to_le_bytes() != sum {
        return Parsed::No;
    }
    Parsed::Record {
        port: header[2],
        sequence: u32::from_le_bytes([header[4], header[5], header[6], header[7]]),
        size,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends the records of `numbers` from port 1 to a checker in pieces of `piece` bytes.
    fn echo(numbers: &[u32], piece: usize) -> (Checker, Vec<Fault>) {
        let bytes: Vec<u8> = numbers
            .iter()
            .flat_map(|number| record(1, *number))
            .collect();
        deliver(&bytes, piece)
    }

    fn deliver(bytes: &[u8], piece: usize) -> (Checker, Vec<Fault>) {
        let mut checker = Checker::new(1);
        let mut faults = Vec::new();
        for chunk in bytes.chunks(piece) {
            checker.take(chunk, |fault| faults.push(fault));
        }
        (checker, faults)
    }

    #[test]
    fn every_byte_value_occurs_in_a_short_stretch_of_records() {
        let seen: BTreeSet<u8> = (0..200).flat_map(|number| record(0, number)).collect();
        assert_eq!(seen.len(), 256);
    }

    #[test]
    fn a_true_stream_has_no_fault_in_pieces_of_any_size() {
        let numbers: Vec<u32> = (0..50).collect();
        for piece in [1, 2, 3, 16, 64, 5000] {
            let (checker, faults) = echo(&numbers, piece);
            assert_eq!(
                (checker.verified(), faults),
                (50, vec![]),
                "pieces of {piece}"
            );
        }
    }

    #[test]
    fn a_lost_record_is_reported_and_the_next_ones_count() {
        let (checker, faults) = echo(&[0, 1, 4, 5], 7);
        assert_eq!(faults, [Fault::Lost { first: 2, last: 3 }]);
        assert_eq!(checker.verified(), 3);
    }

    #[test]
    fn a_doubled_record_is_reported() {
        let (_, faults) = echo(&[0, 1, 1, 2, 0], 5);
        assert_eq!(faults, [Fault::Doubled(1), Fault::Doubled(0)]);
    }

    #[test]
    fn a_late_record_is_reordered_not_doubled() {
        let (_, faults) = echo(&[0, 2, 1, 3, 1], 9);
        assert_eq!(
            faults,
            [
                Fault::Lost { first: 1, last: 1 },
                Fault::Reordered(1),
                Fault::Doubled(1)
            ]
        );
    }

    #[test]
    fn any_single_changed_byte_is_found() {
        let stream: Vec<u8> = (0..8).flat_map(|number| record(1, number)).collect();
        for position in 0..stream.len() - MAX_RECORD {
            let mut bytes = stream.clone();
            bytes[position] ^= 0x10;
            let (_, faults) = deliver(&bytes, 11);
            assert!(
                !faults.is_empty(),
                "a changed byte at {position} went unnoticed"
            );
        }
    }

    #[test]
    fn any_single_lost_or_doubled_byte_is_found() {
        let stream: Vec<u8> = (0..8).flat_map(|number| record(1, number)).collect();
        for position in 0..stream.len() - 2 * MAX_RECORD {
            let mut short = stream.clone();
            short.remove(position);
            assert!(
                !deliver(&short, 4).1.is_empty(),
                "a lost byte at {position} went unnoticed"
            );
            let mut long = stream.clone();
            long.insert(position, stream[position]);
            assert!(
                !deliver(&long, 4).1.is_empty(),
                "a doubled byte at {position} went unnoticed"
            );
        }
    }

    #[test]
    fn a_record_of_another_port_is_reported() {
        let bytes: Vec<u8> = [record(1, 0), record(2, 1), record(1, 1)].concat();
        let (checker, faults) = deliver(&bytes, 6);
        assert_eq!(
            faults,
            [Fault::OtherPort {
                port: 2,
                sequence: 1
            }]
        );
        assert_eq!(checker.verified(), 2);
    }

    #[test]
    fn noise_without_end_is_reported_while_it_comes() {
        let (_, faults) = deliver(&[0xff; 500], 50);
        assert!(faults.len() > 2, "{faults:?}");
    }

    #[test]
    fn the_sender_streams_the_same_bytes_whatever_the_pieces() {
        let whole: Vec<u8> = (0..40).flat_map(|number| record(3, number)).collect();
        let mut sender = Sender::new(3);
        let mut sent = Vec::new();
        for room in (1..40).cycle().take(60) {
            let bytes = sender.peek();
            let bytes = bytes[..bytes.len().min(room)].to_vec();
            sender.advance(bytes.len());
            sent.extend_from_slice(&bytes);
        }
        assert!(sent.len() > 500 && whole.starts_with(&sent));
        assert_eq!(sender.bytes(), sent.len() as u64);
    }

    #[test]
    fn many_records_are_the_same_stream_as_one_after_the_other() {
        let mut sender = Sender::new(3);
        let first = sender.peek()[..5].to_vec();
        sender.advance(first.len());
        let many = sender.peek_many(500).to_vec();
        let whole: Vec<u8> = (0..sender.records())
            .flat_map(|number| record(3, number))
            .collect();
        assert!(many.len() >= 500);
        assert_eq!([first, many.clone()].concat(), whole);
        sender.advance(many.len());
        assert!(sender.rest().is_empty());
    }

    #[test]
    fn the_rest_completes_the_record_and_no_more() {
        let mut sender = Sender::new(0);
        sender.peek();
        sender.advance(3);
        assert_eq!(sender.rest(), &record(0, 0)[3..]);
        sender.advance(sender.rest().len());
        assert!(sender.rest().is_empty());
        assert_eq!(sender.records(), 1);
        assert_eq!(sender.peek(), record(0, 1));
    }
}
