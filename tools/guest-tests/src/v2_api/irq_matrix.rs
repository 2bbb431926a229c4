// SPDX-License-Identifier: GPL-2.0 OR MIT

//! VFIO_DEVICE_SET_IRQS: every interrupt, action and kind of data, and arguments that are wrong.
//!
//! linux/vfio.h leaves most errnos open; the expectation is what vfio-pci answers (drivers/vfio/pci/vfio_pci_intrs.c and
//! `vfio_set_irqs_validate_and_prepare()` of Linux 7.3), because that is what users are written against.

use std::fs::File;
use std::os::fd::AsRawFd;

use super::card::Card;
use super::check::{equal, refused, Named};
use crate::ktap::Suite;
use crate::vfio::abi::{self, Argument, Bytes};
use crate::vfio::interrupt::{ERR, INTX, MASK, MSI, MSIX, REQ, TRIGGER, UNMASK};
use crate::vfio::{Access, Errno, Event, IrqSet};

/// Which interrupt a user has enabled.
const ENABLED: [Option<u32>; 4] = [None, Some(INTX), Some(MSI), Some(REQ)];

/// Kinds of data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Data {
    None,
    Bool,
    EventFd,
}

pub(super) fn add(suite: &mut Suite) {
    for index in [INTX, MSI, MSIX, ERR, REQ] {
        for enabled in ENABLED {
            let state = enabled.map_or("nothing", name);
            suite.test(
                format!("set_irqs_of_{}_while_{state}_is_enabled", name(index)),
                move || row(index, enabled),
            );
        }
    }
    tests_both_ways!(suite, loop_back_triggers_reach_the_eventfd);
    tests!(
        suite,
        wrong_headers_of_set_irqs_are_refused,
        requests_without_one_action_are_refused,
        ranges_of_set_irqs_that_do_not_exist_are_refused,
        unreadable_arguments_of_set_irqs_are_refused,
        descriptors_that_are_no_eventfd_are_refused,
        interrupts_are_disabled_with_a_count_of_zero,
        interrupts_are_silenced_with_descriptor_minus_one,
        a_new_eventfd_replaces_the_old_one,
        a_refused_request_leaves_the_interrupt_as_it_was,
    );
}

fn name(index: u32) -> &'static str {
    match index {
        INTX => "intx",
        MSI => "msi",
        MSIX => "msix",
        ERR => "err",
        _ => "req",
    }
}

/// What vfio-pci answers to a well-formed request for interrupt 0 of `index`, but for an eventfd that unmasks INTx where that is
/// not allowed.
fn expected(
    index: u32,
    action: u32,
    data: Data,
    enabled: Option<u32>,
    unmask_eventfd: bool,
) -> Result<(), Errno> {
    let is_enabled = enabled == Some(index);
    match index {
        // There is no interrupt 0.
        MSIX | ERR => Err(Errno::EINVAL),
        INTX if action == TRIGGER => match data {
            // INTx and MSI exclude each other.
            Data::EventFd if enabled != Some(MSI) => Ok(()),
            Data::None | Data::Bool if is_enabled => Ok(()),
            _ => Err(Errno::EINVAL),
        },
        INTX if !is_enabled => Err(Errno::EINVAL),
        INTX if action == MASK && data == Data::EventFd => Err(Errno::ENOTTY),
        INTX if action == UNMASK && data == Data::EventFd && !unmask_eventfd => Err(Errno::ENOTTY),
        INTX => Ok(()),
        // Neither can be masked.
        MSI | REQ if action != TRIGGER => Err(Errno::ENOTTY),
        MSI => match data {
            Data::EventFd if enabled != Some(INTX) => Ok(()),
            Data::None | Data::Bool if is_enabled => Ok(()),
            _ => Err(Errno::EINVAL),
        },
        _ => match data {
            Data::None if !is_enabled => Err(Errno::EINVAL),
            _ => Ok(()),
        },
    }
}

/// One index in one state: all actions and kinds of data.
fn row(index: u32, enabled: Option<u32>) -> anyhow::Result<()> {
    let cards = [
        (Card::new(1)?, false),
        (Card::with_unmask_eventfd(1)?, true),
    ];
    cards
        .iter()
        .try_for_each(|(card, unmask_eventfd)| row_of(card, *unmask_eventfd, index, enabled))
}

