// SPDX-License-Identifier: GPL-2.0 OR MIT

use std::collections::BTreeMap;
use std::io;

use migration::model::{InUse, Type, Values};
use nix::errno::Errno;

use super::*;
use crate::json::{read_info, read_source, Bump};
use crate::sysfs::Parameters;

/// Ports, charged against a capacity; a switch that needs four of them; a depth.
const INFO: &str = r#"{"models": {"example.org/card": {"params": {
    "depth": {"type": "int", "allowed_values": [16, 64], "init_value": 16, "off_value": 16},
    "ports": {"type": "int", "allowed_values": ["1-4"], "init_value": 1},
    "flow": {"type": "bool", "init_value": false, "off_value": false, "requires": {"ports": ["2-4"]}},
    "label": {"type": "str", "init_value": "new", "off_value": ""}},
    "param_order": ["depth", "ports", "flow", "label"]}}}"#;

/// An instance that behaves as the driver does, in memory.
struct Fake<'a> {
    values: Values<'a>,
    /// Ports beside its own that are free.
    free: u64,
    /// The writes, in their order.
    log: Vec<String>,
    /// From this write on, somebody else takes all free ports, or has the device open.
    then: Option<(usize, Event)>,
    in_use: InUse,
    reason: String,
}

#[derive(Clone, Copy)]
enum Event {
    Opened,
    CapacityTaken,
}

impl<'a> Fake<'a> {
    fn new(ty: &'a Type<'a>) -> Self {
        Self {
            values: Values::new(ty),
            free: 10,
            log: Vec::new(),
            then: None,
            in_use: InUse::Closed,
            reason: String::new(),
        }
    }

    fn texts(&self) -> BTreeMap<String, String> {
        self.values
            .all()
            .map(|param| (param.name.to_string(), param.value.to_string()))
            .collect()
    }

    fn ports(values: &Values<'_>) -> u64 {
        match values.named("ports") {
            Some(migration::value::Value::Int(ports)) => ports,
            _ => 0,
        }
    }
}

impl Parameters for Fake<'_> {
    fn read(&self, name: &str) -> Result<String> {
        Ok(self.values.named(name).unwrap().to_string())
    }

    fn write(&mut self, name: &str, value: &str) -> io::Result<()> {
        match self.then {
            Some((at, Event::Opened)) if self.log.len() >= at => self.in_use = InUse::Open,
            Some((at, Event::CapacityTaken)) if self.log.len() == at => self.free = 0,
            _ => {}
        }
        self.log.push(format!("{name}={value}"));
        let position = self.values.model().position(name).unwrap();
        let old = self.values.clone();
        let new = match old.with_text(position, value.as_bytes(), self.in_use) {
            Ok(new) => new,
            Err(error) => {
                self.reason = error.to_string();
                let errno = match error.class() {
                    migration::model::SetClass::Busy => Errno::EBUSY,
                    migration::model::SetClass::Invalid => Errno::EINVAL,
                };
                return Err(errno.into());
            }
        };
        let available = self.free + Self::ports(&old);
        let Some(free) = available.checked_sub(Self::ports(&new)) else {
            self.reason = "no capacity".to_string();
            return Err(Errno::ENOSPC.into());
        };
        self.free = free;
        self.values = new;
        self.reason.clear();
        Ok(())
    }

    fn reason(&self) -> String {
        self.reason.clone()
    }
}

