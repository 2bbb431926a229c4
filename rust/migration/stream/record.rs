// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Taking a setup record apart.

use super::{
    FormatVersion, Phase, StreamError, CRC_LEN, FORMAT, MAGIC, MAX_LISTED_PARAMS, MAX_SETUP_LEN,
    SETUP_HEAD_LEN,
};
use crate::crc::Crc32;
use crate::value::{model_problem, name_problem, str_problem, Param, Value};

/// The type bytes of a parameter.
pub(super) const KIND_BOOL: u8 = 1;
pub(super) const KIND_INT: u8 = 2;
pub(super) const KIND_STR: u8 = 3;

/// Reads fields off the front of a slice.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    /// The next `len` bytes.
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (field, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(field)
    }

    /// The next `N` bytes.
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*field)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }
}

/// The fixed part of a setup record that has to be believed before the rest is there.
#[derive(Clone, Copy, Debug)]
pub(super) struct SetupHead {
    version: FormatVersion,
    len: u32,
    phase: u8,
    model_len: u16,
    param_count: u16,
    reserved_is_zero: bool,
}

impl SetupHead {
    /// Takes apart the first [`SETUP_HEAD_LEN`] bytes. Refuses another magic or major version, and
    /// a length that no record has; `max` bounds it further.
    pub(super) fn parse(bytes: &[u8], max: usize) -> Result<(Self, usize), StreamError> {
        // Shorter than the fixed fields only if the caller says so: a file cut off.
        let head = Self::fields(bytes).ok_or(StreamError::Truncated)?;
        if bytes.get(..MAGIC.len()) != Some(&MAGIC) {
            return Err(StreamError::BadMagic);
        }
        if head.version.major != FORMAT.major {
            return Err(StreamError::UnsupportedFormat(head.version));
        }
        let max = max.min(MAX_SETUP_LEN);
        let len = usize::try_from(head.len)
            .ok()
            .filter(|&len| len <= max)
            .ok_or(StreamError::SetupTooLong { len: head.len, max })?;
        if len < SETUP_HEAD_LEN + CRC_LEN {
            return Err(StreamError::SetupTooShort { len: head.len });
        }
        Ok((head, len))
    }

    fn fields(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        fields.take(MAGIC.len())?;
        let version = FormatVersion {
            major: fields.u16()?,
            minor: fields.u16()?,
        };
        let len = fields.u32()?;
        let phase = fields.u8()?;
        let reserved1 = fields.u8()?;
        let model_len = fields.u16()?;
        let param_count = fields.u16()?;
        let reserved2 = fields.u16()?;
        Some(Self {
            version,
            len,
            phase,
            model_len,
            param_count,
            reserved_is_zero: reserved1 == 0 && reserved2 == 0,
        })
    }
}

/// A setup record: what the source is. Everything in it is well formed; whether it suits this
/// device is for the handler to say.
#[derive(Clone, Copy, Debug)]
pub struct SetupRecord<'a> {
    /// The format version of what follows.
    pub version: FormatVersion,
    /// The phase that starts.
    pub phase: Phase,
    /// The device model.
    pub model: &'a str,
    /// Length of the whole record in bytes. One of a later minor version is longer than what is
    /// known of it.
    pub len: usize,
    params: ParamList<'a>,
    model_len: u16,
    body: &'a [u8],
}

