// SPDX-License-Identifier: GPL-2.0 OR MIT

//! JSON-RPC 2.0, by the examples of its text.

use serde_json::{json, Value};

use super::speaker::fits;
use super::Many;

fn ask(speaker: &mut super::Speaker, text: &str) -> Value {
    speaker.raw(text.as_bytes());
    speaker.hear()
}

#[test]
fn the_same_commands_come_in_the_other_envelope() {
    let many = Many::start(&[]);
    // Nobody is greeted on a socket of its own, and who is greeted on the other one need not mind.
    for socket in ["json-rpc", "control"] {
        let mut speaker = many.speaker(socket);
        if socket == "control" {
            assert!(speaker.hear().get("QMP").is_some());
        }
        let answer = ask(
            &mut speaker,
            r#"{"jsonrpc": "2.0", "method": "query-version", "id": 1}"#,
        );
        assert_eq!(answer["result"]["package"], "vfio-user-device 0.1.0");
        assert_eq!(answer["id"], 1);
        let add = json!({
            "jsonrpc": "2.0", "method": "device-add", "id": "x",
            "params": {"id": socket, "socket": many.path(&format!("device-of-{socket}")), "params": {"num-ports": 4}},
        });
        fits("wish", &add);
        let answer = ask(&mut speaker, &add.to_string());
        fits("device-add.returns", &answer["result"]);
        assert_eq!(answer["result"]["params"]["num-ports"], 4);
        // SPDK's clients know error numbers by their negative.
        let again = ask(&mut speaker, &add.to_string());
        assert_eq!(again["error"]["code"], -17);
    }
    let mut qmp = many.qmp();
    let devices = qmp.ok("query-devices", json!({}));
    assert_eq!(devices.as_array().map(Vec::len), Some(2));
}

#[test]
fn errors_have_the_codes_of_the_text() {
    let many = Many::start(&[]);
    let mut speaker = many.speaker("json-rpc");
    let cases = [
        (
            r#"{"jsonrpc": "2.0", "method": "foobar", "id": "1"}"#,
            -32601,
        ),
        (
            r#"{"jsonrpc": "2.0", "method": "device-del", "params": {}, "id": 1}"#,
            -32602,
        ),
        (
            r#"{"jsonrpc": "2.0", "method": "device-del", "params": {"id": "a", "x": 1}, "id": 1}"#,
            -32602,
        ),
        (
            r#"{"jsonrpc": "2.0", "method": "device-del", "params": {"id": 5}, "id": 1}"#,
            -32602,
        ),
        (
            r#"{"jsonrpc": "2.0", "method": "device-del", "params": {"id": "a"}, "id": 1}"#,
            -2,
        ),
        (
            r#"{"jsonrpc": "2.0", "method": "device-del", "params": ["a"], "id": 1}"#,
            -32600,
        ),
        (
            r#"{"jsonrpc": "2.0", "method": 1, "params": "bar"}"#,
            -32600,
        ),
        (
            r#"{"jsonrpc": "1.0", "method": "query-version", "id": 1}"#,
            -32600,
        ),
        (r#"{"method": "query-version", "id": 1}"#, -32600),
        (
            r#"{"jsonrpc": "2.0", "method": "query-version", "id": [1]}"#,
            -32600,
        ),
        (
            r#"{"jsonrpc": "2.0", "method": "foobar, "params": "bar", "baz]}"#,
            -32700,
        ),
        (r#"{"a" b}"#, -32700),
        ("[]", -32600),
        ("nonsense\n", -32700),
    ];
    for (text, code) in cases {
        // What is open ends with its line.
        let answer = ask(&mut speaker, &format!("{text}\n"));
        assert_eq!(answer["error"]["code"], code, "{text}: {answer}");
    }
    let answer = ask(&mut speaker, "[1]");
    assert_eq!(answer[0]["error"]["code"], -32600);
    assert_eq!(answer[0]["id"], Value::Null);
}

#[test]
fn batches_are_answered_together_and_notifications_not_at_all() {
    let many = Many::start(&[]);
    let mut speaker = many.speaker("json-rpc");
    let answer = ask(
        &mut speaker,
        r#"[{"jsonrpc":"2.0","method":"query-version","id":1},
            {"jsonrpc":"2.0","method":"watch-events","params":{"enable":false}},
            {"jsonrpc":"2.0","method":"nothing","id":null},
            {"execute":"query-version","id":3},
            7]"#,
    );
    let found: Vec<_> = answer
        .as_array()
        .expect("a batch")
        .iter()
        .map(|answer| (answer["id"].clone(), answer["error"]["code"].as_i64()))
        .collect();
    assert_eq!(
        found,
        [
            (json!(1), None),
            (Value::Null, Some(-32601)),
            (json!(3), Some(-32600)),
            (Value::Null, Some(-32600)),
        ]
    );
    // Neither one that fails, nor a batch of them.
    speaker.raw(br#"{"jsonrpc":"2.0","method":"nothing"}"#);
    speaker.raw(br#"[{"jsonrpc":"2.0","method":"query-version"},{"jsonrpc":"2.0","method":"quit","params":[]}]"#);
    let first = speaker.hear();
    assert_eq!(first[0]["error"]["code"], -32600, "params are an object");
    let too_many = format!(
        "[{}1]",
        r#"{"jsonrpc":"2.0","method":"query-version"},"#.repeat(16)
    );
    let answer = ask(&mut speaker, &too_many);
    assert_eq!(answer["error"]["code"], -32600);
    let answer = ask(
        &mut speaker,
        r#"{"jsonrpc":"2.0","method":"query-commands","id":9}"#,
    );
    assert_eq!(answer["id"], 9);
}

#[test]
fn what_happens_is_a_notification() {
    let many = Many::start(&[]);
    let mut speaker = many.speaker("json-rpc");
    let watch = r#"{"jsonrpc":"2.0","method":"watch-events","params":{"enable":true},"id":1}"#;
    ask(&mut speaker, watch);
    many.qmp().add(&many, "a");
    let event = speaker.hear();
    assert_eq!(event["method"], "DEVICE_ADDED");
    assert_eq!(event["params"]["data"]["id"], "a");
    assert_eq!(event.get("id"), None);
}
