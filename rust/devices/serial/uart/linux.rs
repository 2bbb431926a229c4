// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What linux finds out about a chip, access by access.
//!
//! The order of accesses is that of drivers/tty/serial/8250/8250_port.c (Linux 7.3); the functions are
//! named as there.

use super::tests::Chip;
use super::*;
use crate::serial::FifoDepth;

/// What the probe decides on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Port {
    Unknown,
    P8250,
    P16450,
    P16550,
    P16550A,
    P16650,
    P16750,
    P16550AFsl64,
    Ns16550A,
    Xscale,
    U6_16550A,
    /// A chip with an enhanced feature register.
    Enhanced,
}

const LCR_CONF_MODE_A: u8 = 0x80;
const LCR_CONF_MODE_B: u8 = 0xbf;
const IIR_FIFO_MASK: u8 = 0xe0;
const IER_UUE: u8 = 0x40;

impl Chip {
    fn dl_read(&mut self) -> u16 {
        u16::from_le_bytes([self.read(0), self.read(1)])
    }

    fn dl_write(&mut self, divisor: u16) {
        let [low, high] = divisor.to_le_bytes();
        self.write(0, low);
        self.write(1, high);
    }

    /// `variants`: CONFIG_SERIAL_8250_16550A_VARIANTS.
    fn autoconfig(&mut self, variants: bool) -> Port {
        // Is there a chip: IER keeps what it is given.
        let ier = self.read(offset::IER);
        self.write(offset::IER, 0);
        let none = self.read(offset::IER) & 0x0f;
        self.write(offset::IER, 0x0f);
        let all = self.read(offset::IER) & 0x0f;
        self.write(offset::IER, ier);
        if none != 0 || all != 0x0f {
            return Port::Unknown;
        }

        let saved_mcr = self.read(offset::MCR);
        let saved_lcr = self.read(offset::LCR);
        if !self.loop_test(saved_mcr) {
            return Port::Unknown;
        }

        self.write(offset::LCR, LCR_CONF_MODE_B);
        self.write(offset::IIR_FCR, 0); // EFR, if there is one
        self.write(offset::LCR, 0);
        self.write(offset::IIR_FCR, fcr::ENABLE);
        let port = match self.read(offset::IIR_FCR) & 0xc0 {
            0x00 => self.autoconfig_8250(),
            0x80 => Port::P16550,
            0xc0 => self.autoconfig_16550a(variants),
            _ => Port::Unknown,
        };
        self.write(offset::LCR, saved_lcr);

        self.write(offset::MCR, saved_mcr);
        self.clear_fifos();
        self.read(offset::DATA);
        self.write(offset::IER, 0);
        port
    }

    fn loop_test(&mut self, saved_mcr: u8) -> bool {
        self.write(offset::MCR, mcr::LOOP | mcr::OUT2 | mcr::RTS);
        let status = self.read(offset::MSR) & 0xf0;
        self.write(offset::MCR, saved_mcr);
        status == msr::DCD | msr::CTS
    }

    fn autoconfig_8250(&mut self) -> Port {
        if self.scratch_test() {
            Port::P16450
        } else {
            Port::P8250
        }
    }

    fn scratch_test(&mut self) -> bool {
        let scratch = self.read(offset::SCR);
        self.write(offset::SCR, 0xa5);
        let first = self.read(offset::SCR);
        self.write(offset::SCR, 0x5a);
        let second = self.read(offset::SCR);
        self.write(offset::SCR, scratch);
        (first, second) == (0xa5, 0x5a)
    }

    fn autoconfig_16550a(&mut self, variants: bool) -> Port {
        if !variants {
            return Port::P16550A;
        }
        self.write(offset::LCR, LCR_CONF_MODE_A);
        if self.read(offset::IIR_FCR) == 0 {
            self.write(offset::IIR_FCR, 0xa8);
            if self.read(offset::IIR_FCR) != 0 {
                return Port::P16650;
            }
            return Port::P16550AFsl64;
        }
        self.write(offset::LCR, LCR_CONF_MODE_B);
        if self.read(offset::IIR_FCR) == 0 {
            return Port::Enhanced;
        }
        if self.national_superio_test() {
            return Port::Ns16550A;
        }
        if self.fifo64_test() == (0xc0, 0xe0) {
            return Port::P16750;
        }
        if self.uue_test() {
            return Port::Xscale;
        }
        if self.size_fifo() == 64 {
            return Port::U6_16550A;
        }
        Port::P16550A
    }

