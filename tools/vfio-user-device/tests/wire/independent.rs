// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A client that others wrote: the one of crate `vfio_user`, which knows nothing of this project's codec.

use std::os::fd::AsRawFd;

use vfio_user::Client;

use crate::client::{event, signalled, NOW};
use crate::memory::memory;
use crate::program::Program;

/// Region of the registers, and of configuration space.
const BAR0: u32 = 0;
const CONFIG: u32 = 7;

#[test]
fn the_client_of_another_project_drives_the_card() {
    let program = Program::start(&["--m-num-ports=2"]);
    let mut client = Client::new(program.socket()).expect("both agree");
    let size = |client: &Client, index| client.region(index).map_or(0, |region| region.size);
    assert_eq!((size(&client, BAR0), size(&client, CONFIG)), (16, 256));
    let irq = client.get_irq_info(0).expect("INTx");
    assert_eq!((irq.index, irq.count, irq.flags), (0, 1, 7));

    let ram = memory(1 << 20);
    client
        .dma_map(0, 0x10_0000, 1 << 20, ram.as_raw_fd())
        .expect("memory");
    let interrupt = event();
    client
        .set_irqs(0, 0x24, 0, 1, &[interrupt.as_raw_fd()])
        .expect("INTx");

    let mut id = [0; 4];
    client.region_read(CONFIG, 0, &mut id).expect("a read");
    assert_eq!(id, [0x36, 0x1b, 3, 0]);
    for (register, value) in [(11, 3), (10, 1), (9, 1)] {
        client
            .region_write(BAR0, register, &[value])
            .expect("a write");
    }
    for byte in *b"another opinion" {
        client.region_write(BAR0, 8, &[byte]).expect("a write");
    }
    let mut found = Vec::new();
    for _ in 0..15 {
        let mut byte = [0];
        client.region_read(BAR0, 8, &mut byte).expect("a read");
        found.extend(byte);
    }
    assert_eq!(found, b"another opinion");
    // Fifteen characters are more than the trigger level.
    assert!(signalled(&interrupt, NOW));

    client.reset().expect("a reset");
    let mut register = [0];
    client.region_read(BAR0, 11, &mut register).expect("a read");
    assert_eq!(register, [0]);
    client.dma_unmap(0x10_0000, 1 << 20).expect("memory");
    client.shutdown().expect("an end");
    program.client().in_step();
}
