// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The accesses that a bus makes.

/// How much an access transfers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Width {
    /// One byte.
    Byte,
    /// Two bytes.
    Word,
    /// Four bytes.
    Dword,
}

impl Width {
    /// Every width, narrowest first.
    pub const ALL: [Width; 3] = [Width::Byte, Width::Word, Width::Dword];

    /// The number of bytes.
    pub const fn bytes(self) -> u32 {
        match self {
            Width::Byte => 1,
            Width::Word => 2,
            Width::Dword => 4,
        }
    }

    /// The value of an access of this width with all bits set: what is read where nobody answers.
    pub const fn ones(self) -> u32 {
        match self {
            Width::Byte => 0xff,
            Width::Word => 0xffff,
            Width::Dword => 0xffff_ffff,
        }
    }
}

/// An access: 1, 2 or 4 bytes, aligned to its own width, so it never crosses a dword.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    offset: u32,
    width: Width,
}

impl Access {
    /// The access of `len` bytes at `offset`. `None`: no bus makes such an access.
    pub const fn new(offset: u64, len: usize) -> Option<Access> {
        let width = match len {
            1 => Width::Byte,
            2 => Width::Word,
            4 => Width::Dword,
            _ => return None,
        };
        if offset > 0xffff_ffff || offset % width.bytes() as u64 != 0 {
            return None;
        }
        Some(Access {
            offset: offset as u32,
            width,
        })
    }

    /// Where it starts, in bytes from the start of the space it is made in.
    pub const fn offset(self) -> u32 {
        self.offset
    }

    /// How much it transfers.
    pub const fn width(self) -> Width {
        self.width
    }

    /// The same access in a space that starts `base` bytes later. `None`: it begins before that.
    pub const fn relative_to(self, base: u32) -> Option<Access> {
        match (self.offset.checked_sub(base), base % 4) {
            (Some(offset), 0) => Some(Access {
                offset,
                width: self.width,
            }),
            _ => None,
        }
    }

    /// The offset of the dword that the access is in.
    pub const fn dword(self) -> u32 {
        self.offset & !3
    }

    /// What the access sees of the dword it is in.
    pub const fn of_dword(self, dword: u32) -> u32 {
        (dword >> ((self.offset & 3) * 8)) & self.width.ones()
    }

    /// Whether some of its bytes are among the `len` bytes at `offset`.
    pub const fn touches(self, offset: u32, len: u32) -> bool {
        let end = self.offset as u64 + self.width.bytes() as u64;
        (self.offset as u64) < offset as u64 + len as u64 && end > offset as u64
    }

    /// Reads what it sees of little-endian bytes; those beyond the end are zero.
    pub fn of_bytes(self, bytes: &[u8]) -> u32 {
        let mut value = [0; 4];
        let seen = bytes.get(self.offset as usize..).unwrap_or_default();
        let len = self.width.bytes() as usize;
        for (to, from) in value.iter_mut().zip(seen.iter().take(len)) {
            *to = *from;
        }
        u32::from_le_bytes(value)
    }
}
