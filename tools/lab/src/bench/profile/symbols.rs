// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Names of the kernel's functions and those of its modules.

use anyhow::{ensure, Context, Result};

/// Addresses below are of user space.
const KERNEL: u64 = 1 << 63;

/// What all of user space is called.
pub const USER: &str = "(user space)";

/// What an address without a name is called.
const UNKNOWN: &str = "(unknown)";

/// Functions by address.
pub struct Symbols {
    /// Sorted.
    functions: Vec<(u64, String)>,
}

impl Symbols {
    /// From the text of `/proc/kallsyms`.
    pub fn read(text: &str) -> Result<Self> {
        let mut functions = Vec::new();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let (address, kind, name) = (words.next(), words.next(), words.next());
            let parts = address.zip(kind).zip(name);
            let ((address, kind), name) = parts.with_context(|| format!("no symbol: {line:?}"))?;
            let address = u64::from_str_radix(address, 16)
                .with_context(|| format!("no address: {line:?}"))?;
            if !matches!(kind, "t" | "T" | "w" | "W") {
                continue;
            }
            let module = words.next().unwrap_or_default();
            // A plain name of a Rust function, without what makes it unique.
            let name = format!("{:#}", rustc_demangle::demangle(name));
            functions.push((address, format!("{name} {module}").trim_end().to_owned()));
        }
        functions.sort();
        functions.dedup_by_key(|(address, _)| *address);
        ensure!(
            functions.iter().any(|(address, _)| *address >= KERNEL),
            "the kernel does not tell where its functions are"
        );
        Ok(Self { functions })
    }

    /// The function that an address is in.
    pub fn at(&self, address: u64) -> &str {
        if address < KERNEL {
            return USER;
        }
        let after = self
            .functions
            .partition_point(|(start, _)| *start <= address);
        match after.checked_sub(1) {
            Some(place) => &self.functions[place].1,
            None => UNKNOWN,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_belongs_to_the_function_that_begins_before_it() {
        let symbols = Symbols::read(
            "ffffffff81000000 T _text\nffffffff81000100 t vfs_read\nffffffff81000180 d data\n\
             ffffffffc0000000 t _RNvNtCs1234_7mycrate3foo3bar\t[rust_vfio]\n",
        )
        .unwrap();
        assert_eq!(symbols.at(0x40_0000), USER);
        assert_eq!(symbols.at(0xffff_ffff_8100_0000), "_text");
        assert_eq!(symbols.at(0xffff_ffff_8100_01ff), "vfs_read");
        assert_eq!(
            symbols.at(0xffff_ffff_c000_0010),
            "mycrate::foo::bar [rust_vfio]"
        );
        assert_eq!(symbols.at(0xffff_8880_0000_0000), UNKNOWN);
    }

    #[test]
    fn addresses_that_are_hidden_are_an_error() {
        assert!(Symbols::read("0000000000000000 T _text\n").is_err());
        assert!(Symbols::read("not a symbol\n").is_err());
    }
}
