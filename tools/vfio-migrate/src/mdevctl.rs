// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What mdevctl asks of a callout script: which attributes an instance has, whether those of a definition will do, and that
//! they be given to an instance that is there.
//!
//! Source: mdevctl(8), CALLOUT EVENTS. An attribute is a file and the text that is written to it; those in `migration/` are
//! meant here, others are left to other scripts.

use migration::model::{parse_value, NotAmong, Type};
use migration::value::{Param, Value};
use serde_json::{json, Value as Json};

use crate::error::{Error, Result};
use crate::json::{Bump, Source};
use crate::prepare::{prepare, steps};
use crate::sysfs::{in_effect, Instance, Sysfs};

/// The directory of the attributes that are meant.
const DIRECTORY: &str = "migration/";

/// What there is to ask: all that mdevctl 1.3.0 and later know.
pub fn capabilities() -> Json {
    json!({"supports": {
        "version": 2,
        "actions": ["start", "stop", "define", "undefine", "modify", "attributes", "capabilities"],
        "events": ["pre", "post", "notify", "get", "live"],
    }})
}

/// The attributes that give a new instance of the same type this one's values, in the order in which they are to be written.
pub fn attributes(instance: &Instance) -> Result<Json> {
    let arena = Bump::new();
    let ty = instance.offer(&arena)?;
    let values = instance.values(&arena, ty)?;
    Ok(steps_from_new(&arena, ty, &values)
        .iter()
        .map(|Param { name, value }| {
            // A write of nothing is no write. Of a newline it is one of an empty text.
            let text = match value {
                Value::Str("") => "\n".to_string(),
                value => value.to_string(),
            };
            json!({ format!("{DIRECTORY}{name}"): text })
        })
        .collect())
}

/// The writes that lead from a new instance to these values: each parameter once if that works, else as set-up does it.
fn steps_from_new<'a>(arena: &'a Bump, ty: &Type<'a>, values: &[Param<'a>]) -> Vec<Param<'a>> {
    if try_out(ty, &new_values(ty), values).is_ok() {
        return values.to_vec();
    }
    let list: Vec<Param<'a>> = in_effect(ty, values).collect();
    let source = Source {
        model: ty.model.name,
        params: arena.alloc_slice_copy(&list),
    };
    steps(ty, &source)
}

/// Fails unless a new instance of the type would take the attributes of the definition.
pub fn check_start(sysfs: &Sysfs, parent: &str, mdev_type: &str, definition: &[u8]) -> Result<()> {
    let arena = Bump::new();
    let info = sysfs
        .find_type(&format!("{parent}/{mdev_type}"))?
        .info(&arena)?;
    // A type has one model.
    let Some(ty) = info.types.first() else {
        return Ok(());
    };
    let attributes = read_attributes(definition)?;
    let steps = read_steps(ty, &attributes)?;
    try_out(ty, &new_values(ty), &steps).map_err(Error::refused)
}

/// Gives an instance the values of the definition's attributes. If one is refused, it has those that it had.
pub fn modify(instance: &mut Instance, definition: &[u8]) -> Result<()> {
    let arena = Bump::new();
    let ty = instance.offer(&arena)?;
    let values = instance.values(&arena, ty)?;
    let attributes = read_attributes(definition)?;
    let steps = read_steps(ty, &attributes)?;
    try_out(ty, &values, &steps).map_err(Error::refused)?;
    // What stays as it is need not be written: most parameters cannot be while the device is open.
    let mut now = values;
    let mut writes = Vec::new();
    for step in steps {
        for value in now.iter_mut().filter(|value| value.name == step.name) {
            if value.value != step.value {
                value.value = step.value;
                writes.push(step);
            }
        }
    }
    match prepare(instance, ty, &writes)? {
        Ok(()) => Ok(()),
        Err(failure) => Err(Error::refused(failure.to_string())),
    }
}

/// The attributes in `migration/`, without the directory.
fn read_attributes(definition: &[u8]) -> Result<Vec<(String, String)>> {
    let failed = |what: &str| Error::failed(format!("the definition from mdevctl: {what}"));
    let definition: Json =
        serde_json::from_slice(definition).map_err(|error| failed(&error.to_string()))?;
    let list = match &definition["attrs"] {
        Json::Array(list) => list.as_slice(),
        Json::Null if definition.is_object() => &[],
        _ => return Err(failed("no list of attributes")),
    };
    let mut attributes = Vec::new();
    for attribute in list {
        let attribute = attribute.as_object();
        let attribute = attribute.ok_or_else(|| failed("an attribute is no object"))?;
        for (name, value) in attribute {
            let Some(name) = name.strip_prefix(DIRECTORY) else {
                continue;
            };
            let text = value.as_str();
            let text = text.ok_or_else(|| failed(&format!("the value of {name} is no string")))?;
            attributes.push((name.to_string(), text.to_string()));
        }
    }
    Ok(attributes)
}

