// SPDX-License-Identifier: GPL-2.0

//! What the driver core keeps of an instance.

use crate::device::ops::Registration;
use crate::device::Instance;
use crate::model::Device;
use kernel::bindings;
use kernel::prelude::*;
use kernel::sync::Arc;
use kernel::types::ForeignOwnable;

/// What is bound to an instance's device while the driver is: its driver data.
pub(crate) struct Bound<T: Device> {
    pub(crate) registration: Option<Registration<T>>,
    pub(crate) instance: Arc<Instance<T>>,
}

impl<T: Device> Bound<T> {
    /// The instance of a bound device.
    ///
    /// # Safety
    ///
    /// `dev` must be the device of an instance whose probe has succeeded and whose removal has not begun during `'a`.
    pub(crate) unsafe fn instance<'a>(dev: *mut bindings::device) -> &'a Arc<Instance<T>> {
        // SAFETY: By contract, the driver data is what `probe` stored.
        let bound: &'a Self = unsafe { KBox::borrow(bindings::dev_get_drvdata(dev)) };
        &bound.instance
    }
}

impl<T: Device> Drop for Bound<T> {
    fn drop(&mut self) {
        // Waits until nobody uses the device any more; only then is what it took of its parent free.
        drop(self.registration.take());
        self.instance.removed();
    }
}
