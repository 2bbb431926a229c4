// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Types and instances as sysfs shows them.
//!
//! Sources: Documentation/ABI/testing/sysfs-bus-vfio-mdev of the kernel; this project's
//! Documentation/ABI/testing/sysfs-bus-mdev-migration.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use migration::model::{parse_value, Type};
use migration::value::{Kind, Param, Value};
use uuid::Uuid;

use crate::error::{describe, Error, Result};
use crate::input::{self, is_there};
use crate::json::{read_info, Bump, Info, Source, MAX_DOCUMENT};

/// Where sysfs is: `/sys`, or a copy of another host's.
#[derive(Clone, Debug)]
pub struct Sysfs {
    root: PathBuf,
}

/// A type that a parent device offers.
#[derive(Clone, Debug)]
pub struct MdevType {
    path: PathBuf,
    /// The parent device.
    pub parent: String,
    /// The type's name, which other parents may use as well.
    pub name: String,
}

/// An instance.
#[derive(Clone, Debug)]
pub struct Instance {
    path: PathBuf,
    /// Its name.
    pub uuid: Uuid,
}

impl Default for Sysfs {
    fn default() -> Self {
        Self::at("/sys")
    }
}

impl Sysfs {
    /// A tree that is laid out as sysfs is.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Whether it is the one of this machine, whose devices can be opened.
    pub fn is_live(&self) -> bool {
        self.root == Path::new("/sys")
    }

    /// All types of all parents, by parent and name.
    pub fn types(&self) -> Result<Vec<MdevType>> {
        self.check()?;
        let parents = self.root.join("class/mdev_bus");
        let mut types = Vec::new();
        for parent in names(&parents)? {
            let directory = parents.join(&parent).join("mdev_supported_types");
            for name in names(&directory)? {
                types.push(MdevType {
                    path: directory.join(&name),
                    parent: parent.clone(),
                    name,
                });
            }
        }
        Ok(types)
    }

    /// The type called `name` or `parent/name`.
    pub fn find_type(&self, name: &str) -> Result<MdevType> {
        let is_it = |ty: &MdevType| match name.split_once('/') {
            Some((parent, name)) => ty.parent == parent && ty.name == name,
            None => ty.name == name,
        };
        let mut types = self.types()?;
        let known: Vec<String> = types.iter().map(MdevType::full_name).collect();
        types.retain(is_it);
        match (types.pop(), types.is_empty()) {
            (Some(ty), true) => Ok(ty),
            (Some(ty), false) => Err(Error::failed(format!(
                "{name}: several parents offer this type: say which, as in {}",
                ty.full_name()
            ))),
            (None, _) if known.is_empty() => Err(Error::failed(format!(
                "{name}: no such file, and no mdev parent device is there: load its driver"
            ))),
            (None, _) => Err(Error::failed(format!(
                "{name}: neither a file nor a type here; types are {}",
                known.join(", ")
            ))),
        }
    }

    /// All instances, by name.
    pub fn instances(&self) -> Result<Vec<Instance>> {
        let directory = self.root.join("bus/mdev/devices");
        let names = names(&directory)?;
        let instance = |name: String| {
            Some(Instance {
                path: directory.join(&name),
                uuid: Uuid::try_parse(&name).ok()?,
            })
        };
        Ok(names.into_iter().filter_map(instance).collect())
    }

    /// The instance of this name.
    pub fn instance(&self, uuid: Uuid) -> Result<Instance> {
        let path = self.root.join("bus/mdev/devices").join(uuid.to_string());
        if is_there(&path)? {
            return Ok(Instance { path, uuid });
        }
        self.check()?;
        Err(Error::failed(format!(
            "{uuid}: no such mdev instance: `vfio-migrate types` lists what is here"
        )))
    }

    /// Fails if there is no such tree.
    fn check(&self) -> Result<()> {
        match fs::metadata(&self.root) {
            Ok(root) if root.is_dir() => Ok(()),
            Ok(root) => Err(Error::failed(format!(
                "{}: {}, not the directory of a sysfs",
                self.root.display(),
                input::noun(root.file_type())
            ))),
            Err(error) => Err(Error::file(&self.root, &error)),
        }
    }
}

/// The entries of a directory, sorted; none if there is no such directory.
fn names(directory: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::file(directory, &error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| Error::file(directory, &error))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// Reads all of a reader, at most [`MAX_DOCUMENT`] bytes and one that shows that there is more.
pub fn read_bounded(reader: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader
        .take(MAX_DOCUMENT as u64 + 1)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    read_bounded(input::regular(path)?)
}

/// A line of text without its newline.
fn read_line(path: &Path) -> Result<String> {
    let bytes = read_file(path).map_err(|error| Error::file(path, &error))?;
    let text = String::from_utf8(bytes);
    let mut text = text.map_err(|_| Error::failed(format!("{}: not UTF-8", path.display())))?;
    if text.ends_with('\n') {
        text.pop();
    }
    Ok(text)
}

impl MdevType {
    /// `parent/name`
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.parent, self.name)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// One of its files of one line, if it is there.
    pub fn attribute(&self, name: &str) -> Option<String> {
        read_line(&self.path.join(name)).ok()
    }

    /// Whether it tells about migration.
    pub fn has_info(&self) -> Result<bool> {
        is_there(&self.path.join("migration_info.json"))
    }

    /// The file with its migration information.
    pub fn info_path(&self) -> PathBuf {
        self.path.join("migration_info.json")
    }

    /// The text of that file.
    pub fn info_text(&self) -> Result<Vec<u8>> {
        if !self.has_info()? {
            return Err(Error::failed(format!(
                "{}: the type has no migration_info.json: its driver does not support the migration interface",
                self.full_name()
            )));
        }
        let path = self.info_path();
        read_file(&path).map_err(|error| Error::file(&path, &error))
    }

    /// What it offers.
    pub fn info<'a>(&self, arena: &'a Bump) -> Result<Info<'a>> {
        let text = arena.alloc_slice_copy(&self.info_text()?);
        read_info(arena, text)
            .map_err(|error| Error::failed(format!("{}:{error}", self.info_path().display())))
    }
}

