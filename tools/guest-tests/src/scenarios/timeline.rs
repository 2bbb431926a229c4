// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Everything that the QEMUs of a scenario and their guests say, in the order it came.
//!
//! One list for all machines, so that "the destination had read the state before the source stopped" is a question about
//! positions. Waiting is looking for an entry at or after a position, and for the list to grow.

use std::fmt;
use std::process::ExitStatus;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{anyhow, Result};
use qapi::qmp::Event;

use crate::l2::line::Line;
use crate::qmp::Message;

/// What a machine said or did.
#[derive(Clone, Debug)]
pub enum What {
    /// A line on QMP.
    Qmp(Message),
    /// A line of the guest's test program.
    Guest(Line),
    /// Any other line on the guest's console.
    Console(String),
    /// QEMU's monitor, on a terminal that it shares with the guest's console, waits for a command.
    Prompt,
    /// A line of QEMU's trace.
    Trace(String),
    /// A line on QEMU's standard error.
    Stderr(String),
    /// QEMU ended.
    Exited(ExitStatus),
    /// Nothing of its own: what was typed there, or was to be seen.
    Note(String),
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            What::Qmp(Message::Event(event)) => f.write_str(&event_text(event)),
            What::Qmp(Message::Greeting(version)) => write!(f, "QEMU {version}"),
            What::Qmp(Message::Reply(id, Ok(_))) => write!(f, "reply {id}"),
            What::Qmp(Message::Reply(id, Err(error))) => write!(f, "reply {id}: {error}"),
            What::Qmp(Message::Unknown(line)) => write!(f, "QMP: {line}"),
            What::Guest(line) => write!(f, "guest: {line}"),
            What::Console(line) => write!(f, "console: {line}"),
            What::Prompt => f.write_str("the monitor's prompt"),
            What::Trace(line) => write!(f, "trace: {line}"),
            What::Stderr(line) => write!(f, "QEMU says: {line}"),
            What::Exited(status) => write!(f, "QEMU ended: {status}"),
            What::Note(text) => f.write_str(text),
        }
    }
}

/// A short text for the events that scenarios deal with.
fn event_text(event: &Event) -> String {
    match event {
        Event::MIGRATION { data, .. } => format!("migration {}", qapi::Enum::name(&data.status)),
        Event::VFIO_MIGRATION { data, .. } => {
            format!(
                "device {} {}",
                data.device_id,
                qapi::Enum::name(&data.device_state)
            )
        }
        Event::RESET { .. } => "reset".into(),
        Event::STOP { .. } => "stop".into(),
        Event::RESUME { .. } => "resume".into(),
        Event::SHUTDOWN { .. } => "shutdown".into(),
        other => serde_json::to_string(other).unwrap_or_else(|_| format!("{other:?}")),
    }
}

/// One entry.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Time since the list began.
    pub at: Duration,
    /// The machine's name.
    pub who: String,
    /// What it said or did.
    pub what: What,
}

/// What a look at an entry says about the thing waited for.
pub enum Look<T> {
    /// Not yet.
    Wait,
    /// Here it is.
    Found(T),
    /// It cannot come any more.
    Never(anyhow::Error),
}

/// Is shown each entry when it is added.
pub type Listener = Box<dyn Fn(&Entry) + Send + Sync>;

/// The list.
pub struct Timeline {
    start: Instant,
    entries: Mutex<Vec<Entry>>,
    grown: Condvar,
    listener: Option<Listener>,
}

impl Timeline {
    /// An empty list that begins now.
    pub fn new(listener: Option<Listener>) -> Self {
        Self {
            start: Instant::now(),
            entries: Mutex::new(Vec::new()),
            grown: Condvar::new(),
            listener,
        }
    }