/// The parameters that the attributes set. A version is what it sets.
fn read_steps<'a>(ty: &Type<'a>, attributes: &'a [(String, String)]) -> Result<Vec<Param<'a>>> {
    let mut steps = Vec::new();
    for (name, text) in attributes {
        let refused = |what: String| Error::refused(format!("{DIRECTORY}{name}: {what}"));
        let line = text.strip_suffix('\n').unwrap_or(text);
        if text.is_empty() {
            return Err(refused(
                "a write of nothing sets nothing: an empty text is written as a newline"
                    .to_string(),
            ));
        }
        match name.as_str() {
            "device_model" if line == ty.model.name => {
                let version = ty
                    .versions()
                    .find(|version| Some(version.name) == ty.init_version());
                steps.extend(version.iter().flat_map(|version| version.values));
            }
            "device_model" => {
                return Err(refused(format!(
                    "the model is {}, not {line}",
                    ty.model.name
                )))
            }
            "version" => {
                let version = ty.versions().find(|version| version.name == line);
                let names: Vec<&str> = ty.versions().map(|version| version.name).collect();
                let version = version
                    .ok_or_else(|| refused(format!("{line} is not one of {}", names.join(", "))))?;
                steps.extend(version.values);
            }
            name => {
                let def = ty.model.param(name);
                let def = def.ok_or_else(|| refused("there is no such parameter".to_string()))?;
                let value = parse_value(def.kind, text.as_bytes())
                    .map_err(|error| refused(error.to_string()))?;
                steps.push(Param {
                    name: def.name,
                    value,
                });
            }
        }
    }
    Ok(steps)
}

/// The values of a new instance.
fn new_values<'a>(ty: &Type<'a>) -> Vec<Param<'a>> {
    let params = ty.model.params.iter();
    params
        .map(|def| Param {
            name: def.name,
            value: ty.init(def),
        })
        .collect()
}

/// Why an instance with these values would refuse one of the writes.
fn try_out(
    ty: &Type<'_>,
    values: &[Param<'_>],
    steps: &[Param<'_>],
) -> std::result::Result<(), String> {
    let mut now = values.to_vec();
    for step in steps {
        let Param { name, value } = *step;
        let Some(def) = ty.model.param(name) else {
            return Err(format!("{name}: there is no such parameter"));
        };
        if !ty.allows(def, &value) {
            return Err(format!("{name}: {}", NotAmong(value, ty.allowed(def))));
        }
        for param in now.iter_mut().filter(|param| param.name == name) {
            param.value = value;
        }
        let unmet = ty.unmet(|at| now.get(at).map(|param| param.value)).next();
        if let Some(unmet) = unmet {
            return Err(unmet.to_string());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::read_info;

    const INFO: &[u8] = br#"{"models": {"example.org/pci/card": {"params": {
        "ports": {"type": "int", "allowed_values": [1, 2, 4], "init_value": 2},
        "queues": {"type": "bool", "init_value": true, "off_value": false, "requires": {"ports": [2, 4]}},
        "label": {"type": "str", "init_value": "plain", "off_value": ""}},
        "versions": {"v1": {"queues": false}, "v2": {"queues": true}}, "init_version": "v2"}}}"#;

    fn with_type(test: impl FnOnce(&Type<'_>)) {
        let arena = Bump::new();
        test(&read_info(&arena, INFO).unwrap().types[0]);
    }

    fn param<'a>(name: &'a str, value: Value<'a>) -> Param<'a> {
        Param { name, value }
    }

    fn started(attrs: Json) -> std::result::Result<(), String> {
        let definition = json!({"mdev_type": "card-any", "start": "auto", "attrs": attrs});
        let mut result = Ok(());
        with_type(|ty| {
            let attributes = read_attributes(definition.to_string().as_bytes()).unwrap();
            let steps = read_steps(ty, &attributes).map_err(|error| error.to_string());
            result = steps.and_then(|steps| try_out(ty, &new_values(ty), &steps));
        });
        result
    }

    #[test]
    fn writes_come_in_an_order_that_works() {
        let arena = Bump::new();
        with_type(|ty| {
            let values = [
                param("ports", Value::Int(4)),
                param("queues", Value::Bool(true)),
                param("label", Value::Str("")),
            ];
            assert_eq!(steps_from_new(&arena, ty, &values), values);
            // Less than two ports are not possible while there are queues.
            let values = [
                param("ports", Value::Int(1)),
                param("queues", Value::Bool(false)),
                param("label", Value::Str("x")),
            ];
            assert!(try_out(ty, &new_values(ty), &values).is_err());
            let steps = steps_from_new(&arena, ty, &values);
            assert_eq!(try_out(ty, &new_values(ty), &steps), Ok(()));
        });
    }

    #[test]
    fn a_definition_that_would_be_refused_is_refused_with_the_reason() {
        for (attrs, reason) in [
            (
                json!([{"migration/ports": "3"}]),
                "ports: 3 is not one of 1, 2, 4",
            ),
            (
                json!([{"migration/ports": "1"}]),
                "queues: on requires ports 2, 4, not 1",
            ),
            (
                json!([{"migration/pots": "1"}]),
                "migration/pots: there is no such parameter",
            ),
            (
                json!([{"migration/version": "v3"}]),
                "migration/version: v3 is not one of v1, v2",
            ),
            (
                json!([{"migration/label": ""}]),
                "a write of nothing sets nothing",
            ),
            (
                json!([{"migration/device_model": "x"}]),
                "the model is example.org/pci/card",
            ),
        ] {
            let error = started(attrs).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
        for attrs in [
            json!([]),
            json!([{"migration/version": "v1"}, {"migration/ports": "1\n"}]),
            json!([{"migration/label": "\n"}, {"other/ports": "3"}]),
        ] {
            assert_eq!(started(attrs), Ok(()));
        }
        for text in ["", "[]", r#"{"attrs": [{"migration/ports": 1}]}"#] {
            assert!(read_attributes(text.as_bytes()).is_err(), "{text}");
        }
    }
}
