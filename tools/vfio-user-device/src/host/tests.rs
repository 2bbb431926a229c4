// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What the serial card does not have: a region that can be mapped in parts.

use super::*;
use crate::device::{errno, Counts, Device, Region};
use crate::instance::Kind;
use crate::model::Model;
use migration::model::{Type, Values};
use migration::session::machine::Migratable;
use migration::session::{self, Emit, Failure, Phase, SavedSize};
use migration::stream::Refusal;
use rustix::fs::{fstat, ftruncate, memfd_create, MemfdFlags};
use std::os::fd::AsFd;
use vfio_user_protocol::feature::number;
use vfio_user_protocol::Area;

const AREAS: [Area; 2] = [
    Area {
        offset: 0,
        size: 0x1000,
    },
    Area {
        offset: 0x2000,
        size: 0x1000,
    },
];

/// A device that remembers its accesses.
struct Probe {
    file: OwnedFd,
    accesses: Vec<(u32, u64, Vec<u8>)>,
}

impl session::Device for Probe {
    type Error = u32;
    type Incoming = ();

    fn error(failure: Failure) -> u32 {
        errno(failure)
    }

    fn saved_size(&self) -> SavedSize {
        SavedSize {
            bytes: 1,
            sections: 1,
        }
    }

    fn save(&self, emit: &mut Emit<'_, u32>) -> Result<(), u32> {
        emit(0, &[7])
    }

    fn section_len(&self, id: u16) -> Option<usize> {
        (id == 0).then_some(1)
    }

    fn load(
        _: &mut (),
        _: Phase,
        _: u16,
        _: &[u8],
        _: &mut dyn std::fmt::Write,
    ) -> Result<(), Refusal> {
        Ok(())
    }

    fn is_complete(_: &()) -> bool {
        true
    }

    fn commit(&mut self, _: &mut (), _: &mut dyn std::fmt::Write) -> Result<(), u32> {
        Ok(())
    }
}

impl Migratable for Probe {
    fn incoming(&self) -> Result<(), u32> {
        Ok(())
    }
}

impl Device for Probe {
    fn reset(&mut self) {}

    fn region(&self, index: u32) -> Region<'_> {
        let size = match index {
            1 => 0x3000,
            CONFIG => 256,
            _ => return Region::default(),
        };
        Region {
            size,
            read_only: false,
            file: (index == 1).then(|| (self.file.as_fd(), 0x4000)),
            areas: if index == 1 { &AREAS } else { &[] },
        }
    }

    fn read(&mut self, region: u32, offset: u64, data: &mut [u8]) {
        data.fill(data.len() as u8);
        self.accesses.push((region, offset, data.to_vec()));
    }

    fn write(&mut self, region: u32, offset: u64, data: &[u8]) {
        self.accesses.push((region, offset, data.to_vec()));
    }

    fn irqs(&self) -> Counts {
        Counts::default()
    }

    fn intx(&self) -> bool {
        false
    }

    fn take_msi(&mut self) -> u32 {
        0
    }

    fn set_time(&mut self, _now_ns: u64) {}

    fn wake_after_ns(&self) -> Option<u64> {
        None
    }
}

const CONFIG: u32 = crate::device::CONFIG_REGION;

fn host() -> Host<Model<'static, Probe>> {
    let file = memfd_create("region", MemfdFlags::CLOEXEC).expect("a file");
    ftruncate(&file, 0x7000).expect("its size");
    let probe = Probe {
        file,
        accesses: Vec::new(),
    };
    let ty: &'static Type<'static> = Box::leak(Box::new(Type {
        model: Kind::Serial.model(),
        narrowed: &[],
        init_version: None,
    }));
    let mut host = Host::new(Model::new(probe, Values::new(ty)));
    host.connected(0);
    let version = Request::Version(Proposal::bare(0, 0));
    assert!(ask(&mut host, &version).0.is_some());
    host
}

/// The reply's body, if it is one of success, and the descriptor that goes with it.
fn ask(
    host: &mut Host<Model<'static, Probe>>,
    request: &Request<'_>,
) -> (Option<Vec<u8>>, Option<OwnedFd>) {
    let mut bytes = Vec::new();
    request.encode(1, false, &mut bytes);
    let (first, body) = bytes.split_first_chunk().expect("a header");
    let mut out = Outgoing::default();
    let header = Header::parse(first);
    let next = host.message(&header, body, Descriptors::default(), 0, &mut out);
    assert_eq!(next, Next::Continue);
    let (first, body) = out.bytes.split_first_chunk().expect("a reply");
    let body = Header::parse(first)
        .error()
        .is_none()
        .then(|| body.to_vec());
    (body, out.file)
}

