// SPDX-License-Identifier: GPL-2.0

//! What a user can do with an open device besides migrating it.

use super::{Instance, State};
use crate::irq::{Counts, Index, Request, NUM_INDICES};
use crate::mapped::Memory;
use crate::migration::{staging, v1};
use crate::model::Device;
use crate::region::{accesses, chunk_len, Position, Region, CHUNK, NUM_REGIONS, OFFSET_SHIFT};
use core::fmt;
use kernel::error::to_result;
use kernel::prelude::*;
use kernel::uaccess::{UserPtr, UserSlice};

/// What became of a write that may be one access.
enum Whole {
    /// It is made.
    Done,
    /// It is none, and nothing was done.
    No,
    /// It is one, and its data cannot be read.
    Unreadable,
}

impl<T: Device> Instance<T> {
    /// Reads from a region. Short at the region's end; `EINVAL` for a place in no region, `EFAULT` when user space cannot
    /// be written, by which time a register that changes on being read has been read.
    pub(super) fn read(&self, buf: UserPtr, count: usize, position: &mut i64) -> Result<usize> {
        let at = Position::try_from(*position)?;
        let whole = match count {
            1 => self.read_whole::<1>(buf, at)?,
            2 => self.read_whole::<2>(buf, at)?,
            4 => self.read_whole::<4>(buf, at)?,
            8 => self.read_whole::<8>(buf, at)?,
            _ => false,
        };
        let done = match whole {
            true => count,
            false => self.read_apart(buf, count, *position)?,
        };
        *position += done as i64;
        Ok(done)
    }

    /// Writes to a region. Short at the region's end; `EINVAL` for a place in no region, `EFAULT` when user space cannot be
    /// read, by which time what could be read before has been written.
    pub(super) fn write(&self, buf: UserPtr, count: usize, position: &mut i64) -> Result<usize> {
        let at = Position::try_from(*position)?;
        let whole = match count {
            1 => self.write_whole::<1>(buf, at),
            2 => self.write_whole::<2>(buf, at),
            4 => self.write_whole::<4>(buf, at),
            8 => self.write_whole::<8>(buf, at),
            _ => Whole::No,
        };
        let done = match whole {
            Whole::Done => count,
            Whole::No => self.write_apart(buf, count, *position)?,
            Whole::Unreadable => return Err(EFAULT),
        };
        *position += done as i64;
        Ok(done)
    }

    /// Reads what no bus reads in one, or what is not all there.
    #[inline(never)]
    fn read_apart(&self, buf: UserPtr, count: usize, position: i64) -> Result<usize> {
        let at = Position::try_from(position)?;
        let count = self.room(at, count)?;
        if at.region == Region::Migration {
            return self.read_region(buf, count, at.offset);
        }
        let mut writer = UserSlice::new(buf, count).writer();
        let mut done = 0;
        while done < count {
            let mut chunk = [0u8; CHUNK];
            let offset = at.offset + done as u64;
            let len = chunk_len(offset, count - done);
            let data = &mut chunk[..len];
            self.read_chunk(at.region, offset, data);
            writer.write_slice(data)?;
            done += len;
        }
        Ok(done)
    }

    /// Writes what no bus writes in one, or what the region has not all the room for.
    #[inline(never)]
    fn write_apart(&self, buf: UserPtr, count: usize, position: i64) -> Result<usize> {
        let at = Position::try_from(position)?;
        let count = self.room(at, count)?;
        if at.region == Region::Migration {
            return self.write_region(buf, count, at.offset);
        }
        let mut reader = UserSlice::new(buf, count).reader();
        let mut done = 0;
        while done < count {
            let mut chunk = [0u8; CHUNK];
            let offset = at.offset + done as u64;
            let len = chunk_len(offset, count - done);
            let data = &mut chunk[..len];
            reader.read_slice(data)?;
            self.write_chunk(at.region, offset, data);
            done += len;
        }
        Ok(done)
    }

    /// Makes an access of `N` bytes if a bus makes it in one and the region has room for it: under the mutex once, and without a
    /// loop, as most are. Returns whether it is one; nothing was done otherwise.
    #[inline]
    fn read_whole<const N: usize>(&self, buf: UserPtr, at: Position) -> Result<bool> {
        if !at.is_one_access(N) {
            return Ok(false);
        }
        let mut data = [0; N];
        {
            let mut guard = self.state.lock();
            let state = &mut *guard;
            if !state.has_room(at, N) {
                return Ok(false);
            }
            state.read(at, &mut data);
            self.settle(state);
        }
        UserSlice::new(buf, N).writer().write(&data)?;
        Ok(true)
    }

