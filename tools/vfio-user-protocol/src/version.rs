// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The first message, in which both sides say what they can.
//!
//! The data is JSON with a NUL behind it. All of it may be missing. What is there has to be of the right type and in bounds;
//! names that nobody knows are passed over.

use crate::refusal::Refusal;
use crate::wire::Reader;
use crate::{Limits, PAGE};
use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// The protocol's major version that this crate speaks.
pub const MAJOR: u16 = 0;
/// The newest minor version that it speaks.
pub const MINOR: u16 = 0;

/// Longest version data that is taken. QEMU's has some 250 bytes.
const MAX_DATA: usize = 16 << 10;

/// What a client says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// The protocol's major version.
    pub major: u16,
    /// The newest minor version of it.
    pub minor: u16,
    /// Descriptors that the client takes with one message.
    pub max_msg_fds: u64,
    /// Most bytes of data that it takes in one message.
    pub max_data_xfer_size: u32,
    /// Whether it would send several writes in one message.
    pub write_multiple: bool,
    /// Whether it speaks of migration as earlier texts of the protocol did. It wants to hear a page size then.
    pub migration: bool,
    /// Whether it is no client but an observer, who wants to be told how the migration of whoever is the client goes on. It is this
    /// project's own; other servers pass over the name, and take an observer for a client.
    pub observer: bool,
}

/// What a server can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Descriptors that it takes with one message.
    pub max_msg_fds: u32,
    /// Most bytes of data that it takes in one message.
    pub max_data_xfer_size: u32,
    /// DMA maps that it keeps at a time.
    pub max_dma_maps: u32,
}

/// Version data as it is written.
#[derive(Default, Deserialize)]
struct Data {
    capabilities: Option<Proposed>,
}

/// A client's capabilities as they are written.
#[derive(Default, Deserialize)]
struct Proposed {
    max_msg_fds: Option<u64>,
    max_data_xfer_size: Option<u64>,
    max_dma_maps: Option<u64>,
    pgsizes: Option<u64>,
    write_multiple: Option<bool>,
    migration: Option<ProposedMigration>,
    #[serde(rename = "rust-vfio-mdev.example/observer")]
    observer: Option<bool>,
}

/// What an observer says of itself, and nothing else.
const OBSERVER: &str = "{\"capabilities\":{\"rust-vfio-mdev.example/observer\":true}}";

#[derive(Deserialize)]
struct ProposedMigration {
    pgsize: Option<u64>,
    max_bitmap_size: Option<u64>,
}

#[derive(Serialize)]
struct Answer {
    capabilities: Agreed,
}

#[derive(Serialize)]
struct Agreed {
    max_msg_fds: u32,
    max_data_xfer_size: u32,
    max_dma_maps: u32,
    pgsizes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    write_multiple: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    migration: Option<AgreedMigration>,
    #[serde(
        rename = "rust-vfio-mdev.example/observer",
        skip_serializing_if = "Option::is_none"
    )]
    observer: Option<bool>,
}

#[derive(Serialize)]
struct AgreedMigration {
    pgsize: u64,
}

impl Proposal {
    /// A client that says nothing of itself.
    pub const fn bare(major: u16, minor: u16) -> Self {
        Self {
            major,
            minor,
            max_msg_fds: 1,
            max_data_xfer_size: Limits::DEFAULT.max_data_xfer_size,
            write_multiple: false,
            migration: false,
            observer: false,
        }
    }

    /// An observer of a device that this crate's newest version is spoken with.
    pub const fn of_observer() -> Self {
        Self {
            observer: true,
            ..Self::bare(MAJOR, MINOR)
        }
    }

