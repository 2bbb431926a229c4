// SPDX-License-Identifier: GPL-2.0

//! Files without a name: what an ioctl hands out a descriptor of.
//!
//! C header: `include/linux/anon_inodes.h`.

use crate::module::{this_module, ModuleMetadata};
use core::marker::PhantomData;
use core::ptr::NonNull;
use kernel::bindings;
use kernel::error::from_err_ptr;
use kernel::ffi::{c_char, c_int, c_long, c_uint, c_ulong, c_void};
use kernel::fs::File;
use kernel::prelude::*;
use kernel::sync::poll::PollTable;
use kernel::types::ForeignOwnable;
use kernel::uaccess::{UserPtr, UserSlice, UserSliceReader, UserSliceWriter};

/// What the file does. It is a stream: no position, `lseek`, `pread` and `pwrite` give `ESPIPE`.
pub(crate) trait AnonFile: Sized + Send + Sync + 'static {
    /// The module that stays loaded while the file is open.
    type OwnerModule: ModuleMetadata;
    /// The file's name in `/proc/<pid>/fd`.
    const NAME: &'static CStr;

    /// `read(2)`: writes to user space and says how many bytes.
    fn read(&self, to: UserSliceWriter) -> Result<usize>;
    /// `write(2)`: reads from user space and says how many bytes.
    fn write(&self, from: UserSliceReader) -> Result<usize>;
    /// `poll(2)`: has the caller woken when that may change, and says what would not fail with `ENOMSG` now.
    fn poll(&self, file: &File, table: PollTable<'_>) -> Ready;
    /// `ioctl(2)`. `ENOTTY` for commands that the file does not have. A 32-bit process must see the same structures: no
    /// pointers, no `long`, no padding that depends on the alignment of 64-bit members.
    fn ioctl(&self, cmd: u32, arg: UserPtr) -> Result;
}

/// What `poll(2)` reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ready {
    /// Nothing to read yet.
    No,
    /// There are bytes to read, or the end of the stream.
    Readable,
    /// Bytes can be written.
    Writable,
    /// The file is of no use any more: reading or writing it fails.
    Over,
}

impl Ready {
    const fn mask(self) -> u32 {
        match self {
            Self::No => 0,
            Self::Readable => bindings::POLLIN | bindings::POLLRDNORM,
            Self::Writable => bindings::POLLOUT | bindings::POLLWRNORM,
            // Whatever the caller waits for, it is told.
            Self::Over => {
                bindings::POLLIN | bindings::POLLRDNORM | bindings::POLLRDHUP | bindings::POLLERR
            }
        }
    }
}

/// For which direction a file is opened; the other one gives `EBADF`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// `O_RDONLY`.
    Read,
    /// `O_WRONLY`.
    Write,
}

/// An open file that no descriptor refers to yet.
///
/// # Invariants
///
/// The pointer is a valid file, of which this value owns a reference.
pub(crate) struct OpenFile(NonNull<bindings::file>);

impl OpenFile {
    /// Opens a file that does what `data` says.
    pub(crate) fn new<F: AnonFile>(data: Pin<KBox<F>>, mode: Mode) -> Result<Self> {
        let flags = match mode {
            Mode::Read => bindings::O_RDONLY,
            Mode::Write => bindings::O_WRONLY,
        };
        let private = data.into_foreign();
        // SAFETY: The name and the operations are static. `release` takes `private` back.
        let file = from_err_ptr(unsafe {
            vfio_bindings::anon_inode_getfile(
                F::NAME.as_char_ptr(),
                &FileOperations::<F>::FOPS,
                private,
                flags as c_int,
            )
        })
        .inspect_err(|_| {
            // SAFETY: There is no file, so nobody else will take `private` back.
            drop(unsafe { Pin::<KBox<F>>::from_foreign(private) });
        })?;
        // SAFETY: The file is open and nobody else knows it; a stream has no position.
        unsafe { bindings::stream_open((*file).f_inode, file) };
        // INVARIANT: Just opened; the reference is ours.
        Ok(Self(NonNull::new(file).ok_or(ENOMEM)?))
    }

