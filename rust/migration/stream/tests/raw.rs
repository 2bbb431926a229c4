// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Records put together by hand, so that they may be wrong.

use super::*;
use crate::crc::Crc32;

/// A setup record put together by hand, so that it may be wrong.
#[derive(Clone)]
pub(super) struct RawSetup {
    pub(super) magic: [u8; 8],
    pub(super) major: u16,
    pub(super) minor: u16,
    pub(super) len: Option<u32>,
    pub(super) phase: u8,
    pub(super) reserved: [u16; 2],
    pub(super) model: Vec<u8>,
    pub(super) count: u16,
    pub(super) params: Vec<u8>,
}

impl RawSetup {
    pub(super) fn new(phase: Phase) -> Self {
        Self {
            magic: MAGIC,
            major: 1,
            minor: 0,
            len: None,
            phase: phase as u8,
            reserved: [0; 2],
            model: MODEL.into(),
            count: 0,
            params: Vec::new(),
        }
    }

    pub(super) fn param(mut self, kind: u8, name: &[u8], value: &[u8]) -> Self {
        self.count += 1;
        self.params.push(kind);
        self.params.push(name.len() as u8);
        self.params.extend((value.len() as u16).to_le_bytes());
        self.params.extend(name);
        self.params.extend(value);
        self
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let len = 28 + self.model.len() + self.params.len();
        let mut out = self.magic.to_vec();
        out.extend(self.major.to_le_bytes());
        out.extend(self.minor.to_le_bytes());
        out.extend(self.len.unwrap_or(len as u32).to_le_bytes());
        out.extend([self.phase, self.reserved[0] as u8]);
        out.extend((self.model.len() as u16).to_le_bytes());
        out.extend(self.count.to_le_bytes());
        out.extend(self.reserved[1].to_le_bytes());
        out.extend(&self.model);
        out.extend(&self.params);
        out.extend(Crc32::of(&out).to_le_bytes());
        out
    }

    pub(super) fn error(&self) -> StreamError {
        error(&self.bytes())
    }
}

/// A section put together by hand.
pub(super) fn raw_section(id: u16, flags: u16, payload: &[u8]) -> Vec<u8> {
    let mut out = id.to_le_bytes().to_vec();
    out.extend(flags.to_le_bytes());
    out.extend((payload.len() as u32).to_le_bytes());
    out.extend(payload);
    out.extend(Crc32::of(&out).to_le_bytes());
    out
}

pub(super) fn error(bytes: &[u8]) -> StreamError {
    read(bytes).0.expect_err("the stream was accepted")
}

pub(super) fn stop_copy() -> RawSetup {
    RawSetup::new(Phase::StopCopy)
}

pub(super) fn with_end(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.extend(raw_section(0, 1, b""));
    bytes
}
