// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Saved disks: a good one in which the input changes bytes, and sections of any kind.
//!
//! What is refused changes nothing; what is accepted is saved again as the same, and makes a device that a driver can use.

#![no_main]

use devices::blk::{
    serve, Blocks, Device, Heap, Incoming, LoadError, Scratch, SectionId, ZERO_SECTION_BYTES,
};
use fuzz::guest::{config, disk, start, status, Memory};
use libfuzzer_sys::fuzz_target;

type Sections = Vec<(u16, Vec<u8>)>;

fn save(device: &Device) -> Sections {
    let mut sections = Sections::new();
    let saved = device.save::<()>(&mut |id, payload| {
        sections.push((id.get(), payload.to_vec()));
        Ok(())
    });
    assert_eq!(saved, Ok(()));
    sections
}

fuzz_target!(|input: &[u8]| {
    let config = config();
    let mut source = Device::new(&config).expect("a device");
    start(&mut source);
    let mut sections = save(&source);
    let registers = sections.len();
    for change in input.chunks(4) {
        let &[section, at0, at1, value] = change else {
            break;
        };
        let at = usize::from(u16::from_le_bytes([at0, at1]));
        match usize::from(section) {
            index if index < registers => {
                let payload = &mut sections[index].1;
                let len = payload.len();
                payload[at % len] = value;
            }
            // Sections of the medium, and of nothing.
            index => {
                let len = if section & 1 != 0 {
                    ZERO_SECTION_BYTES
                } else {
                    at
                };
                let id = if section & 2 != 0 {
                    SectionId::ZERO.get()
                } else {
                    index as u16
                };
                let mut payload = vec![0; len];
                for (to, from) in payload.iter_mut().step_by(4).zip([value, at0]) {
                    *to = from;
                }
                sections.push((id, payload));
            }
        }
    }
    let mut incoming = Incoming::new(&config, Blocks::<Heap>::of(&config));
    let mut refused = None;
    for (id, payload) in &sections {
        let before = incoming.clone();
        if let Err(error) = incoming.section(*id, payload) {
            assert!(!error.to_string().chars().any(char::is_control));
            assert_eq!(incoming, before);
            // What no disk has is left out, as a framing may do it.
            if !matches!(error, LoadError::NoSuchSection(_)) {
                refused = Some(error);
                break;
            }
        }
    }
    let mut device = Device::new(&config).expect("a device");
    let before = device.clone();
    match (incoming.apply_to(&mut device), refused) {
        (Err(_), Some(_)) => assert_eq!(device, before),
        // A section of the medium came behind the registers, which are good.
        (Ok(_), _) => {
            assert_eq!(save(&device), sections[..registers]);
            device.function_mut().set_running(true);
            let mut memory = Memory(vec![0; 0x1000]);
            let mut scratch = Box::new(Scratch::new());
            let geometry = *device.geometry();
            let mut disk = disk(&config);
            while let Some(mut work) = device.function_mut().begin() {
                let outcome = serve(&mut work, &geometry, &mut memory, &mut disk, &mut scratch);
                assert!(
                    !outcome.more || outcome.error.is_some(),
                    "a ring of zeroes has requests"
                );
                device.function_mut().finish(work, &outcome);
            }
            start(&mut device);
            assert_eq!(status(&mut device), 0xf);
        }
        (Err(error), None) => panic!("what was accepted is refused: {error}"),
    }
});
