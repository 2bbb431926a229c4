// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A client that can say anything. It has its messages written out, so that it does not err where the program does.

use std::io::{ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::event::{eventfd, poll, EventfdFlags, PollFd, PollFlags, Timespec};
use rustix::net::{
    recvmsg, sendmsg, RecvAncillaryBuffer, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};

pub const VERSION: u16 = 1;
pub const DMA_MAP: u16 = 2;
pub const DMA_UNMAP: u16 = 3;
pub const GET_INFO: u16 = 4;
pub const GET_REGION_INFO: u16 = 5;
pub const GET_REGION_IO_FDS: u16 = 6;
pub const GET_IRQ_INFO: u16 = 7;
pub const SET_IRQS: u16 = 8;
pub const REGION_READ: u16 = 9;
pub const REGION_WRITE: u16 = 10;
pub const RESET: u16 = 13;
pub const WRITE_MULTI: u16 = 15;
pub const FEATURE: u16 = 16;
pub const MIG_DATA_READ: u16 = 17;
pub const MIG_DATA_WRITE: u16 = 18;
pub const PRECOPY_INFO: u16 = 19;

pub const ENOENT: u32 = 2;
pub const ENOMEM: u32 = 12;
pub const EBUSY: u32 = 16;
pub const EEXIST: u32 = 17;
pub const ENODEV: u32 = 19;
pub const EINVAL: u32 = 22;
pub const ENOTTY: u32 = 25;
pub const ENOSYS: u32 = 38;

pub const NO_REPLY: u32 = 0x10;

pub const CONFIG: u32 = 7;

/// Longer than anything takes that goes well.
const LIMIT: Duration = Duration::from_secs(30);

/// What QEMU says of itself.
pub const QEMU: &[u8] =
    b"{\"capabilities\":{\"pgsizes\":4096,\"max_msg_fds\":16,\"max_dma_maps\":65535,\
    \"max_data_xfer_size\":1048576,\"migration\":{\"max_bitmap_size\":268435456,\"pgsize\":4096},\
    \"write_multiple\":true}}\0";

/// Numbers of 32 bits as a body.
pub fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// Numbers of 64 bits as a body.
pub fn longs(longs: &[u64]) -> Vec<u8> {
    longs.iter().flat_map(|long| long.to_ne_bytes()).collect()
}

/// A message with all of its header.
pub fn message(id: u16, command: u16, size: u32, flags: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = [id.to_ne_bytes(), command.to_ne_bytes()].concat();
    bytes.extend(words(&[size, flags, 0]));
    bytes.extend(body);
    bytes
}

/// A message as it should be.
pub fn sound(id: u16, command: u16, body: &[u8]) -> Vec<u8> {
    message(id, command, 16 + body.len() as u32, 0, body)
}

/// The body of a version.
pub fn version(major: u16, minor: u16, data: &[u8]) -> Vec<u8> {
    [&major.to_ne_bytes(), &minor.to_ne_bytes(), data].concat()
}

/// The body of an access.
pub fn access(region: u32, offset: u64, count: u32) -> Vec<u8> {
    [longs(&[offset]), words(&[region, count])].concat()
}

/// The body of a range of memory.
pub fn range(flags: u32, offset: u64, address: u64, size: u64) -> Vec<u8> {
    [words(&[32, flags]), longs(&[offset, address, size])].concat()
}

/// A reply.
#[derive(Debug)]
pub struct Answer {
    pub id: u16,
    pub command: u16,
    /// The body, or the error number.
    pub result: Result<Vec<u8>, u32>,
}

pub struct Client {
    pub socket: UnixStream,
    next: u16,
}

impl Client {
    pub fn new(socket: UnixStream) -> Self {
        socket.set_read_timeout(Some(LIMIT)).expect("a limit");
        socket.set_write_timeout(Some(LIMIT)).expect("a limit");
        Self { socket, next: 1 }
    }

    /// Agrees on a version as QEMU does.
    pub fn agree(&mut self) {
        let body = self.ask(VERSION, &version(0, 0, QEMU)).expect("a version");
        assert_eq!(body[..4], [0; 4]);
        assert_eq!(body.last(), Some(&0));
    }

    /// Sends bytes, whatever they are.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).expect("the program listens");
    }

    /// Sends bytes, and descriptors with the first of them.
    pub fn raw_with(&mut self, bytes: &[u8], fds: &[BorrowedFd<'_>]) {
        let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            assert!(ancillary.push(SendAncillaryMessage::ScmRights(fds)));
        }
        let parts = [IoSlice::new(bytes)];
        let sent = sendmsg(&self.socket, &parts, &mut ancillary, SendFlags::NOSIGNAL);
        assert_eq!(sent, Ok(bytes.len()));
    }

    fn id(&mut self) -> u16 {
        self.next = self.next.wrapping_add(1);
        self.next
    }

    /// Sends a request and takes its reply: the body, or the error number.
    pub fn ask(&mut self, command: u16, body: &[u8]) -> Result<Vec<u8>, u32> {
        self.ask_with(command, body, &[]).result
    }

    /// The same with descriptors.
    pub fn ask_with(&mut self, command: u16, body: &[u8], fds: &[BorrowedFd<'_>]) -> Answer {
        let id = self.id();
        self.raw_with(&sound(id, command, body), fds);
        let answer = self.answer().expect("a reply");
        assert_eq!((answer.id, answer.command), (id, command));
        answer
    }

    /// Sends a request that wants no reply.
    pub fn tell(&mut self, command: u16, body: &[u8]) {
        let size = 16 + body.len() as u32;
        let bytes = message(0xffff, command, size, NO_REPLY, body);
        self.raw(&bytes);
    }

    /// The next reply; none when the program has closed the connection. Its header comes in one piece.
    pub fn answer(&mut self) -> Option<Answer> {
        let mut header = [0; 16];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(&mut header)];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let received = loop {
            match recvmsg(&self.socket, &mut parts, &mut ancillary, flags) {
                Err(rustix::io::Errno::INTR) => {}
                received => break received,
            }
        };
        let received = match received {
            Ok(received) if received.bytes == 0 => return None,
            // It had not read all that was sent.
            Err(rustix::io::Errno::CONNRESET) => return None,
            received => received.expect("a reply in time"),
        };
        assert_eq!(received.bytes, 16, "a header that came in pieces");
        assert_eq!(
            ancillary.drain().count(),
            0,
            "descriptors that nobody asked for"
        );
        let word = |at: usize| u32::from_ne_bytes(header[at..at + 4].try_into().expect("four"));
        let half = |at: usize| u16::from_ne_bytes(header[at..at + 2].try_into().expect("two"));
        let (size, flags, error) = (word(4), word(8), word(12));
        let mut body = vec![0; size as usize - 16];
        self.socket.read_exact(&mut body).expect("a body");
        assert_eq!(flags & 0x1f, 1, "the flags of no reply: {flags:#x}");
        let failed = flags & 0x20 != 0;
        assert!(!failed || body.is_empty(), "an error with a body");
        Some(Answer {
            id: half(0),
            command: half(2),
            result: if failed { Err(error) } else { Ok(body) },
        })
    }

    /// Sees that the program still follows: a question has its answer.
    pub fn in_step(&mut self) {
        let body = self.ask(GET_INFO, &words(&[16, 0, 0, 0]));
        assert_eq!(body, Ok(words(&[16, 3, 9, 5])));
    }

    /// Sees that the program has closed the connection, with no reply before.
    pub fn is_closed(&mut self) {
        assert!(self.answer().is_none(), "the connection is open");
    }

    /// Sees that nothing has come, after all that was sent before was carried out.
    pub fn nothing_came(&mut self) {
        self.in_step();
        self.socket.set_nonblocking(true).expect("a socket");
        let found = self.socket.read(&mut [0]);
        self.socket.set_nonblocking(false).expect("a socket");
        assert_eq!(found.map_err(|e| e.kind()), Err(ErrorKind::WouldBlock));
    }

    pub fn read(&mut self, region: u32, offset: u64, count: u32) -> Result<Vec<u8>, u32> {
        let body = self.ask(REGION_READ, &access(region, offset, count))?;
        assert_eq!(body[..16], access(region, offset, count));
        Ok(body[16..].to_vec())
    }

    pub fn write(&mut self, region: u32, offset: u64, data: &[u8]) -> Result<(), u32> {
        let to = access(region, offset, data.len() as u32);
        let body = self.ask(REGION_WRITE, &[&to, data].concat())?;
        assert_eq!(body, to);
        Ok(())
    }

    /// A request about interrupts: flags, index, start, count, and what follows.
    pub fn irqs(
        &mut self,
        [flags, index, start, count]: [u32; 4],
        data: &[u8],
        fds: &[BorrowedFd<'_>],
    ) -> Result<(), u32> {
        let argsz = 20 + data.len() as u32;
        let body = [&words(&[argsz, flags, index, start, count]), data].concat();
        let result = self.ask_with(SET_IRQS, &body, fds).result;
        result.map(|body| assert!(body.is_empty()))
    }
}

/// The connection ends here. Dropping the socket may not do that at once: another test may be starting a program, which has a copy
/// of every descriptor for a moment.
impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

/// An eventfd as QEMU makes it.
pub fn event() -> OwnedFd {
    eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).expect("an eventfd")
}

/// Whether the eventfd is signalled, now or before the limit; it is not afterwards.
pub fn signalled(event: &OwnedFd, limit: Duration) -> bool {
    let mut files = [PollFd::from_borrowed_fd(event.as_fd(), PollFlags::IN)];
    let limit = Timespec {
        tv_sec: limit.as_secs() as _,
        tv_nsec: limit.subsec_nanos() as _,
    };
    poll(&mut files, Some(&limit)).expect("poll");
    rustix::io::read(event, &mut [0; 8]).is_ok()
}

/// What was to be signalled was so when the reply came.
pub const NOW: Duration = Duration::ZERO;
/// Longer than the device takes.
pub const SOON: Duration = LIMIT;
