// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Somebody on a control socket, who can say anything. All that is heard is held against the schema.

use std::io::{BufRead, BufReader, ErrorKind, IoSlice, Write};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::sync::LazyLock;
use std::time::Duration;

use jsonschema::Validator;
use rustix::net::{sendmsg, SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use serde_json::{json, Value};
use vfio_user_device::control::commands::SCHEMA;

/// Longer than anything takes that goes well.
const LIMIT: Duration = Duration::from_secs(30);

fn validator(of: &str) -> Validator {
    let mut schema: Value = serde_json::from_str(SCHEMA).expect("JSON");
    schema["$ref"] = format!("#/$defs/{of}").into();
    jsonschema::validator_for(&schema).expect("a schema")
}

pub fn fits(of: &str, value: &Value) {
    let errors: Vec<String> = validator(of)
        .iter_errors(value)
        .map(|e| e.to_string())
        .collect();
    assert!(errors.is_empty(), "{of}: {value}: {errors:?}");
}

static SAID: LazyLock<Validator> = LazyLock::new(|| validator("said"));

pub struct Speaker {
    pub socket: UnixStream,
    reader: BufReader<UnixStream>,
}

impl Speaker {
    pub fn new(socket: UnixStream) -> Self {
        socket.set_read_timeout(Some(LIMIT)).expect("a limit");
        socket.set_write_timeout(Some(LIMIT)).expect("a limit");
        let reader = BufReader::new(socket.try_clone().expect("a socket"));
        Self { socket, reader }
    }

    /// Sends bytes, whatever they are.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).expect("the program listens");
    }

    /// Sends bytes, and descriptors with them.
    pub fn raw_with(&mut self, bytes: &[u8], fds: &[BorrowedFd<'_>]) {
        let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(fds)));
        let parts = [IoSlice::new(bytes)];
        let sent = sendmsg(&self.socket, &parts, &mut ancillary, SendFlags::NOSIGNAL);
        assert_eq!(sent, Ok(bytes.len()));
    }

    /// The next line; none when the program has closed the connection.
    pub fn line(&mut self) -> Option<Value> {
        let mut line = String::new();
        match self.reader.read_line(&mut line) {
            Ok(0) => return None,
            // It had not read all that was sent.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
            read => read.expect("a line in time"),
        };
        assert!(line.ends_with("\r\n"), "{line}");
        let value: Value = serde_json::from_str(&line).expect("JSON");
        assert!(SAID.is_valid(&value), "not of the schema: {value}");
        Some(value)
    }

    /// The next message.
    pub fn hear(&mut self) -> Value {
        self.line().expect("a message")
    }

    pub fn is_closed(&mut self) {
        assert_eq!(self.line(), None);
    }

    /// Gives a command of QMP, and takes what is returned, or the error.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Result<Value, Value> {
        let wish = json!({"execute": command, "arguments": arguments, "id": 7});
        self.raw(wish.to_string().as_bytes());
        let mut answer = self.hear();
        assert_eq!(answer["id"], 7);
        match answer.get_mut("return") {
            Some(value) => {
                let value = value.take();
                fits("wish", &wish);
                fits(&format!("{command}.returns"), &value);
                Ok(value)
            }
            None => Err(answer["error"].take()),
        }
    }

    /// Gives one that succeeds.
    pub fn ok(&mut self, command: &str, arguments: Value) -> Value {
        self.execute(command, arguments).expect("it succeeds")
    }

    /// Gives one that is refused: the error number, and what is said.
    pub fn refused(&mut self, command: &str, arguments: Value) -> (Option<u64>, String) {
        let error = self.execute(command, arguments).expect_err("it is refused");
        let desc = error["desc"].as_str().expect("a text");
        (error["errno"].as_u64(), desc.to_string())
    }

    /// Sees that the program still follows.
    pub fn in_step(&mut self) {
        self.ok("query-commands", json!({}));
    }

    /// Makes a device with a socket that has its name.
    pub fn add(&mut self, many: &super::Many, name: &str) -> Value {
        let socket = many.path(name);
        self.ok("device-add", json!({"id": name, "socket": socket}))
    }
}
