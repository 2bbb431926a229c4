// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Requests of any kind in any number of buffers, against an array of bytes.

#![no_main]

use devices::blk::{serve, Device, Scratch, MAX_REQUEST_BYTES, SECTOR_BYTES};
use fuzz::guest::{config, disk, notify, start, Memory, BASE, QUEUE_SIZE};
use libfuzzer_sys::fuzz_target;

const SECTOR: usize = SECTOR_BYTES as usize;
const HEADER: usize = 0x400;
const STATUS: usize = 0x500;
const DATA: usize = 0x1000;
const LEN: usize = 0x8000;

/// What a request is to be answered, and what the medium is afterwards.
fn expected(model: &mut [u8], kind: u8, sector: usize, data: &mut [u8]) -> u8 {
    let start = sector.saturating_mul(SECTOR);
    let range = start..start.saturating_add(data.len());
    match kind {
        0 | 1 if data.len() % SECTOR != 0 || range.end > model.len() => 1,
        0 => {
            data.copy_from_slice(&model[range]);
            0
        }
        1 => {
            model[range].copy_from_slice(data);
            0
        }
        4 => 0,
        11 | 13 => {
            if data.is_empty() || data.len() % 16 != 0 || data.len() > 256 {
                return 1;
            }
            let fields = |range: &[u8]| {
                let word = |at: usize| {
                    u32::from_le_bytes([range[at], range[at + 1], range[at + 2], range[at + 3]])
                };
                let sector = (u64::from(word(4)) << 32) | u64::from(word(0));
                (
                    u128::from(sector) * 512,
                    u128::from(word(8)) * 512,
                    word(12),
                )
            };
            for range in data.chunks(16) {
                let (start, len, flags) = fields(range);
                if flags & !u32::from(kind == 13) != 0 {
                    return 2;
                }
                if start + len > model.len() as u128 {
                    return 1;
                }
            }
            let all: u128 = data.chunks(16).map(|range| fields(range).1).sum();
            if all > u128::from(MAX_REQUEST_BYTES) {
                return 1;
            }
            for range in data.chunks(16) {
                let (start, len, _) = fields(range);
                model[start as usize..(start + len) as usize].fill(0);
            }
            0
        }
        _ => 2,
    }
}

fuzz_target!(|input: &[u8]| {
    let config = config();
    let mut device = Device::new(&config).expect("a device");
    let mut disk = disk(&config);
    let mut memory = Memory(vec![0; DATA + LEN]);
    let mut scratch = Box::new(Scratch::new());
    let mut model = vec![0; 1 << 20];
    start(&mut device);
    let geometry = *device.geometry();
    let (mut place, mut wrap) = (0u16, true);
    for (turn, step) in input.chunks(24).take(64).enumerate() {
        let &[kind, sector0, sector1, cut, len0, len1, fill, ref bytes @ ..] = step else {
            break;
        };
        // Those that exist, mostly; get ID has a test of its own.
        let kind = match kind {
            8 | 0x80.. => 0,
            kind if kind & 0x40 != 0 => 1,
            kind => kind & 0x3f,
        };
        let sector = usize::from(u16::from_le_bytes([sector0, sector1])) % 2100;
        let mut len = usize::from(u16::from_le_bytes([len0, len1])) % LEN;
        if fill & 1 != 0 {
            len -= len % SECTOR;
        }
        let reads = kind == 0;
        let mut data = vec![fill; len];
        for (to, from) in data.iter_mut().zip(bytes) {
            *to = *from;
        }
        memory.0[DATA..DATA + len].copy_from_slice(&data);
        memory.0[HEADER..HEADER + 4].copy_from_slice(&u32::from(kind).to_le_bytes());
        memory.0[HEADER + 8..HEADER + 16].copy_from_slice(&(sector as u64).to_le_bytes());
        memory.0[STATUS] = 0xff;
        let cut = usize::from(cut) * 7 % (len + 1);
        let buffers = [
            (HEADER, 16, false),
            (DATA, cut, reads),
            (DATA + cut, len - cut, reads),
            (STATUS, 1, true),
        ];
        let buffers: Vec<_> = buffers.into_iter().filter(|buffer| buffer.1 > 0).collect();
        let first = place;
        for (i, &(at, len, writable)) in buffers.iter().enumerate() {
            let next = u16::from(i + 1 < buffers.len());
            let flags = next | if writable { 2 } else { 0 } | if wrap { 0x80 } else { 0x8000 };
            let descriptor = &mut memory.0[usize::from(place) * 16..][..16];
            descriptor[..8].copy_from_slice(&(BASE + at as u64).to_le_bytes());
            descriptor[8..12].copy_from_slice(&(len as u32).to_le_bytes());
            descriptor[12..14].copy_from_slice(&(turn as u16).to_le_bytes());
            descriptor[14..].copy_from_slice(&flags.to_le_bytes());
            place += 1;
            if place == QUEUE_SIZE {
                (place, wrap) = (0, !wrap);
            }
        }
        notify(&mut device);
        while let Some(mut work) = device.function_mut().begin() {
            let outcome = serve(&mut work, &geometry, &mut memory, &mut disk, &mut scratch);
            assert_eq!(outcome.error, None);
            device.function_mut().finish(work, &outcome);
        }
        let status = expected(&mut model, kind, sector, &mut data);
        assert_eq!(memory.0[STATUS], status, "{kind} {sector} {len}");
        assert_eq!(memory.0[DATA..DATA + len], data, "{kind} {sector} {len}");
        let used = &memory.0[usize::from(first) * 16..][..16];
        assert_eq!(used[12..14], (turn as u16).to_le_bytes());
        let written = if !reads {
            1
        } else if status == 0 {
            len as u32 + 1
        } else {
            u32::from(len == 0)
        };
        assert_eq!(used[8..12], written.to_le_bytes());
    }
});
