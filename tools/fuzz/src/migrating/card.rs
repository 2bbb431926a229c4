// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The serial card, as one that can be looked at while it is served.

use std::cell::RefCell;
use std::fmt::Write;
use std::rc::Rc;

use devices::serial::Incoming;
use migration::model::Values;
use migration::session::machine::Migratable;
use migration::session::{self, Device as _, Emit, Failure, Phase, SavedSize};
use migration::stream::Refusal;
use vfio_user_device::device::{Counts, Device, GuestMemory, Region};
use vfio_user_device::serial::SerialCard;

/// The sections of a saved card: number and payload.
pub type Sections = Vec<(u16, Vec<u8>)>;

/// A card. A copy is the same one.
#[derive(Clone)]
pub struct Watched(Rc<RefCell<SerialCard>>);

impl Watched {
    /// The card with these parameters, in power-on state.
    pub fn power_on(values: &Values<'_>) -> Self {
        Self(Rc::new(RefCell::new(SerialCard::power_on(values))))
    }

    /// What it would save now.
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
        let mut card = SerialCard::power_on(values);
        let mut incoming = card.incoming().expect("room for a state");
        let mut reason = String::new();
        for (id, payload) in sections {
            let loaded =
                SerialCard::load(&mut incoming, Phase::StopCopy, *id, payload, &mut reason);
            assert_eq!(loaded, Ok(()), "what was saved is refused: {reason}");
        }
        let committed = card.commit(&mut incoming, &mut reason);
        assert_eq!(committed, Ok(()), "what was saved is refused: {reason}");
        card.resume();
        Self(Rc::new(RefCell::new(card))).sections()
    }
}

impl session::Device for Watched {
    type Error = u32;
    type Incoming = Incoming;

    fn error(failure: Failure) -> u32 {
        SerialCard::error(failure)
    }

    fn saved_size(&self) -> SavedSize {
        self.0.borrow().saved_size()
    }

    fn save(&self, emit: &mut Emit<'_, u32>) -> Result<(), u32> {
        self.0.borrow().save(emit)
    }

    fn section_len(&self, id: u16) -> Option<usize> {
        self.0.borrow().section_len(id)
    }

    fn load(
        incoming: &mut Incoming,
        phase: Phase,
        id: u16,
        payload: &[u8],
        reason: &mut dyn Write,
    ) -> Result<(), Refusal> {
        SerialCard::load(incoming, phase, id, payload, reason)
    }

    fn is_complete(incoming: &Incoming) -> bool {
        SerialCard::is_complete(incoming)
    }

    fn commit(&mut self, incoming: &mut Incoming, reason: &mut dyn Write) -> Result<(), u32> {
        self.0.borrow_mut().commit(incoming, reason)
    }
}

impl Migratable for Watched {
    fn incoming(&self) -> Result<Incoming, u32> {
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

impl Device for Watched {
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

    fn work(&mut self, memory: &mut dyn GuestMemory) {
        self.0.borrow_mut().work(memory);
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
