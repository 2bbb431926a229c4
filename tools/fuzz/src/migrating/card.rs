// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A card, as one that can be looked at while it is served.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::rc::Rc;

use devices::blk::SectionId;
use devices::virtio::{COMMON_BAR, ISR_OFFSET, MSIX_BAR};
use migration::model::Values;
use migration::session::machine::Migratable;
use migration::session::{self, Emit, Failure, Phase, Remaining, SavedSize};
use migration::stream::Refusal;
use vfio_user_device::blk::VirtioDisk;
use vfio_user_device::device::{Counts, Device, GuestMemory, Region, RingError};
use vfio_user_device::instance::Kind;
use vfio_user_device::serial::SerialCard;

/// The sections of a saved card: number and payload.
pub type Sections = Vec<(u16, Vec<u8>)>;

/// What a card saves beside its registers: sections by the first four bytes of their payload, which say what they are of.
pub type Contents = BTreeMap<Vec<u8>, Vec<u8>>;

/// A kind of card.
pub trait Card: Device + Sized {
    /// Which one it is.
    const KIND: Kind;

    /// The parameters that a bit each stands for: position, value if it is set, and if not.
    const PARAMETERS: &'static [(usize, &'static str, &'static str)];

    /// The regions that a step reaches: the one with what is used most, and another one.
    const REGIONS: [u32; 2];

    /// Where in the first of them ten bits lead.
    fn offset(bits: u16) -> u64 {
        bits.into()
    }

    /// The card with these parameters, in power-on state.
    fn power_on(values: &Values<'_>) -> Self;

    /// Takes out of what is saved how interrupts stand: the card raises some by itself when it may work again, or when the way they
    /// take is another one.
    fn forget_interrupts(_: &mut Sections) {}
}

impl Card for SerialCard {
    const KIND: Kind = Kind::Serial;

    // Two ports, deep FIFOs, plain state.
    const PARAMETERS: &'static [(usize, &'static str, &'static str)] =
        &[(0, "2", "1"), (1, "64", "16"), (3, "off", "on")];

    // There is no other one.
    const REGIONS: [u32; 2] = [0, 2];

    fn power_on(values: &Values<'_>) -> Self {
        Self::power_on(values)
    }
}

/// Where the interrupt status of a disk is in the section of the device.
const ISR: usize = 308;

impl Card for VirtioDisk {
    const KIND: Kind = Kind::Disk;

    // A larger medium, two queues, larger ones, discarding and writing zeroes.
    const PARAMETERS: &'static [(usize, &'static str, &'static str)] = &[
        (0, "2", "1"),
        (1, "2", "1"),
        (2, "32", "16"),
        (4, "on", "off"),
    ];

    const REGIONS: [u32; 2] = [COMMON_BAR as u32, MSIX_BAR as u32];

    /// The first bytes of each of its four structures.
    fn offset(bits: u16) -> u64 {
        (u64::from(bits >> 8) * u64::from(ISR_OFFSET)) | u64::from(bits & 0xff)
    }

    fn power_on(values: &Values<'_>) -> Self {
        Self::power_on(values)
    }

    fn forget_interrupts(sections: &mut Sections) {
        for (id, payload) in sections {
            match SectionId::of(*id) {
                Some(SectionId::DEVICE) => payload[ISR] = 0,
                // The messages that are pending.
                Some(SectionId::VECTORS) => payload[..8].fill(0),
                _ => {}
            }
        }
    }
}

/// A card. A copy is the same one.
pub struct Watched<C>(Rc<RefCell<C>>);

impl<C> Clone for Watched<C> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<C: Card> Watched<C> {
    /// The card with these parameters, in power-on state.
    pub fn power_on(values: &Values<'_>) -> Self {
        Self(Rc::new(RefCell::new(C::power_on(values))))
    }

    /// What it would save of its registers now, but for how interrupts stand.
    pub fn state(&self) -> Sections {
        let mut sections = self.sections();
        C::forget_interrupts(&mut sections);
        sections
    }

    /// What it would save beside that. While it is being sent, this has to be asked when all of it was.
    pub fn contents(&self, is_sending: bool) -> Contents {
        let mut card = self.0.borrow_mut();
        let left = card.remaining().initial.bytes + card.remaining().dirty.bytes;
        let mut contents = Contents::new();
        match is_sending {
            true => assert_eq!(left, 0, "it was not sent"),
            false if left == 0 => return contents,
            false => {}
        }
        // From the start, and in the end nothing is left, as before.
        card.start_sending();
        let mut payload = vec![0; card.max_sent_section()];
        while let Some((_, len)) = card.next_section(&mut payload) {
            let (place, data) = payload[..len].split_at(4);
            // A block of zeroes is as good as none.
            if data.iter().any(|byte| *byte != 0) {
                contents.insert(place.to_vec(), data.to_vec());
            }
        }
        if !is_sending {
            card.stop_sending();
        }
        contents
    }

