// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Whether faults are noticed: a module of the lab's own makes some on purpose, on a debug kernel, and what the kernel says of them
//! has to come out as findings. A lab that finds nothing is only worth something if it would.

use crate::environment::Environment;
use crate::image::Image;
use crate::modules::Module;
use crate::plan;
use crate::report::kernel_log::Finding;
use crate::report::{Case, Outcome, Suite};
use crate::session::Session;
use crate::verdict::{failed, Follower};
use anyhow::Result;
use lab_protocol::{ModuleAction, Program};

/// Name of the suite, and of the test to choose.
pub const SUITE: &str = "self-check";

/// The module with the faults.
const MODULE: &str = "lab_faulty";

/// A fault that is made.
struct Fault {
    /// The value of the module's parameter.
    number: u8,
    /// What it is.
    name: &'static str,
    /// How it has to come out.
    notice: Notice,
}

enum Notice {
    /// A finding in the kernel's log, while the module is loaded, with this in its title.
    Log(&'static str),
    /// A failure of this test of the checkers, with this in what it prints.
    Checker(&'static str, &'static str),
}

/// What is lost comes last, and the module stays: kmemleak names a module only as long as it is there. (After its report lockdep
/// looks no further, and nothing that follows is about locks.)
const FAULTS: [Fault; 4] = [
    Fault {
        number: 1,
        name: "locks in two orders",
        notice: Notice::Log("possible circular locking dependency"),
    },
    Fault {
        number: 2,
        name: "sleeping under a spinlock",
        notice: Notice::Log("scheduling while atomic"),
    },
    Fault {
        number: 4,
        name: "use of freed memory",
        notice: Notice::Log("KASAN: slab-use-after-free"),
    },
    Fault {
        number: 3,
        name: "lost memory",
        notice: Notice::Checker("no_memory_was_lost", "[lab_faulty]"),
    },
];

/// The test of the checkers that the first fault makes fail, too.
const LOCKS: &str = "locks_were_watched_to_the_end";

/// Whether it can be done: the module is there, which is built for the debug kernel only.
pub fn is_possible(all: &[Module]) -> bool {
    all.iter().any(|module| module.name == MODULE)
}

/// Makes the faults in a machine of its own, and judges what came out.
pub fn run(env: &Environment, image: &Image) -> Result<Suite> {
    let directory = env.results.join("logs").join(SUITE);
    let mut session = Session::boot(env, image, &directory)?;
    let mut made = Vec::new();
    for (n, fault) in FAULTS.iter().enumerate() {
        let unloaded = match n {
            0 => None,
            _ => session.module(MODULE, ModuleAction::Unload),
        };
        let parameters = format!("fault={}", fault.number);
        made.push(unloaded.or_else(|| session.module(MODULE, ModuleAction::Load(parameters))));
    }
    let checked = ask_checkers(&mut session)?;
    session.end()?;
    let findings = session.log().finish();
    let mut cases: Vec<Case> = FAULTS
        .iter()
        .zip(made)
        .map(|(fault, error)| judge(fault, error, &findings, &checked))
        .collect();
    cases.push(outcome(
        "lockdep that looks no further is noticed",
        fails(&checked, LOCKS, ""),
    ));
    Ok(Suite {
        name: SUITE.to_owned(),
        cases,
    })
}

/// What the checkers say.
fn ask_checkers(session: &mut Session) -> Result<Vec<Case>> {
    let job = plan::checkers(SUITE, "loaded");
    let mut follower = Follower::default();
    let program = Program {
        label: job.label.clone(),
        argv: job.argv.clone(),
        env: vec![],
        terminal: None,
    };
    let run = session.run(program, Some(job.deadline), &mut |_, bytes| {
        follower.take(bytes);
    });
    let (_, cases) = follower.finish(job.name(), &run);
    Ok(cases)
}

/// Whether this test failed and printed that.
fn fails(cases: &[Case], test: &str, printed: &str) -> bool {
    cases.iter().any(|case| {
        case.name == test
            && matches!(case.outcome, Outcome::Failed(_))
            && case.details.contains(printed)
    })
}

fn judge(fault: &Fault, error: Option<String>, findings: &[Finding], checked: &[Case]) -> Case {
    let name = format!("{} is noticed", fault.name);
    if let Some(error) = error {
        return failed(&name, format!("it could not be made: {error}"));
    }
    let loading = ModuleAction::Load(String::new()).label(MODULE);
    let noticed = match fault.notice {
        Notice::Log(words) => findings.iter().any(|finding| {
            finding.test.as_deref() == Some(&loading) && finding.title.contains(words)
        }),
        Notice::Checker(test, words) => fails(checked, test, words),
    };
    outcome(&name, noticed)
}

fn outcome(name: &str, noticed: bool) -> Case {
    match noticed {
        true => Case::new(name, Outcome::Passed),
        false => failed(name, "nothing was found, or not where it was made"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(test: &str, title: &str) -> Finding {
        Finding {
            test: Some(test.to_owned()),
            title: title.to_owned(),
            lines: vec![],
        }
    }

    fn passes(number: u8, error: Option<&str>, findings: &[Finding], checked: &[Case]) -> bool {
        let fault = FAULTS.iter().find(|fault| fault.number == number).unwrap();
        judge(fault, error.map(str::to_owned), findings, checked).outcome == Outcome::Passed
    }

    #[test]
    fn a_fault_is_noticed_where_it_was_made_and_as_what_it_is() {
        let title = "BUG: KASAN: slab-use-after-free in Faulty::init+0x1/0x2 [lab_faulty]";
        let found = [finding("insmod/lab_faulty", title)];
        assert!(passes(4, None, &found, &[]));
        assert!(!passes(1, None, &found, &[]));
        assert!(!passes(4, None, &[finding("insmod/mdev", title)], &[]));
        assert!(!passes(4, None, &[], &[]));
        assert!(!passes(4, Some("the kernel refused it"), &found, &[]));
    }

    #[test]
    fn a_leak_is_noticed_if_the_checkers_name_the_module() {
        let case = |details: &str| Case {
            details: details.to_owned(),
            ..failed("no_memory_was_lost", "not ok")
        };
        assert!(passes(3, None, &[], &[case("lose+0x1/0x2 [lab_faulty]")]));
        assert!(!passes(3, None, &[], &[case("kmalloc+0x1/0x2")]));
        let passed = Case::new("no_memory_was_lost", Outcome::Passed);
        assert!(!passes(3, None, &[], &[passed]));
    }
}
