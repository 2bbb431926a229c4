// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What the words on the command line name.
//!
//! A UUID is an instance. `vfio-user:SOCKET` is the device of a program that listens there. `-` is standard input. What exists as a file is that file, which as a destination may be a device
//! program. Anything else is the name of a type, `TYPE` or `PARENT/TYPE`.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use migration::model::Type;
use migration::stream::{SetupRecord, MAGIC, MAX_SETUP_LEN};
use migration::value::Param;
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::input;
use crate::json::{read_info, read_source, Bump, Info, Source};
use crate::program::{self, is_program};
use crate::sysfs::{read_bounded, Instance, Sysfs};

/// The word for standard input and standard output.
pub const STANDARD: &str = "-";

/// How a word begins that names the socket of a device program.
const VFIO_USER: &str = "vfio-user:";

/// The instance of this name.
pub fn instance(sysfs: &Sysfs, word: &str) -> Result<Instance> {
    let uuid = Uuid::try_parse(word).map_err(|_| match word.starts_with(VFIO_USER) {
        true => Error::failed(format!(
            "{word}: the device of a program can be saved, loaded, copied and watched, and nothing else here"
        )),
        false => Error::failed(format!("{word}: not the UUID of an mdev instance")),
    })?;
    sysfs.instance(uuid)
}

/// A device whose state can be moved, and watched on its way.
pub enum Device {
    /// An instance.
    Instance(Instance),
    /// The device of a program.
    Socket {
        /// Where it listens.
        path: PathBuf,
        /// The word.
        name: String,
    },
}

impl Device {
    /// Whether both are the same device.
    pub fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Instance(one), Self::Instance(other)) => one.uuid == other.uuid,
            (Self::Socket { path: one, .. }, Self::Socket { path: other, .. }) => {
                let file = |path: &PathBuf| path.canonicalize().unwrap_or_else(|_| path.clone());
                file(one) == file(other)
            }
            _ => false,
        }
    }
}

/// The device that the word names: an instance, or what listens at a socket.
pub fn device(sysfs: &Sysfs, word: &str) -> Result<Device> {
    match word.strip_prefix(VFIO_USER) {
        None => instance(sysfs, word).map(Device::Instance),
        Some("") => Err(Error::failed(format!("{word}: give the path of a socket"))),
        Some(path) => Ok(Device::Socket {
            path: PathBuf::from(path),
            name: word.to_string(),
        }),
    }
}

/// Whether the word names a socket of a device program.
pub fn is_socket(word: &str) -> bool {
    word.starts_with(VFIO_USER)
}

/// Opens a file, or standard input.
pub fn open(word: &str) -> Result<Box<dyn Read>> {
    if word == STANDARD {
        return Ok(Box::new(io::stdin()));
    }
    input::named(Path::new(word))
}

/// How messages call the operand.
pub fn display(word: &str) -> &str {
    match word {
        STANDARD => "(standard input)",
        word => word,
    }
}

/// A document of bounded size.
fn document(word: &str) -> Result<Vec<u8>> {
    read_bounded(open(word)?).map_err(|error| Error::file(Path::new(display(word)), &error))
}

/// The source that the word names: an instance, a parameter list or a saved state.
pub fn source<'a>(arena: &'a Bump, sysfs: &Sysfs, word: &str) -> Result<Source<'a>> {
    if let Ok(uuid) = Uuid::try_parse(word) {
        return sysfs.instance(uuid)?.source(arena);
    }
    let bytes: &'a [u8] = arena.alloc_slice_copy(&document(word)?);
    if bytes.starts_with(&MAGIC) {
        return saved_source(arena, bytes).map_err(|error| {
            Error::failed(format!(
                "{}: not a sound saved state: {error}",
                display(word)
            ))
        });
    }
    read_source(arena, bytes).map_err(|error| Error::failed(format!("{}:{error}", display(word))))
}

/// What the first record of a saved state says of its source.
fn saved_source<'a>(
    arena: &'a Bump,
    bytes: &'a [u8],
) -> std::result::Result<Source<'a>, migration::stream::StreamError> {
    // The record says its length, and is taken apart only as a whole.
    let len = match bytes.get(12..16).map(TryInto::try_into) {
        Some(Ok(len)) => u32::from_le_bytes(len) as usize,
        _ => bytes.len(),
    };
    let record = bytes.get(..len.min(MAX_SETUP_LEN)).unwrap_or(bytes);
    let record = SetupRecord::parse(record)?;
    let params: Vec<Param<'a>> = record.params().collect();
    Ok(Source {
        model: record.model,
        params: arena.alloc_slice_copy(&params),
    })
}

/// A destination: what it offers, and the instance if it is one.
pub struct Destination<'a> {
    /// What it offers.
    pub types: &'a [Type<'a>],
    /// Changes when that may have.
    pub generation: Option<&'a str>,
    /// Set if it is an instance.
    pub instance: Option<Instance>,
    /// Whether it is a device program.
    pub is_program: bool,
}

/// The destination that the word names: an instance, a device program, a file with migration information, or a type.
pub fn destination<'a>(arena: &'a Bump, sysfs: &Sysfs, word: &str) -> Result<Destination<'a>> {
    if let Ok(uuid) = Uuid::try_parse(word) {
        let instance = sysfs.instance(uuid)?;
        let ty = instance.offer(arena)?;
        return Ok(Destination {
            types: std::slice::from_ref(ty),
            generation: None,
            instance: Some(instance),
            is_program: false,
        });
    }
    let is_program = is_program(word);
    let info: Info<'a> = if is_program {
        let bytes: &'a [u8] = arena.alloc_slice_copy(&program::information(word)?);
        read_info(arena, bytes).map_err(|error| Error::failed(format!("{word}:{error}")))?
    } else if word == STANDARD || input::is_there(Path::new(word))? {
        let bytes: &'a [u8] = arena.alloc_slice_copy(&document(word)?);
        read_info(arena, bytes)
            .map_err(|error| Error::failed(format!("{}:{error}", display(word))))?
    } else {
        sysfs.find_type(word)?.info(arena)?
    };
    Ok(Destination {
        types: info.types,
        generation: info.generation,
        instance: None,
        is_program,
    })
}