fn word(body: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(body[at..at + 4].try_into().expect("four bytes"))
}

#[test]
fn a_region_that_can_be_mapped_comes_with_its_areas_and_its_file() {
    let mut host = host();
    let (short, file) = ask(
        &mut host,
        &Request::RegionInfo {
            argsz: 32,
            index: 1,
        },
    );
    let short = short.expect("a region");
    // argsz, flags with mmap and more behind, no place of it.
    let fields = [0, 4, 12].map(|at| word(&short, at));
    assert_eq!((short.len(), fields), (32, [80, 15, 0]));
    assert!(file.is_some());
    let (whole, file) = ask(
        &mut host,
        &Request::RegionInfo {
            argsz: 80,
            index: 1,
        },
    );
    let whole = whole.expect("a region");
    assert_eq!(
        (whole.len(), word(&whole, 12), word(&whole, 24)),
        (80, 32, 0x4000)
    );
    let (ours, theirs) = (&host.backend.device.file, file.expect("a file"));
    let inode = |fd: &OwnedFd| fstat(fd).expect("a file").st_ino;
    assert_eq!(inode(ours), inode(&theirs));
    let (other, file) = ask(
        &mut host,
        &Request::RegionInfo {
            argsz: 80,
            index: 0,
        },
    );
    assert_eq!(
        other.map(|body| (body.len(), word(&body, 4))),
        Some((32, 0))
    );
    assert!(file.is_none());
}

#[test]
fn accesses_are_taken_apart_as_a_bus_does() {
    let mut host = host();
    let read = |offset, region, count| {
        Request::Read(Access {
            offset,
            region,
            count,
        })
    };
    let (body, _) = ask(&mut host, &read(1, 1, 8));
    assert_eq!(body.expect("data")[16..], [1, 2, 2, 4, 4, 4, 4, 1]);
    let access = Access {
        offset: 4,
        region: CONFIG,
        count: 8,
    };
    ask(&mut host, &Request::Write(access, b"abcdefgh"));
    let found = &host.backend.device.accesses[4..];
    let wanted = [(CONFIG, 4, b"abcd".to_vec()), (CONFIG, 8, b"efgh".to_vec())];
    assert_eq!(found, wanted);
}

#[test]
fn k32_a_device_that_has_failed_says_so_until_it_is_reset() {
    let mut host = host();
    let go = |host: &mut Host<Model<'static, Probe>>, state: u32| {
        let data = [state.to_ne_bytes(), [0; 4]].concat();
        let feature = Feature {
            argsz: 16,
            number: number::MIG_DEVICE_STATE,
            operation: vfio_user_protocol::feature::Operation::Set,
            data: &data,
        };
        let mut out = Vec::new();
        Request::Feature(feature).encode(1, false, &mut out);
        let (first, body) = out.split_first_chunk().expect("a header");
        let mut out = Outgoing::default();
        host.message(
            &Header::parse(first),
            body,
            Descriptors::default(),
            0,
            &mut out,
        );
        let first = out.bytes.first_chunk().expect("a reply");
        Header::parse(first).error()
    };
    // No client can bring it about.
    assert_eq!(go(&mut host, 0), Some(EINVAL));
    assert_eq!(go(&mut host, 6), None);
    host.backend.fail();
    for state in (0..9).chain([u32::MAX]) {
        assert_eq!(go(&mut host, state), Some(5), "EIO for {state}");
        let reason = host.take_refusal().map(str::to_string);
        assert_eq!(
            reason.as_deref(),
            Some("the device has failed and must be reset")
        );
    }
    for request in [
        Request::MigDataRead { size: 8 },
        Request::MigDataWrite(b"data"),
        Request::PrecopyInfo,
    ] {
        assert_eq!(ask(&mut host, &request).0, None);
    }
    assert!(ask(&mut host, &Request::Reset).0.is_some());
    assert_eq!(go(&mut host, 3), None);
}
