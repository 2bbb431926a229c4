// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What an instruction does to the flow of control, by its bytes.

/// Where the next instruction may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Right behind.
    On,
    /// Somewhere else, or right behind.
    Jump,
    /// In a function that returns behind it.
    Call,
    /// Where the last call was.
    Return,
}

/// An instruction of x86-64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Bytes.
    pub length: u64,
    /// What it does.
    pub flow: Flow,
}

impl Instruction {
    /// By its bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self {
            length: bytes.len() as u64,
            flow: flow(bytes),
        }
    }
}

fn flow(bytes: &[u8]) -> Flow {
    // Legacy prefixes, then REX.
    let is_prefix = |byte: &u8| {
        matches!(
            byte,
            0x26 | 0x2e | 0x36 | 0x3e | 0x64..=0x67 | 0xf0 | 0xf2 | 0xf3
        )
    };
    let start = bytes.iter().take_while(|byte| is_prefix(byte)).count();
    let rest = &bytes[start..];
    let rest = match rest {
        [0x40..=0x4f, rest @ ..] => rest,
        _ => rest,
    };
    // Which operation of a group it is.
    let of_group = |modrm: &u8| (modrm >> 3) & 7;
    match rest {
        [0xe8, ..] | [0x0f, 0x05, ..] => Flow::Call,
        [0xff, modrm, ..] if matches!(of_group(modrm), 2 | 3) => Flow::Call,
        [0xc2 | 0xc3 | 0xca | 0xcb | 0xcf, ..] | [0x0f, 0x07, ..] => Flow::Return,
        [0x70..=0x7f | 0xe0..=0xe3 | 0xe9 | 0xeb, ..] | [0x0f, 0x80..=0x8f, ..] => Flow::Jump,
        [0xff, modrm, ..] if matches!(of_group(modrm), 4 | 5) => Flow::Jump,
        _ => Flow::On,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_the_flow_is_known_by_its_bytes() {
        for (bytes, expected) in [
            (&[0xe8, 1, 2, 3, 4][..], Flow::Call),   // call rel32
            (&[0x2e, 0xe8, 1, 2, 3, 4], Flow::Call), // the same with a prefix
            (&[0xff, 0xd0], Flow::Call),             // call *%rax
            (&[0x41, 0xff, 0x53, 0x08], Flow::Call), // call *8(%r11)
            (&[0x0f, 0x05], Flow::Call),             // syscall
            (&[0xc3], Flow::Return),                 // ret
            (&[0xf3, 0xc3], Flow::Return),           // repz ret
            (&[0x48, 0xcf], Flow::Return),           // iretq
            (&[0x48, 0x0f, 0x07], Flow::Return),     // sysretq
            (&[0xeb, 0x10], Flow::Jump),             // jmp rel8
            (&[0x0f, 0x84, 1, 2, 3, 4], Flow::Jump), // je rel32
            (&[0x41, 0xff, 0xe3], Flow::Jump),       // jmp *%r11
            (&[0x48, 0x89, 0xe5], Flow::On),         // mov %rsp,%rbp
            (&[0xf3, 0x48, 0xa5], Flow::On),         // rep movsq
            (&[0xff, 0x05, 1, 2, 3, 4], Flow::On),   // incl
            (&[0x0f, 0x1f, 0x44, 0, 0], Flow::On),   // nopl
        ] {
            assert_eq!(Instruction::of(bytes).flow, expected, "{bytes:x?}");
        }
    }
}