/// Calls `body` with the type, and the steps for a parameter list.
fn with(params: &str, body: impl FnOnce(&Type<'_>, &[Param<'_>])) {
    let arena = Bump::new();
    let info = read_info(&arena, INFO.as_bytes()).unwrap();
    let text = format!(r#"{{"model": "example.org/card", "params": {params}}}"#);
    let source = read_source(&arena, text.as_bytes()).unwrap();
    body(&info.types[0], &steps(&info.types[0], &source));
}

#[test]
fn off_values_come_in_reverse_and_the_list_in_declaration_order() {
    with(
        r#"{"label": "x", "flow": true, "ports": 4, "depth": 64}"#,
        |_, steps| {
            let shown: Vec<String> = steps.iter().map(ToString::to_string).collect();
            let wanted = [
                "label=", "flow=off", "depth=16", "depth=64", "ports=4", "flow=on", "label=x",
            ];
            assert_eq!(shown, wanted);
        },
    );
}

#[test]
fn a_compatible_list_is_carried_out() {
    with(
        r#"{"ports": 4, "flow": true, "label": "x"}"#,
        |ty, steps| {
            let mut fake = Fake::new(ty);
            prepare(&mut fake, ty, steps).unwrap().unwrap();
            let texts = fake.texts();
            assert_eq!(
                texts
                    .iter()
                    .map(|(name, value)| format!("{name}={value}"))
                    .collect::<Vec<_>>(),
                ["depth=16", "flow=on", "label=x", "ports=4"]
            );
            assert_eq!(fake.free, 7);
        },
    );
}

#[test]
fn what_is_set_up_is_not_written_again() {
    for list in [
        r#"{"ports": 4, "flow": true, "label": "x"}"#,
        r#"{"ports": 1}"#,
    ] {
        with(list, |ty, steps| {
            let mut fake = Fake::new(ty);
            prepare(&mut fake, ty, steps).unwrap().unwrap();
            fake.log.clear();
            for in_use in [InUse::Closed, InUse::Open, InUse::Migrating] {
                fake.in_use = in_use;
                prepare(&mut fake, ty, steps).unwrap().unwrap();
                assert_eq!(fake.log, [""; 0], "{in_use:?}");
            }
        });
    }
}

/// Takes every write and forgets one of them, as a driver does that never hears of it.
struct Deaf<'a>(Fake<'a>, &'static str);

impl Parameters for Deaf<'_> {
    fn read(&self, name: &str) -> Result<String> {
        self.0.read(name)
    }

    fn write(&mut self, name: &str, value: &str) -> io::Result<()> {
        match format!("{name}={value}") == self.1 {
            true => Ok(()),
            false => self.0.write(name, value),
        }
    }

    fn reason(&self) -> String {
        self.0.reason()
    }
}

#[test]
fn a_write_that_does_not_arrive_is_a_failure() {
    with(r#"{"ports": 4, "depth": 64}"#, |ty, steps| {
        for (forgotten, is) in [("label=", "new"), ("ports=4", "1"), ("depth=64", "16")] {
            let mut deaf = Deaf(Fake::new(ty), forgotten);
            let before = deaf.0.texts();
            let failure = prepare(&mut deaf, ty, steps).unwrap().unwrap_err();
            let shown = failure.to_string();
            let wanted = format!("{forgotten} was refused: it did not arrive, it is \"{is}\"; the instance is as it was");
            assert_eq!(shown, wanted);
            assert!(!failure.is_access());
            assert_eq!(deaf.0.texts(), before);
        }
    });
}

