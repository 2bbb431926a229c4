// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Clients that do not agree.

use serde_json::{json, Value};

use crate::client::*;
use crate::program::Program;

/// Version and data of a reply.
fn parsed(body: &[u8]) -> (Vec<u8>, Value) {
    let (numbers, data) = body.split_at(4);
    let text = data.strip_suffix(&[0]).expect("a NUL at the end");
    (
        numbers.to_vec(),
        serde_json::from_slice(text).expect("JSON"),
    )
}

#[test]
fn k15_nothing_goes_before_a_version() {
    let program = Program::start(&[]);
    for (command, body) in [
        (GET_INFO, words(&[16, 0, 0, 0])),
        (DMA_MAP, range(3, 0, 0, 4096)),
        (REGION_WRITE, [access(0, 7, 1), vec![9]].concat()),
        (RESET, vec![]),
        (99, vec![1, 2, 3]),
    ] {
        let mut client = program.connect();
        assert!(client.ask(command, &body).is_err(), "command {command}");
        client.is_closed();
    }
    assert_eq!(program.client().read(0, 7, 1), Ok(vec![0]));
}

#[test]
fn k16_a_second_version_is_refused_and_the_first_one_holds() {
    let program = Program::start(&[]);
    let mut client = program.client();
    assert!(client.ask(VERSION, &version(0, 0, b"")).is_err());
    client.in_step();
    // Several writes in one message were agreed on.
    assert!(client.ask(WRITE_MULTI, &longs(&[0])).is_ok());
}

#[test]
fn k17_another_major_version_ends_it_and_a_later_minor_one_is_answered_with_ours() {
    let program = Program::start(&[]);
    for major in [1, 99, u16::MAX] {
        let mut client = program.connect();
        let refused = client.ask(VERSION, &version(major, 0, b"whatever that is"));
        assert_eq!(refused, Err(EINVAL));
        client.is_closed();
    }
    for minor in [1, u16::MAX] {
        let mut client = program.connect();
        let body = client
            .ask(VERSION, &version(0, minor, b""))
            .expect("a version");
        assert_eq!(parsed(&body).0, [0; 4]);
        client.in_step();
    }
}

#[test]
fn k18_version_data_of_every_kind_is_taken_or_refused() {
    let program = Program::start(&[]);
    let ours = json!({"max_msg_fds": 16, "max_data_xfer_size": 1048576, "max_dma_maps": 65535, "pgsizes": 4096});
    for data in [&b""[..], b"{}\0", b"{\"capabilities\":{}}\0"] {
        let mut client = program.connect();
        let body = client
            .ask(VERSION, &version(0, 0, data))
            .expect("a version");
        assert_eq!(parsed(&body).1, json!({ "capabilities": ours }));
        client.in_step();
        // Nobody offered that.
        assert_eq!(client.ask(WRITE_MULTI, &longs(&[0])), Err(EINVAL));
    }
    let mut client = program.connect();
    let body = client
        .ask(VERSION, &version(0, 0, QEMU))
        .expect("a version");
    let mut more = ours;
    more["write_multiple"] = json!(true);
    more["migration"] = json!({"pgsize": 4096});
    assert_eq!(parsed(&body).1, json!({ "capabilities": more }));
    drop(client);

    let brackets = [vec![b'['; (1 << 20) - 8], vec![0]].concat();
    for data in [
        &b"{}"[..],
        b"\0",
        b"{\0}\0",
        b"\xff\xfe\0",
        b"{\0",
        b"[]\0",
        &brackets,
        b"{\"capabilities\":{\"max_msg_fds\":1,\"max_msg_fds\":1}}\0",
        b"{\"capabilities\":{\"max_msg_fds\":-1}}\0",
        b"{\"capabilities\":{\"max_msg_fds\":1.5}}\0",
        b"{\"capabilities\":{\"max_msg_fds\":1e400}}\0",
        b"{\"capabilities\":{\"max_msg_fds\":\"1\"}}\0",
        b"{\"capabilities\":{\"max_msg_fds\":18446744073709551616}}\0",
        b"{\"capabilities\":{\"migration\":{\"pgsize\":4095}}}\0",
        b"{\"capabilities\":{\"max_data_xfer_size\":0}}\0",
    ] {
        let mut client = program.connect();
        let refused = client.ask(VERSION, &version(0, 0, data));
        assert_eq!(refused, Err(EINVAL), "{:?}", &data[..data.len().min(60)]);
        // It may be said again.
        client.agree();
        client.in_step();
    }
}

#[test]
fn k18_a_client_that_takes_little_is_given_no_more() {
    let program = Program::start(&[]);
    let mut client = program.connect();
    let data = b"{\"capabilities\":{\"max_data_xfer_size\":16}}\0";
    client
        .ask(VERSION, &version(0, 0, data))
        .expect("a version");
    assert!(client.read(CONFIG, 0, 16).is_ok());
    assert_eq!(client.read(CONFIG, 0, 17), Err(EINVAL));
    client.in_step();
}
