// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What of the registers a saved state has.

use core::fmt;

use super::{features, isr, status, Queue, QueueState, Transport, NO_VECTOR};

/// The registers as plain data. Whoever reads them from outside believes nothing of them:
/// [`Function::restore`](crate::virtio::Function::restore) checks them.
///
/// That a queue was notified is not in there: who runs again looks at all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransportState<const Q: usize> {
    /// `device_feature_select`.
    pub device_feature_select: u32,
    /// `driver_feature_select`.
    pub driver_feature_select: u32,
    /// The features that the driver accepted so far.
    pub driver_features: u64,
    /// `config_msix_vector`.
    pub config_vector: u16,
    /// `device_status`.
    pub status: u8,
    /// `config_generation`.
    pub generation: u8,
    /// The interrupt status.
    pub isr: u8,
    /// `queue_select`.
    pub queue_select: u16,
    /// The queues. Those that the device does not have are as after reset.
    pub queues: [QueueState; Q],
}

/// Why saved registers are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateError {
    /// A register holds bits that it does not store.
    ReservedBits(&'static str),
    /// The driver accepted what this device does not offer, or not what it must.
    Features {
        /// What it accepted.
        accepted: u64,
        /// What this device offers.
        offered: u64,
    },
    /// Two registers do not go together, or one holds what no write makes it hold.
    Inconsistent(&'static str),
    /// A queue is wrong, for this reason.
    Queue(u16, &'static str),
}

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ReservedBits(what) => write!(f, "reserved bits in {what}"),
            Self::Features { accepted, offered } => write!(
                f,
                "the driver negotiated features {accepted:#x} of {offered:#x}"
            ),
            Self::Inconsistent(rule) => f.write_str(rule),
            Self::Queue(index, rule) => write!(f, "queue {index}: {rule}"),
        }
    }
}

impl core::error::Error for StateError {}

impl<const Q: usize> Transport<Q> {
    /// The registers. `None`: a queue is out, and they would not be true any longer.
    pub(in crate::virtio) fn state(&self) -> Option<TransportState<Q>> {
        self.is_quiesced().then(|| TransportState {
            device_feature_select: self.device_feature_select,
            driver_feature_select: self.driver_feature_select,
            driver_features: self.driver_features,
            config_vector: self.config_vector,
            status: self.status,
            generation: self.generation,
            isr: self.isr,
            queue_select: self.queue_select,
            queues: core::array::from_fn(|i| match self.queues.get(i) {
                Some(queue) => queue.state(),
                None => QueueState::reset(self.max_queue_size),
            }),
        })
    }

    /// Whether the device can have these registers.
    pub(in crate::virtio) fn check(&self, state: &TransportState<Q>) -> Result<(), StateError> {
        if state.status & !status::MASK != 0 {
            return Err(StateError::ReservedBits("the device status"));
        }
        if state.isr & !isr::MASK != 0 {
            return Err(StateError::ReservedBits("the interrupt status"));
        }
        let features_ok = state.status & status::FEATURES_OK != 0;
        if features_ok && !features::acceptable(self.offered, state.driver_features) {
            return Err(StateError::Features {
                accepted: state.driver_features,
                offered: self.offered,
            });
        }
        if !features_ok && state.status & status::DRIVER_OK != 0 {
            return Err(StateError::Inconsistent(
                "the driver is set up without having negotiated features",
            ));
        }
        if state.config_vector >= self.vectors && state.config_vector != NO_VECTOR {
            return Err(StateError::Inconsistent(
                "the configuration vector is one that there is not",
            ));
        }
        for (index, saved) in (0u16..).zip(&state.queues) {
            if index >= self.queue_count && *saved != QueueState::reset(self.max_queue_size) {
                return Err(StateError::Queue(index, "there is no such queue"));
            }
            if saved.enabled && !features_ok {
                return Err(StateError::Queue(index, "enabled before the features were"));
            }
            Queue::of(saved, self.max_queue_size, self.vectors)
                .map_err(|rule| StateError::Queue(index, rule))?;
        }
        Ok(())
    }

    /// Takes these registers over, which [`Transport::check`] has found good; no queue is out. Whether it runs, and is a bus
    /// master, stays.
    pub(in crate::virtio) fn restore(&mut self, state: &TransportState<Q>) {
        self.clear();
        self.device_feature_select = state.device_feature_select;
        self.driver_feature_select = state.driver_feature_select;
        self.driver_features = state.driver_features;
        self.config_vector = state.config_vector;
        self.status = state.status;
        self.generation = state.generation;
        self.isr = state.isr;
        self.queue_select = state.queue_select;
        for (queue, saved) in self.queues.iter_mut().zip(&state.queues) {
            if let Ok(restored) = Queue::of(saved, self.max_queue_size, self.vectors) {
                *queue = restored;
            }
        }
    }
}
