// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Text for terminals: what comes from outside is shown without its control characters.

use std::borrow::Cow;
use std::fmt::Write;

/// Most characters of outside text that go into a message.
const MAX_SHOWN: usize = 240;

/// Whether the character would do something to a terminal in place of being shown there: move the cursor, end the line, or
/// change the direction of the text around it.
fn is_control(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn replaced(text: &str, escape: impl Fn(char) -> Option<String>) -> Cow<'_, str> {
    if !text.contains(is_control) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match is_control(c).then(|| escape(c)).flatten() {
            Some(escaped) => shown.push_str(&escaped),
            None => shown.push(c),
        }
    }
    Cow::Owned(shown)
}

/// The text as one line that a terminal shows whole: control characters are spelt out.
pub fn visible(text: &str) -> Cow<'_, str> {
    replaced(text, |c| match c {
        '\n' => Some("\\n".to_string()),
        c => Some(format!("\\u{{{:x}}}", u32::from(c))),
    })
}

/// A JSON document with the control characters in its strings spelt out: the same document. Newlines are between its tokens.
pub fn json_visible(document: &str) -> Cow<'_, str> {
    // None of them is beyond U+FFFF.
    replaced(document, |c| {
        (c != '\n').then(|| format!("\\u{:04x}", u32::from(c)))
    })
}

/// The text without what would move a cursor or end the line, and cut if it is long.
pub fn one_line(text: &str) -> String {
    let text = visible(text);
    match text.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.into_owned(),
    }
}

/// Bytes for people: `999 B`, `1.2 KiB`, `3.4 MiB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    // Tenths, rounded to the nearest; integers, so that it is exact.
    let mut unit = 0;
    let mut scale = 1024u64;
    while bytes / scale >= 1024 && unit + 1 < UNITS.len() {
        scale *= 1024;
        unit += 1;
    }
    let tenths = bytes / scale * 10 + (bytes % scale * 10 + scale / 2) / scale;
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

/// Lays rows out in columns, two spaces apart. The first row is the head.
#[derive(Debug, Default)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these heads.
    pub fn new(heads: &[&str]) -> Self {
        Self {
            rows: vec![heads.iter().map(|head| (*head).to_string()).collect()],
        }
    }

    /// Adds a row. Cells are shown without control characters.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows
            .push(cells.map(|cell| visible(&cell).into_owned()).into());
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                write!(line, "{cell:<width$}  ", width = *width)?;
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outside_text_cannot_move_the_cursor() {
        assert_eq!(
            one_line("a\x1b[2Jb\nc\u{202e}d"),
            "a\\u{1b}[2Jb\\nc\\u{202e}d"
        );
        assert_eq!(one_line(&"x".repeat(300)).chars().count(), MAX_SHOWN + 1);
        // Every way there is to put a terminal or a reader wrong; and what is only unusual stays.
        for c in ('\0'..' ')
            .chain('\u{7f}'..'\u{a0}')
            .chain("\u{61c}\u{200e}\u{2028}\u{2066}".chars())
        {
            assert!(!visible(&format!("a{c}b")).contains(c), "{c:?}");
        }
        assert_eq!(
            visible("\u{e9}\u{200b}\u{fffd}\u{a0}"),
            "\u{e9}\u{200b}\u{fffd}\u{a0}"
        );
    }

    #[test]
    fn a_json_document_stays_the_same_without_control_characters() {
        let document =
            serde_json::json!({"a\u{9b}2J\n\t\u{7f}": ["\u{202e}\u{2028}\\u001b", "\x1b"]});
        for text in [document.to_string(), format!("{document:#}")] {
            let shown = json_visible(&text);
            assert!(
                !shown.contains(|c: char| is_control(c) && c != '\n'),
                "{shown:?}"
            );
            assert_eq!(
                serde_json::from_str::<serde_json::Value>(&shown).unwrap(),
                document
            );
        }
    }

    #[test]
    fn sizes_are_rounded_to_a_tenth() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (1 << 20, "1.0 MiB"),
            (u64::MAX, "16777216.0 TiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }
}
