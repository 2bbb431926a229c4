// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What is said of a document when the document itself is gone: once for people, once for programs.

use migration::check::Reason;
use migration::model::{Allowed, Unmet};
use migration::value::{InWords, Param, Value};
use serde_json::{json, Value as Json};

/// Something that was found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// One line for people.
    pub text: String,
    /// An object for programs.
    pub record: Json,
}

/// A value as JSON has it.
pub fn json_value(value: &Value<'_>) -> Json {
    match value {
        Value::Bool(value) => json!(value),
        Value::Int(value) => json!(value),
        Value::Str(text) => json!(text),
    }
}

/// Values as `allowed_values` has them: a range is a string. Null if they are not listed.
fn json_allowed(allowed: &Allowed<'_>) -> Json {
    match allowed {
        Allowed::Any | Allowed::Ascii { .. } => Json::Null,
        Allowed::Bool(values) => json!(values),
        Allowed::Str(values) => json!(values),
        Allowed::Int(ranges) => ranges
            .iter()
            .map(|range| match range.min == range.max {
                true => json!(range.min),
                false => json!(range.to_string()),
            })
            .collect(),
    }
}

/// Adds what a destination allows, as migration information has it: a list, or how long a text may be.
fn with_allowed(mut record: Json, allowed: &Allowed<'_>) -> Json {
    record["allowed"] = json_allowed(allowed);
    if let Allowed::Ascii { max } = allowed {
        record["max_length"] = json!(max);
    }
    record
}

impl Note {
    /// A reason why a destination does not take a source.
    pub fn reason(reason: &Reason<'_>) -> Self {
        let text = reason.to_string();
        let record = match reason {
            Reason::Model {
                source,
                destination,
            } => {
                json!({"code": "other-model", "source": source, "destination": destination})
            }
            Reason::Unknown(Param { name, value }) => {
                json!({"code": "unknown-parameter", "parameter": name, "source": json_value(value)})
            }
            Reason::Twice(Param { name, value }) => {
                json!({"code": "given-twice", "parameter": name, "source": json_value(value)})
            }
            Reason::Limit {
                name,
                part,
                problem,
            } => {
                json!({"code": "beyond-limits", "parameter": name, "part": part.to_string(), "problem": problem})
            }
            Reason::Kind {
                param: Param { name, value },
                expected,
            } => {
                json!({"code": "wrong-type", "parameter": name, "source": json_value(value), "expected": expected.name()})
            }
            Reason::NotAllowed {
                param: Param { name, value },
                allowed,
            } => {
                let record =
                    json!({"code": "not-allowed", "parameter": name, "source": json_value(value)});
                with_allowed(record, allowed)
            }
            Reason::Missing { name, allowed } => {
                with_allowed(json!({"code": "missing", "parameter": name}), allowed)
            }
            Reason::Unmet(Unmet {
                name,
                value,
                other,
                other_value,
                allowed,
            }) => json!({
                "code": "requirement-not-met",
                "parameter": name,
                "source": json_value(value),
                "requires": other,
                "allowed": json_allowed(allowed),
                "value": json_value(other_value),
            }),
            Reason::Differs {
                param: Param { name, value },
                here,
            } => {
                json!({"code": "differs", "parameter": name, "source": json_value(value), "destination": json_value(here)})
            }
        };
        Self { text, record }.with_text()
    }

    /// The source lacks a parameter of a type of which it is not told whether it can be off.
    pub fn off_not_told(name: &str, listed: &Allowed<'_>) -> Self {
        let text = format!(
            "{name}: source lacks it, and whether it can be off here is not told; values listed are {listed}"
        );
        let record =
            json!({"code": "off-not-told", "parameter": name, "allowed": json_allowed(listed)});
        Self { text, record }.with_text()
    }

    /// A candidate that names types names none.
    pub fn no_type() -> Self {
        Self {
            text: "it names no type".to_string(),
            record: json!({"code": "no-type"}),
        }
        .with_text()
    }

    /// A parameter that has to be given another value.
    pub fn change(now: &Param<'_>, then: &Param<'_>) -> Self {
        let name = now.name;
        Self {
            text: format!("{name} {} -> {}", InWords(now.value), InWords(then.value)),
            record: json!({"name": name, "from": json_value(&now.value), "to": json_value(&then.value)}),
        }
    }

    /// The same of several.
    pub fn changes(changes: &[(Param<'_>, Param<'_>)]) -> Vec<Self> {
        let changes = changes.iter();
        changes.map(|(now, then)| Self::change(now, then)).collect()
    }

    /// Programs show people what people can read.
    fn with_text(mut self) -> Self {
        self.record["text"] = json!(self.text);
        self
    }
}

/// The texts of notes in one line.
pub fn texts(notes: &[Note], separator: &str) -> String {
    let texts: Vec<&str> = notes.iter().map(|note| note.text.as_str()).collect();
    texts.join(separator)
}

/// The objects of notes.
pub fn records(notes: &[Note]) -> Json {
    notes.iter().map(|note| note.record.clone()).collect()
}