/// The same for one card.
fn row_of(
    card: &Card,
    unmask_eventfd: bool,
    index: u32,
    enabled: Option<u32>,
) -> anyhow::Result<()> {
    for (action, action_name) in [(MASK, "MASK"), (UNMASK, "UNMASK"), (TRIGGER, "TRIGGER")] {
        for data in [Data::None, Data::Bool, Data::EventFd] {
            let event = enabled
                .map(|index| card.enable(index))
                .transpose()
                .named("enabling")?;
            let other = Event::new()?;
            let set = match data {
                Data::None => IrqSet::none(index, action),
                Data::Bool => IrqSet::boolean(index, action, 1),
                Data::EventFd => IrqSet::eventfd(index, action, other.number()),
            };
            let got = card.set_irqs(&set);
            equal(
                format!("{action_name} with data {data:?}, unmask eventfd: {unmask_eventfd}"),
                got,
                expected(index, action, data, enabled, unmask_eventfd),
            )?;
            for index in [INTX, MSI, REQ] {
                // Whatever is enabled now; the rest answers EINVAL.
                let _ = card.set_irqs(&IrqSet::disable(index));
            }
            drop(event);
        }
    }
    Ok(())
}

fn loop_back_triggers_reach_the_eventfd(access: Access) -> anyhow::Result<()> {
    let card = Card::opened(1, access)?;
    for index in [INTX, MSI, REQ] {
        let event = card.enable(index).named(name(index))?;
        equal(
            format!("{} before a trigger", name(index)),
            event.count()?,
            0,
        )?;
        card.set_irqs(&IrqSet::none(index, TRIGGER))
            .named("trigger without data")?;
        equal(
            format!("{} triggered without data", name(index)),
            event.count()?,
            1,
        )?;
        card.set_irqs(&IrqSet::boolean(index, TRIGGER, 1))
            .named("trigger with true")?;
        equal(
            format!("{} triggered with true", name(index)),
            event.count()?,
            1,
        )?;
        card.set_irqs(&IrqSet::boolean(index, TRIGGER, 0))
            .named("trigger with false")?;
        equal(
            format!("{} triggered with false", name(index)),
            event.count()?,
            0,
        )?;
        card.set_irqs(&IrqSet::disable(index)).named("disable")?;
    }
    Ok(())
}

/// A request that is right, to be made wrong.
fn right(event: &Event) -> IrqSet {
    IrqSet::eventfd(INTX, TRIGGER, event.number())
}

fn wrong_headers_of_set_irqs_are_refused() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    let event = Event::new()?;
    let check = |what: &str, set: IrqSet| refused(what, card.set_irqs(&set), Errno::EINVAL);
    for argsz in [0, 4, 19] {
        check(
            &format!("argsz {argsz}"),
            IrqSet {
                argsz,
                ..right(&event)
            },
        )?;
    }
    for argsz in [20, 23] {
        check(
            &format!("argsz {argsz} with an eventfd"),
            IrqSet {
                argsz,
                ..right(&event)
            },
        )?;
    }
    check(
        "argsz 20 with a bool",
        IrqSet {
            argsz: 20,
            ..IrqSet::boolean(INTX, TRIGGER, 1)
        },
    )?;
    let flags = right(&event).flags;
    for bit in 6..32 {
        check(
            &format!("flag bit {bit}"),
            IrqSet {
                flags: flags | (1 << bit),
                ..right(&event)
            },
        )?;
    }
    check(
        "no kind of data",
        IrqSet {
            flags: TRIGGER,
            ..right(&event)
        },
    )?;
    for more in [abi::VFIO_IRQ_SET_DATA_NONE, abi::VFIO_IRQ_SET_DATA_BOOL] {
        check(
            "two kinds of data",
            IrqSet {
                flags: flags | more,
                ..right(&event)
            },
        )?;
    }
    check(
        "three kinds of data",
        IrqSet {
            flags: TRIGGER | abi::VFIO_IRQ_SET_DATA_TYPE_MASK,
            ..right(&event)
        },
    )?;
    for index in [abi::VFIO_PCI_NUM_IRQS, 1 << 31, u32::MAX] {
        check(
            &format!("index {index}"),
            IrqSet {
                index,
                ..right(&event)
            },
        )?;
    }
    card.set_irqs(&right(&event))
        .named("the request that is right")
}