    /// Bank 2 of a National SuperIO shows the loop bit in EXCR1, where others have IIR.
    fn national_superio_test(&mut self) -> bool {
        self.write(offset::LCR, 0);
        let status1 = self.read(offset::MCR);
        self.write(offset::LCR, 0xe0);
        let status2 = self.read(offset::IIR_FCR);
        if (status2 ^ status1) & mcr::LOOP != 0 {
            return false;
        }
        self.write(offset::LCR, 0);
        self.write(offset::MCR, status1 ^ mcr::LOOP);
        self.write(offset::LCR, 0xe0);
        let status2 = self.read(offset::IIR_FCR);
        self.write(offset::LCR, 0);
        self.write(offset::MCR, status1);
        (status2 ^ status1) & mcr::LOOP != 0
    }

    /// IIR after FIFO64 was set without DLAB, and with it.
    fn fifo64_test(&mut self) -> (u8, u8) {
        self.write(offset::LCR, 0);
        self.write(offset::IIR_FCR, fcr::ENABLE | fcr::FIFO64);
        let without = self.read(offset::IIR_FCR) & IIR_FIFO_MASK;
        self.write(offset::IIR_FCR, fcr::ENABLE);
        self.write(offset::LCR, LCR_CONF_MODE_A);
        self.write(offset::IIR_FCR, fcr::ENABLE | fcr::FIFO64);
        let with = self.read(offset::IIR_FCR) & IIR_FIFO_MASK;
        self.write(offset::IIR_FCR, fcr::ENABLE);
        self.write(offset::LCR, 0);
        (without, with)
    }

    fn uue_test(&mut self) -> bool {
        let ier = self.read(offset::IER);
        self.write(offset::IER, ier & !IER_UUE);
        if self.read(offset::IER) & IER_UUE == 0 {
            self.write(offset::IER, ier | IER_UUE);
            if self.read(offset::IER) & IER_UUE != 0 {
                return true;
            }
        }
        self.write(offset::IER, ier);
        false
    }

    fn size_fifo(&mut self) -> usize {
        let old_lcr = self.read(offset::LCR);
        self.write(offset::LCR, 0);
        let old_fcr = self.read(offset::IIR_FCR);
        let old_mcr = self.read(offset::MCR);
        self.write(offset::IIR_FCR, fcr::ENABLE | fcr::RESET_RX | fcr::RESET_TX);
        self.write(offset::MCR, mcr::LOOP);
        self.write(offset::LCR, LCR_CONF_MODE_A);
        let old_divisor = self.dl_read();
        self.dl_write(1);
        self.write(offset::LCR, 0x03);
        for count in 0..=255 {
            self.write(offset::DATA, count);
        }
        self.pass(20_000_000);
        let mut count = 0;
        while count < 256 && self.read(offset::LSR) & lsr::DR != 0 {
            self.read(offset::DATA);
            count += 1;
        }
        self.write(offset::IIR_FCR, old_fcr);
        self.write(offset::MCR, old_mcr);
        self.write(offset::LCR, LCR_CONF_MODE_A);
        self.dl_write(old_divisor);
        self.write(offset::LCR, old_lcr);
        count
    }

    fn autoconfig_read_divisor_id(&mut self) -> u16 {
        let old_lcr = self.read(offset::LCR);
        self.write(offset::LCR, LCR_CONF_MODE_A);
        let old_divisor = self.dl_read();
        self.dl_write(0);
        let id = self.dl_read();
        self.dl_write(old_divisor);
        self.write(offset::LCR, old_lcr);
        id
    }

    fn clear_fifos(&mut self) {
        self.write(offset::IIR_FCR, fcr::ENABLE);
        self.write(offset::IIR_FCR, fcr::ENABLE | fcr::RESET_RX | fcr::RESET_TX);
        self.write(offset::IIR_FCR, 0);
    }

    /// Whether the driver would work around a transmitter interrupt that does not come again.
    fn thre_test_finds_a_bug(&mut self) -> bool {
        assert_ne!(self.read(offset::LSR) & lsr::THRE, 0, "wait_for_xmitr()");
        self.write(offset::IER, ier::THRE);
        let first = self.read(offset::IIR_FCR) & iir::NONE != 0;
        self.write(offset::IER, 0);
        self.write(offset::IER, ier::THRE);
        let second = self.read(offset::IIR_FCR) & iir::NONE != 0;
        self.write(offset::IER, 0);
        !first && second
    }

