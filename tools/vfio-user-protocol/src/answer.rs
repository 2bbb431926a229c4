// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What a client finds in the bodies of replies, which it trusts as little as a server trusts requests.

use crate::refusal::Refusal;
use crate::request::Access;
use crate::version::Proposal;
use crate::wire::Reader;

/// Of `VERSION`: what the server can.
pub fn version(body: &[u8]) -> Result<Proposal, Refusal> {
    Proposal::decode(body)
}

/// Of `GET_REGION_INFO`: bytes that the region has.
pub fn region_size(body: &[u8]) -> Result<u64, Refusal> {
    let mut reader = Reader::new(body);
    let (_argsz_flags, _index_caps) = (reader.u64()?, reader.u64()?);
    let (size, _offset) = (reader.u64()?, reader.u64()?);
    Ok(size)
}

/// Of `REGION_READ`: the bytes that were asked for.
pub fn registers<'a>(body: &'a [u8], asked: &Access) -> Result<&'a [u8], Refusal> {
    let mut reader = Reader::new(body);
    let (_offset, _region, count) = (reader.u64()?, reader.u32()?, reader.u32()?);
    match reader.rest() {
        data if count == asked.count && data.len() == count as usize => Ok(data),
        _ => Err(Refusal::Count),
    }
}

/// Of `REGION_WRITE`: whether everything was written.
pub fn written(body: &[u8], asked: &Access) -> Result<(), Refusal> {
    let mut reader = Reader::new(body);
    let (_offset, _region, count) = (reader.u64()?, reader.u32()?, reader.u32()?);
    match count == asked.count {
        true => Ok(()),
        false => Err(Refusal::Count),
    }
}

/// Of `DEVICE_FEATURE`: the feature's data.
pub fn feature(body: &[u8]) -> Result<&[u8], Refusal> {
    let mut reader = Reader::new(body);
    let (_argsz, _flags) = (reader.u32()?, reader.u32()?);
    Ok(reader.rest())
}

/// Data of a feature that is one number of 64 bits.
pub fn number(data: &[u8]) -> Result<u64, Refusal> {
    Reader::new(data).u64()
}

/// Of `MIG_DATA_READ`: no more bytes than were asked for. Some servers pad the reply.
pub fn saved(body: &[u8], asked: u32) -> Result<&[u8], Refusal> {
    let mut reader = Reader::new(body);
    let (_argsz, size) = (reader.u32()?, reader.u32()?);
    if size > asked {
        return Err(Refusal::TooMuch);
    }
    reader.rest().get(..size as usize).ok_or(Refusal::Count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feature::{Feature, Operation};
    use crate::{Header, RegionInfo, Reply};
    use alloc::vec::Vec;

    /// The body of a reply.
    fn body(reply: &Reply<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        reply.encode(&Header::parse(&[0; Header::LEN]), &mut out);
        out.split_off(Header::LEN)
    }

    #[test]
    fn what_a_server_says_is_found_and_less_of_it_refused() {
        let access = Access {
            offset: 5,
            region: 1,
            count: 3,
        };
        let read = body(&Reply::Read(access, b"abc"));
        assert_eq!(registers(&read, &access), Ok(&b"abc"[..]));
        let other = Access { count: 2, ..access };
        assert_eq!(registers(&read, &other), Err(Refusal::Count));
        assert_eq!(written(&body(&Reply::Written(access)), &access), Ok(()));
        assert_eq!(
            written(&body(&Reply::Written(other)), &access),
            Err(Refusal::Count)
        );

        let info = body(&Reply::RegionInfo(RegionInfo {
            argsz: 32,
            index: 0,
            flags: 3,
            size: 0x1_0000_0008,
            offset: 0,
            areas: &[],
        }));
        assert_eq!(region_size(&info), Ok(0x1_0000_0008));

        let flags = 7u64.to_ne_bytes();
        let got = body(&Reply::Feature(Feature {
            argsz: 16,
            number: 1,
            operation: Operation::Get,
            data: &flags,
        }));
        assert_eq!(feature(&got).and_then(number), Ok(7));

        let data = body(&Reply::MigData(b"state"));
        assert_eq!(saved(&data, 5), Ok(&b"state"[..]));
        assert_eq!(saved(&data, 4), Err(Refusal::TooMuch));
        let padded = [&data[..], &[0; 100]].concat();
        assert_eq!(saved(&padded, 100), Ok(&b"state"[..]));
        for len in 0..data.len() {
            assert!(saved(&data[..len], 5).is_err());
        }
        for len in 0..16 {
            assert!(registers(&read[..len], &access).is_err());
            assert!(region_size(&info[..len]).is_err());
            assert!(number(&flags[..len.min(7)]).is_err());
        }
        assert_eq!(feature(&got[..7]), Err(Refusal::Short));
    }
}