    /// What is written of it beside the numbers: that it is an observer.
    pub(crate) const fn data(&self) -> &'static str {
        match self.observer {
            true => OBSERVER,
            false => "",
        }
    }

    /// Takes the body of the message.
    pub(crate) fn decode(body: &[u8]) -> Result<Self, Refusal> {
        let mut reader = Reader::new(body);
        let mut proposal = Self::bare(reader.u16()?, reader.u16()?);
        // What another major version says after that, nobody knows.
        if proposal.major != MAJOR {
            return Ok(proposal);
        }
        match reader.rest() {
            // SPDK's client sends no data.
            [] => Ok(proposal),
            data => proposal.take(data).map(|()| proposal),
        }
    }

    fn take(&mut self, data: &[u8]) -> Result<(), Refusal> {
        if data.len() > MAX_DATA {
            return Err(Refusal::Version("too long"));
        }
        let (last, text) = data.split_last().ok_or(Refusal::Short)?;
        if *last != 0 || text.contains(&0) {
            return Err(Refusal::Version("not one text that ends with a NUL"));
        }
        let data: Data =
            serde_json::from_slice(text).map_err(|_| Refusal::Version("not the right JSON"))?;
        let proposed = data.capabilities.unwrap_or_default();
        if let Some(fds) = proposed.max_msg_fds {
            self.max_msg_fds = fds;
        }
        match proposed.max_data_xfer_size {
            Some(0) => return Err(Refusal::Version("max_data_xfer_size is 0")),
            Some(bytes) => self.max_data_xfer_size = u32::try_from(bytes).unwrap_or(u32::MAX),
            None => {}
        }
        if proposed.max_dma_maps == Some(0) {
            return Err(Refusal::Version("max_dma_maps is 0"));
        }
        if proposed.pgsizes.is_some_and(|sizes| sizes & PAGE == 0) {
            return Err(Refusal::Version("pgsizes has no pages of 4096 bytes"));
        }
        if let Some(migration) = proposed.migration {
            let is_page = |size: u64| size.is_power_of_two() && size >= PAGE;
            if !migration.pgsize.is_none_or(is_page) || migration.max_bitmap_size == Some(0) {
                return Err(Refusal::Version("migration has no page size"));
            }
            self.migration = true;
        }
        self.write_multiple = proposed.write_multiple == Some(true);
        self.observer = proposed.observer == Some(true);
        Ok(())
    }
}

impl Capabilities {
    /// What holds for this client.
    pub fn limits(&self, proposal: &Proposal) -> Limits {
        Limits {
            max_data_xfer_size: self.max_data_xfer_size.min(proposal.max_data_xfer_size),
            write_multiple: proposal.write_multiple,
        }
    }

    /// The version data for this client. Of what one side may do and need not, there is only what the client spoke of.
    pub fn answer(&self, proposal: &Proposal) -> String {
        let answer = Answer {
            capabilities: Agreed {
                max_msg_fds: self.max_msg_fds,
                max_data_xfer_size: self.max_data_xfer_size,
                max_dma_maps: self.max_dma_maps,
                pgsizes: PAGE,
                write_multiple: proposal.write_multiple.then_some(true),
                migration: proposal
                    .migration
                    .then_some(AgreedMigration { pgsize: PAGE }),
                observer: proposal.observer.then_some(true),
            },
        };
        // Numbers always can be written.
        serde_json::to_string(&answer).unwrap_or_default()
    }
}

