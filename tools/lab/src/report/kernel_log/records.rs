// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The two forms in which the kernel's log leaves the machine: records of /dev/kmsg and lines on the console.

/// Levels of printk, worst first.
pub const LEVELS: [&str; 8] = [
    "emerg", "alert", "crit", "err", "warn", "notice", "info", "debug",
];

/// Facility of messages that user space wrote.
const KERNEL_FACILITY: u32 = 0;

/// One line of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// `None` if only the console showed it.
    pub level: Option<u8>,
    /// Since boot.
    pub micros: u64,
    /// Without time and level.
    pub text: String,
    /// Not written to the log by user space.
    pub from_kernel: bool,
}

/// A record of /dev/kmsg: `priority,sequence,microseconds,flags;text`, then lines of properties that start with a blank
/// (Documentation/ABI/testing/dev-kmsg of the kernel). A text of several lines becomes several records.
pub fn parse_kmsg(record: &str) -> Vec<Record> {
    let Some((prefix, rest)) = record.split_once(';') else {
        return vec![];
    };
    let mut fields = prefix.split(',');
    let Some(priority) = fields.next().and_then(|field| field.parse::<u32>().ok()) else {
        return vec![];
    };
    let micros = fields
        .nth(1)
        .and_then(|field| field.parse().ok())
        .unwrap_or(0);
    let text = unescape(rest.lines().next().unwrap_or_default());
    let one = |line: &str| Record {
        level: Some((priority & 7) as u8),
        micros,
        text: line.to_owned(),
        from_kernel: priority >> 3 == KERNEL_FACILITY,
    };
    text.lines().map(one).collect()
}

/// Undoes `\xNN`, with which the kernel hides what is not printable ASCII.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let code = rest
            .strip_prefix(b"\\x")
            .and_then(|hex| std::str::from_utf8(hex.get(..2)?).ok());
        match code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &rest[4..];
            }
            None => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A line of the console: `[    1.234567] text`.
pub fn parse_console(line: &str) -> Option<Record> {
    let (stamp, text) = line
        .trim_end_matches('\r')
        .strip_prefix('[')?
        .split_once("] ")?;
    let (seconds, fraction) = stamp.trim().split_once('.')?;
    let micros = seconds.parse::<u64>().ok()? * 1_000_000 + fraction.parse::<u64>().ok()?;
    Some(Record {
        level: None,
        micros,
        text: text.to_owned(),
        from_kernel: true,
    })
}
