// SPDX-License-Identifier: GPL-2.0

//! KUnit: what this crate decides, compared with the running kernel where the kernel decides it too.

use crate::device::{Device, Phase, SavedSize};
use crate::engine::NoEngine;
use crate::mdev::Type;
use crate::migration::session::{
    errno, refusal, Chunk, Migration, Of, Opening, Saving, Session, SessionId, SUPPORT,
};
use crate::module::ModuleMetadata;
use crate::reason::Reason;
use crate::region::Region;
use ::migration::fsm::{Arc, State};
use ::migration::model::{Allowed, InUse, IntRange, Model, ParamDef, Type as Offer, Values};
use ::migration::value::Value;
use core::fmt::Write;
use kernel::prelude::*;

mod checksum;
mod dirty_log;
mod memory;

/// Stands for a driver's module, which tests do not have.
struct NoModule;

impl ModuleMetadata for NoModule {
    #[cfg(not(no_this_module))]
    const NAME: &'static CStr = c"none";
    const THIS_MODULE: ThisModule = {
        // SAFETY: The null pointer stands for code that is built in, which cannot be unloaded.
        unsafe { ThisModule::from_ptr(core::ptr::null_mut()) }
    };
}

/// A device with one register, whose state is one section of one byte. Odd values are refused.
struct Register(u8);

/// The register is one or two units wide.
static MODEL: Model<'static> = Model {
    name: "test.example/register",
    params: &[ParamDef {
        allowed: Allowed::Int(&[IntRange::new(1, 2)]),
        ..ParamDef::new("width", Value::Int(1))
    }],
    versions: &[],
    init_version: None,
}
.validated();
static OFFER: Offer<'static> = Offer::of(&MODEL).validated();
static TYPE: Type = Type {
    name: c"any",
    pretty_name: c"A register",
    description: "A register",
    migration: &OFFER,
};

/// The parameters of a register that is so wide.
fn wide(width: u64) -> Result<Values<'static>> {
    let values = Values::new(&OFFER);
    let wide = values.with(0, Value::Int(width), InUse::Closed);
    wide.map_err(|_| EINVAL)
}

/// Number of the register's section.
const SECTION: u16 = 7;

impl Device for Register {
    type OwnerModule = NoModule;
    type Incoming = Option<u8>;
    type Engine = NoEngine;

    const NAME: &'static CStr = c"register";

    fn power_on(_values: &Values<'_>) -> Result<KBox<Self>> {
        Ok(KBox::new(Self(0), GFP_KERNEL)?)
    }

    fn units(values: &Values<'_>) -> u32 {
        match values.named("width") {
            Some(Value::Int(2)) => 2,
            _ => 1,
        }
    }

    fn reset(&mut self) {
        self.0 = 0;
    }

    fn region_size(&self, _region: Region) -> u64 {
        1
    }

    /// Each byte says how many were read together.
    fn read(&mut self, _region: Region, _offset: u64, data: &mut [u8]) {
        data.fill(data.len() as u8);
    }

    fn write(&mut self, _region: Region, _offset: u64, data: &[u8]) {
        self.0 = data.first().copied().unwrap_or(self.0);
    }

    fn save(&self, emit: &mut dyn FnMut(u16, &[u8]) -> Result) -> Result {
        emit(SECTION, &[self.0])
    }

    fn incoming(&self) -> Result<KBox<Option<u8>>> {
        Ok(KBox::new(None, GFP_KERNEL_ACCOUNT)?)
    }

    fn load(
        incoming: &mut Option<u8>,
        _phase: Phase,
        _id: u16,
        payload: &[u8],
        reason: &mut dyn Write,
    ) -> Result {
        match payload {
            [value] if value % 2 == 0 => {
                *incoming = Some(*value);
                Ok(())
            }
            _ => {
                let _ = write!(reason, "the register cannot be odd");
                Err(EINVAL)
            }
        }
    }

    fn is_complete(incoming: &Option<u8>) -> bool {
        incoming.is_some()
    }

    fn commit(&mut self, incoming: &mut Option<u8>, _reason: &mut dyn Write) -> Result {
        self.0 = incoming.ok_or(EINVAL)?;
        Ok(())
    }
}