impl<'a> SetupRecord<'a> {
    /// Takes apart a whole record, checksum included. Bytes after the record are an error.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, StreamError> {
        let (head, len) = SetupHead::parse(bytes, MAX_SETUP_LEN)?;
        let record = bytes.get(..len).ok_or(StreamError::Truncated)?;
        if bytes.len() > len {
            return Err(StreamError::SetupTrailing);
        }
        let (covered, crc) = record
            .split_last_chunk::<CRC_LEN>()
            .ok_or(StreamError::Truncated)?;
        if Crc32::of(covered) != u32::from_le_bytes(*crc) {
            return Err(StreamError::SetupChecksum);
        }
        let body = covered
            .get(SETUP_HEAD_LEN..)
            .ok_or(StreamError::Truncated)?;
        Self::from_parts(&head, len, body)
    }

    fn from_parts(head: &SetupHead, len: usize, body: &'a [u8]) -> Result<Self, StreamError> {
        let phase = Phase::try_from(head.phase)?;
        // A later minor version may give meaning to what is zero in this one.
        let is_newer = head.version.minor > FORMAT.minor;
        if !head.reserved_is_zero && !is_newer {
            return Err(StreamError::ReservedField);
        }
        let mut fields = Fields(body);
        let model = fields
            .take(usize::from(head.model_len))
            .ok_or(StreamError::BadModel("is longer than the record"))?;
        let model =
            core::str::from_utf8(model).map_err(|_| StreamError::BadModel("is not UTF-8"))?;
        if let Some(problem) = model_problem(model) {
            return Err(StreamError::BadModel(problem));
        }
        let (params, rest) = ParamList::parse(fields, head.param_count)?;
        if !rest.0.is_empty() && !is_newer {
            return Err(StreamError::SetupTrailing);
        }
        Ok(Self {
            version: head.version,
            phase,
            model,
            len,
            params,
            model_len: head.model_len,
            body,
        })
    }

    /// The source's migration parameter list, in its order.
    pub fn params(&self) -> ParamList<'a> {
        self.params
    }

    /// A checksum of everything but the phase. The two records of a stream have the same.
    pub fn digest(&self) -> u32 {
        let mut digest = Crc32::new();
        digest.update(&self.version.major.to_le_bytes());
        digest.update(&self.version.minor.to_le_bytes());
        digest.update(&self.model_len.to_le_bytes());
        digest.update(self.body);
        digest.value()
    }
}

/// The parameters of a setup record: an iterator over [`Param`].
#[derive(Clone, Copy, Debug)]
pub struct ParamList<'a> {
    fields: Fields<'a>,
    left: u16,
}

impl<'a> ParamList<'a> {
    /// A list without entries.
    pub const EMPTY: ParamList<'static> = ParamList {
        fields: Fields(&[]),
        left: 0,
    };

    /// Checks `count` parameters at the front of `fields`; returns them and what follows.
    fn parse(fields: Fields<'a>, count: u16) -> Result<(Self, Fields<'a>), StreamError> {
        // The search for duplicates below is quadratic, so the bound is on work as well.
        if usize::from(count) > MAX_LISTED_PARAMS {
            return Err(StreamError::TooManyParams(count));
        }
        let list = Self {
            fields,
            left: count,
        };
        let mut rest = fields;
        for index in 0..count {
            let bad = |problem| StreamError::BadParam { index, problem };
            let param = Self::entry(&mut rest, true).map_err(bad)?;
            let mut earlier = list.take(usize::from(index));
            if earlier.any(|other| other.name == param.name) {
                return Err(StreamError::DuplicateParam { index });
            }
        }
        Ok((list, rest))
    }

    /// Takes one parameter off the front. Whether its texts are well formed is looked at once, when the list is `new`.
    #[inline]
    fn entry(fields: &mut Fields<'a>, new: bool) -> Result<Param<'a>, &'static str> {
        const SHORT: &str = "is longer than the record";

        let kind = fields.u8().ok_or(SHORT)?;
        let name_len = fields.u8().ok_or(SHORT)?;
        let value_len = fields.u16().ok_or(SHORT)?;
        let name = fields.take(usize::from(name_len)).ok_or(SHORT)?;
        let value = fields.take(usize::from(value_len)).ok_or(SHORT)?;

        let name = core::str::from_utf8(name).map_err(|_| "has a name that is not UTF-8")?;
        if new && name_problem(name).is_some() {
            return Err("has a malformed name");
        }
        let value = match kind {
            KIND_BOOL => match value {
                [0] => Value::Bool(false),
                [1] => Value::Bool(true),
                _ => return Err("has a malformed bool value"),
            },
            KIND_INT => Value::Int(u64::from_le_bytes(
                value.try_into().map_err(|_| "has a malformed int value")?,
            )),
            KIND_STR => {
                let text =
                    core::str::from_utf8(value).map_err(|_| "has a value that is not UTF-8")?;
                if new && str_problem(text).is_some() {
                    return Err("has a malformed str value");
                }
                Value::Str(text)
            }
            _ => return Err("has an unknown type"),
        };
        Ok(Param { name, value })
    }
}

impl<'a> Iterator for ParamList<'a> {
    type Item = Param<'a>;

    fn next(&mut self) -> Option<Param<'a>> {
        self.left = self.left.checked_sub(1)?;
        // All entries were taken apart once before the list came into being.
        Self::entry(&mut self.fields, false).ok()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = usize::from(self.left);
        (left, Some(left))
    }
}

impl ExactSizeIterator for ParamList<'_> {}