    /// What it would save of its registers now.
    pub fn sections(&self) -> Sections {
        let mut sections = Sections::new();
        let saved = self.0.borrow().save(&mut |id, payload| {
            sections.push((id, payload.to_vec()));
            Ok(())
        });
        saved.expect("a card is saved at any time");
        sections
    }

    /// A card with this state, which works again after a stop: what it would save then.
    pub fn resumed(values: &Values<'_>, sections: &Sections) -> Sections {
        let mut card = C::power_on(values);
        let mut incoming = card.incoming().expect("room for a state");
        let mut reason = String::new();
        for (id, payload) in sections {
            let loaded = C::load(&mut incoming, Phase::StopCopy, *id, payload, &mut reason);
            assert_eq!(loaded, Ok(()), "what was saved is refused: {reason}");
        }
        let committed = card.commit(&mut incoming, &mut reason);
        assert_eq!(committed, Ok(()), "what was saved is refused: {reason}");
        card.resume();
        Self(Rc::new(RefCell::new(card))).state()
    }
}

impl<C: Card> session::Device for Watched<C> {
    type Error = u32;
    type Incoming = C::Incoming;

    fn error(failure: Failure) -> u32 {
        C::error(failure)
    }

    fn saved_size(&self) -> SavedSize {
        self.0.borrow().saved_size()
    }

    fn save(&self, emit: &mut Emit<'_, u32>) -> Result<(), u32> {
        self.0.borrow().save(emit)
    }

    fn max_sent_section(&self) -> usize {
        self.0.borrow().max_sent_section()
    }

    fn remaining(&self) -> Remaining {
        self.0.borrow().remaining()
    }

    fn next_section(&mut self, payload: &mut [u8]) -> Option<(u16, usize)> {
        self.0.borrow_mut().next_section(payload)
    }

    fn section_len(&self, id: u16) -> Option<usize> {
        self.0.borrow().section_len(id)
    }

    fn load(
        incoming: &mut C::Incoming,
        phase: Phase,
        id: u16,
        payload: &[u8],
        reason: &mut dyn Write,
    ) -> Result<(), Refusal> {
        C::load(incoming, phase, id, payload, reason)
    }

    fn is_complete(incoming: &C::Incoming) -> bool {
        C::is_complete(incoming)
    }

    fn commit(&mut self, incoming: &mut C::Incoming, reason: &mut dyn Write) -> Result<(), u32> {
        self.0.borrow_mut().commit(incoming, reason)
    }
}

impl<C: Card> Migratable for Watched<C> {
    fn incoming(&self) -> Result<C::Incoming, u32> {
        self.0.borrow().incoming()
    }

    fn start_sending(&mut self) {
        self.0.borrow_mut().start_sending();
    }

    fn send_rest(&mut self) {
        self.0.borrow_mut().send_rest();
    }

    fn stop_sending(&mut self) {
        self.0.borrow_mut().stop_sending();
    }

    fn resume(&mut self) {
        self.0.borrow_mut().resume();
    }
}

impl<C: Card> Device for Watched<C> {
    fn reset(&mut self) {
        Device::reset(&mut *self.0.borrow_mut());
    }

    /// It has no file and no areas, which would be the card's.
    fn region(&self, index: u32) -> Region<'_> {
        let card = self.0.borrow();
        let Region {
            size,
            read_only,
            file,
            areas,
        } = card.region(index);
        assert!(file.is_none() && areas.is_empty());
        Region {
            size,
            read_only,
            ..Region::default()
        }
    }

    fn read(&mut self, region: u32, offset: u64, data: &mut [u8]) {
        self.0.borrow_mut().read(region, offset, data);
    }

    fn write(&mut self, region: u32, offset: u64, data: &[u8]) {
        self.0.borrow_mut().write(region, offset, data);
    }

    fn irqs(&self) -> Counts {
        self.0.borrow().irqs()
    }

    fn intx(&self) -> bool {
        self.0.borrow().intx()
    }

    fn take_msi(&mut self) -> u32 {
        self.0.borrow_mut().take_msi()
    }

    fn take_messages(&mut self) -> u64 {
        self.0.borrow_mut().take_messages()
    }

    fn set_route(&mut self, vector: u16, leads_somewhere: bool) {
        self.0.borrow_mut().set_route(vector, leads_somewhere);
    }

    fn set_active(&mut self, active: bool) {
        self.0.borrow_mut().set_active(active);
    }

    fn has_work(&self) -> bool {
        self.0.borrow().has_work()
    }

    fn work(&mut self, memory: &mut dyn GuestMemory) -> Option<RingError> {
        self.0.borrow_mut().work(memory)
    }

    fn set_time(&mut self, now_ns: u64) {
        self.0.borrow_mut().set_time(now_ns);
    }

    fn wake_after_ns(&self) -> Option<u64> {
        self.0.borrow().wake_after_ns()
    }

    fn idle_register(&self) -> Option<(u32, u64)> {
        self.0.borrow().idle_register()
    }
}
