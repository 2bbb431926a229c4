// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The lines of QEMU's machine protocol (QMP), typed by the `qapi` crate.
//!
//! QMP mixes replies and events on one stream, and an event may come before the reply to the command that caused it. So
//! reading and asking are apart here: whoever reads the stream hands every line to [`decode`] and keeps the order; whoever
//! asks sends what [`encode`] made and looks for the reply with its number.

use qapi::qmp::{Event, QapiCapabilities, QmpMessageAny};
use qapi::{Any, Command, Execute};

/// A line from QEMU.
#[derive(Clone, Debug)]
pub enum Message {
    /// The first line: QEMU's version.
    Greeting(String),
    /// Something happened.
    Event(Event),
    /// The answer to the command with this number; the error is QEMU's own text.
    Reply(u64, Result<Any, String>),
    /// A line that the schema of the `qapi` crate does not know, e.g. an event of a newer QEMU.
    Unknown(String),
}

/// Reads one line.
pub fn decode(line: &str) -> Message {
    if let Ok(QapiCapabilities { QMP: greeting }) = serde_json::from_str(line) {
        let version = greeting.version.qemu;
        return Message::Greeting(format!(
            "{}.{}.{}",
            version.major, version.minor, version.micro
        ));
    }
    match serde_json::from_str::<QmpMessageAny>(line) {
        Ok(QmpMessageAny::Event(event)) => Message::Event(event),
        Ok(QmpMessageAny::Response(response)) => match response.id().and_then(Any::as_u64) {
            Some(id) => Message::Reply(id, response.result().map_err(|error| error.desc)),
            None => Message::Unknown(line.to_string()),
        },
        Err(_) => Message::Unknown(line.to_string()),
    }
}

/// The line that asks for `command`; the reply will bear the number `id`.
pub fn encode<C: Command>(command: &C, id: u64) -> serde_json::Result<String> {
    let mut line = serde_json::to_string(&Execute::with_id(command, id))?;
    line.push('\n');
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use qapi::qmp;

    #[test]
    fn a_command_is_one_line_with_its_number() {
        let line = encode(&qmp::query_status {}, 7).unwrap();
        assert_eq!(
            line,
            "{\"execute\":\"query-status\",\"arguments\":{},\"id\":7}\n"
        );
    }

    #[test]
    fn replies_keep_number_and_error() {
        assert!(matches!(
            decode(r#"{"return": {"running": true}, "id": 3}"#),
            Message::Reply(3, Ok(_))
        ));
        let refused = r#"{"id": 4, "error": {"class": "GenericError", "desc": "no"}}"#;
        assert!(matches!(decode(refused), Message::Reply(4, Err(text)) if text == "no"));
    }

    #[test]
    fn events_are_told_from_replies() {
        let line = r#"{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "MIGRATION", "data": {"status": "active"}}"#;
        let Message::Event(Event::MIGRATION { data, .. }) = decode(line) else {
            panic!("not decoded")
        };
        assert_eq!(data.status, qmp::MigrationStatus::active);
    }

    #[test]
    fn the_greeting_tells_the_version() {
        let line = r#"{"QMP": {"version": {"qemu": {"micro": 13, "minor": 0, "major": 10}, "package": "x"}, "capabilities": ["oob"]}}"#;
        assert!(matches!(decode(line), Message::Greeting(version) if version == "10.0.13"));
    }

    #[test]
    fn an_event_of_a_newer_qemu_is_unknown_and_no_error() {
        let line = r#"{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "BREAKFAST"}"#;
        assert!(matches!(decode(line), Message::Unknown(_)));
    }
}
