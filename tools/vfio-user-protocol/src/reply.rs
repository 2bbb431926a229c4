// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What a server answers.

use crate::feature::Feature;
use crate::header::Header;
use crate::request::{Access, DmaUnmap};
use crate::version;
use crate::wire::{len32, Writer};
use alloc::vec::Vec;

/// A part of a region that can be mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Area {
    /// Where it begins in the region.
    pub offset: u64,
    /// Bytes.
    pub size: u64,
}

/// What a region is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionInfo<'a> {
    /// Most bytes that the client takes.
    pub argsz: u32,
    /// Which region.
    pub index: u32,
    /// [`RegionInfo::READ`] and the like.
    pub flags: u32,
    /// Bytes; 0 if there is no such region.
    pub size: u64,
    /// Where it begins in the file of the descriptor that goes with the reply.
    pub offset: u64,
    /// The parts that can be mapped, if not all of it can.
    pub areas: &'a [Area],
}

impl RegionInfo<'_> {
    /// It can be read.
    pub const READ: u32 = 1;
    /// It can be written.
    pub const WRITE: u32 = 2;
    /// It, or parts of it, can be mapped: a descriptor goes with the reply.
    pub const MMAP: u32 = 4;
    /// More is said behind the structure.
    const CAPS: u32 = 8;
    /// Bytes of the structure.
    const LEN: u32 = 32;
    /// Bytes before the areas of what says which parts can be mapped.
    const SPARSE_LEN: u32 = 16;
    /// Its identifier and version.
    const SPARSE: (u16, u16) = (1, 1);
    const AREA_LEN: u32 = 16;

    /// Where no room is for what is behind the structure, `argsz` says how much is needed.
    fn put(&self, out: &mut Vec<u8>) {
        let areas = len32(self.areas.len());
        let more = match areas {
            0 => 0,
            _ => Self::SPARSE_LEN.saturating_add(areas.saturating_mul(Self::AREA_LEN)),
        };
        let whole = Self::LEN.saturating_add(more);
        let has_more = more > 0;
        let is_whole = has_more && self.argsz >= whole;
        out.put32(whole)
            .put32(self.flags | if has_more { Self::CAPS } else { 0 })
            .put32(self.index)
            .put32(if is_whole { Self::LEN } else { 0 })
            .put64(self.size)
            .put64(self.offset);
        if !is_whole {
            return;
        }
        let (id, version) = Self::SPARSE;
        out.put16(id).put16(version).put32(0).put32(areas).put32(0);
        for area in self.areas {
            out.put64(area.offset).put64(area.size);
        }
    }
}