/// Everything that a saving session hands out from now on, in pieces of up to 5 bytes.
fn drain(saving: &mut Saving, chunk: &mut Chunk, device: &mut Register) -> Result<KVec<u8>> {
    let mut out = KVec::new();
    loop {
        saving.fill(chunk, &mut Of(device))?;
        let count = chunk.len().min(5);
        if count == 0 {
            return Ok(out);
        }
        saving.hand_out(count);
        out.extend_from_slice(&chunk.bytes()[..count], GFP_KERNEL)?;
        chunk.consume(count);
    }
}

/// The stream of a device that was saved through both phases.
fn saved(value: u8) -> Result<KVec<u8>> {
    let (mut device, mut chunk) = (Register(value), Chunk::new());
    let mut saving = Saving::pre_copy(&wide(1)?).map_err(errno)?;
    let mut stream = drain(&mut saving, &mut chunk, &mut device)?;
    saving.stop(&wide(1)?, &Of(&mut device))?;
    stream.extend_from_slice(&drain(&mut saving, &mut chunk, &mut device)?, GFP_KERNEL)?;
    Ok(stream)
}

/// Whoever is told of sessions: the last one's name, and whether it is prevented.
#[derive(Default)]
struct Names {
    last: Option<SessionId>,
    is_shut: bool,
}

impl Opening for Names {
    fn open(&mut self, id: SessionId, _saving: bool) -> Result {
        self.last = Some(id);
        match self.is_shut {
            true => Err(EMFILE),
            false => Ok(()),
        }
    }
}

/// Goes to a state.
fn go(
    migration: &mut Migration<Register>,
    to: State,
    device: &mut Register,
    reason: &mut Reason,
) -> Result {
    let values = wide(1)?;
    while let Some(arc) = migration.next(to, reason)? {
        migration.take(arc, &values, device, reason, &mut Names::default())?;
    }
    Ok(())
}

/// Pushes a stream, then leaves RESUMING. Returns the register and the reason of a refusal.
fn loaded(into: u8, stream: &[u8]) -> Result<(Result, Register, Reason)> {
    let mut device = Register(into);
    let mut reason = Reason::none();
    let mut migration = Migration::new();
    go(&mut migration, State::Resuming, &mut device, &mut reason)?;
    let Some(Session::Resuming(resuming)) = migration.session_mut() else {
        return Err(ENODEV);
    };
    let result = resuming
        .push(&wide(1)?, &Of(&mut device), stream, &mut reason)
        .map_err(refusal)
        .and_then(|()| go(&mut migration, State::Stop, &mut device, &mut reason));
    Ok((result, device, reason))
}

#[kunit_tests(rust_vfio_fsm)]
mod fsm {
    use super::*;
    use ::migration::fsm::next;
    use kernel::alloc::KBox;
    use kernel::error::to_result;

    #[test]
    fn every_step_is_the_one_that_the_kernel_takes() -> Result {
        let mut vdev: KBox<vfio_bindings::vfio_device> = KBox::new(Default::default(), GFP_KERNEL)?;
        vdev.migration_flags = crate::migration::v2::FLAGS;
        // The kernel warns when it is asked for a step out of the error state, so that is not asked here.
        for from in 1..8 {
            for to in 0..8 {
                let mut step = 0;
                // SAFETY: The function reads the flags of the device and writes to `step`.
                let theirs = to_result(unsafe {
                    vfio_bindings::vfio_mig_get_next_state(&mut *vdev, from, to, &mut step)
                });
                let from = State::try_from(from).map_err(|_| EINVAL)?;
                let to = State::try_from(to).map_err(|_| EINVAL)?;
                let ours = next(from, to, SUPPORT).map(State::as_u32);
                assert_eq!(ours.ok(), theirs.ok().map(|()| step));
            }
        }
        Ok(())
    }
}

#[kunit_tests(rust_vfio_session)]
mod session {
    use super::*;
    use crate::irq::Counts;

