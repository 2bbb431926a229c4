// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What a client and its guest do with memory and interrupts.

use std::os::fd::OwnedFd;

use devices::virtio::{NOTIFY_MULTIPLIER, NOTIFY_OFFSET};
use vfio_user_device::device::{Device, CONFIG_REGION};
use vfio_user_protocol::feature::{number, Feature, LoggingReport, Operation};
use vfio_user_protocol::request::{Action, IrqData};
use vfio_user_protocol::{Access, DmaMap, DmaUnmap, Limits, Request, SetIrqs};

use super::card::Card;
use super::guest::{ring_at, Guest, ADDRESS, PAGE, SIZE};
use super::side::Side;
use super::step::Step;
use super::vectors::event;
use super::Outcome;
use crate::guest::{set_up, Registers};

impl<C: Card> Side<C> {
    /// The card may reach pages.
    pub(super) fn map(&mut self, step: &Step, now_ns: u64, outcome: &mut Outcome) {
        let [flags, far, ..] = step.bytes;
        let (pages, has_file) = (Guest::pages(step), flags & 4 == 0);
        let mut map = DmaMap {
            readable: flags & 1 != 0,
            writable: flags & 2 != 0,
            wants_file: flags & 8 == 0 && has_file,
            offset: pages.start as u64,
            address: ADDRESS + pages.start as u64,
            size: pages.len() as u64,
        };
        let mut files = Vec::new();
        match has_file {
            true => files.push(self.guest.file.try_clone().expect("a descriptor")),
            // Such a range may be anywhere.
            false => map.address += u64::from(far) << 40,
        }
        self.answer_with(&Request::DmaMap(map), files, now_ns, outcome);
    }

    /// It may not any longer.
    pub(super) fn unmap(&mut self, step: &Step, now_ns: u64, outcome: &mut Outcome) {
        let (pages, all) = (Guest::pages(step), step.bytes[0] & 1 != 0);
        let unmap = DmaUnmap {
            argsz: 24,
            all,
            address: if all { 0 } else { ADDRESS + pages.start as u64 },
            size: if all { 0 } else { pages.len() as u64 },
        };
        self.ask(&Request::DmaUnmap(unmap), now_ns, outcome);
    }

    /// How interrupts are told is changed, or some are raised.
    pub(super) fn irqs(&mut self, step: &Step, now_ns: u64, outcome: &mut Outcome) {
        let [index, start, count, how] = step.bytes;
        let count = count % 5;
        let mut files = Vec::new();
        let bytes = vec![how; count.into()];
        let data = match how % 6 {
            0..=2 => {
                files.extend((0..count).map(|_| event()));
                IrqData::EventFd
            }
            3 => IrqData::EventFd,
            4 => IrqData::Bool(&bytes),
            _ => IrqData::None,
        };
        if step.number & 1 != 0 {
            // What is no eventfd.
            files.extend(self.guest.file.try_clone());
        }
        let irqs = SetIrqs {
            index: (index % 5).into(),
            start: (start % 4).into(),
            count: count.into(),
            action: match (step.number >> 1) % 8 {
                1 => Action::Mask,
                2 => Action::Unmask,
                _ => Action::Trigger,
            },
            data,
        };
        self.answer_with(&Request::SetIrqs(irqs), files, now_ns, outcome);
    }

    /// What the card writes is logged, told, or not logged any longer.
    pub(super) fn log(&mut self, step: &Step, now_ns: u64, outcome: &mut Outcome) {
        let [kind, size, some, cut] = step.bytes;
        let (pages, page_size) = (Guest::pages(step), (PAGE as u64) << (size % 4));
        let (first, len) = (ADDRESS + pages.start as u64, pages.len() as u64);
        let longs = |longs: &[u64]| -> Vec<u8> {
            longs.iter().flat_map(|long| long.to_ne_bytes()).collect()
        };
        let (number, operation, data) = match kind % 4 {
            0 => {
                let ranges = u64::from(some & 1);
                let mut data = longs(&[page_size, ranges, first, len]);
                data.truncate(if ranges == 0 { 16 } else { 32 });
                (number::DMA_LOGGING_START, Operation::Set, data)
            }
            1 | 2 => {
                // Not always whole pages.
                let cut = u64::from(cut) * 8;
                let data = longs(&[first + cut, len - cut, page_size]);
                (number::DMA_LOGGING_REPORT, Operation::Get, data)
            }
            _ => (number::DMA_LOGGING_STOP, Operation::Set, Vec::new()),
        };
        let feature = Feature {
            argsz: 8 + data.len() as u32 + 8,
            number,
            operation,
            data: &data,
        };
        self.ask(&Request::Feature(feature), now_ns, outcome);
    }

