// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What a text wants, and what is answered: QMP and JSON-RPC 2.0.

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use serde_json::{json, Value};

use crate::registry;

/// The end of a line, which is also the end of a message that goes out.
pub const END: &str = "\r\n";

/// The form that a wish came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// QEMU's machine protocol.
    Qmp,
    /// JSON-RPC 2.0.
    JsonRpc,
}

/// A wish.
#[derive(Debug)]
pub struct Call {
    /// In which form it came.
    pub form: Form,
    /// The command.
    pub command: String,
    /// What is said about it: an object.
    pub arguments: Option<Box<RawValue>>,
    /// What the answer is to have with it.
    pub id: Option<Box<RawValue>>,
}

impl Call {
    /// Whether it is to be answered.
    pub fn wants_answer(&self) -> bool {
        self.form == Form::Qmp || self.id.is_some()
    }
}

/// Why something was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It is no JSON.
    #[error("it is no JSON: {0}")]
    Parse(String),
    /// It is no wish.
    #[error("{0}")]
    Envelope(String),
    /// There is no such command.
    #[error("there is no command {0}")]
    NoCommand(String),
    /// QMP has not been agreed on.
    #[error("'qmp_capabilities' comes first")]
    NotAgreed,
    /// Not what the command takes.
    #[error("{0}")]
    Arguments(String),
    /// The registry refuses.
    #[error(transparent)]
    Device(#[from] registry::Error),
    /// A file refuses, with an error number.
    #[error("{what}")]
    File {
        /// Which one, and why.
        what: String,
        /// The error number.
        errno: u32,
    },
}

impl Fault {
    fn class(&self) -> &'static str {
        match self {
            Self::NoCommand(_) | Self::NotAgreed => "CommandNotFound",
            Self::Device(registry::Error::NoDevice(_)) => "DeviceNotFound",
            _ => "GenericError",
        }
    }

    fn errno(&self) -> Option<u32> {
        match self {
            Self::Device(error) => Some(error.errno()),
            Self::File { errno, .. } => Some(*errno),
            _ => None,
        }
    }

    /// The codes of JSON-RPC's text, and otherwise the negative error number, as SPDK has it.
    fn code(&self) -> i64 {
        match self {
            Self::Parse(_) => -32700,
            Self::Envelope(_) => -32600,
            Self::NoCommand(_) | Self::NotAgreed => -32601,
            Self::Arguments(_) => -32602,
            _ => -i64::from(self.errno().unwrap_or(0)),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    execute: Option<String>,
    arguments: Option<Box<RawValue>>,
    jsonrpc: Option<String>,
    method: Option<String>,
    params: Option<Box<RawValue>>,
    #[serde(default, deserialize_with = "present")]
    id: Option<Box<RawValue>>,
}

/// `null` is something else than nothing.
fn present<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Deserialize::deserialize(from).map(Some)
}

/// A wish that cannot be followed, and what is known of it.
#[derive(Debug)]
pub struct Unclear {
    /// In which form it came, if that can be told.
    pub form: Option<Form>,
    /// Its id.
    pub id: Option<Box<RawValue>>,
    /// What is wrong.
    pub fault: Fault,
}

/// Wishes of a text.
#[derive(Debug)]
pub enum Wishes {
    /// One.
    One(Result<Call, Unclear>),
    /// Several, whose answers go together: JSON-RPC.
    Batch(Vec<Result<Call, Unclear>>),
}

/// Most wishes that go together.
pub const MAX_BATCH: usize = 16;

/// What a text wants.
pub fn parse(text: &[u8]) -> Wishes {
    let unclear = |form, fault| {
        Err(Unclear {
            form,
            id: None,
            fault,
        })
    };
    // What is no JSON is that first, whatever its beginning looks like.
    if let Err(error) = serde_json::from_slice::<IgnoredAny>(text) {
        return Wishes::One(unclear(None, Fault::Parse(error.to_string())));
    }
    if !text.trim_ascii_start().starts_with(b"[") {
        return Wishes::One(call(text));
    }
    let form = Some(Form::JsonRpc);
    let batch: Vec<Box<RawValue>> = match serde_json::from_slice(text) {
        Ok(batch) => batch,
        Err(error) => return Wishes::One(unclear(form, Fault::Parse(error.to_string()))),
    };
    if batch.is_empty() || batch.len() > MAX_BATCH {
        let fault = Fault::Envelope(format!("a batch has 1 to {MAX_BATCH} requests"));
        return Wishes::One(unclear(form, fault));
    }
    let call = |text: &RawValue| match call(text.get().as_bytes()) {
        Ok(Call {
            form: Form::Qmp,
            id,
            ..
        }) => Err(Unclear {
            form,
            id,
            fault: Fault::Envelope("a batch has requests of JSON-RPC only".to_string()),
        }),
        Err(unclear) => Err(Unclear { form, ..unclear }),
        call => call,
    };
    Wishes::Batch(batch.iter().map(|text| call(text)).collect())
}

fn call(text: &[u8]) -> Result<Call, Unclear> {
    let envelope: Envelope = serde_json::from_slice(text).map_err(|error| Unclear {
        form: None,
        id: None,
        fault: match error.classify() {
            serde_json::error::Category::Data => Fault::Envelope(error.to_string()),
            _ => Fault::Parse(error.to_string()),
        },
    })?;
    let (form, mut id) = (envelope.form(), envelope.id.clone());
    if form == Some(Form::JsonRpc) && id.as_deref().is_some_and(is_composite) {
        id = None;
    }
    envelope.call().map_err(|what| Unclear {
        form,
        id,
        fault: Fault::Envelope(what.to_string()),
    })
}

