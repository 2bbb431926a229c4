// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What the tests share: instances and their files, and running the tool.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use anyhow::{bail, ensure, Context, Result};
use guest_tests::kernel;
use serde_json::Value as Json;
use vfio_uapi::mdev::{Mdev, MdevType};
use vfio_uapi::{Device, Errno};

/// The device model of every type.
pub const MODEL: &str = "rust-vfio-mdev.example/pci/serial";

/// A new instance of a type of the parent `mdev_serial`.
pub fn instance(ty: &str) -> Result<Mdev> {
    MdevType::find(ty)?.create()
}

/// A new instance that can have 1, 2 or 4 ports.
pub fn any() -> Result<Mdev> {
    instance("mdev_serial-any")
}

/// Opens the device of an instance.
pub fn open(instance: &Mdev) -> Result<Device> {
    kernel::usual_access().open(instance)
}

/// Writes a file in `migration/` with one system call.
pub fn set(instance: &Mdev, name: &str, text: impl AsRef<[u8]>) -> Result<(), Errno> {
    let path = instance.path().join("migration").join(name);
    let text = text.as_ref();
    let mut file = OpenOptions::new().write(true).open(path).map_err(errno)?;
    match file.write(text).map_err(errno)? {
        len if len == text.len() => Ok(()),
        _ => Err(Errno::EIO),
    }
}

fn errno(error: std::io::Error) -> Errno {
    error
        .raw_os_error()
        .map_or(Errno::UnknownErrno, Errno::from_raw)
}

/// Reads a file in `migration/`.
pub fn get(instance: &Mdev, name: &str) -> Result<String> {
    instance.attribute(&format!("migration/{name}"))
}

/// The migration information of the instance's type.
pub fn info(instance: &Mdev) -> Result<Json> {
    let path = instance.path().join("mdev_type/migration_info.json");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    serde_json::from_str(&text).with_context(|| path.display().to_string())
}

/// The parameters of the instance's type: name and what the migration information says about it.
pub fn definitions(instance: &Mdev) -> Result<BTreeMap<String, Json>> {
    let info = info(instance)?;
    let params = info["models"][MODEL]["params"].as_object();
    let params = params.context("no params in migration_info.json")?;
    Ok(params
        .iter()
        .map(|(name, def)| (name.clone(), def.clone()))
        .collect())
}

/// The values of all parameters.
pub fn values(instance: &Mdev) -> Result<BTreeMap<String, String>> {
    let names = definitions(instance)?.into_keys();
    names
        .map(|name| Ok((name.clone(), get(instance, &name)?)))
        .collect()
}

/// Fails unless the instance has these values.
pub fn unchanged(instance: &Mdev, before: &BTreeMap<String, String>) -> Result<()> {
    let now = values(instance)?;
    ensure!(
        now == *before,
        "the parameters were {before:?} and are {now:?}"
    );
    Ok(())
}

/// The tool, with `name` of an instance where it is asked for.
pub fn tool() -> Result<Command> {
    let mut path: PathBuf = std::env::current_exe().context("the path of this program")?;
    path.set_file_name("vfio-migrate");
    let mut command = Command::new(path);
    command.stdin(Stdio::null());
    Ok(command)
}

/// What a run of the tool gave.
#[derive(Debug)]
pub struct Ran {
    /// Exit status.
    pub status: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            status: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Runs the tool to its end.
pub fn run<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Result<Ran> {
    let output = tool()?
        .args(arguments)
        .output()
        .context("vfio-migrate cannot be started")?;
    Ok(output.into())
}

impl Ran {
    /// Fails unless the exit status is this one, and every failure is one line.
    pub fn expect(self, status: i32) -> Result<Self> {
        if self.status != status {
            bail!(
                "exit status {} instead of {status}: {:?} {:?}",
                self.status,
                self.out,
                self.err
            );
        }
        if status != 0 {
            ensure!(
                self.err.lines().count() <= 1,
                "an error of several lines: {:?}",
                self.err
            );
        }
        Ok(self)
    }

    /// Fails unless standard output or standard error has these words.
    pub fn says(self, words: &str) -> Result<Self> {
        ensure!(
            self.out.contains(words) || self.err.contains(words),
            "{words:?} is not in {:?} nor in {:?}",
            self.out,
            self.err
        );
        Ok(self)
    }

    /// Standard output as JSON.
    pub fn json(&self) -> Result<Json> {
        serde_json::from_str(&self.out).with_context(|| format!("not JSON: {:?}", self.out))
    }
}

/// The name of an instance as an argument.
pub fn name(instance: &Mdev) -> String {
    instance.uuid().to_string()
}

/// A directory of this program's own, gone with this value.
pub struct Scratch(PathBuf);

impl Scratch {
    /// An empty directory.
    pub fn new() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("migrate-tool-{}", uuid::Uuid::new_v4()));
        fs::create_dir(&path).with_context(|| path.display().to_string())?;
        Ok(Self(path))
    }

    /// A file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// A file in it with this content.
    pub fn with(&self, name: &str, content: impl AsRef<[u8]>) -> Result<PathBuf> {
        let path = self.file(name);
        fs::write(&path, content).with_context(|| path.display().to_string())?;
        Ok(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What stays is in the memory of a machine that ends soon.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A parameter list as a document.
pub fn list(params: Json) -> String {
    serde_json::json!({"model": MODEL, "params": params}).to_string()
}
