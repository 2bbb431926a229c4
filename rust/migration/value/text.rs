// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What text may be a name, a string value, a model. All of it `const`, so that tables are checked
//! when they are compiled with the same code that checks a stream at run time.

use super::{MAX_MODEL_LEN, MAX_NAME_LEN, MAX_STR_LEN};

/// Names that no parameter and no version may have: they are other files of the same directory, or
/// (`custom`) what the version file reads when no version matches.
pub const RESERVED_NAMES: &[&str] = &[
    "device_model",
    "version",
    "compatible",
    "error",
    "state",
    "phase",
    "bytes",
    "sessions",
    ".",
    "..",
    "custom",
];

/// The first Unicode scalar value of a string's bytes, and the bytes after it; `None` at the end.
const fn first_scalar(bytes: &[u8]) -> Option<(u32, &[u8])> {
    const fn tail(byte: u8) -> u32 {
        (byte & 0x3f) as u32
    }

    Some(match *bytes {
        [a @ 0x00..=0x7f, ref rest @ ..] => (a as u32, rest),
        [a @ 0xc0..=0xdf, b, ref rest @ ..] => (((a as u32 & 0x1f) << 6) | tail(b), rest),
        [a @ 0xe0..=0xef, b, c, ref rest @ ..] => {
            (((a as u32 & 0x0f) << 12) | (tail(b) << 6) | tail(c), rest)
        }
        [a, b, c, d, ref rest @ ..] => {
            let high = ((a as u32 & 0x07) << 18) | (tail(b) << 12);
            (high | (tail(c) << 6) | tail(d), rest)
        }
        _ => return None,
    })
}

/// White space as Unicode defines it (property White_Space).
const fn is_white_space(scalar: u32) -> bool {
    matches!(
        scalar,
        0x09..=0x0d
            | 0x20
            | 0x85
            | 0xa0
            | 0x1680
            | 0x2000..=0x200a
            | 0x2028
            | 0x2029
            | 0x202f
            | 0x205f
            | 0x3000
    )
}

/// Control characters (Unicode category Cc).
const fn is_control(scalar: u32) -> bool {
    matches!(scalar, 0x00..=0x1f | 0x7f..=0x9f)
}

/// Whether the byte is a character that may be anywhere: most are, and need no closer look.
const fn is_plain(byte: u8) -> bool {
    byte > b' ' && byte < 0x7f && byte != b'/' && byte != b'='
}

/// The bytes from the first one on that is not plain.
const fn skip_plain(mut bytes: &[u8]) -> &[u8] {
    while let [byte, rest @ ..] = bytes {
        if !is_plain(*byte) {
            break;
        }
        bytes = rest;
    }
    bytes
}

/// What is wrong with a parameter or version name, if anything. Reserved names are well formed:
/// see [`RESERVED_NAMES`].
pub const fn name_problem(name: &str) -> Option<&'static str> {
    if name.len() > MAX_NAME_LEN {
        return Some("is longer than 64 bytes");
    }
    name_form_problem(name)
}

/// [`name_problem`] of a name that may have any length: it can be spoken of, if not be had here.
pub const fn name_form_problem(name: &str) -> Option<&'static str> {
    let bytes = name.as_bytes();
    if bytes.is_empty() {
        return Some("is empty");
    }
    let mut left = skip_plain(bytes);
    while let Some((scalar, rest)) = first_scalar(left) {
        if scalar == '=' as u32 || scalar == '/' as u32 {
            return Some("contains '=' or '/'");
        }
        if is_white_space(scalar) || is_control(scalar) {
            return Some("contains white space or a control character");
        }
        left = skip_plain(rest);
    }
    None
}

/// Whether a text is printable ASCII, space to tilde, of up to so many characters.
pub const fn is_ascii_of(text: &str, max: usize) -> bool {
    let mut left = text.as_bytes();
    if left.len() > max {
        return false;
    }
    while let [byte, rest @ ..] = left {
        if !matches!(*byte, b' '..=b'~') {
            return false;
        }
        left = rest;
    }
    true
}