fn requests_without_one_action_are_refused() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    for index in [INTX, MSI, REQ] {
        let event = card.enable(index)?;
        for actions in [
            0,
            MASK | UNMASK,
            MASK | TRIGGER,
            UNMASK | TRIGGER,
            MASK | UNMASK | TRIGGER,
        ] {
            let result = card.set_irqs(&IrqSet::none(index, actions));
            refused(
                format!("{} with actions {actions:#x}", name(index)),
                result,
                Errno::ENOTTY,
            )?;
        }
        equal("signals", event.count()?, 0)?;
        card.set_irqs(&IrqSet::disable(index)).named("disable")?;
    }
    Ok(())
}

fn ranges_of_set_irqs_that_do_not_exist_are_refused() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    for index in [INTX, MSI, REQ] {
        let event = card.enable(index)?;
        for (start, count) in [
            (0, 2),
            (1, 0),
            (1, 1),
            (1, u32::MAX),
            (0, u32::MAX),
            (u32::MAX, 0),
            (u32::MAX, 1),
            (u32::MAX, u32::MAX),
            (1 << 31, 1 << 31),
        ] {
            let result = card.set_irqs(&IrqSet {
                start,
                count,
                ..IrqSet::none(index, TRIGGER)
            });
            refused(
                format!("{} from {start}, {count} of them", name(index)),
                result,
                Errno::EINVAL,
            )?;
            // As many bytes as 2^32 descriptors overflow to.
            let set = IrqSet {
                start,
                count,
                ..IrqSet::eventfd(index, TRIGGER, event.number())
            };
            refused(
                format!("{} from {start}, {count} eventfds", name(index)),
                card.set_irqs(&set),
                Errno::EINVAL,
            )?;
        }
        equal("signals", event.count()?, 0)?;
        card.set_irqs(&IrqSet::disable(index)).named("disable")?;
    }
    for data in [
        IrqSet::boolean(INTX, TRIGGER, 1),
        IrqSet::eventfd(INTX, TRIGGER, -1),
    ] {
        let event = card.enable(INTX)?;
        refused(
            "INTx, none of them",
            card.set_irqs(&IrqSet { count: 0, ..data }),
            Errno::EINVAL,
        )?;
        drop(event);
    }
    Ok(())
}

fn unreadable_arguments_of_set_irqs_are_refused() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    let request = abi::VFIO_DEVICE_SET_IRQS;
    refused(
        "an unmapped address",
        card.ioctl_with(request, Argument::Unmapped),
        Errno::EFAULT,
    )?;
    for kind in [abi::VFIO_IRQ_SET_DATA_BOOL, abi::VFIO_IRQ_SET_DATA_EVENTFD] {
        let mut header = Bytes::new()
            .word(24)
            .word(TRIGGER | kind)
            .word(INTX)
            .word(0)
            .word(1);
        let half = card.ioctl_with(request, Argument::UpToHole(&mut header.bytes_mut()[..16]));
        refused("half a header at the end of memory", half, Errno::EFAULT)?;
        let result = card.ioctl_with(request, Argument::UpToHole(header.bytes_mut()));
        refused(
            format!("data {kind:#x} beyond the end of memory"),
            result,
            Errno::EFAULT,
        )?;
    }
    let event = Event::new()?;
    let mut set = Bytes::new()
        .word(24)
        .word(TRIGGER | abi::VFIO_IRQ_SET_DATA_EVENTFD)
        .word(INTX)
        .word(0)
        .word(1);
    set = set.bytes(&event.number().to_ne_bytes());
    card.ioctl_with(request, Argument::ReadOnly(set.bytes_mut()))
        .named("a request in read-only memory")?;
    Ok(())
}

fn descriptors_that_are_no_eventfd_are_refused() -> anyhow::Result<()> {
    let card = Card::with_unmask_eventfd(1)?;
    let file = File::open("/dev/null")?;
    let pairs = [
        (i32::MAX, Errno::EBADF),
        (1 << 20, Errno::EBADF),
        (file.as_raw_fd(), Errno::EINVAL),
    ];
    for (number, errno) in pairs {
        for index in [INTX, MSI, REQ] {
            let result = card.set_irqs(&IrqSet::eventfd(index, TRIGGER, number));
            refused(
                format!("{} to descriptor {number}", name(index)),
                result,
                errno,
            )?;
            // Nothing was enabled by it.
            let trigger = card.set_irqs(&IrqSet::none(index, TRIGGER));
            refused(
                format!("trigger of {} afterwards", name(index)),
                trigger,
                Errno::EINVAL,
            )?;
        }
        let event = card.enable(INTX)?;
        let result = card.set_irqs(&IrqSet::eventfd(INTX, UNMASK, number));
        refused(format!("unmask by descriptor {number}"), result, errno)?;
        card.set_irqs(&IrqSet::disable(INTX)).named("disable")?;
        drop(event);
    }
    let below = card.set_irqs(&IrqSet::eventfd(REQ, TRIGGER, -2));
    refused("REQ to descriptor -2", below, Errno::EINVAL)
}

