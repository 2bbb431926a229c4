// SPDX-License-Identifier: GPL-2.0

//! Lock classes of locks that generic code makes.
//!
//! Generic code is compiled again in every module that uses it. There is one static variable for it all, which is the class
//! for lockdep, but a name that is written as a constant is a copy in each module, and lockdep takes one class with two names
//! for damaged memory. The names of these classes stay here.

/// A name for lockdep, at one address, and the class that belongs to it: what the constructors of locks ask for.
macro_rules! lock_class {
    ($name:literal) => {{
        #[inline(never)]
        fn name() -> &'static core::ffi::CStr {
            $name
        }
        (name(), kernel::static_lock_class!())
    }};
}

/// The kernel crate's `new_mutex!`, for generic code.
macro_rules! new_mutex {
    ($inner:expr, $name:literal) => {{
        let (name, class) = crate::lock_class::lock_class!($name);
        kernel::sync::Mutex::new($inner, name, class)
    }};
}

/// The kernel crate's `new_spinlock!`, for generic code.
macro_rules! new_spinlock {
    ($inner:expr, $name:literal) => {{
        let (name, class) = crate::lock_class::lock_class!($name);
        kernel::sync::SpinLock::new($inner, name, class)
    }};
}

/// The kernel crate's `new_poll_condvar!`, for generic code.
macro_rules! new_poll_condvar {
    ($name:literal) => {{
        let (name, class) = crate::lock_class::lock_class!($name);
        kernel::sync::poll::PollCondVar::new(name, class)
    }};
}

pub(crate) use {lock_class, new_mutex, new_poll_condvar, new_spinlock};
