// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Watching the device of a program, as an observer: beside its client, which may be a monitor that migrates it.

use std::os::fd::AsFd;
use std::path::Path;

use migration::fsm::State;
use rustix::event::{PollFd, PollFlags};
use vfio_uapi::Errno;
use vfio_user_protocol::feature::{number, Feature, Operation};
use vfio_user_protocol::{answer, Command, Progress, Proposal, Request};

use super::{is_gone, polled, Sample, Wake};
use crate::error::{Error, Result};
use crate::state::errno;
use crate::vfio_user::{Answered, Client, Heard, Trouble};

/// A connection as an observer.
pub struct Observer {
    client: Client,
    name: String,
    /// What was told last; nothing before the first time.
    told: Option<Sample>,
    /// Whether the next time was asked for.
    has_asked: bool,
    has_ended: bool,
}

/// What an observer asks for.
fn question(most: u32) -> Request<'static> {
    Request::Feature(Feature {
        argsz: most,
        number: number::PROGRESS,
        operation: Operation::Get,
        data: &[],
    })
}

impl Observer {
    /// Connects to the program that listens at this path. `name` is what messages call it.
    ///
    /// # Errors
    /// Of a program that has no observers, too. It has taken this one for its client for a moment, unless it had one.
    pub fn new(path: &Path, name: &str) -> Result<Self> {
        let failed = |what: &str| Error::failed(format!("{name}: {what}"));
        let mut client = Client::connect(path).map_err(|what| failed(&what))?;
        let theirs = client.agree(Proposal::of_observer());
        let theirs = theirs.map_err(|trouble| match trouble {
            Trouble::Refused(Errno::EBUSY) => failed(
                "the program has a client, and lets nobody watch beside it (EBUSY): serve the device by a `vfio-user-device` that does",
            ),
            Trouble::Refused(Errno::ENOSPC) => {
                failed("as many watch the device as the program lets (ENOSPC): end one of them")
            }
            Trouble::Refused(error) => failed(&errno("the program does not agree", error)),
            Trouble::Lost(what) => failed(&format!(
                "{what}: a program that lets nobody watch may be busy with its client"
            )),
        })?;
        if !theirs.observer {
            return Err(failed(
                "the program lets nobody watch: serve the device by a `vfio-user-device` that does",
            ));
        }
        Ok(Self {
            client,
            name: name.to_string(),
            told: None,
            has_asked: false,
            has_ended: false,
        })
    }

    /// How things are now; `None` if the program has ended the connection.
    pub fn sample(&mut self) -> Result<Option<Sample>> {
        if self.has_ended {
            return Ok(None);
        }
        if self.told.is_none() {
            let body = self.client.ask(&question(self.client.most));
            self.told = Some(self.taken(body)?);
        }
        Ok(self.told.clone())
    }

    /// Waits until something is different, or the program has gone, or nobody reads `output` any more.
    pub fn wait(&mut self, output: impl AsFd) -> Result<Wake> {
        if !self.has_asked {
            let asked = self.client.tell(&question(self.client.most));
            // A program that has just gone is found out below.
            self.has_asked = asked.is_ok();
        }
        loop {
            let mut files = [
                PollFd::new(&self.client, PollFlags::IN),
                // Errors are told unasked.
                PollFd::new(&output, PollFlags::empty()),
            ];
            polled(&mut files)?;
            if is_gone(&files[1]) {
                return Ok(Wake::NoReader);
            }
            if files[0].revents().is_empty() {
                continue;
            }
            match self.client.hear(Command::Feature) {
                Ok(Heard::Nothing) => {}
                Ok(Heard::End) => {
                    self.has_ended = true;
                    return Ok(Wake::Changed);
                }
                Ok(Heard::Reply(body)) => {
                    self.has_asked = false;
                    self.told = Some(self.taken(Ok(body))?);
                    return Ok(Wake::Changed);
                }
                Err(trouble) => return Err(self.failure(trouble)),
            }
        }
    }

    fn failure(&self, trouble: Trouble) -> Error {
        let name = &self.name;
        Error::failed(match trouble {
            Trouble::Refused(error) => errno(&format!("{name}: the progress"), error),
            Trouble::Lost(what) => format!("{name}: {what}"),
        })
    }

    fn taken(&self, body: Answered<Vec<u8>>) -> Result<Sample> {
        let sample = body.and_then(|body| {
            let data = answer::feature(&body)?;
            let (progress, _) = Progress::decode(data)?;
            let state = State::try_from(progress.state);
            let state = state.map_err(|unknown| Trouble::Lost(unknown.to_string()))?;
            Ok(Sample {
                state: state.to_string(),
                phase: progress.phase.name().to_string(),
                bytes: progress.bytes,
                sessions: Some(progress.sessions),
            })
        });
        sample.map_err(|trouble| self.failure(trouble))
    }
}