    /// As [`Instance::read_whole`] reads. The place is judged before the data: data that cannot be read is `EFAULT` only where there
    /// is room for all of it.
    #[inline]
    fn write_whole<const N: usize>(&self, buf: UserPtr, at: Position) -> Whole {
        if !at.is_one_access(N) {
            return Whole::No;
        }
        let Ok(data) = UserSlice::new(buf, N).reader().read::<[u8; N]>() else {
            return self.unreadable(at, N);
        };
        let mut guard = self.state.lock();
        let state = &mut *guard;
        if !state.has_room(at, N) {
            return Whole::No;
        }
        state.write(at, &data);
        self.settle(state);
        Whole::Done
    }

    /// What a write of one access is whose data cannot be read.
    #[cold]
    fn unreadable(&self, at: Position, len: usize) -> Whole {
        match self.state.lock().has_room(at, len) {
            true => Whole::Unreadable,
            false => Whole::No,
        }
    }

    /// Reads what [`chunk_len`] allows at a time.
    pub(crate) fn read_chunk(&self, region: Region, offset: u64, data: &mut [u8]) {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        for access in accesses(region, offset, data.len()) {
            let offset = offset + access.start as u64;
            if let Some(bytes) = data.get_mut(access) {
                state.read(Position { region, offset }, bytes);
            }
        }
        self.settle(state);
    }

    /// Writes what [`chunk_len`] allows at a time.
    pub(crate) fn write_chunk(&self, region: Region, offset: u64, data: &[u8]) {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        for access in accesses(region, offset, data.len()) {
            let offset = offset + access.start as u64;
            if let Some(bytes) = data.get(access) {
                state.write(Position { region, offset }, bytes);
            }
        }
        self.settle(state);
    }

    /// How much of an access its region has room for. `EINVAL` if nothing.
    fn room(&self, at: Position, count: usize) -> Result<usize> {
        let size = self.region_size(at.region);
        let room = size.checked_sub(at.offset).filter(|room| *room > 0);
        // A region larger than memory still gives a count that fits.
        let room = usize::try_from(room.ok_or(EINVAL)?).unwrap_or(usize::MAX);
        Ok(count.min(room))
    }

    /// All ioctls but the features and the region information, which the core takes apart itself. `ENOTTY` for others.
    pub(super) fn ioctl(&self, cmd: u32, arg: UserPtr) -> Result {
        match cmd {
            vfio_bindings::VFIO_DEVICE_GET_INFO => device_info(arg),
            vfio_bindings::VFIO_DEVICE_GET_IRQ_INFO => self.irq_info(arg),
            vfio_bindings::VFIO_DEVICE_SET_IRQS => {
                let counts = self.irq_counts();
                self.set_irqs(&Request::read(arg, &counts)?)
            }
            vfio_bindings::VFIO_DEVICE_RESET => self.reset(),
            _ => Err(ENOTTY),
        }
    }

    fn irq_counts(&self) -> Counts {
        self.state.lock().device.irqs()
    }

    /// `VFIO_DEVICE_GET_IRQ_INFO`. `EINVAL` for a short structure, an unknown index, and for the error interrupt, which only
    /// PCI Express has: QEMU takes this errno for that, and warns of a count of 0.
    fn irq_info(&self, arg: UserPtr) -> Result {
        // argsz, flags, index, count
        let [argsz, _, number, _] = read_u32s::<4>(arg)?;
        let index = Index::try_from(number)?;
        if argsz < 16 || index == Index::Err {
            return Err(EINVAL);
        }
        let counts = self.irq_counts();
        write_u32s(arg, [argsz, counts.flags(index), number, counts.of(index)])
    }

    /// Size of a region in bytes; 0 where the device has none.
    fn region_size(&self, region: Region) -> u64 {
        match region {
            Region::Migration => v1::REGION_LEN,
            region => self.state.lock().device.region_size(region),
        }
    }

    /// `VFIO_DEVICE_GET_REGION_INFO`. `EINVAL` for an index that is no region.
    pub(super) fn region_info(
        &self,
        info: &mut vfio_bindings::vfio_region_info,
        caps: &mut vfio_bindings::vfio_info_cap,
    ) -> Result {
        let region = Region::try_from(info.index)?;
        info.size = self.region_size(region);
        info.offset = u64::from(info.index) << OFFSET_SHIFT;
        info.flags = match info.size {
            0 => 0,
            _ => {
                vfio_bindings::VFIO_REGION_INFO_FLAG_READ
                    | vfio_bindings::VFIO_REGION_INFO_FLAG_WRITE
            }
        };
        if region == Region::Migration {
            info.flags |= vfio_bindings::VFIO_REGION_INFO_FLAG_MMAP;
            add_migration_caps(caps)?;
        }
        let area = self.memory.as_ref().map(Memory::area);
        if let Some(area) = area.filter(|area| area.region == region) {
            info.flags |= vfio_bindings::VFIO_REGION_INFO_FLAG_MMAP;
            add_mappable(caps, area.offset, area.len as u64)?;
        }
        Ok(())
    }