/// Sets an instance up, then for another list, while `event` happens before each write in turn. Whatever it is, the instance
/// ends as one list or the other has it, or is told to be otherwise.
fn at_every_write(
    event: Event,
    check: impl Fn(&BTreeMap<String, String>, &Fake<'_>, Option<Failure>),
) {
    with(
        r#"{"ports": 4, "flow": true, "label": "x", "depth": 64}"#,
        |ty, first| {
            for at in 0.. {
                let mut fake = Fake::new(ty);
                prepare(&mut fake, ty, first).unwrap().unwrap();
                let before = fake.texts();
                fake.log.clear();
                fake.then = Some((at, event));
                let arena = Bump::new();
                let text =
                    br#"{"model": "example.org/card", "params": {"ports": 1, "label": "y"}}"#;
                let source = read_source(&arena, text).unwrap();
                let second = steps(ty, &source);
                let failure = prepare(&mut fake, ty, &second).unwrap().err();
                if at >= second.len() {
                    assert!(failure.is_none());
                    return;
                }
                check(&before, &fake, failure);
            }
        },
    );
}

#[test]
fn a_device_opened_half_way_is_told() {
    at_every_write(Event::Opened, |before, fake, failure| {
        let failure = failure.expect("an open device was set up");
        assert_eq!(failure.error.raw_os_error(), Some(Errno::EBUSY as i32));
        let shown = failure.to_string();
        let differing: Vec<_> = fake
            .texts()
            .into_iter()
            .filter(|(name, value)| before[name] != *value)
            .collect();
        assert_eq!(differing.len(), failure.not_restored.len(), "{shown}");
        for left in &failure.not_restored {
            assert_eq!(
                (&left.was, left.is.as_str()),
                (&before[&left.name], fake.read(&left.name).unwrap().as_str())
            );
            assert!(left.why.contains("EBUSY"), "{shown}");
        }
        assert_eq!(
            shown.contains("the instance is as it was"),
            differing.is_empty(),
            "{shown}"
        );
    });
}

#[test]
fn shrinking_without_capacity_is_no_problem() {
    // Nothing fails: the new list needs less.
    at_every_write(Event::CapacityTaken, |_, fake, failure| {
        assert!(failure.is_none(), "{failure:?}");
        assert_eq!(fake.texts()["ports"], "1");
    });
}

/// Gives up ports, then fails: `label` is refused, because the device is open by then; and the ports are gone.
#[test]
fn a_roll_back_that_cannot_regain_capacity_says_so() {
    /// Refuses one write, and takes what was given back.
    struct Greedy<'a>(Fake<'a>);

    impl Parameters for Greedy<'_> {
        fn read(&self, name: &str) -> Result<String> {
            self.0.read(name)
        }

        fn write(&mut self, name: &str, value: &str) -> io::Result<()> {
            if value == "y" {
                self.0.free = 0;
                self.0.reason = "label: not today".to_string();
                return Err(Errno::EINVAL.into());
            }
            self.0.write(name, value)
        }

        fn reason(&self) -> String {
            self.0.reason()
        }
    }

    with(r#"{"ports": 4, "label": "x"}"#, |ty, first| {
        let mut fake = Fake::new(ty);
        prepare(&mut fake, ty, first).unwrap().unwrap();
        let mut greedy = Greedy(fake);
        let arena = Bump::new();
        let text = br#"{"model": "example.org/card", "params": {"ports": 1, "label": "y"}}"#;
        let second = steps(ty, &read_source(&arena, text).unwrap());
        let failure = prepare(&mut greedy, ty, &second).unwrap().unwrap_err();
        let [left] = failure.not_restored.as_slice() else {
            panic!("{failure}");
        };
        assert_eq!(
            (left.name.as_str(), left.was.as_str(), left.is.as_str()),
            ("ports", "4", "1")
        );
        let shown = failure.to_string();
        assert!(
            shown.contains("label=y was refused: Invalid argument (EINVAL): label: not today"),
            "{shown}"
        );
        assert!(
            shown.contains("ports is 1, was 4 (No space left on device (ENOSPC): no capacity)"),
            "{shown}"
        );
        // The label, which could be given back, was.
        assert_eq!(greedy.0.texts()["label"], "x");
    });
}

#[test]
fn values_that_depend_on_each_other_are_taken_back() {
    /// Refuses the last write.
    struct Stubborn<'a>(Fake<'a>);

    impl Parameters for Stubborn<'_> {
        fn read(&self, name: &str) -> Result<String> {
            self.0.read(name)
        }

        fn write(&mut self, name: &str, value: &str) -> io::Result<()> {
            match value {
                "z" => Err(Errno::EINVAL.into()),
                value => self.0.write(name, value),
            }
        }

        fn reason(&self) -> String {
            String::new()
        }
    }

    for (old, new) in [
        (
            r#"{"ports": 1}"#,
            r#"{"ports": 4, "flow": true, "label": "z"}"#,
        ),
        (
            r#"{"ports": 4, "flow": true}"#,
            r#"{"ports": 1, "label": "z"}"#,
        ),
        (
            r#"{"ports": 2, "flow": true, "depth": 64}"#,
            r#"{"ports": 3, "flow": true, "label": "z"}"#,
        ),
    ] {
        with(old, |ty, first| {
            let mut fake = Fake::new(ty);
            prepare(&mut fake, ty, first).unwrap().unwrap();
            let before = fake.texts();
            let mut stubborn = Stubborn(fake);
            let arena = Bump::new();
            let text = format!(r#"{{"model": "example.org/card", "params": {new}}}"#);
            let second = steps(ty, &read_source(&arena, text.as_bytes()).unwrap());
            let failure = prepare(&mut stubborn, ty, &second).unwrap().unwrap_err();
            assert!(failure.not_restored.is_empty(), "{old} to {new}: {failure}");
            assert_eq!(stubborn.0.texts(), before, "{old} to {new}");
        });
    }
}

