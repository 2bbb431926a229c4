// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What QEMU writes down when it logs each instruction (`-d in_asm,exec` with one instruction to a translation block): the
//! bytes of an instruction when it meets it first, and its address each time.

use super::instruction::Instruction;
use super::symbols::Symbols;
use super::tree::Tree;
use anyhow::{ensure, Context, Result};
use serde::Deserialize;
use std::collections::HashMap;
use std::io::BufRead;

/// Between which instructions the operation is.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Marks {
    /// The first of a function that is called right before.
    pub begin: u64,
    /// The first of one that is called right after.
    pub end: u64,
}

/// Reads what was executed between the marks.
pub fn read(log: impl BufRead, marks: Marks, symbols: &Symbols) -> Result<Tree> {
    let mut met: HashMap<u64, Vec<u8>> = HashMap::new();
    let mut tree = Tree::new();
    let (mut began, mut ended, mut last) = (false, false, 0);
    for line in log.split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        if let Some((address, bytes, is_whole)) = disassembled(&line) {
            let start = if is_whole { address } else { last };
            let known = met.entry(start).or_default();
            // The bytes of a long instruction go on in a second line.
            known.truncate(if is_whole { 0 } else { known.len() });
            known.extend(bytes);
            last = start;
        } else if let Some(address) = executed(&line) {
            if address == marks.end {
                ended = true;
                break;
            }
            began |= address == marks.begin;
            if began {
                let bytes = met
                    .get(&address)
                    .with_context(|| format!("{address:#x} was executed but not shown"))?;
                tree.execute(address, Instruction::of(bytes), symbols.at(address));
            }
        }
    }
    ensure!(began && ended, "the operation is not in QEMU's log");
    Ok(tree)
}

/// Address and bytes of `0xADDRESS:  BYTES  MNEMONIC …`, and whether there is a mnemonic.
fn disassembled(line: &str) -> Option<(u64, Vec<u8>, bool)> {
    let (address, rest) = line.strip_prefix("0x")?.split_once(':')?;
    let address = u64::from_str_radix(address, 16).ok()?;
    let bytes: Vec<u8> = rest
        .split_whitespace()
        .map_while(|word| (word.len() == 2).then(|| u8::from_str_radix(word, 16).ok())?)
        .collect();
    let words = rest.split_whitespace().count();
    let is_whole = words > bytes.len();
    Some((address, bytes, is_whole))
}

/// Address of `Trace N: HOST [CS/ADDRESS/FLAGS/FLAGS] …`.
fn executed(line: &str) -> Option<u64> {
    let (_, rest) = line.strip_prefix("Trace ")?.split_once('[')?;
    let address = rest.split('/').nth(1)?;
    u64::from_str_radix(address, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    const LOG: &str = "\
----------------
IN: \n\
0x00401000:  90                       nop      \n\
\n\
Trace 0: 0x7f10 [00000000/0000000000401000/00c0b0b3/ff004201] \n\
----------------
IN: \n\
0x00401001:  0f 05                    syscall  \n\
\n\
Trace 0: 0x7f11 [00000000/0000000000401001/00c0b0b3/ff004201] \n\
0xffffffff81000000:  48 b8 88 77 66 55 44 33  movabsq  $0x1122334455667788, %rax\n\
0xffffffff81000008:  22 11\n\
\n\
Trace 0: 0x7f12 [00000000/ffffffff81000000/00c0b0b3/ff004201] entry\n\
0xffffffff8100000a:  90                       nop      \n\
Trace 0: 0x7f12 [00000000/ffffffff8100000a/00c0b0b3/ff004201] entry\n\
0x00402000:  c3                       retq     \n\
Trace 0: 0x7f13 [00000000/0000000000402000/00c0b0b3/ff004201] \n";

    #[test]
    fn what_is_between_the_marks_is_read() {
        let symbols = Symbols::read("ffffffff81000000 T entry\n").unwrap();
        let marks = Marks {
            begin: 0x40_1000,
            end: 0x40_2000,
        };
        let tree = read(Cursor::new(LOG), marks, &symbols).unwrap();
        assert_eq!(tree.total(), 4);
        // One call, of two instructions in a row.
        assert!(tree.text().contains("     2       2      1    entry\n"));
        let elsewhere = Marks { end: 1, ..marks };
        assert!(read(Cursor::new(LOG), elsewhere, &symbols).is_err());
    }
}