    /// Hands the reference out, for example to a core that installs it in a descriptor table.
    pub(crate) fn into_raw(self) -> *mut bindings::file {
        let file = self.0.as_ptr();
        core::mem::forget(self);
        file
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        // SAFETY: By the type invariant, the reference is ours.
        unsafe { bindings::fput(self.0.as_ptr()) };
    }
}

struct FileOperations<F>(PhantomData<F>);

impl<F: AnonFile> FileOperations<F> {
    const FOPS: bindings::file_operations = bindings::file_operations {
        owner: this_module::<F::OwnerModule>().as_ptr(),
        read: Some(Self::read),
        write: Some(Self::write),
        poll: Some(Self::poll),
        unlocked_ioctl: Some(Self::ioctl),
        // A structure that is the same for 32-bit processes: all that they do otherwise is how they pass its address.
        compat_ioctl: bindings::compat_ptr_ioctl,
        release: Some(Self::release),
        ..pin_init::zeroed()
    };

    /// # Safety
    ///
    /// `file` must have been opened by [`OpenFile::new`] with the same `F` and not be released during `'a`.
    unsafe fn data<'a>(file: *mut bindings::file) -> Pin<&'a F> {
        // SAFETY: By contract, `private_data` came from `into_foreign` and `from_foreign` happens in `release` only.
        unsafe { Pin::<KBox<F>>::borrow((*file).private_data) }
    }

    /// # Safety
    ///
    /// Called by the kernel on an open file.
    unsafe extern "C" fn read(
        file: *mut bindings::file,
        buf: *mut c_char,
        count: usize,
        _ppos: *mut bindings::loff_t,
    ) -> isize {
        let buf = UserPtr::from_ptr(buf.cast::<c_void>());
        // SAFETY: The file is open.
        let data = unsafe { Self::data(file) };
        ssize(data.read(UserSlice::new(buf, count).writer()))
    }

    /// # Safety
    ///
    /// Called by the kernel on an open file.
    unsafe extern "C" fn write(
        file: *mut bindings::file,
        buf: *const c_char,
        count: usize,
        _ppos: *mut bindings::loff_t,
    ) -> isize {
        let buf = UserPtr::from_ptr(buf.cast_mut().cast::<c_void>());
        // SAFETY: The file is open.
        let data = unsafe { Self::data(file) };
        ssize(data.write(UserSlice::new(buf, count).reader()))
    }

    /// # Safety
    ///
    /// Called by the kernel on an open file.
    unsafe extern "C" fn poll(
        file: *mut bindings::file,
        table: *mut bindings::poll_table_struct,
    ) -> bindings::__poll_t {
        // SAFETY: The file is open.
        let data = unsafe { Self::data(file) };
        // SAFETY: The kernel passes null or a table that is valid during the call.
        let table = unsafe { PollTable::from_raw(table) };
        // SAFETY: The file is open, and no position of it is in use: it has none.
        data.poll(unsafe { File::from_raw_file(file) }, table)
            .mask()
    }

    /// # Safety
    ///
    /// Called by the kernel on an open file.
    unsafe extern "C" fn ioctl(file: *mut bindings::file, cmd: c_uint, arg: c_ulong) -> c_long {
        // SAFETY: The file is open.
        match unsafe { Self::data(file) }.ioctl(cmd, UserPtr::from_addr(arg)) {
            Ok(()) => 0,
            Err(error) => error.to_errno() as c_long,
        }
    }

    /// # Safety
    ///
    /// Called by the kernel on an open file.
    unsafe extern "C" fn release(_inode: *mut bindings::inode, file: *mut bindings::file) -> c_int {
        // SAFETY: Called once, when nobody uses the file any more.
        drop(unsafe { Pin::<KBox<F>>::from_foreign((*file).private_data) });
        0
    }
}

/// A result as a C read or write function returns it.
pub(crate) fn ssize(result: Result<usize>) -> isize {
    match result {
        Ok(count) => isize::try_from(count).unwrap_or(isize::MAX),
        Err(error) => error.to_errno() as isize,
    }
}
