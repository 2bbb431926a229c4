// SPDX-License-Identifier: GPL-2.0 OR MIT

//! How QEMU is started.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use qapi::qmp;
use serde_json::Value;

use super::version::Version;

/// The guest's kernels that there may be, each with the memory in MiB that a guest with it needs: the test kernel (bootable by
/// PVH), and a distribution's, which unpacks itself and brings more along.
const KERNELS: [(&str, &str); 2] = [("/guest/vmlinux", "96"), ("/guest/vmlinuz", "256")];
/// Its root file system, and that of a guest that makes a file system.
const INITRAMFS: &str = "/guest/initramfs.cpio";
const INITRAMFS_MKE2FS: &str = "/guest/initramfs-mke2fs.cpio";
/// On the kernel command line of such a guest.
pub const FILES: &str = " lab.files=1";
/// Environment variable that overrides the usual machine type.
pub const MACHINE_VARIABLE: &str = "LAB_GUEST_MACHINE";
/// The guest's kernel command line: quiet, and without the probes that take time in a nested machine.
const APPEND: &str =
    "console=ttyS0 quiet loglevel=4 nokaslr no_timer_check tsc=reliable 8250.nr_uarts=8";

/// QEMU's name of the device that a card is.
const DEVICE: &str = "vfio-pci";
/// PCI address of the first card.
const FIRST_SLOT: usize = 5;

/// How QEMU reaches the host's IOMMU interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// A VFIO container of type 1 and the card's group.
    Type1,
    /// /dev/iommu and the card's own character device.
    Iommufd,
}

/// A card to plug in.
#[derive(Clone, Debug)]
pub struct Card {
    /// The instance's sysfs path.
    pub path: PathBuf,
    /// Further properties of QEMU's vfio-pci device, e.g. `,x-migration-multifd-transfer=on`.
    pub properties: String,
}

/// What to start.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Which QEMU.
    pub version: Version,
    /// Cards, at PCI addresses 5, 6 and so on.
    pub cards: Vec<Card>,
    /// How they are opened.
    pub backend: Backend,
    /// Wait for a migration to come in.
    pub incoming: bool,
    /// Do not start the guest (QEMU's -S).
    pub paused: bool,
    /// Use a machine whose slots a card can be pulled out of.
    pub pluggable: bool,
    /// Processors of the guest.
    pub processors: u8,
    /// More words on the guest's kernel command line, with a space in front.
    pub append: String,
    /// Bytes that the guest may have under way on a port, if not its own choice.
    pub window: Option<u32>,
    /// What QEMU has reason to say on its standard error: lines that contain one of these.
    pub allowed: &'static [&'static str],
}

/// QEMU's arguments; `qmp` and `console` are sockets that somebody listens on, `trace` is a file.
pub fn arguments(spec: &Spec, qmp: &Path, console: &Path, trace: &Path) -> Vec<OsString> {
    let machine = if spec.pluggable {
        spec.version.pluggable_machine()
    } else {
        std::env::var(MACHINE_VARIABLE).unwrap_or_else(|_| spec.version.machine())
    };
    let mut list: Vec<OsString> = Vec::new();
    let mut add = |words: &[&str]| list.extend(words.iter().map(OsString::from));
    add(&[
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-machine",
        &machine,
    ]);
    // Family 5: from family 6 on the guest's kernel tries performance counters that KVM here does not offer, and KVM
    // complains of that in the machine's log. Newer QEMUs complain that a processor so old had none.
    let (kernel, memory) = kernel();
    add(&[
        "-accel",
        "kvm",
        "-cpu",
        "host,family=5,pmu=off",
        "-m",
        memory,
    ]);
    if spec.processors > 1 {
        add(&["-smp", &spec.processors.to_string()]);
    }
    let window = spec
        .window
        .map_or(String::new(), |bytes| format!(" lab.window={bytes}"));
    let initramfs = match spec.append.contains(FILES) {
        true => INITRAMFS_MKE2FS,
        false => INITRAMFS,
    };
    add(&[
        "-kernel",
        kernel,
        "-initrd",
        initramfs,
        "-append",
        &format!("{APPEND}{}{window}", spec.append),
    ]);
    add(&[
        "-chardev",
        &format!("socket,id=qmp,path={}", qmp.display()),
        "-qmp",
        "chardev:qmp",
    ]);
    add(&[
        "-chardev",
        &format!("socket,id=console,path={}", console.display()),
        "-serial",
        "chardev:console",
    ]);
    add(&["-D", &trace.display().to_string()]);
    for pattern in spec.version.traces() {
        add(&["-trace", pattern]);
    }
    if spec.backend == Backend::Iommufd {
        add(&["-object", "iommufd,id=iommufd0"]);
    }
    for (index, card) in spec.cards.iter().enumerate() {
        let properties = properties(spec.version, spec.backend, index, card);
        let properties: Vec<String> = properties
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        add(&["-device", &format!("{DEVICE},{}", properties.join(","))]);
    }
    if spec.incoming {
        add(&["-incoming", "defer"]);
    }
    if spec.paused {
        add(&["-S"]);
    }
    list
}

/// The guest's kernel and its memory; where there is none, QEMU says so.
fn kernel() -> (&'static str, &'static str) {
    let there = KERNELS
        .into_iter()
        .find(|(path, _)| Path::new(path).exists());
    there.unwrap_or(KERNELS[0])
}

/// The properties of card number `index`, in order.
fn properties(
    version: Version,
    backend: Backend,
    index: usize,
    card: &Card,
) -> Vec<(String, String)> {
    let mut text = format!(
        "id=card{index},addr={},{},sysfsdev={}",
        FIRST_SLOT + index,
        version.card_properties(),
        card.path.display()
    );
    if backend == Backend::Iommufd {
        text.push_str(",iommufd=iommufd0");
    }
    text.push_str(&card.properties);
    let pairs = text
        .split(',')
        .map(|word| word.split_once('=').unwrap_or((word, "on")));
    pairs
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// The command that plugs in card number `index`, as a card of [`Spec::cards`] with [`Backend::Type1`] would be.
///
/// QEMU 10 wants properties in their own types, where the command line and older ones take any text.
pub fn device_add(version: Version, index: usize, card: &Card) -> qmp::device_add {
    let typed = |(name, value): (String, String)| {
        let value = match value.as_str() {
            // It has three values.
            _ if name == "enable-migration" => Value::String(value),
            "on" => Value::Bool(true),
            "off" => Value::Bool(false),
            // A slot is a text, which may name a function.
            _ if name == "addr" => Value::String(value),
            number => number
                .parse::<u64>()
                .map_or_else(|_| Value::String(number.into()), Value::from),
        };
        (name, value)
    };
    let properties = properties(version, Backend::Type1, index, card);
    let (names, others): (Vec<_>, Vec<_>) =
        properties.into_iter().partition(|(name, _)| name == "id");
    qmp::device_add {
        bus: None,
        id: names.into_iter().next().map(|(_, id)| id),
        driver: DEVICE.into(),
        arguments: others.into_iter().map(typed).collect(),
    }
}

/// Arguments as one would type them.
pub fn quoted(arguments: &[OsString]) -> String {
    let words = arguments.iter().map(|word| {
        let word = word.to_string_lossy();
        if word.contains([' ', '*']) {
            format!("'{word}'")
        } else {
            word.into_owned()
        }
    });
    words.collect::<Vec<_>>().join(" ")
}
