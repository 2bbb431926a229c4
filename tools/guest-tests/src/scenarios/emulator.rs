// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A fault of the emulator that the test machine runs in, named where it is seen. It fails a scenario like any other fault.
//!
//! QEMU emulates SVM for the machine. On rare occasions (seen once, with QEMU 10.0) a guest's stored state turns out to be that
//! of the machine's own processor: the guest is where KVM in the machine had entered it, behind VMRUN in `__svm_vcpu_run`, in a
//! kernel that uses no KVM itself, and stands still for ever. No guest gets there by itself; that #VMEXIT was done twice would
//! explain it.

use std::fs;

/// The function of the machine's kernel that enters guests. The guests' kernel is the same image.
const ENTRY: &str = "__svm_vcpu_run";

/// Whether a guest that does not answer was lost that way, by its registers as QEMU prints them.
pub fn lost(registers: &str) -> bool {
    let symbols = fs::read_to_string("/proc/kallsyms").unwrap_or_default();
    is_lost(registers, &symbols)
}

/// Whether the processor is in the function that enters guests.
fn is_lost(registers: &str, symbols: &str) -> bool {
    let hex = |text: &str| u64::from_str_radix(text, 16).ok();
    let place = registers
        .split_ascii_whitespace()
        .find_map(|word| hex(word.strip_prefix("RIP=")?));
    let symbols: Vec<(u64, &str)> = symbols
        .lines()
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            Some((hex(words.next()?)?, words.nth(1)?))
        })
        .collect();
    let start = symbols.iter().find(|(_, name)| *name == ENTRY);
    let (Some(place), Some((start, _))) = (place, start) else {
        return false;
    };
    let end = symbols
        .iter()
        .map(|(address, _)| *address)
        .filter(|address| address > start)
        .min();
    // Addresses of zero are what somebody sees who may not see them.
    *start > 0 && place >= *start && end.is_some_and(|end| place < end)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYMBOLS: &str = "ffffffff81000000 T _stext\nffffffff81444640 T __svm_vcpu_run\n\
                           ffffffff81444800 T __svm_sev_es_vcpu_run\nffffffff81500000 t other\n";

    fn at(rip: &str) -> String {
        format!("\nCPU#0\nRAX=000000007b830000 RBX=1\nRIP={rip} RFL=00010246 [---Z-P-] CPL=0\n")
    }

    #[test]
    fn a_guest_inside_the_machine_s_own_entry_is_lost() {
        assert!(is_lost(&at("ffffffff81444640"), SYMBOLS));
        assert!(is_lost(&at("ffffffff814446dc"), SYMBOLS));
    }

    #[test]
    fn a_guest_anywhere_else_is_not() {
        for place in [
            "ffffffff8144463f",
            "ffffffff81444800",
            "ffffffff81000000",
            "00007fff00000000",
        ] {
            assert!(!is_lost(&at(place), SYMBOLS), "{place}");
        }
    }

    #[test]
    fn nothing_is_concluded_from_what_cannot_be_read() {
        assert!(!is_lost("no registers", SYMBOLS));
        assert!(!is_lost(&at("ffffffff814446dc"), ""));
        let hidden = "0000000000000000 T __svm_vcpu_run\n0000000000000000 T other\n";
        assert!(!is_lost(&at("0000000000000000"), hidden));
    }
}