/// The parameters of an instance, as set-up needs them.
pub trait Parameters {
    /// The text in the parameter's file, without its newline.
    fn read(&self, name: &str) -> Result<String>;
    /// Writes the parameter's file.
    fn write(&mut self, name: &str, value: &str) -> io::Result<()>;
    /// The reason of the last refusal, or an empty text.
    fn reason(&self) -> String;
}

impl Instance {
    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// One of the files in `migration/`.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join("migration").join(name)
    }

    /// Fails unless it has the files in `migration/`.
    pub fn check_migratable(&self) -> Result<()> {
        match is_there(&self.path.join("migration"))? {
            true => Ok(()),
            false => Err(Error::failed(format!(
                "{}: the instance has no migration/ directory: its driver does not support the migration interface",
                self.uuid
            ))),
        }
    }

    /// Its type.
    pub fn mdev_type(&self) -> Result<MdevType> {
        let link = self.path.join("mdev_type");
        let path = fs::canonicalize(&link).map_err(|error| Error::file(&link, &error))?;
        // <parent>/mdev_supported_types/<type>
        let mut names = path
            .iter()
            .rev()
            .map(|name| name.to_string_lossy().into_owned());
        match (names.next(), names.next(), names.next()) {
            (Some(name), Some(_), Some(parent)) => Ok(MdevType { path, parent, name }),
            _ => Err(Error::failed(format!(
                "{}: not the link to a type",
                link.display()
            ))),
        }
    }

    /// What can be set: the part of its type's information that is about its model.
    pub fn offer<'a>(&self, arena: &'a Bump) -> Result<&'a Type<'a>> {
        self.check_migratable()?;
        let model = read_line(&self.file("device_model"))?;
        let ty = self.mdev_type()?;
        let info = ty.info(arena)?;
        let mut types = info.types.iter();
        types.find(|ty| ty.model.name == model).ok_or_else(|| {
            Error::failed(format!(
                "{}: its model is {model}, of which the type {} says nothing",
                self.uuid,
                ty.full_name()
            ))
        })
    }

    /// The values of all parameters, in declaration order.
    pub fn values<'a>(&self, arena: &'a Bump, ty: &Type<'a>) -> Result<Vec<Param<'a>>> {
        let params = ty.model.params.iter();
        params
            .map(|def| {
                let text: &'a str = arena.alloc_str(&self.read(def.name)?);
                let value = match def.kind {
                    // What is more than a stream can carry is for the check to tell.
                    Kind::Str => Value::Str(text),
                    kind => parse_value(kind, text.as_bytes()).map_err(|error| {
                        Error::failed(format!("{}: {error}", self.file(def.name).display()))
                    })?,
                };
                Ok(Param {
                    name: def.name,
                    value,
                })
            })
            .collect()
    }

    /// It as a source: its model and the parameters in effect.
    pub fn source<'a>(&self, arena: &'a Bump) -> Result<Source<'a>> {
        let ty = self.offer(arena)?;
        let values = self.values(arena, ty)?;
        let list: Vec<Param<'a>> = in_effect(ty, &values).collect();
        Ok(Source {
            model: ty.model.name,
            params: arena.alloc_slice_copy(&list),
        })
    }

    /// The version its values are, if its model has versions.
    pub fn version(&self) -> Option<String> {
        read_line(&self.file("version")).ok()
    }
}

/// The parameters of which the value is not the off value.
pub fn in_effect<'v, 'a>(
    ty: &'v Type<'a>,
    values: &'v [Param<'a>],
) -> impl Iterator<Item = Param<'a>> + 'v {
    let is_on = |param: &&Param<'a>| {
        let off: Option<Value<'a>> = ty.model.param(param.name).and_then(|def| def.off);
        off != Some(param.value)
    };
    values.iter().filter(is_on).copied()
}

impl Parameters for Instance {
    fn read(&self, name: &str) -> Result<String> {
        read_line(&self.file(name))
    }

    fn write(&mut self, name: &str, value: &str) -> io::Result<()> {
        let mut file = input::regular_to_write(&self.file(name))?;
        // One call: sysfs takes each for a value of its own. With a newline: of a call without bytes a driver hears nothing.
        let line = format!("{value}\n");
        match file.write(line.as_bytes())? {
            len if len == line.len() => Ok(()),
            _ => Err(io::ErrorKind::WriteZero.into()),
        }
    }

    fn reason(&self) -> String {
        read_line(&self.file("error")).unwrap_or_default()
    }
}

/// What a refused write means, with the driver's reason.
pub fn refusal(error: &io::Error, reason: &str) -> String {
    match reason {
        "" => describe(error),
        reason => format!("{}: {reason}", describe(error)),
    }
}
