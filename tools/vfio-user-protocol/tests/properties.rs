// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What holds for every stream of bytes and every request.

use proptest::collection::vec;
use proptest::prelude::*;
use vfio_user_protocol::feature::{Feature, Operation};
use vfio_user_protocol::request::{Action, IrqData};
use vfio_user_protocol::{
    Access, DmaMap, DmaUnmap, Framer, Header, Limits, Proposal, Request, SetIrqs, PAGE,
};

const LIMITS: Limits = Limits {
    max_data_xfer_size: 4096,
    write_multiple: true,
};

/// The messages of a stream that comes in pieces of these sizes, and how it ended.
fn collect(stream: &[u8], pieces: &[usize]) -> (Vec<(Header, Vec<u8>)>, bool) {
    let mut framer = Framer::new(LIMITS.message_len());
    let (mut messages, mut rest) = (Vec::new(), stream);
    let mut pieces = pieces.iter().cycle();
    while !rest.is_empty() {
        let size = pieces.next().copied().unwrap_or(usize::MAX);
        let (mut piece, behind) = rest.split_at(size.min(rest.len()));
        rest = behind;
        while !piece.is_empty() {
            let Ok(taken) = framer.push(piece) else {
                return (messages, false);
            };
            assert!(taken > 0, "a framer that takes nothing");
            piece = &piece[taken..];
            if let Some((header, body)) = framer.message() {
                messages.push((header, body.to_vec()));
                framer.next();
            }
        }
    }
    (messages, true)
}

prop_compose! {
    fn access()(offset in 0..=u64::MAX - 4096, region: u32, count in 0u32..=4096) -> Access {
        Access { offset, region, count }
    }
}

prop_compose! {
    fn map()(kind in 1u8..=3, wants_file: bool, offset in 0u64..1 << 40, address in 0u64..1 << 51, size in 1u64..1 << 40)
        -> DmaMap
    {
        let (readable, writable) = (kind & 1 != 0, kind & 2 != 0);
        let [offset, address, size] = [offset, address, size].map(|number| number * PAGE);
        DmaMap { readable, writable, wants_file, offset, address, size }
    }
}

/// A request whose data, if it has any, is `data`. (A strategy borrows nothing.)
fn request(data: &'static [u8]) -> impl Strategy<Value = Request<'static>> {
    let bytes = data.len() as u32;
    let action = prop_oneof![
        Just(Action::Mask),
        Just(Action::Unmask),
        Just(Action::Trigger)
    ];
    let irqs = (any::<u32>(), 0..=u32::MAX - bytes, action, 0..3).prop_map(
        move |(index, start, action, kind)| {
            let data = match kind {
                0 => IrqData::None,
                1 => IrqData::Bool(data),
                _ => IrqData::EventFd,
            };
            let count = bytes;
            Request::SetIrqs(SetIrqs {
                index,
                start,
                count,
                action,
                data,
            })
        },
    );
    let operation = prop_oneof![
        Just(Operation::Get),
        Just(Operation::Set),
        (any::<bool>(), any::<bool>()).prop_map(|(get, set)| Operation::Probe { get, set }),
    ];
    let feature = (8u32.., any::<u16>(), operation).prop_map(move |(argsz, number, operation)| {
        Request::Feature(Feature {
            argsz,
            number,
            operation,
            data,
        })
    });
    let unmap = (any::<u32>(), any::<bool>(), any::<u64>(), 1u64..).prop_map(
        |(argsz, all, address, size)| {
            let size = size.min((u64::MAX - address).max(1));
            let (address, size) = if all { (0, 0) } else { (address, size) };
            Request::DmaUnmap(DmaUnmap {
                argsz,
                all,
                address,
                size,
            })
        },
    );
    prop_oneof![
        Just(Request::Version(Proposal::bare(0, 0))),
        map().prop_map(Request::DmaMap),
        unmap,
        (16u32..).prop_map(|argsz| Request::Info { argsz }),
        (32u32.., any::<u32>()).prop_map(|(argsz, index)| Request::RegionInfo { argsz, index }),
        (16u32.., any::<u32>()).prop_map(|(argsz, index)| Request::RegionIoFds { argsz, index }),
        (16u32.., any::<u32>()).prop_map(|(argsz, index)| Request::IrqInfo { argsz, index }),
        irqs,
        access().prop_map(Request::Read),
        access().prop_map(move |to| Request::Write(Access { count: bytes, ..to }, data)),
        Just(Request::Reset),
        feature,
        (0u32..=4096).prop_map(|size| Request::MigDataRead { size }),
        Just(Request::MigDataWrite(data)),
        Just(Request::PrecopyInfo),
    ]
}

proptest! {
    #[test]
    fn bytes_of_any_kind_are_taken_apart_in_the_same_way_however_they_come(
        stream in vec(any::<u8>(), 0..600),
        pieces in vec(1usize..70, 1..6),
    ) {
        let whole = collect(&stream, &[stream.len().max(1)]);
        prop_assert_eq!(collect(&stream, &pieces), whole);
    }

    #[test]
    fn a_body_of_any_kind_is_decoded_or_refused_and_what_is_decoded_says_the_same_again(
        command in 0u16..24,
        body in vec(any::<u8>(), 0..80),
        words in vec(0u32..64, 0..20),
    ) {
        for body in [body, words.iter().flat_map(|word| word.to_ne_bytes()).collect()] {
            let mut bytes = [0; Header::LEN];
            bytes[2..4].copy_from_slice(&command.to_ne_bytes());
            let header = Header::parse(&bytes);
            let Ok(request) = Request::decode(&header, &body, &LIMITS) else { continue };
            let mut again = Vec::new();
            request.encode(0, false, &mut again);
            let (first, again) = again.split_first_chunk().expect("a header");
            let header = Header::parse(first);
            prop_assert_eq!(header.size as usize, Header::LEN + again.len());
            prop_assert_eq!(Request::decode(&header, again, &LIMITS), Ok(request));
        }
    }

    #[test]
    fn what_is_encoded_is_decoded((data, request) in vec(any::<u8>(), 0..64).prop_flat_map(|data| {
        let leaked: &'static [u8] = data.leak();
        (Just(leaked), request(leaked))
    }), id: u16, no_reply: bool) {
        let mut bytes = Vec::new();
        request.encode(id, no_reply, &mut bytes);
        let mut framer = Framer::new(LIMITS.message_len());
        prop_assert_eq!(framer.push(&bytes), Ok(bytes.len()));
        let (header, body) = framer.message().expect("a whole message");
        prop_assert_eq!((header.id, header.no_reply()), (id, no_reply));
        prop_assert!(body.len() >= data.len() || !matches!(request, Request::Write(..)));
        prop_assert_eq!(Request::decode(&header, body, &LIMITS), Ok(request));
    }

    #[test]
    fn version_data_of_any_kind_is_taken_or_refused(text in ".{0,200}", bytes in vec(any::<u8>(), 0..200)) {
        for data in [text.into_bytes(), bytes] {
            let body = [&[0; 4][..], &data, &[0]].concat();
            let mut bytes = [0; Header::LEN];
            bytes[2..4].copy_from_slice(&1u16.to_ne_bytes());
            let decoded = Request::decode(&Header::parse(&bytes), &body, &LIMITS);
            if let Err(refusal) = decoded {
                prop_assert_eq!(refusal.errno(), 22);
            }
        }
    }
}