/// What is wrong with a string value, if anything. An empty one is well formed.
pub const fn str_problem(text: &str) -> Option<&'static str> {
    let bytes = text.as_bytes();
    if bytes.len() > MAX_STR_LEN {
        return Some("is longer than 64 bytes");
    }
    let mut left = skip_plain(bytes);
    while let Some((scalar, rest)) = first_scalar(left) {
        // U+2028 and U+2029 are the newlines that are not control characters.
        if is_control(scalar) || scalar == 0x2028 || scalar == 0x2029 {
            return Some("contains a newline or another control character");
        }
        left = skip_plain(rest);
    }
    None
}

/// What is wrong with a device model string, if anything: a domain name, then path parts after
/// `/`, none of them empty.
pub const fn model_problem(model: &str) -> Option<&'static str> {
    if model.len() > MAX_MODEL_LEN {
        return Some("is longer than 128 bytes");
    }
    model_form_problem(model)
}

/// [`model_problem`] of a string that may have any length.
pub const fn model_form_problem(model: &str) -> Option<&'static str> {
    let mut left = model.as_bytes();
    let mut part_is_empty = true;
    while let Some((scalar, rest)) = first_scalar(left) {
        if is_white_space(scalar) || is_control(scalar) {
            return Some("contains white space or a control character");
        }
        if scalar == '/' as u32 {
            if part_is_empty {
                break;
            }
            part_is_empty = true;
            left = rest;
        } else {
            part_is_empty = false;
            left = skip_plain(rest);
        }
    }
    if part_is_empty {
        return Some("has an empty part");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::String;

    #[test]
    fn every_character_is_classed_as_the_standard_library_does() {
        for c in '\0'..=char::MAX {
            let mut buffer = [0; 4];
            let text = c.encode_utf8(&mut buffer);
            assert_eq!(first_scalar(text.as_bytes()), Some((c as u32, &[][..])));
            assert_eq!(is_white_space(c as u32), c.is_whitespace(), "{c:?}");
            assert_eq!(is_control(c as u32), c.is_control(), "{c:?}");
            let plain = skip_plain(text.as_bytes()).is_empty();
            assert_eq!(plain, c.is_ascii_graphic() && c != '/' && c != '=', "{c:?}");
        }
    }

    #[test]
    fn malformed_names_are_found() {
        for name in ["a", "num-ports", "größe", "日本語", "x.y", "custom"] {
            assert_eq!(name_problem(name), None, "{name}");
        }
        for name in ["", "a=b", "a/b", "a b", "a\n", "\0", "x\u{a0}y", "\u{3000}"] {
            assert!(name_problem(name).is_some(), "{name:?}");
        }
        let longest = String::from_utf8(std::vec![b'n'; MAX_NAME_LEN]).unwrap();
        assert_eq!(name_problem(&longest), None);
        let longer = longest + "n";
        assert!(name_problem(&longer).is_some());
        assert_eq!(name_form_problem(&longer), None);
        assert!(name_form_problem(&(longer + "=")).is_some());
    }

    #[test]
    fn malformed_string_values_are_found() {
        for text in ["", "a b", "=", "/dev/null", "höhe"] {
            assert_eq!(str_problem(text), None, "{text}");
        }
        for text in ["a\nb", "a\n", "\r", "\0", "\u{2028}", "\u{85}"] {
            assert!(str_problem(text).is_some(), "{text:?}");
        }
        let longest = String::from_utf8(std::vec![b'v'; MAX_STR_LEN]).unwrap();
        assert_eq!(str_problem(&longest), None);
        assert!(str_problem(&(longest + "v")).is_some());
    }

    #[test]
    fn malformed_models_are_found() {
        for model in ["virtio-spec.org/pci/virtio-blk", "example", "a/b"] {
            assert_eq!(model_problem(model), None, "{model}");
        }
        for model in ["", "/", "a/", "/a", "a//b", "a b", "a/b\n"] {
            assert!(model_problem(model).is_some(), "{model:?}");
        }
        let longest = String::from_utf8(std::vec![b'm'; MAX_MODEL_LEN]).unwrap();
        assert_eq!(model_problem(&longest), None);
        let longer = longest + "m";
        assert!(model_problem(&longer).is_some());
        assert_eq!(model_form_problem(&longer), None);
        assert!(model_form_problem(&(longer + "/")).is_some());
    }
}