    #[test]
    fn what_a_device_does_not_say_follows_from_what_it_saves() {
        let mut device = Register(4);
        let size = SavedSize {
            bytes: 1,
            sections: 1,
        };
        assert_eq!(device.saved_size(), size);
        assert_eq!(device.section_len(SECTION), Some(1));
        assert_eq!(device.section_len(SECTION + 1), None);
        // And it has neither interrupts nor a wish to be woken.
        assert_eq!(device.irqs(), Counts::default());
        assert!(!device.intx() && device.take_msi() == 0);
        assert_eq!(device.wake_after_ns(), None);
    }

    #[test]
    fn what_one_device_saved_another_loads() -> Result {
        let (result, device, reason) = loaded(4, &saved(42)?)?;
        assert_eq!(result, Ok(()));
        assert_eq!(device.0, 42);
        assert_eq!(reason.as_str(), "");
        Ok(())
    }

    #[test]
    fn sessions_are_counted_when_they_begin() -> Result {
        let mut migration = Migration::<Register>::new();
        let (mut device, mut reason) = (Register(0), Reason::none());
        let mut names = Names::default();
        let mut begin = |migration: &mut Migration<Register>, names: &mut Names| {
            let (values, arc) = (wide(1)?, Arc::RunningToPreCopy);
            migration.take(arc, &values, &mut device, &mut reason, names)
        };
        for n in 0..3 {
            assert_eq!(migration.sessions(), n);
            names.is_shut = true;
            assert_eq!(begin(&mut migration, &mut names), Err(EMFILE));
            // A session that fails to begin is none.
            assert_eq!(migration.sessions(), n);
            let refused = names.last.ok_or(EINVAL)?;
            assert!(!migration.is_session(refused));
            names.is_shut = false;
            begin(&mut migration, &mut names)?;
            let id = names.last.ok_or(EINVAL)?;
            assert_eq!(id, refused);
            assert!(migration.is_session(id));
            migration.reset(&mut Register(0));
            assert!(!migration.is_session(id));
        }
        Ok(())
    }

    #[test]
    fn a_stream_without_its_last_byte_changes_nothing() -> Result {
        let stream = saved(42)?;
        let (result, device, reason) = loaded(4, &stream[..stream.len() - 1])?;
        assert_eq!(result, Err(EINVAL));
        assert_eq!(device.0, 4);
        assert!(!reason.as_str().is_empty());
        Ok(())
    }

    #[test]
    fn a_value_that_the_device_refuses_changes_nothing_and_says_why() -> Result {
        let (result, device, reason) = loaded(4, &saved(43)?)?;
        assert_eq!(result, Err(EINVAL));
        assert_eq!(device.0, 4);
        assert_eq!(reason.as_str(), "the register cannot be odd");
        Ok(())
    }

    #[test]
    fn another_parameter_is_refused_at_the_setup_record() -> Result {
        let mut setup = Saving::pre_copy(&wide(2)?).map_err(errno)?;
        let stream = drain(&mut setup, &mut Chunk::new(), &mut Register(0))?;
        let (result, device, reason) = loaded(4, &stream)?;
        assert_eq!(result, Err(EINVAL));
        assert_eq!(device.0, 4);
        assert_eq!(reason.as_str(), "width: source has 2, this device has 1");
        Ok(())
    }
}

#[kunit_tests(rust_vfio_parameters)]
mod parameters {
    use super::*;
    use crate::capacity::Capacity;
    use crate::device::{Change, Instance};
    use kernel::sync::Arc;

    #[test]
    fn an_instance_takes_units_and_gives_them_back() -> Result {
        let capacity = Capacity::new(3)?;
        let instance = Instance::<Register>::new(&TYPE, &[], &capacity)?;
        assert_eq!(capacity.instances(1), 2);
        instance.change(Change::Parameter(0, b"2\n"))?;
        assert_eq!(capacity.instances(1), 1);
        instance.change(Change::Parameter(0, b"1"))?;
        assert_eq!(capacity.instances(1), 2);
        instance.removed();
        assert_eq!(capacity.instances(1), 3);
        Ok(())
    }

