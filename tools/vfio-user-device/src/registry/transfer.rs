// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A device's state on its way, piece by piece: whoever takes or brings it may be slow, and the device's thread does not wait.

use std::io::{self, Read, Write};

use super::thread::{Handle, Wanted};
use super::Error;
use crate::model::SessionName;

/// Most bytes of a piece.
pub const MAX_PIECE: usize = 1 << 20;

/// A session of a remote call. One that is dropped is over: what was being loaded is forgotten.
#[derive(Debug)]
struct Session {
    device: Handle,
    name: SessionName,
    is_over: bool,
}

impl Session {
    fn finish(mut self) -> Result<(), Error> {
        self.is_over = true;
        let name = self.name;
        self.device.ask(|answer| Wanted::Finish(name, answer))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if !self.is_over {
            // Whoever is told of an error finds the device as it was.
            let name = self.name;
            let _ = self.device.ask(|answer| Wanted::Abandon(name, answer));
        }
    }
}

/// A device that is being saved.
#[derive(Debug)]
pub struct Saving(Session);

impl Saving {
    pub(super) fn new(device: Handle, name: SessionName) -> Self {
        Self(Session {
            device,
            name,
            is_over: false,
        })
    }

    /// The next bytes of the stream, no more than so many and than [`MAX_PIECE`]; none at its end.
    pub fn next(&mut self, most: usize) -> Result<Vec<u8>, Error> {
        let (name, most) = (self.0.name, most.min(MAX_PIECE));
        self.0
            .device
            .ask(|answer| Wanted::Saved(name, most, answer))
    }

    /// Ends it: the device runs again.
    pub fn finish(self) -> Result<(), Error> {
        self.0.finish()
    }

    /// Saves all of it to there, and returns how many bytes that were.
    pub fn write_to(mut self, to: &mut impl Write) -> Result<u64, TransferError> {
        let mut count = 0;
        loop {
            let piece = self.next(MAX_PIECE)?;
            if piece.is_empty() {
                to.flush().map_err(TransferError::Io)?;
                self.finish()?;
                return Ok(count);
            }
            to.write_all(&piece).map_err(TransferError::Io)?;
            count += piece.len() as u64;
        }
    }
}

/// A device that is being loaded.
#[derive(Debug)]
pub struct Loading(Session);

impl Loading {
    pub(super) fn new(device: Handle, name: SessionName) -> Self {
        Self(Session {
            device,
            name,
            is_over: false,
        })
    }

    /// Gives it the next bytes of a stream. An error shows that the stream is not to be had.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let name = self.0.name;
        for piece in bytes.chunks(MAX_PIECE) {
            let piece = piece.to_vec();
            self.0
                .device
                .ask(|answer| Wanted::Load(name, piece, answer))?;
        }
        Ok(())
    }

    /// Puts what was loaded into effect, and leaves the device stopped until the session ends, which nothing is refused for any more.
    /// A stream that was refused, or is not complete, changes nothing and ends the session.
    pub fn settle(&mut self) -> Result<(), Error> {
        let name = self.0.name;
        self.0.device.ask(|answer| Wanted::Settle(name, answer))
    }

    /// Puts what was loaded into effect, and lets the device run. A stream that was refused, or is not complete, changes nothing.
    pub fn finish(self) -> Result<(), Error> {
        self.0.finish()
    }

    /// Loads all that comes from there, and returns how many bytes that were.
    pub fn read_from(mut self, from: &mut impl Read) -> Result<u64, TransferError> {
        let mut piece = vec![0; 64 << 10];
        let mut count = 0;
        loop {
            match from.read(&mut piece) {
                Ok(0) => break,
                Ok(len) => {
                    self.push(piece.get(..len).unwrap_or_default())?;
                    count += len as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(TransferError::Io(error)),
            }
        }
        self.finish()?;
        Ok(count)
    }
}

/// Why a stream did not arrive.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The device's reason.
    #[error(transparent)]
    Device(#[from] Error),
    /// The file's.
    #[error(transparent)]
    Io(io::Error),
}