/// Whether it is nothing that JSON-RPC has as an id.
fn is_composite(id: &RawValue) -> bool {
    id.get().starts_with(['{', '[', 't', 'f'])
}

impl Envelope {
    fn form(&self) -> Option<Form> {
        match (&self.execute, &self.jsonrpc, &self.method) {
            (Some(_), None, None) => Some(Form::Qmp),
            (None, None, None) => None,
            _ => Some(Form::JsonRpc),
        }
    }

    fn call(self) -> Result<Call, &'static str> {
        let is_object =
            |value: &Option<Box<RawValue>>| match value.as_ref().map(|value| value.get()) {
                Some(text) => text.starts_with('{'),
                None => true,
            };
        match self.form() {
            Some(Form::Qmp) => {
                if self.params.is_some() {
                    return Err("'params' goes with 'method'");
                }
                if !is_object(&self.arguments) {
                    return Err("'arguments' is an object");
                }
                Ok(Call {
                    form: Form::Qmp,
                    command: self.execute.unwrap_or_default(),
                    arguments: self.arguments,
                    id: self.id,
                })
            }
            Some(Form::JsonRpc) => {
                if self.jsonrpc.as_deref() != Some("2.0") {
                    return Err("'jsonrpc' is \"2.0\"");
                }
                if self.arguments.is_some() || self.execute.is_some() {
                    return Err("'execute' and 'arguments' are not of JSON-RPC");
                }
                if !is_object(&self.params) {
                    return Err("'params' is an object: parameters have names");
                }
                if self.id.as_deref().is_some_and(is_composite) {
                    return Err("'id' is a string, a number or null");
                }
                Ok(Call {
                    form: Form::JsonRpc,
                    command: self.method.ok_or("there is no 'method'")?,
                    arguments: self.params,
                    id: self.id,
                })
            }
            None => Err("there is no 'execute', and no 'method'"),
        }
    }
}

/// An answer, as it goes out.
#[derive(Serialize)]
#[serde(untagged)]
enum Answer<'a> {
    Returned {
        #[serde(rename = "return")]
        value: &'a Value,
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a RawValue>,
    },
    Failed {
        error: Value,
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a RawValue>,
    },
    Result {
        jsonrpc: &'a str,
        result: &'a Value,
        id: Option<&'a RawValue>,
    },
    Error {
        jsonrpc: &'a str,
        error: Value,
        id: Option<&'a RawValue>,
    },
}

/// The text of an answer, without the end of its line.
pub fn answer(form: Form, id: Option<&RawValue>, result: &Result<Value, Fault>) -> String {
    let jsonrpc = "2.0";
    let answer = match (form, result) {
        (Form::Qmp, Ok(value)) => Answer::Returned { value, id },
        (Form::Qmp, Err(fault)) => Answer::Failed {
            error: error_of_qmp(fault),
            id,
        },
        (Form::JsonRpc, Ok(result)) => Answer::Result {
            jsonrpc,
            result,
            id,
        },
        (Form::JsonRpc, Err(fault)) => Answer::Error {
            jsonrpc,
            error: error_of_jsonrpc(fault),
            id,
        },
    };
    // Nothing in it fails to be written.
    serde_json::to_string(&answer).unwrap_or_default()
}

fn error_of_qmp(fault: &Fault) -> Value {
    let (class, desc) = (fault.class(), fault.to_string());
    match fault.errno() {
        Some(errno) => json!({"class": class, "desc": desc, "errno": errno}),
        None => json!({"class": class, "desc": desc}),
    }
}

fn error_of_jsonrpc(fault: &Fault) -> Value {
    json!({"code": fault.code(), "message": fault.to_string()})
}

/// What the program says of its version.
pub fn version() -> Value {
    let number = |text: &str| text.parse::<u64>().unwrap_or(0);
    json!({
        "qemu": {
            "major": number(env!("CARGO_PKG_VERSION_MAJOR")),
            "minor": number(env!("CARGO_PKG_VERSION_MINOR")),
            "micro": number(env!("CARGO_PKG_VERSION_PATCH")),
        },
        "package": concat!("vfio-user-device ", env!("CARGO_PKG_VERSION")),
    })
}

/// What a client of QMP hears first.
pub fn greeting() -> String {
    let greeting = json!({"QMP": {"version": version(), "capabilities": []}});
    format!("{greeting}{END}")
}

/// What a client hears that is one too many.
pub fn full(most: usize) -> String {
    let desc = format!("there are {most} control clients already");
    let error = json!({"error": {"class": "GenericError", "desc": desc}});
    format!("{error}{END}")
}

/// Something has happened, in the form in which a client asked to be told.
pub fn event(form: Form, name: &str, data: &Value, since_epoch: std::time::Duration) -> String {
    let timestamp = json!({
        "seconds": since_epoch.as_secs(),
        "microseconds": since_epoch.subsec_micros(),
    });
    let event = match form {
        Form::Qmp => json!({"event": name, "data": data, "timestamp": timestamp}),
        Form::JsonRpc => json!({
            "jsonrpc": "2.0",
            "method": name,
            "params": {"data": data, "timestamp": timestamp},
        }),
    };
    format!("{event}{END}")
}