    #[test]
    fn a_change_that_the_parent_has_no_capacity_for_changes_nothing() -> Result {
        let capacity = Capacity::new(1)?;
        let instance = Instance::<Register>::new(&TYPE, &[], &capacity)?;
        let refused = instance.change(Change::Parameter(0, b"2"));
        assert_eq!(refused, Err(ENOSPC));
        let state = instance.state.lock();
        assert_eq!(state.values.named("width"), Some(Value::Int(1)));
        assert_eq!(
            state.reason.as_str(),
            "no capacity: 1 more units are needed, the parent has 0 left"
        );
        Ok(())
    }

    #[test]
    fn there_is_no_instance_without_capacity() -> Result {
        let capacity = Capacity::new(0)?;
        let none = Instance::<Register>::new(&TYPE, &[], &capacity);
        assert_eq!(none.err(), Some(ENOSPC));
        Ok(())
    }

    #[test]
    fn a_value_that_is_not_allowed_is_refused_with_the_reason() -> Result {
        let capacity = Capacity::new(9)?;
        let instance = Instance::<Register>::new(&TYPE, &[], &capacity)?;
        for text in [&b"3"[..], b"0", b"two", b"1\n\n", b"1\0", b""] {
            assert_eq!(instance.change(Change::Parameter(0, text)), Err(EINVAL));
            let state = instance.state.lock();
            assert_eq!(state.values.named("width"), Some(Value::Int(1)));
            assert!(state.reason.as_str().starts_with("width: "));
        }
        Ok(())
    }

    #[test]
    fn who_maps_the_data_section_does_not_wait_for_the_device() -> Result {
        let capacity = Capacity::new(9)?;
        let instance = Instance::<Register>::new(&TYPE, &[], &capacity)?;
        assert_eq!(instance.mappable(Region::Migration).err(), Some(ENODEV));
        assert_eq!(instance.take_staging().err(), Some(ENODEV));
        instance.open()?;
        let busy = instance.state.lock();
        let pages = instance.mappable(Region::Migration)?;
        drop(busy);
        // There is one data section, and one who reads and writes it.
        assert!(Arc::ptr_eq(&pages, &instance.mappable(Region::Migration)?));
        assert!(instance.take_staging()?.is_some());
        assert!(instance.take_staging()?.is_none());
        // The next user gets another one.
        instance.close();
        instance.open()?;
        assert!(!Arc::ptr_eq(&pages, &instance.mappable(Region::Migration)?));
        instance.close();
        assert_eq!(instance.mappable(Region::Migration).err(), Some(ENODEV));
        Ok(())
    }

    #[test]
    fn an_open_device_keeps_its_hardware_interface() -> Result {
        let capacity = Capacity::new(9)?;
        let instance = Instance::<Register>::new(&TYPE, &[], &capacity)?;
        instance.state.lock().open = true;
        assert_eq!(instance.change(Change::Parameter(0, b"2")), Err(EBUSY));
        Ok(())
    }
}

