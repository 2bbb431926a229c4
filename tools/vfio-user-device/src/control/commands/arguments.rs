// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Parameters and devices as JSON.

use std::fmt;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde::Deserialize;
use serde_json::{json, Map, Value};

use crate::model::Owner;
use crate::registry::{DeviceInfo, Event, ParamInfo, ParamValue, Registry, SourceList};

/// Parameters, in the order in which they are given. One that is given twice is there twice, for whoever checks them.
#[derive(Debug, Default)]
pub struct Params(pub Vec<(String, ParamValue)>);

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "a parameter is true, false, a number from 0 on or a string"
)]
enum Given {
    Bool(bool),
    Int(u64),
    Str(String),
}

impl From<Given> for ParamValue {
    fn from(given: Given) -> Self {
        match given {
            Given::Bool(value) => Self::Bool(value),
            Given::Int(value) => Self::Int(value),
            Given::Str(value) => Self::Str(value),
        }
    }
}

impl<'de> Deserialize<'de> for Params {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Collect;

        impl<'de> Visitor<'de> for Collect {
            type Value = Params;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of parameters")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Params, A::Error> {
                let mut params = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, Given>()? {
                    params.push((name, value.into()));
                }
                Ok(Params(params))
            }
        }

        from.deserialize_map(Collect)
    }
}

/// A source: its device model, and the parameters that are in effect there.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    model: String,
    params: Params,
}

impl From<Source> for SourceList {
    fn from(source: Source) -> Self {
        Self {
            model: source.model,
            params: source.params.0,
        }
    }
}

fn value(value: &ParamValue) -> Value {
    match value {
        ParamValue::Bool(value) => json!(value),
        ParamValue::Int(value) => json!(value),
        ParamValue::Str(value) => json!(value),
    }
}

/// A device as JSON.
pub fn describe(info: &DeviceInfo) -> Value {
    let params = |is_wanted: fn(&ParamInfo) -> bool| -> Map<String, Value> {
        let wanted = info.params.iter().filter(|param| is_wanted(param));
        wanted
            .map(|param| (param.name.clone(), value(&param.value)))
            .collect()
    };
    let mut device = json!({
        "id": info.name.as_str(),
        "params": params(|_| true),
        "source": {"model": info.model, "params": params(|param| param.in_effect)},
        "client": info.has_client,
        "state": info.state.name().to_lowercase().replace('_', "-"),
    });
    let owner = info.owner.map(|owner| match owner {
        Owner::Client => "client",
        Owner::Remote => "remote",
    });
    let socket = info.socket.as_ref().map(|path| path.display().to_string());
    let refusal = Some(info.refusal.clone()).filter(|refusal| !refusal.is_empty());
    let optional = [
        ("version", info.version.clone()),
        ("owner", owner.map(str::to_string)),
        ("socket", socket),
        ("refusal", refusal),
    ];
    for (name, text) in optional {
        if let (Some(text), Some(device)) = (text, device.as_object_mut()) {
            device.insert(name.to_string(), Value::String(text));
        }
    }
    device
}

/// What has happened: its name, and what is told of it. Nothing, if the device has gone meanwhile, of which an event tells.
pub fn happened(event: &Event, registry: &Registry) -> Option<(&'static str, Value)> {
    let info = |name: &str| registry.info(name).ok().map(|info| describe(&info));
    Some(match event {
        Event::Added(name) => ("DEVICE_ADDED", info(name.as_str())?),
        Event::Changed(name) => ("DEVICE_CHANGED", info(name.as_str())?),
        Event::Removed(name) => ("DEVICE_REMOVED", json!({"id": name.as_str()})),
        Event::Lost => ("EVENTS_LOST", json!({})),
    })
}
