// SPDX-License-Identifier: GPL-2.0 OR MIT

//! One client of a control socket, which has a thread of its own.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{
    recvmsg, send, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendFlags,
};

use super::commands::{happened, Session, MAX_FDS};
use super::envelope::{self, Call, Fault, Form, Unclear, Wishes, END};
use super::framing::{FrameError, Framer};
use super::Settings;
use crate::registry::Registry;

/// How answers are sent: without waiting.
pub const FLAGS: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);

/// Bytes that are read at a time.
const CHUNK: usize = 64 << 10;

/// A client.
pub struct Client {
    socket: OwnedFd,
    session: Session,
    settings: Settings,
    framer: Framer,
    /// In which form it is answered if that cannot be told from what it says.
    form: Form,
    /// What it is to be told, and how much of that was.
    out: Vec<u8>,
    sent: usize,
    /// Nothing more is heard.
    closes: bool,
}

/// It is gone, or given up.
struct Gone;

impl Client {
    /// Takes up a connection.
    pub fn new(
        socket: OwnedFd,
        registry: Registry,
        greets: bool,
        settings: Settings,
    ) -> std::io::Result<Self> {
        let (form, out) = match greets {
            true => (Form::Qmp, envelope::greeting().into_bytes()),
            false => (Form::JsonRpc, Vec::new()),
        };
        Ok(Self {
            socket,
            session: Session::new(registry, settings.clone()),
            settings,
            framer: Framer::default(),
            form,
            out,
            sent: 0,
            closes: false,
        })
    }

    /// Serves it until it goes.
    pub fn run(mut self) {
        while self.turn().is_ok() {}
        if self.session.quits {
            // Whoever takes it is there as long as the program is.
            let _ = rustix::io::write(&self.settings.end, &[0]);
        }
    }

    /// Does one thing: nothing is done before what was to be said has been.
    fn turn(&mut self) -> Result<(), Gone> {
        self.speak()?;
        if self.closes || self.session.quits {
            return Err(Gone);
        }
        if self.tell_event() {
            return Ok(());
        }
        match self.framer.next_text() {
            Some(Ok(text)) => {
                let wishes = envelope::parse(text);
                self.answer(wishes);
                Ok(())
            }
            Some(Err(error)) => {
                self.refuse(error);
                Ok(())
            }
            None => self.hear(),
        }
    }

    /// Sends all that is to be sent.
    fn speak(&mut self) -> Result<(), Gone> {
        while let Some(rest) = self.out.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match send(&self.socket, rest, FLAGS) {
                Ok(sent) => self.sent += sent,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.wait_for_room()?,
                Err(_) => return Err(Gone),
            }
        }
        self.out.clear();
        self.sent = 0;
        Ok(())
    }

    fn wait_for_room(&self) -> Result<(), Gone> {
        let patience = self.settings.patience;
        let patience = Timespec {
            tv_sec: patience.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: patience.subsec_nanos().into(),
        };
        let mut files = [PollFd::new(&self.socket, PollFlags::OUT)];
        match poll(&mut files, Some(&patience)) {
            Ok(0) => Err(Gone),
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(_) => Err(Gone),
        }
    }

    /// Waits for bytes, or an event.
    fn hear(&mut self) -> Result<(), Gone> {
        let mut files = vec![PollFd::new(&self.socket, PollFlags::IN)];
        let watch = self.session.watch.as_ref();
        files.extend(
            watch.map(|(_, events)| PollFd::from_borrowed_fd(events.as_fd(), PollFlags::IN)),
        );
        match poll(&mut files, None) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(()),
            Err(_) => return Err(Gone),
        }
        if files[0].revents().is_empty() {
            return Ok(());
        }
        drop(files);
        let mut bytes = vec![0; CHUNK];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let received = match recvmsg(&self.socket, &mut parts, &mut ancillary, flags) {
            Ok(received) => received,
            Err(Errno::INTR | Errno::AGAIN) => return Ok(()),
            Err(_) => return Err(Gone),
        };
        let lost = received.flags.contains(ReturnFlags::CTRUNC);
        let mut fds = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(come) = message {
                fds.extend(come);
            }
        }
        self.session.take_fds(fds.into_iter(), lost);
        if received.bytes == 0 {
            return Err(Gone);
        }
        self.framer
            .push(bytes.get(..received.bytes).unwrap_or_default());
        Ok(())
    }

    fn say(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
        self.out.extend_from_slice(END.as_bytes());
    }

    fn refuse(&mut self, error: FrameError) {
        self.closes = error.is_fatal();
        let fault = Fault::Parse(error.to_string());
        let text = envelope::answer(self.form, None, &Err(fault));
        self.say(&text);
    }

    fn answer(&mut self, wishes: Wishes) {
        match wishes {
            Wishes::One(wish) => {
                if let Some(text) = self.carry_out(&wish) {
                    self.say(&text);
                }
            }
            Wishes::Batch(wishes) => {
                let mut answers = Vec::new();
                for wish in &wishes {
                    if !self.session.quits {
                        answers.extend(self.carry_out(wish));
                    }
                }
                if !answers.is_empty() {
                    self.say(&format!("[{}]", answers.join(",")));
                }
            }
        }
    }

    /// Carries out a wish: the answer, if one is wanted.
    fn carry_out(&mut self, wish: &Result<Call, Unclear>) -> Option<String> {
        match wish {
            Ok(call) => {
                let result = self.session.carry_out(call);
                call.wants_answer()
                    .then(|| envelope::answer(call.form, call.id.as_deref(), &result))
            }
            Err(unclear) => {
                let form = unclear.form.unwrap_or(self.form);
                let result = Err(unclear.fault.clone());
                Some(envelope::answer(form, unclear.id.as_deref(), &result))
            }
        }
    }

    /// Tells of something that has happened.
    fn tell_event(&mut self) -> bool {
        let Some((form, events)) = &self.session.watch else {
            return false;
        };
        let Some(event) = events.take() else {
            return false;
        };
        if let Some((name, data)) = happened(&event, self.session.registry()) {
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            let text = envelope::event(*form, name, &data, now.unwrap_or(Duration::ZERO));
            self.out.extend_from_slice(text.as_bytes());
        }
        true
    }
}
