// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What a client of vfio-user sends: in one piece and byte by byte it is taken apart as the same messages, and a request that is
//! decoded says the same when it is encoded and decoded again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vfio_user_protocol::feature::{device_state, LoggingReport, LoggingStart};
use vfio_user_protocol::{Capabilities, Framer, Header, Limits, Reply, Request};

/// Small, so that a short input comes to the limits.
const LIMITS: Limits = Limits {
    max_data_xfer_size: 256,
    write_multiple: true,
};

const OURS: Capabilities = Capabilities {
    max_msg_fds: 16,
    max_data_xfer_size: 1 << 20,
    max_dma_maps: 65535,
};

/// The messages, and whether all lengths were sound.
fn messages(input: &[u8], step: usize) -> (Vec<(Header, Vec<u8>)>, bool) {
    let mut framer = Framer::new(LIMITS.message_len());
    let mut found = Vec::new();
    for mut piece in input.chunks(step) {
        while !piece.is_empty() {
            assert!(framer.wanted() > 0);
            let Ok(taken) = framer.push(piece) else {
                return (found, false);
            };
            piece = &piece[taken..];
            if let Some((header, body)) = framer.message() {
                found.push((header, body.to_vec()));
                framer.next();
            }
        }
    }
    (found, true)
}

/// The same request, encoded and decoded. Of a version's data there is nothing then.
fn says_the_same(request: &Request<'_>) {
    let mut bytes = Vec::new();
    request.encode(1, true, &mut bytes);
    let (header, body) = bytes.split_first_chunk().expect("a header");
    let header = Header::parse(header);
    assert_eq!(header.size as usize, bytes.len());
    let again = Request::decode(&header, body, &LIMITS).expect("an encoded request");
    match (&again, request) {
        (Request::Version(again), Request::Version(first)) => {
            assert_eq!((again.major, again.minor), (first.major, first.minor));
        }
        _ => assert_eq!(again, *request),
    }
}

fuzz_target!(|input: &[u8]| {
    let whole = messages(input, input.len().max(1));
    assert_eq!(messages(input, 1), whole);
    for (header, body) in &whole.0 {
        let mut out = Vec::new();
        match Request::decode(header, body, &LIMITS) {
            Ok(request) => {
                says_the_same(&request);
                match request {
                    Request::Version(proposal) => {
                        assert!(OURS.limits(&proposal).max_data_xfer_size > 0);
                        let data = OURS.answer(&proposal);
                        Reply::Version {
                            minor: 0,
                            data: &data,
                        }
                        .encode(header, &mut out);
                    }
                    Request::Feature(feature) => {
                        let _ = (
                            device_state(feature.data),
                            LoggingStart::decode(feature.data),
                        );
                        let room = LIMITS.max_data_xfer_size as usize;
                        if let Ok(report) = LoggingReport::decode(feature.data, room) {
                            assert!(report.bitmap_len() <= room);
                        }
                        Reply::Feature(feature).encode(header, &mut out);
                    }
                    Request::WriteMulti(writes) => {
                        assert!(writes.iter().all(|(to, _)| to.count <= 8));
                        Reply::MultiWritten(0).encode(header, &mut out);
                    }
                    _ => Reply::Done.encode(header, &mut out),
                }
            }
            Err(refusal) => {
                assert!(!refusal.to_string().contains('\n'));
                header.put_error(&mut out, refusal.errno());
            }
        }
        let reply = Header::parse(out.first_chunk().expect("a reply has a header"));
        assert!(reply.is_reply() && reply.id == header.id && reply.size as usize == out.len());
    }
});