/// What a server answers to a request that it carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply<'a> {
    /// Nothing more than that: to `DMA_MAP`, `SET_IRQS`, `RESET` and `MIG_DATA_WRITE`.
    Done,
    /// To `VERSION`: the numbers, and the version data.
    Version {
        /// The minor version that holds.
        minor: u16,
        /// JSON.
        data: &'a str,
    },
    /// To `DMA_UNMAP`: what was asked for.
    Unmapped(DmaUnmap),
    /// To `GET_INFO`.
    Info {
        /// 1: it can be reset; 2: it is a PCI device.
        flags: u32,
        /// How many regions it has.
        regions: u32,
        /// How many kinds of interrupts.
        irqs: u32,
    },
    /// To `GET_REGION_INFO`.
    RegionInfo(RegionInfo<'a>),
    /// To `GET_REGION_IO_FDS`: there are none.
    NoIoFds {
        /// Which region.
        index: u32,
    },
    /// To `GET_IRQ_INFO`.
    IrqInfo {
        /// As the kernel's interface has them.
        flags: u32,
        /// Which interrupt.
        index: u32,
        /// How many there are.
        count: u32,
    },
    /// To `REGION_READ`: as many bytes as were asked for.
    Read(Access, &'a [u8]),
    /// To `REGION_WRITE`.
    Written(Access),
    /// To `WRITE_MULTI`: how many were carried out, from the first on.
    MultiWritten(u64),
    /// To `DEVICE_FEATURE`: the request with this data.
    Feature(Feature<'a>),
    /// To `MIG_DATA_READ`: no more than was asked for.
    MigData(&'a [u8]),
    /// To `GET_PRECOPY_INFO`.
    PrecopyInfo {
        /// Bytes that are there from the beginning.
        initial: u64,
        /// Bytes that came since.
        dirty: u64,
    },
}

impl Reply<'_> {
    /// Appends the whole message that answers this request.
    pub fn encode(&self, request: &Header, out: &mut Vec<u8>) {
        let mut body = Vec::new();
        match self {
            Self::Done => {}
            Self::Version { minor, data } => version::put(&mut body, version::MAJOR, *minor, data),
            Self::Unmapped(unmap) => unmap.put(&mut body),
            Self::Info {
                flags,
                regions,
                irqs,
            } => {
                body.put32(16).put32(*flags).put32(*regions).put32(*irqs);
            }
            Self::RegionInfo(info) => info.put(&mut body),
            Self::NoIoFds { index } => {
                body.put32(16).put32(0).put32(*index).put32(0);
            }
            Self::IrqInfo {
                flags,
                index,
                count,
            } => {
                body.put32(16).put32(*flags).put32(*index).put32(*count);
            }
            Self::Read(access, data) => {
                access.put(&mut body);
                body.put(data);
            }
            Self::Written(access) => access.put(&mut body),
            Self::MultiWritten(count) => {
                body.put64(*count);
            }
            Self::Feature(feature) => {
                let argsz = len32(feature.data.len()).saturating_add(8);
                Feature { argsz, ..*feature }.put(&mut body);
            }
            Self::MigData(data) => {
                let size = len32(data.len());
                body.put32(size.saturating_add(8)).put32(size).put(data);
            }
            Self::PrecopyInfo { initial, dirty } => {
                body.put32(24).put32(0).put64(*initial).put64(*dirty);
            }
        }
        request.put_reply(out, body.len());
        out.put(&body);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Command, Request};

    fn header(command: Command) -> Header {
        let mut out = Vec::new();
        Header::put_request(&mut out, 5, command, false, 0);
        Header::parse(out.first_chunk().expect("a header"))
    }

    /// The words of 32 bits that a reply's body has.
    fn words(command: Command, reply: &Reply<'_>) -> Vec<u32> {
        let mut out = Vec::new();
        reply.encode(&header(command), &mut out);
        let found = Header::parse(out.first_chunk().expect("a header"));
        assert_eq!(found.size as usize, out.len());
        assert_eq!((found.id, found.command), (5, command as u16));
        assert!(found.is_reply() && found.error().is_none());
        let words = out[Header::LEN..].chunks_exact(4);
        assert!(words.remainder().is_empty());
        words
            .map(|word| u32::from_ne_bytes(word.try_into().expect("four bytes")))
            .collect()
    }

    #[test]
    fn structures_are_laid_out_as_the_protocol_has_them() {
        let info = Reply::Info {
            flags: 3,
            regions: 9,
            irqs: 5,
        };
        assert_eq!(words(Command::GetInfo, &info), [16, 3, 9, 5]);
        let irq = Reply::IrqInfo {
            flags: 7,
            index: 1,
            count: 32,
        };
        assert_eq!(words(Command::GetIrqInfo, &irq), [16, 7, 1, 32]);
        let none = Reply::NoIoFds { index: 2 };
        assert_eq!(words(Command::GetRegionIoFds, &none), [16, 0, 2, 0]);
        let access = Access {
            offset: 0x1_0000_0002,
            region: 7,
            count: 4,
        };
        let low_first = cfg!(target_endian = "little");
        assert!(low_first, "the numbers below are those of such a host");
        assert_eq!(
            words(Command::RegionRead, &Reply::Read(access, b"\x01\0\0\0")),
            [2, 1, 7, 4, 1]
        );
        assert_eq!(
            words(Command::RegionWrite, &Reply::Written(access)),
            [2, 1, 7, 4]
        );
        assert_eq!(words(Command::WriteMulti, &Reply::MultiWritten(3)), [3, 0]);
        assert!(words(Command::Reset, &Reply::Done).is_empty());
        assert_eq!(
            words(Command::MigDataRead, &Reply::MigData(b"\x05\0\0\0")),
            [12, 4, 5]
        );
        let left = Reply::PrecopyInfo {
            initial: 1,
            dirty: 2,
        };
        assert_eq!(words(Command::PrecopyInfo, &left), [24, 0, 1, 0, 2, 0]);
        let unmap = DmaUnmap {
            argsz: 24,
            all: false,
            address: 0x1000,
            size: 0x2000,
        };
        assert_eq!(
            words(Command::DmaUnmap, &Reply::Unmapped(unmap)),
            [24, 0, 0x1000, 0, 0x2000, 0]
        );
    }

    #[test]
    fn a_feature_comes_back_with_the_length_that_it_has() {
        let request = Header::parse(&[0; Header::LEN]);
        let mut out = Vec::new();
        let feature = Feature {
            argsz: 4096,
            number: 1,
            operation: crate::feature::Operation::Get,
            data: &[3, 0, 0, 0, 0, 0, 0, 0],
        };
        Reply::Feature(feature).encode(&request, &mut out);
        let body = &out[Header::LEN..];
        assert_eq!(body[..8], [16, 0, 0, 0, 1, 0, 1, 0]);
        assert_eq!(&body[8..], feature.data);
    }

    #[test]
    fn areas_are_told_where_there_is_room_and_their_need_where_there_is_none() {
        let areas = [
            Area {
                offset: 0,
                size: 0x1000,
            },
            Area {
                offset: 0x2000,
                size: 0x1000,
            },
        ];
        let info = |argsz, areas| {
            let reply = Reply::RegionInfo(RegionInfo {
                argsz,
                index: 1,
                flags: 7,
                size: 0x3000,
                offset: 0x4000,
                areas,
            });
            words(Command::GetRegionInfo, &reply)
        };
        assert_eq!(info(32, &areas), [80, 15, 1, 0, 0x3000, 0, 0x4000, 0]);
        assert_eq!(info(79, &areas), info(32, &areas));
        assert_eq!(
            info(80, &areas),
            [
                80, 15, 1, 32, 0x3000, 0, 0x4000, 0, // the structure
                0x1_0001, 0, 2, 0, // sparse mmap, version 1, two areas
                0, 0, 0x1000, 0, 0x2000, 0, 0x1000, 0
            ]
        );
        assert_eq!(info(32, &[]), [32, 7, 1, 0, 0x3000, 0, 0x4000, 0]);
    }

    #[test]
    fn a_version_ends_with_a_nul() {
        let mut asked = Vec::new();
        Request::Version(crate::Proposal::bare(0, 1)).encode(1, false, &mut asked);
        let request = Header::parse(asked.first_chunk().expect("a header"));
        let mut out = Vec::new();
        Reply::Version {
            minor: 0,
            data: "{}",
        }
        .encode(&request, &mut out);
        assert_eq!(out[Header::LEN..], *b"\0\0\0\0{}\0");
    }
}