/// Appends version data as a body.
pub(crate) fn put(out: &mut Vec<u8>, major: u16, minor: u16, data: &str) {
    use crate::wire::Writer;
    out.put16(major).put16(minor);
    if !data.is_empty() {
        out.put(data.as_bytes()).put(&[0]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;

    fn body(data: &[u8]) -> Vec<u8> {
        let mut body = Vec::new();
        put(&mut body, 0, 0, "");
        body.extend_from_slice(data);
        body
    }

    fn decode(data: &[u8]) -> Result<Proposal, Refusal> {
        Proposal::decode(&body(data))
    }

    const OURS: Capabilities = Capabilities {
        max_msg_fds: 16,
        max_data_xfer_size: 1 << 20,
        max_dma_maps: 65535,
    };

    #[test]
    fn what_is_missing_has_the_protocol_s_default() {
        for data in [
            &b""[..],
            b"{}\0",
            b"{\"capabilities\":{}}\0",
            b"{\"capabilities\":null}\0",
            b"{\"capabilities\":{\"spurious\":[[1]]},\"more\":{}}\0",
        ] {
            assert_eq!(decode(data), Ok(Proposal::bare(0, 0)), "{data:?}");
        }
    }

    #[test]
    fn what_qemu_says_is_understood() {
        let proposal = decode(
            b"{\"capabilities\":{\"pgsizes\":4096,\"max_msg_fds\":16,\"max_dma_maps\":65535,\
              \"max_data_xfer_size\":1048576,\"migration\":{\"max_bitmap_size\":268435456,\"pgsize\":4096},\
              \"write_multiple\":true}}\0",
        )
        .expect("QEMU's own words");
        assert!(proposal.write_multiple && proposal.migration);
        assert_eq!(proposal.max_msg_fds, 16);
        assert_eq!(
            OURS.answer(&proposal),
            "{\"capabilities\":{\"max_msg_fds\":16,\"max_data_xfer_size\":1048576,\"max_dma_maps\":65535,\
             \"pgsizes\":4096,\"write_multiple\":true,\"migration\":{\"pgsize\":4096}}}"
        );
    }

    #[test]
    fn nobody_is_offered_what_he_did_not_speak_of() {
        let answer = OURS.answer(&Proposal::bare(0, 0));
        assert!(!answer.contains("write_multiple") && !answer.contains("migration"));
        assert!(!answer.contains("observer"));
    }

    #[test]
    fn an_observer_says_so_and_hears_it_back() {
        let observer = decode(&[OBSERVER.as_bytes(), b"\0"].concat());
        assert_eq!(observer, Ok(Proposal::of_observer()));
        let answer = OURS.answer(&Proposal::of_observer());
        let heard = decode(&[answer.as_bytes(), b"\0"].concat());
        assert!(heard.is_ok_and(|heard| heard.observer), "{answer}");
        let not = OBSERVER.replace("true", "false");
        let not = decode(&[not.as_bytes(), b"\0"].concat());
        assert_eq!(not, Ok(Proposal::bare(0, 0)));
    }

    #[test]
    fn the_smaller_limit_holds() {
        for (theirs, holds) in [
            ("16", 16),
            ("1048576", 1 << 20),
            ("18446744073709551615", 1 << 20),
        ] {
            let data = format!("{{\"capabilities\":{{\"max_data_xfer_size\":{theirs}}}}}\0");
            let proposal = decode(data.as_bytes()).expect(theirs);
            assert_eq!(OURS.limits(&proposal).max_data_xfer_size, holds);
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let deep = [b"[".repeat(MAX_DATA - 1), b"\0".to_vec()].concat();
        let long = [b"[".repeat(1 << 20), b"\0".to_vec()].concat();
        for data in [
            &b"{}"[..],
            b"\0",
            b"{\0}\0",
            b"{}\0\0",
            b"\xff\xfe\0",
            b"{\0",
            b"[]\0",
            b"1\0",
            b"{\"capabilities\":[]}\0",
            &deep,
            &long,
        ] {
            let refused = decode(data).expect_err("nonsense");
            assert_eq!(refused.errno(), 22, "{:?}", &data[..data.len().min(20)]);
        }
        for member in [
            "\"max_msg_fds\":-1",
            "\"max_msg_fds\":18446744073709551616",
            "\"max_msg_fds\":1.5",
            "\"max_msg_fds\":1e400",
            "\"max_msg_fds\":\"16\"",
            "\"max_msg_fds\":1,\"max_msg_fds\":1",
            "\"max_data_xfer_size\":0",
            "\"max_dma_maps\":0",
            "\"pgsizes\":4095",
            "\"pgsizes\":0",
            "\"write_multiple\":1",
            "\"rust-vfio-mdev.example/observer\":1",
            "\"migration\":true",
            "\"migration\":{\"pgsize\":4095}",
            "\"migration\":{\"pgsize\":0}",
            "\"migration\":{\"max_bitmap_size\":0}",
        ] {
            let data = format!("{{\"capabilities\":{{{member}}}}}\0");
            assert!(
                matches!(decode(data.as_bytes()), Err(Refusal::Version(_))),
                "{member}"
            );
        }
    }

    #[test]
    fn another_major_version_is_told_from_nonsense() {
        let mut body = body(b"nobody knows");
        body[..2].copy_from_slice(&99u16.to_ne_bytes());
        assert_eq!(Proposal::decode(&body), Ok(Proposal::bare(99, 0)));
        assert_eq!(Proposal::decode(&[0, 0, 0]), Err(Refusal::Short));
    }
}