    fn entries(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Time since the list began.
    pub fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Adds what `who` said.
    pub fn push(&self, who: &str, what: What) {
        let entry = Entry {
            at: self.now(),
            who: who.to_string(),
            what,
        };
        if let Some(listener) = &self.listener {
            listener(&entry);
        }
        self.entries().push(entry);
        self.grown.notify_all();
    }

    /// The position of the next entry.
    pub fn position(&self) -> usize {
        self.entries().len()
    }

    /// Waits until `look` finds what it looks for at or after position `from`; returns it with the position after its entry.
    ///
    /// The error of a wait that is over after `limit` names `purpose` and the last that each machine said.
    pub fn wait<T>(
        &self,
        from: usize,
        limit: Duration,
        purpose: &str,
        mut look: impl FnMut(&Entry) -> Look<T>,
    ) -> Result<(usize, T)> {
        let end = Instant::now() + limit;
        let mut entries = self.entries();
        let mut next = from;
        loop {
            while let Some(entry) = entries.get(next) {
                next += 1;
                match look(entry) {
                    Look::Wait => {}
                    Look::Found(value) => return Ok((next, value)),
                    Look::Never(error) => {
                        let last = last_words(&entries[..next]);
                        return Err(
                            error.context(format!("expected {purpose}; last before: {last}"))
                        );
                    }
                }
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let last = last_words(&entries);
                return Err(anyhow!(
                    "expected {purpose}, which did not come in {} s; last: {last}",
                    limit.as_secs()
                ));
            }
            entries = self
                .grown
                .wait_timeout(entries, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Shows `visit` the entries from position `from` on.
    pub fn each(&self, from: usize, mut visit: impl FnMut(usize, &Entry)) {
        for (position, entry) in self.entries().iter().enumerate().skip(from) {
            visit(position, entry);
        }
    }

    /// The position of the first entry at or after `from` that `test` accepts.
    pub fn find(&self, from: usize, mut test: impl FnMut(&Entry) -> bool) -> Option<usize> {
        self.entries()
            .iter()
            .enumerate()
            .skip(from)
            .find(|(_, entry)| test(entry))
            .map(|(position, _)| position)
    }
}

/// The last entries before a failure, without the stream of counts.
fn last_words(entries: &[Entry]) -> String {
    let mut words: Vec<String> = Vec::new();
    let mut counts: Vec<&str> = Vec::new();
    for entry in entries.iter().rev() {
        if matches!(entry.what, What::Guest(Line::Count(_))) {
            if counts.contains(&entry.who.as_str()) {
                continue;
            }
            counts.push(&entry.who);
        }
        if matches!(
            entry.what,
            What::Qmp(Message::Reply(_, Ok(_))) | What::Trace(_)
        ) {
            continue;
        }
        words.push(format!(
            "[{:.2} s] {}: {}",
            entry.at.as_secs_f64(),
            entry.who,
            entry.what
        ));
        if words.len() == 8 {
            break;
        }
    }
    words.reverse();
    words.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn console(text: &str) -> What {
        What::Console(text.into())
    }

    fn text(entry: &Entry) -> Look<String> {
        match &entry.what {
            What::Console(text) if text == "wanted" => Look::Found(entry.who.clone()),
            What::Console(text) if text == "fatal" => Look::Never(anyhow!("it is over")),
            _ => Look::Wait,
        }
    }

    #[test]
    fn a_wait_finds_what_came_before_and_what_comes_later() {
        let timeline = Timeline::new(None);
        timeline.push("a", console("wanted"));
        assert_eq!(
            timeline.wait(0, Duration::ZERO, "it", text).unwrap(),
            (1, "a".into())
        );
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| timeline.wait(1, Duration::from_secs(60), "it", text));
            timeline.push("b", console("other"));
            timeline.push("b", console("wanted"));
            assert_eq!(waiter.join().unwrap().unwrap(), (3, "b".into()));
        });
    }

    #[test]
    fn a_wait_that_fails_says_what_it_waited_for_and_what_was_last() {
        let timeline = Timeline::new(None);
        timeline.push("a", console("something else"));
        let late = timeline
            .wait(0, Duration::ZERO, "the thing", text)
            .unwrap_err()
            .to_string();
        assert!(
            late.contains("the thing") && late.contains("something else"),
            "{late}"
        );
        timeline.push("a", console("fatal"));
        let never = format!(
            "{:#}",
            timeline
                .wait(0, Duration::from_secs(60), "the thing", text)
                .unwrap_err()
        );
        assert!(
            never.contains("the thing") && never.contains("it is over"),
            "{never}"
        );
    }
}