    /// Whether the driver would set UART_BUG_TXEN.
    fn iir_txen_test_finds_a_bug(&mut self) -> bool {
        self.write(offset::IER, ier::THRE);
        let empty = self.read(offset::LSR) & lsr::TEMT != 0;
        let none = self.read(offset::IIR_FCR) & iir::NONE != 0;
        self.write(offset::IER, 0);
        empty && none
    }

    /// `fcr`: the port type's entry in `uart_config`.
    fn do_startup(&mut self, divisor: u16, fcr: u8, is_16750: bool) {
        self.clear_fifos();
        for register in [offset::LSR, offset::DATA, offset::IIR_FCR, offset::MSR] {
            self.read(register);
        }
        assert_ne!(self.read(offset::LSR), 0xff, "LSR safety check");
        assert!(!self.thre_test_finds_a_bug());
        self.write(offset::LCR, 0x03);
        self.write(offset::MCR, mcr::OUT2);
        assert!(!self.iir_txen_test_finds_a_bug());
        for register in [offset::LSR, offset::DATA, offset::IIR_FCR, offset::MSR] {
            self.read(register);
        }
        // set_termios, and raising the lines
        self.write(offset::IER, ier::RDA | ier::RLS | ier::MS);
        self.write(offset::LCR, 0x03 | lcr::DLAB);
        self.dl_write(divisor);
        if is_16750 {
            self.write(offset::IIR_FCR, fcr);
            self.write(offset::LCR, 0x03);
        } else {
            self.write(offset::LCR, 0x03);
            self.write(offset::IIR_FCR, fcr::ENABLE);
            self.write(offset::IIR_FCR, fcr);
        }
        self.write(offset::MCR, mcr::OUT2 | mcr::DTR | mcr::RTS);
    }
}

const FCR_16550A: u8 = fcr::ENABLE | 0x80;
const FCR_16750: u8 = fcr::ENABLE | 0x80 | fcr::FIFO64;

#[test]
fn autoconfig_without_variants_finds_a_16550a_at_either_depth() {
    for depth in FifoDepth::ALL {
        let mut chip = Chip::new(depth);
        assert_eq!(chip.autoconfig(false), Port::P16550A);
        assert_eq!(chip.autoconfig(false), Port::P16550A);
    }
}

#[test]
fn autoconfig_with_variants_finds_a_16550a() {
    let mut chip = Chip::new(FifoDepth::Sixteen);
    assert_eq!(chip.autoconfig(true), Port::P16550A);
}

#[test]
fn autoconfig_with_variants_finds_a_16750() {
    let mut chip = Chip::new(FifoDepth::SixtyFour);
    assert_eq!(chip.autoconfig(true), Port::P16750);
}

#[test]
fn autoconfig_finds_the_same_again_after_the_port_was_used() {
    for (depth, fcr, port) in [
        (FifoDepth::Sixteen, FCR_16550A, Port::P16550A),
        (FifoDepth::SixtyFour, FCR_16750, Port::P16750),
    ] {
        let mut chip = Chip::new(depth);
        chip.autoconfig(true);
        chip.do_startup(1, fcr, port == Port::P16750);
        chip.send(0..=255);
        chip.clear_fifos();
        assert_eq!(chip.autoconfig(true), port);
        // And without a shutdown, as after kexec.
        chip.do_startup(1, fcr, port == Port::P16750);
        chip.fill();
        assert_eq!(chip.autoconfig(true), port);
    }
}

#[test]
fn autoconfig_leaves_the_chip_as_the_driver_expects_it() {
    for depth in FifoDepth::ALL {
        let mut chip = Chip::new(depth);
        chip.autoconfig(true);
        assert_eq!(chip.read(offset::LSR), 0x60);
        assert_eq!(chip.read(offset::IER), 0);
        assert_eq!(chip.read(offset::LCR), 0);
        assert_eq!(chip.read(offset::MCR), 0);
        assert_eq!(chip.read(offset::IIR_FCR), 0x01);
        assert!(!chip.uart.interrupting());
    }
}

#[test]
fn loop_test_sees_dcd_and_cts() {
    assert!(Chip::new(FifoDepth::Sixteen).loop_test(0));
}

#[test]
fn scratch_test_passes() {
    assert!(Chip::new(FifoDepth::Sixteen).scratch_test());
}

#[test]
fn no_enhanced_feature_register_is_found() {
    for depth in FifoDepth::ALL {
        let mut chip = Chip::new(depth);
        chip.write(offset::IIR_FCR, fcr::ENABLE);
        for mode in [LCR_CONF_MODE_A, LCR_CONF_MODE_B] {
            chip.write(offset::LCR, mode);
            assert_ne!(chip.read(offset::IIR_FCR), 0);
        }
    }
}

