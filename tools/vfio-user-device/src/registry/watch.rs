// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Telling whoever wants to know what has changed.
//!
//! A client of a device decides how often that changes, and a subscriber may be slow, so no event holds what has changed: there is
//! one that says so, and no second one until it was taken. How the device is then is asked of the registry.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use rustix::event::{eventfd, poll, EventfdFlags, PollFd, PollFlags, Timespec};

use super::{lock, DeviceName, Error};

/// Most events that wait for a subscriber.
const MAX_EVENTS: usize = 4096;

/// What has happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// There is a new device.
    Added(DeviceName),
    /// A device is no longer there.
    Removed(DeviceName),
    /// Something of a device has changed: client, state, owner, parameters, the reason of a refusal.
    Changed(DeviceName),
    /// More has happened than was taken in time: everything has to be asked for anew.
    Lost,
}

/// Those who want to know.
#[derive(Debug, Default)]
pub(super) struct Watchers(Mutex<Vec<Weak<Queue>>>);

#[derive(Debug)]
struct Queue {
    events: Mutex<VecDeque<Event>>,
    /// Readable while there is an event.
    ready: OwnedFd,
}

impl Watchers {
    pub(super) fn subscribe(&self) -> Result<Subscription, Error> {
        let ready = event_file()?;
        let queue = Arc::new(Queue {
            events: Mutex::default(),
            ready,
        });
        lock(&self.0).push(Arc::downgrade(&queue));
        Ok(Subscription(queue))
    }

    /// Tells all of them.
    pub(super) fn tell(&self, event: Event) {
        lock(&self.0).retain(|queue| match queue.upgrade() {
            Some(queue) => {
                queue.put(&event);
                true
            }
            None => false,
        });
    }
}

impl Queue {
    fn put(&self, event: &Event) {
        let mut events = lock(&self.events);
        let is_change = matches!(event, Event::Changed(_));
        if is_change && events.contains(event) {
            return;
        }
        if events.len() >= MAX_EVENTS {
            events.clear();
            events.push_back(Event::Lost);
        }
        if events.back() != Some(&Event::Lost) {
            events.push_back(event.clone());
        }
        signal(&self.ready);
    }
}

/// What has changed since it was made.
#[derive(Debug)]
pub struct Subscription(Arc<Queue>);

impl Subscription {
    /// The next event, if there is one.
    pub fn take(&self) -> Option<Event> {
        let mut events = lock(&self.0.events);
        let event = events.pop_front();
        if events.is_empty() {
            drain(&self.0.ready);
        }
        event
    }

    /// The next event, waited for no longer than this.
    pub fn wait(&self, limit: Duration) -> Option<Event> {
        if let Some(event) = self.take() {
            return Some(event);
        }
        let limit = Timespec {
            tv_sec: limit.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: limit.subsec_nanos().into(),
        };
        let mut files = [PollFd::new(&self.0.ready, PollFlags::IN)];
        // Nothing that interrupts it is an event.
        let _ = poll(&mut files, Some(&limit));
        self.take()
    }
}

/// Readable while there is an event.
impl AsFd for Subscription {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.ready.as_fd()
    }
}

/// A file that can be made readable.
pub(super) fn event_file() -> Result<OwnedFd, Error> {
    let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
    eventfd(0, flags).map_err(|error| Error::System(format!("no eventfd can be made: {error}")))
}

/// Makes it readable. It does not wait: a counter that is full is readable.
pub(super) fn signal(file: &OwnedFd) {
    let _ = rustix::io::write(file, &1u64.to_ne_bytes());
}

/// Makes it unreadable.
pub(super) fn drain(file: &OwnedFd) {
    let _ = rustix::io::read(file, &mut [0; 8]);
}