#[kunit_tests(rust_vfio_values)]
mod values {
    use super::*;
    use crate::migration::staging::{Staging, LEN};
    use crate::page::PageWriter;
    use crate::region::Position;
    use ::migration::reason::MAX_REASON;
    use kernel::page::PAGE_SIZE;

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let mut reason = Reason::none();
        reason.set(format_args!("{:>width$}ü", "", width = MAX_REASON - 1));
        assert_eq!(reason.as_str().len(), MAX_REASON - 1);
    }

    #[test]
    fn a_text_that_would_fill_the_page_is_too_long() -> Result {
        let mut page = KBox::new([0; PAGE_SIZE], GFP_KERNEL)?;
        let mut out = PageWriter::new(&mut page);
        let written = write!(out, "{:>width$}", "", width = PAGE_SIZE - 1);
        assert_eq!(out.shown(written), PAGE_SIZE as isize - 1);
        let mut out = PageWriter::new(&mut page);
        let written = write!(out, "{:>width$}", "", width = PAGE_SIZE);
        assert_eq!(out.shown(written), EFBIG.to_errno() as isize);
        Ok(())
    }

    #[test]
    fn the_data_section_is_one_memory_over_all_its_pages() -> Result {
        let mut staging = Staging::new()?;
        let mut bytes = KVec::from_elem(0u8, 2 * PAGE_SIZE + 2, GFP_KERNEL)?;
        for (n, byte) in bytes.iter_mut().enumerate() {
            *byte = (n % 251) as u8 + 1;
        }
        // Parts of four pages.
        let start = PAGE_SIZE - 1;
        staging.put(start, &bytes)?;
        let mut back = KVec::from_elem(0u8, bytes.len() + 2, GFP_KERNEL)?;
        staging.get(start - 1, &mut back)?;
        assert_eq!((back[0], back[back.len() - 1]), (0, 0));
        assert!(back[1..back.len() - 1] == bytes[..]);
        staging.put(LEN, &[])?;
        assert_eq!(staging.put(LEN - 1, &[1, 2]), Err(EINVAL));
        assert_eq!(staging.put(usize::MAX, &[1]), Err(EINVAL));
        assert_eq!(staging.get(LEN - 1, &mut back[..2]), Err(EINVAL));
        staging.clear();
        staging.get(start - 1, &mut back)?;
        assert!(back.iter().all(|&byte| byte == 0));
        Ok(())
    }

    #[test]
    fn offsets_name_regions_as_vfio_pci_lays_them_out() {
        let config = Position::try_from((7i64 << 40) + 4);
        assert_eq!(
            config.map(|at| (at.region, at.offset)),
            Ok((Region::Config, 4))
        );
        assert_eq!(Position::try_from(10i64 << 40).err(), Some(EINVAL));
        assert_eq!(Position::try_from(-1i64).err(), Some(EINVAL));
        assert_eq!(
            Position::try_from(9i64 << 40).map(|at| at.region),
            Ok(Region::Migration)
        );
    }
}

#[kunit_tests(rust_vfio_accesses)]
mod accesses {
    use super::*;
    use crate::capacity::Capacity;
    use crate::device::Instance;
    use crate::region::{accesses, chunk_len, Position, CHUNK};

    /// The size of the access that reads each of `len` bytes from `offset` on.
    fn sizes(
        instance: &Instance<Register>,
        region: Region,
        offset: u64,
        len: usize,
    ) -> Result<KVec<u8>> {
        let mut sizes = KVec::from_elem(0, len, GFP_KERNEL)?;
        let mut done = 0;
        while done < len {
            let at = offset + done as u64;
            let chunk = chunk_len(at, len - done);
            assert!((1..=CHUNK).contains(&chunk));
            instance.read_chunk(region, at, &mut sizes[done..done + chunk]);
            done += chunk;
        }
        Ok(sizes)
    }

    #[test]
    fn an_access_that_is_one_is_not_taken_apart() {
        for region in [Region::Bar(0), Region::Config] {
            for offset in 0..=16 {
                for len in 0..=17 {
                    let parts = accesses(region, offset, len);
                    let is_whole = parts.map(|part| part.len()).eq([len]);
                    let at = Position { region, offset };
                    assert_eq!(at.is_one_access(len), is_whole && len > 0);
                }
            }
        }
    }

    #[test]
    fn a_register_that_is_read_whole_is_read_at_once() -> Result {
        let instance = Instance::<Register>::new(&TYPE, &[], &Capacity::new(1)?)?;
        for (region, widest) in [(Region::Bar(0), 8), (Region::Config, 4)] {
            for offset in 0..(CHUNK + 9) as u64 {
                for len in [1, 2, 3, 4, 7, 8, 13, 70, 2 * CHUNK + 1] {
                    let end = offset + len as u64;
                    for (byte, size) in (offset..).zip(sizes(&instance, region, offset, len)?) {
                        // The largest aligned block with this byte, nothing of which is outside of what is read.
                        let block = |size: &u64| {
                            let start = byte - byte % size;
                            start >= offset && start + size <= end
                        };
                        let blocks = [8, 4, 2, 1].into_iter().filter(|size| *size <= widest);
                        let expected = blocks.filter(block).max();
                        assert_eq!(Some(u64::from(size)), expected);
                    }
                }
            }
        }
        Ok(())
    }
}