    /// The card does what there is to be done with memory, in so many turns at most.
    pub(super) fn work(&mut self, turns: u16, now_ns: u64, outcome: &mut Outcome) {
        let before = self.look_at(now_ns);
        let may = self.is_connected && before.state().may_access_memory();
        for _ in 0..=turns % 8 {
            if !self.host.has_work() {
                break;
            }
            assert!(may, "{before:?}");
            self.contents = None;
            self.host.work();
        }
        let after = self.look();
        assert_eq!(
            (after.progress, after.owner),
            (before.progress, before.owner)
        );
        outcome.served += self.guest.look(may);
        self.is_sound(&before, after, outcome);
    }

    /// A driver sets the card up, if it is one that has queues and there is a client.
    pub(super) fn set_up(&mut self, now_ns: u64, outcome: &mut Outcome) {
        let queues = self.card.irqs().msix.saturating_sub(1) as u16;
        if queues == 0 || !self.is_connected {
            return;
        }
        let places: Vec<u64> = (0..queues)
            .map(|queue| ADDRESS + ring_at(queue) as u64)
            .collect();
        let mut registers = Driver {
            side: self,
            now_ns,
            outcome,
        };
        let sizes = set_up(&mut registers, &places);
        for (queue, size) in (0..queues).zip(sizes) {
            self.guest.new_ring(queue, size);
        }
    }

    /// The driver asks for something, and tells the card, unless the step says not.
    pub(super) fn request(&mut self, step: &Step, now_ns: u64, outcome: &mut Outcome) {
        let queue = self.guest.request(step);
        if let Some(queue) = queue.filter(|_| step.bytes[3] & 2 == 0) {
            let at = NOTIFY_OFFSET + u32::from(queue) * NOTIFY_MULTIPLIER;
            let data = queue.to_le_bytes();
            Driver {
                side: self,
                now_ns,
                outcome,
            }
            .write(at.into(), &data);
        }
    }

    /// A request with these descriptors has succeeded.
    pub(super) fn is_set_up_by(
        &mut self,
        request: &Request<'_>,
        files: Vec<OwnedFd>,
        answer: &[u8],
        outcome: &mut Outcome,
    ) {
        match request {
            Request::DmaMap(map) => self.guest.mapped(map, !files.is_empty()),
            Request::DmaUnmap(unmap) => {
                outcome.taken_away += usize::from(self.guest.waits());
                self.guest.unmapped(unmap);
            }
            Request::SetIrqs(irqs) => {
                self.vectors.were_set(irqs, files);
                // Some may have been raised by hand, in whatever state.
                outcome.interrupts += self.vectors.signalled();
            }
            Request::Feature(feature) => match (feature.number, feature.operation) {
                (number::DMA_LOGGING_START, Operation::Set) => self.guest.log_begins(),
                (number::DMA_LOGGING_STOP, Operation::Set) => self.guest.log_ends(),
                (number::DMA_LOGGING_REPORT, Operation::Get) => {
                    let most = Limits::DEFAULT.max_data_xfer_size as usize;
                    let asked = LoggingReport::decode(feature.data, most).expect("a report");
                    let bitmap = answer.get(8 + LoggingReport::LEN..).expect("a bitmap");
                    outcome.told += self.guest.was_told(&asked, bitmap);
                }
                _ => {}
            },
            _ => {}
        }
    }

    /// The file that memory is in gets another length.
    pub(super) fn resize(&mut self, step: &Step) {
        self.guest.resize(match step.bytes[0] & 1 {
            0 => step.number.into(),
            _ => SIZE,
        });
    }
}

/// A client that reaches registers for its guest's driver.
struct Driver<'s, C: Card> {
    side: &'s mut Side<C>,
    now_ns: u64,
    outcome: &'s mut Outcome,
}

impl<C: Card> Driver<'_, C> {
    fn access(&self, region: u32, offset: u64, len: usize) -> Access {
        Access {
            offset,
            region,
            count: len as u32,
        }
    }
}

impl<C: Card> Registers for Driver<'_, C> {
    fn write_config(&mut self, offset: u64, bytes: &[u8]) {
        let access = self.access(CONFIG_REGION, offset, bytes.len());
        let request = Request::Write(access, bytes);
        self.side.ask(&request, self.now_ns, self.outcome);
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) {
        let access = self.access(C::REGIONS[0], offset, bytes.len());
        let request = Request::Write(access, bytes);
        self.side.ask(&request, self.now_ns, self.outcome);
    }

    fn read(&mut self, offset: u64, bytes: &mut [u8]) {
        let request = Request::Read(self.access(C::REGIONS[0], offset, bytes.len()));
        let answer = self.side.answer(&request, self.now_ns, self.outcome);
        if let Some(Ok(answer)) = answer {
            bytes.copy_from_slice(&answer[16..]);
        }
    }
}