fn interrupts_are_disabled_with_a_count_of_zero() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    for index in [INTX, MSI, REQ] {
        refused(
            format!("disable of {} first", name(index)),
            card.set_irqs(&IrqSet::disable(index)),
            Errno::EINVAL,
        )?;
        let event = card.enable(index)?;
        card.set_irqs(&IrqSet::disable(index)).named("disable")?;
        refused(
            format!("trigger of {}", name(index)),
            card.set_irqs(&IrqSet::none(index, TRIGGER)),
            Errno::EINVAL,
        )?;
        equal("signals", event.count()?, 0)?;
    }
    // INTx and MSI take turns, as a guest switches between them.
    for index in [INTX, MSI, INTX] {
        let event = card.enable(index).named(name(index))?;
        card.set_irqs(&IrqSet::none(index, TRIGGER))
            .named("trigger")?;
        equal(name(index), event.count()?, 1)?;
        card.set_irqs(&IrqSet::disable(index)).named("disable")?;
    }
    Ok(())
}

fn interrupts_are_silenced_with_descriptor_minus_one() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    for index in [INTX, MSI, REQ] {
        let event = card.enable(index)?;
        card.set_irqs(&IrqSet::eventfd(index, TRIGGER, -1))
            .named("descriptor -1")?;
        let trigger = card.set_irqs(&IrqSet::none(index, TRIGGER));
        // INTx and MSI stay enabled, without anyone to signal; the request interrupt is off.
        let wanted = if index == REQ {
            Err(Errno::EINVAL)
        } else {
            Ok(())
        };
        equal(format!("trigger of {}", name(index)), trigger, wanted)?;
        equal("signals", event.count()?, 0)?;

        let event = card.enable(index).named("another eventfd")?;
        card.set_irqs(&IrqSet::none(index, TRIGGER))
            .named("trigger")?;
        equal(name(index), event.count()?, 1)?;
        card.set_irqs(&IrqSet::disable(index)).named("disable")?;
    }
    // De-assigning what was never assigned enables it for later, and signals nothing.
    card.set_irqs(&IrqSet::eventfd(MSI, TRIGGER, -1))
        .named("descriptor -1 first")?;
    card.set_irqs(&IrqSet::none(MSI, TRIGGER))
        .named("trigger without eventfd")
}

fn a_new_eventfd_replaces_the_old_one() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    for index in [INTX, MSI, REQ] {
        let old = card.enable(index)?;
        let new = card.enable(index).named("a second eventfd")?;
        card.set_irqs(&IrqSet::none(index, TRIGGER))
            .named("trigger")?;
        equal(
            format!("the old eventfd of {}", name(index)),
            old.count()?,
            0,
        )?;
        equal(
            format!("the new eventfd of {}", name(index)),
            new.count()?,
            1,
        )?;
        card.set_irqs(&IrqSet::disable(index)).named("disable")?;
    }
    Ok(())
}

fn a_refused_request_leaves_the_interrupt_as_it_was() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    for index in [INTX, MSI, REQ] {
        let event = card.enable(index)?;
        let wrong = [
            IrqSet::eventfd(index, TRIGGER, i32::MAX),
            IrqSet {
                count: 2,
                ..IrqSet::none(index, TRIGGER)
            },
            IrqSet {
                argsz: 20,
                ..IrqSet::eventfd(index, TRIGGER, -1)
            },
            IrqSet {
                flags: 0,
                ..IrqSet::none(index, TRIGGER)
            },
        ];
        for set in &wrong {
            anyhow::ensure!(card.set_irqs(set).is_err(), "{set:?} succeeded");
            card.set_irqs(&IrqSet::none(index, TRIGGER))
                .named("trigger")?;
            equal(format!("signals after {set:?}"), event.count()?, 1)?;
        }
        card.set_irqs(&IrqSet::disable(index)).named("disable")?;
    }
    Ok(())
}
