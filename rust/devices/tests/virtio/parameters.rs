// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The parameters of a disk as a table of a driver has them: what the table allows is what makes a device.

use devices::blk::{Capacity, Config, Device, QueueCount, QueueSize, Serial};
use migration::model::{Allowed, InUse, IntRange, Model, ParamDef, Requirement, Type, Values};
use migration::value::Value;

const SIZES: [IntRange; 5] = [
    IntRange::one(16),
    IntRange::one(32),
    IntRange::one(64),
    IntRange::one(128),
    IntRange::one(256),
];

const fn switch(name: &'static str) -> ParamDef<'static> {
    ParamDef {
        allowed: Allowed::Bool(&[false, true]),
        off: Some(Value::Bool(false)),
        ..ParamDef::new(name, Value::Bool(false))
    }
}

static MODEL: Model<'static> = Model {
    name: "example.org/pci/blk",
    params: &[
        ParamDef {
            allowed: Allowed::Int(&[IntRange::new(1, 4096)]),
            ..ParamDef::new("capacity-mib", Value::Int(64))
        },
        ParamDef {
            allowed: Allowed::Int(&[IntRange::new(1, 16)]),
            ..ParamDef::new("num-queues", Value::Int(1))
        },
        ParamDef {
            allowed: Allowed::Int(&SIZES),
            ..ParamDef::new("queue-size", Value::Int(128))
        },
        switch("read-only"),
        ParamDef {
            requires: &[Requirement {
                param: "read-only",
                allowed: Allowed::Bool(&[false]),
            }],
            ..switch("write-zeroes")
        },
        ParamDef {
            allowed: Allowed::Ascii { max: Serial::BYTES },
            off: Some(Value::Str("")),
            ..ParamDef::new("serial", Value::Str(""))
        },
    ],
    versions: &[],
    init_version: None,
}
.validated();

static TYPE: Type<'static> = Type::of(&MODEL);

fn allows(name: &str, value: u64) -> bool {
    let param = MODEL.param(name).expect("a parameter");
    TYPE.allows(param, &Value::Int(value))
}

#[test]
fn the_table_allows_what_a_device_takes_and_nothing_else() {
    for value in (0..5000).chain([1 << 16, (1 << 32) + 16, u64::MAX]) {
        let capacity = Capacity::try_from(value).is_ok();
        assert_eq!(allows("capacity-mib", value), capacity, "{value}");
        let queues = QueueCount::try_from(value).is_ok();
        assert_eq!(allows("num-queues", value), queues, "{value}");
        let size = QueueSize::try_from(value).is_ok();
        assert_eq!(allows("queue-size", value), size, "{value}");
    }
}

#[test]
fn the_table_allows_the_texts_that_a_device_answers() {
    let param = MODEL.param("serial").expect("a parameter");
    let of_length = |len: usize| "s".repeat(len);
    let lengths = (0..=64).map(of_length);
    let characters = (0..=u32::from(char::MAX)).filter_map(char::from_u32);
    for text in lengths.chain(characters.map(String::from)) {
        let serial = Serial::try_from(text.as_str());
        let allowed = TYPE.allows(param, &Value::Str(&text));
        assert_eq!(allowed, serial.is_ok(), "{text:?}");
        let Ok(serial) = serial else { continue };
        let values = Values::new(&TYPE);
        let position = MODEL.position("serial").expect("a parameter");
        let values = values.with_text(position, text.as_bytes(), InUse::Closed);
        let values = values.expect("a text that is allowed");
        assert_eq!(values.named("serial"), Some(Value::Str(&text)));
        let (answer, padding) = serial.bytes().split_at(text.len());
        assert_eq!(answer, text.as_bytes());
        assert!(padding.iter().all(|byte| *byte == 0));
    }
}

#[test]
fn every_kind_of_device_can_be_laid_out() {
    let values = Values::new(&TYPE);
    let capacity = match values.named("capacity-mib") {
        Some(Value::Int(mib)) => Capacity::try_from(mib).expect("what a new instance has"),
        other => panic!("{other:?}"),
    };
    for queues in 1..=16 {
        for queue_size in QueueSize::ALL {
            for switches in 0..4 {
                let config = Config {
                    capacity,
                    queues: QueueCount::try_from(queues).expect("a number of queues"),
                    queue_size,
                    read_only: switches & 1 != 0,
                    write_zeroes: switches & 2 != 0,
                    ..Config::new(1)
                };
                let device = Device::new(&config).expect("a device");
                assert_eq!(u64::from(device.function().vector_count()), queues + 1);
                // A request of the most buffers, its header and its status fit into the ring.
                assert!(config.segments() + 2 <= queue_size.get().into());
            }
        }
    }
}