/// Two numbers that share a capacity of 4 and have no off value, and a label that is refused.
struct Shared(BTreeMap<String, u64>);

const SHARED: &str = r#"{"models": {"example.org/card": {"params": {
    "a": {"type": "int", "allowed_values": ["1-3"], "init_value": 1},
    "b": {"type": "int", "allowed_values": ["1-3"], "init_value": 1},
    "label": {"type": "str", "init_value": "new"}}}}}"#;

impl Parameters for Shared {
    fn read(&self, name: &str) -> Result<String> {
        Ok(self
            .0
            .get(name)
            .map_or("new".to_string(), ToString::to_string))
    }

    fn write(&mut self, name: &str, value: &str) -> io::Result<()> {
        let Ok(value) = value.parse() else {
            return Err(Errno::EINVAL.into());
        };
        let mut then = self.0.clone();
        then.insert(name.to_string(), value);
        if then.values().sum::<u64>() > 4 {
            return Err(Errno::ENOSPC.into());
        }
        self.0 = then;
        Ok(())
    }

    fn reason(&self) -> String {
        String::new()
    }
}

#[test]
fn capacity_that_another_parameter_holds_is_regained_once_that_gives_it_back() {
    let arena = Bump::new();
    let ty = read_info(&arena, SHARED.as_bytes()).unwrap().types[0];
    let text = br#"{"model": "example.org/card", "params": {"a": 1, "b": 3, "label": "z"}}"#;
    let before = BTreeMap::from([("a".to_string(), 3), ("b".to_string(), 1)]);
    let mut shared = Shared(before.clone());
    let steps = steps(&ty, &read_source(&arena, text).unwrap());
    let failure = prepare(&mut shared, &ty, &steps).unwrap().unwrap_err();
    assert_eq!(failure.step, "label=z");
    // In declaration order `a` comes first, and has no room before `b` is smaller.
    assert!(failure.not_restored.is_empty(), "{failure}");
    assert_eq!(shared.0, before);
}

#[test]
fn a_write_without_permission_is_not_explained_by_an_earlier_refusal() {
    struct Forbidden<'a>(Fake<'a>);

    impl Parameters for Forbidden<'_> {
        fn read(&self, name: &str) -> Result<String> {
            self.0.read(name)
        }

        fn write(&mut self, _: &str, _: &str) -> io::Result<()> {
            Err(Errno::EACCES.into())
        }

        fn reason(&self) -> String {
            "depth: 17 is not allowed".to_string()
        }
    }

    with(r#"{"ports": 4}"#, |ty, steps| {
        let mut forbidden = Forbidden(Fake::new(ty));
        let failure = prepare(&mut forbidden, ty, steps).unwrap().unwrap_err();
        assert!(failure.is_access());
        let shown = failure.to_string();
        assert!(shown.contains("EACCES"), "{shown}");
        assert!(!shown.contains("17 is not allowed"), "{shown}");
    });
}

#[test]
fn an_instance_that_goes_away_half_way_is_told() {
    /// Is removed when it has got its ports.
    struct Removed<'a>(Fake<'a>);

    impl Removed<'_> {
        fn is_gone(&self) -> bool {
            self.0.log.iter().any(|write| write == "ports=4")
        }
    }

    impl Parameters for Removed<'_> {
        fn read(&self, name: &str) -> Result<String> {
            match self.is_gone() {
                true => Err(crate::error::Error::failed("no such instance")),
                false => self.0.read(name),
            }
        }

        fn write(&mut self, name: &str, value: &str) -> io::Result<()> {
            match self.is_gone() {
                true => Err(Errno::ENODEV.into()),
                false => self.0.write(name, value),
            }
        }

        fn reason(&self) -> String {
            String::new()
        }
    }

    with(r#"{"ports": 4, "flow": true}"#, |ty, steps| {
        let mut removed = Removed(Fake::new(ty));
        let failure = prepare(&mut removed, ty, steps).unwrap().unwrap_err();
        let names: Vec<&str> = failure
            .not_restored
            .iter()
            .map(|left| left.name.as_str())
            .collect();
        assert_eq!(names, ["depth", "ports", "flow", "label"]);
        for left in &failure.not_restored {
            assert_eq!(left.is, "no such instance");
            assert!(left.why.contains("ENODEV"), "{failure}");
        }
    });
}