    /// The driver is to be unbound, and waits: asks the user to let go, once every call, and says who is waited for. A user who
    /// can be asked has until the second call.
    pub(super) fn request(&self, dev: &kernel::device::Device, count: u32) {
        let state = self.state.lock();
        let asked = state.irqs.ask_for_release();
        if count > u32::from(asked) {
            return;
        }
        let say = |what: fmt::Arguments<'_>| dev_info!(dev, "removal waits {}\n", what);
        match &state.opener {
            Some(opener) if opener.is_gone() => say(format_args!(
                "until nobody has a descriptor or a mapping of the device: {opener}, which opened it, has ended"
            )),
            Some(opener) if !asked => say(format_args!(
                "for {opener} to close the device; it set up no request interrupt to be asked by"
            )),
            Some(opener) if count > 0 => say(format_args!(
                "for {opener} to close the device; it was asked to by the request interrupt"
            )),
            Some(_) => {}
            None => say(format_args!(
                "until the device's own file is closed, which somebody has open and did not bind"
            )),
        }
    }
}

impl<T: Device> State<T> {
    /// Whether an access of `len` bytes lies in its region.
    #[inline]
    fn has_room(&self, at: Position, len: usize) -> bool {
        let size = self.device.region_size(at.region);
        size.checked_sub(at.offset)
            .is_some_and(|room| room >= len as u64)
    }
}

/// The header of a capability.
fn cap_header(id: u32) -> vfio_bindings::vfio_info_cap_header {
    vfio_bindings::vfio_info_cap_header {
        // The identifiers are small numbers.
        id: id as u16,
        version: 1,
        next: 0,
    }
}

/// Which part of a region can be mapped.
fn add_mappable(caps: &mut vfio_bindings::vfio_info_cap, offset: u64, size: u64) -> Result {
    /// `struct vfio_region_info_cap_sparse_mmap` with one area.
    #[repr(C)]
    struct SparseMmap {
        header: vfio_bindings::vfio_info_cap_header,
        nr_areas: u32,
        reserved: u32,
        area: vfio_bindings::vfio_region_sparse_mmap_area,
    }

    let mut sparse = SparseMmap {
        header: cap_header(vfio_bindings::VFIO_REGION_INFO_CAP_SPARSE_MMAP),
        nr_areas: 1,
        reserved: 0,
        area: vfio_bindings::vfio_region_sparse_mmap_area { offset, size },
    };
    // SAFETY: The structure starts with its header and is as long as said; the function copies it.
    to_result(unsafe {
        vfio_bindings::vfio_info_add_capability(
            caps,
            (&raw mut sparse).cast(),
            core::mem::size_of_val(&sparse),
        )
    })
}

/// What tells the migration region from others, and which part of it can be mapped: the data section.
fn add_migration_caps(caps: &mut vfio_bindings::vfio_info_cap) -> Result {
    let mut kind = vfio_bindings::vfio_region_info_cap_type {
        header: cap_header(vfio_bindings::VFIO_REGION_INFO_CAP_TYPE),
        type_: vfio_bindings::VFIO_REGION_TYPE_MIGRATION_DEPRECATED,
        subtype: vfio_bindings::VFIO_REGION_SUBTYPE_MIGRATION_DEPRECATED,
    };
    // SAFETY: The structure starts with its header and is as long as said; the function copies it.
    to_result(unsafe {
        vfio_bindings::vfio_info_add_capability(
            caps,
            (&raw mut kind).cast(),
            core::mem::size_of_val(&kind),
        )
    })?;
    add_mappable(caps, staging::OFFSET as u64, staging::LEN as u64)
}

/// `VFIO_DEVICE_GET_INFO`. `EINVAL` for a short structure.
fn device_info(arg: UserPtr) -> Result {
    let [argsz] = read_u32s::<1>(arg)?;
    if argsz < 16 {
        return Err(EINVAL);
    }
    let flags = vfio_bindings::VFIO_DEVICE_FLAGS_PCI | vfio_bindings::VFIO_DEVICE_FLAGS_RESET;
    let mut words = [argsz, flags, NUM_REGIONS, NUM_INDICES, 0, 0];
    // The offset of capabilities, of which there are none, is written where the caller has room for it.
    if argsz >= 24 {
        write_u32s(arg, words)
    } else {
        let short: &mut [u32; 4] = words.first_chunk_mut().ok_or(EINVAL)?;
        write_u32s(arg, *short)
    }
}

/// Reads the first words of a structure. `EFAULT` when that is not possible.
fn read_u32s<const N: usize>(arg: UserPtr) -> Result<[u32; N]> {
    let mut reader = UserSlice::new(arg, N * 4).reader();
    let mut words = [0; N];
    for word in &mut words {
        *word = reader.read::<u32>()?;
    }
    Ok(words)
}

/// Writes the first words of a structure. `EFAULT` when that is not possible.
fn write_u32s<const N: usize>(arg: UserPtr, words: [u32; N]) -> Result {
    let mut writer = UserSlice::new(arg, N * 4).writer();
    words.iter().try_for_each(|word| writer.write(word))
}