#[test]
fn national_superio_bank_2_is_not_found() {
    let mut chip = Chip::new(FifoDepth::Sixteen);
    chip.write(offset::IIR_FCR, fcr::ENABLE);
    assert!(!chip.national_superio_test());
}

#[test]
fn sixty_four_byte_mode_needs_dlab_and_a_16750() {
    let test = |depth| Chip::new(depth).fifo64_test();
    assert_eq!(test(FifoDepth::Sixteen), (0xc0, 0xc0));
    assert_eq!(test(FifoDepth::SixtyFour), (0xc0, 0xe0));
}

#[test]
fn uart_unit_enable_bit_of_an_xscale_is_not_found() {
    for depth in FifoDepth::ALL {
        assert!(!Chip::new(depth).uue_test());
    }
}

#[test]
fn size_fifo_counts_the_fifo_and_restores_the_registers() {
    let mut chip = Chip::with_fifos();
    assert_eq!(chip.size_fifo(), 16);
    assert_eq!(chip.uart.divisor, 12);
    assert_eq!(chip.read(offset::LCR), 0x03);
    assert_eq!(chip.read(offset::MCR), 0);
    assert_eq!(Chip::with_long_fifos().size_fifo(), 64);
    assert_eq!(Chip::new(FifoDepth::SixtyFour).size_fifo(), 16);
}

#[test]
fn size_fifo_leaves_alone_what_waits_at_the_far_end() {
    let mut chip = Chip::with_fifos();
    chip.send(0..100);
    chip.size_fifo();
    // 0..16 were in the receiver, which the probe resets; the reset let 16..32 follow, into loop mode.
    let back = chip.drain();
    assert!(back.into_iter().eq(32..100));
}

#[test]
fn divisor_id_is_what_was_written() {
    let mut chip = Chip::new(FifoDepth::Sixteen);
    assert_eq!(chip.autoconfig_read_divisor_id(), 0);
    assert_eq!(chip.uart.divisor, 12);
}

#[test]
fn thre_test_finds_no_bug() {
    for depth in FifoDepth::ALL {
        let mut chip = Chip::new(depth);
        assert!(!chip.thre_test_finds_a_bug());
        chip.write(offset::IIR_FCR, fcr::ENABLE);
        assert!(!chip.thre_test_finds_a_bug());
    }
}

#[test]
fn iir_txen_test_finds_no_bug() {
    assert!(!Chip::new(FifoDepth::Sixteen).iir_txen_test_finds_a_bug());
}

#[test]
fn an_opened_port_transfers_by_interrupts_without_loss() {
    for (depth, fcr, load, is_16750) in [
        (FifoDepth::Sixteen, FCR_16550A, 16, false),
        (FifoDepth::SixtyFour, FCR_16750, 64, true),
    ] {
        let mut chip = Chip::new(depth);
        chip.autoconfig(true);
        chip.do_startup(1, fcr, is_16750);
        assert_eq!(
            chip.read(offset::MSR) & 0xf0,
            msr::CTS | msr::DSR | msr::DCD
        );

        let mut to_send = (0..2000u32).map(|i| (i * 7) as u8).peekable();
        let sent: std::vec::Vec<u8> = to_send.clone().collect();
        let mut back = std::vec::Vec::new();
        chip.write(offset::IER, 0x0f);
        let mut interrupts = 0;
        while back.len() < sent.len() {
            if !chip.uart.interrupting() {
                let due = chip.uart.deadline.expect("an interrupt or a time-out");
                chip.pass(due - chip.now);
            }
            // serial8250_handle_irq()
            interrupts += 1;
            assert!(interrupts < 2 * sent.len(), "interrupt storm");
            assert_eq!(chip.read(offset::IIR_FCR) & iir::NONE, 0);
            let mut status = chip.read(offset::LSR);
            while status & (lsr::DR | lsr::BI) != 0 {
                back.push(chip.read(offset::DATA));
                status = chip.read(offset::LSR);
            }
            chip.read(offset::MSR);
            if status & lsr::THRE != 0 && chip.read(offset::IER) & ier::THRE != 0 {
                for byte in to_send.by_ref().take(load) {
                    chip.write(offset::DATA, byte);
                }
                if to_send.peek().is_none() {
                    chip.write(offset::IER, 0x0d);
                }
            }
        }
        assert_eq!(back, sent);
    }
}
