// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Figures for people: an operation a line, ours beside the sample's.

use super::{Figures, OURS, SAMPLE};
use std::fmt::Write;

/// The table, in a form that is also a table of Markdown.
pub fn text(figures: &Figures) -> String {
    let mut text = String::new();
    let conditions = &figures.conditions;
    // Writing to a string does not fail.
    let _ = writeln!(
        text,
        "Instructions a call, in user space and in the kernel: Linux {}, {}, {}, {}\n",
        conditions.kernel, conditions.compiler, conditions.rustc, conditions.emulator
    );
    let _ = writeln!(
        text,
        "| {:<52} | {OURS:>11} | {SAMPLE:>9} | ratio |",
        "operation"
    );
    let _ = writeln!(text, "|{:-<54}|{:->13}|{:->11}|{:->7}|", "", ":", ":", ":");
    for operation in figures.operations() {
        let [ours, sample] = [OURS, SAMPLE].map(|subject| figures.get(operation, subject));
        // What belongs to neither stands where ours does.
        let shown = ours.or_else(|| {
            let of_any = |row: &&super::Row| row.operation == operation;
            figures.rows.iter().find(of_any).map(|row| row.instructions)
        });
        let ratio = ours.zip(sample).map(|(ours, sample)| ours / sample);
        let number =
            |value: Option<f64>| value.map_or(String::new(), |value| format!("{value:.0}"));
        let _ = writeln!(
            text,
            "| {operation:<52} | {:>11} | {:>9} | {:>5} |",
            number(shown),
            number(sample),
            ratio.map_or(String::new(), |ratio| format!("{ratio:.2}"))
        );
    }
    for row in figures.rows.iter() {
        if let Some(exponent) = row.exponent {
            let _ = writeln!(
                text,
                "\n{}: the cost grows with the number to the power of {exponent:.3}",
                row.operation
            );
        }
    }
    memory(&mut text, figures);
    text
}

/// What instances and drivers take, below the instructions.
fn memory(text: &mut String, figures: &Figures) {
    if figures.memory.is_empty() {
        return;
    }
    let _ = writeln!(text, "\nBytes of kernel memory that an instance takes\n");
    let _ = writeln!(
        text,
        "| {:<11} | {:<32} | {:>8} | {:>8} | {:>9} |",
        "driver", "state", "slab", "vmalloc", "all pages"
    );
    let _ = writeln!(
        text,
        "|{:-<13}|{:-<34}|{:->10}|{:->10}|{:->11}|",
        "", "", ":", ":", ":"
    );
    for row in &figures.memory {
        let _ = writeln!(
            text,
            "| {:<11} | {:<32} | {:>8.0} | {:>8.0} | {:>9.0} |",
            row.subject, row.state, row.slab, row.vmalloc, row.all
        );
    }
    let _ = writeln!(text);
    for subject in [OURS, SAMPLE] {
        let modules = || {
            figures
                .modules
                .iter()
                .filter(|module| module.subject == subject)
        };
        let names: Vec<_> = modules().map(|module| module.module.as_str()).collect();
        let bytes: u64 = modules().map(|module| module.bytes).sum();
        let _ = writeln!(
            text,
            "Code and data of the driver {subject} (modules {}): {bytes} bytes",
            names.join(", ")
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::{conditions::Conditions, Row};
    use super::*;

    #[test]
    fn a_line_has_both_figures_and_their_ratio() {
        let row = |operation: &str, subject: &str, instructions| Row {
            operation: operation.to_owned(),
            subject: subject.to_owned(),
            instructions,
            spread: 0.0,
            exponent: None,
        };
        let figures = Figures {
            conditions: Conditions::default(),
            memory: vec![super::super::Memory {
                state: "open".to_owned(),
                subject: OURS.to_owned(),
                slab: 4000.4,
                vmalloc: 0.0,
                all: 4096.0,
            }],
            modules: vec![],
            rows: vec![
                row("call", "floor", 100.0),
                row("read", OURS, 300.0),
                row("read", SAMPLE, 200.0),
            ],
        };
        let text = text(&figures);
        let cells = |name: &str| -> Vec<String> {
            let line = text.lines().find(|line| line.contains(name)).unwrap();
            line.split('|').map(|cell| cell.trim().to_owned()).collect()
        };
        assert_eq!(cells("| open"), ["", OURS, "open", "4000", "0", "4096", ""]);
        assert_eq!(cells("| call"), ["", "call", "100", "", "", ""]);
        assert_eq!(cells("| read"), ["", "read", "300", "200", "1.50", ""]);
    }
}
