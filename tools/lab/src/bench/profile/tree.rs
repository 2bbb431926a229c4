// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Who called whom, and how many instructions each function executed.

use super::instruction::{Flow, Instruction};
use super::symbols::USER;
use std::collections::BTreeMap;
use std::fmt::Write;

/// What is below this part of the whole is not shown.
const SHOWN: f64 = 0.005;

/// Functions in the list of those with the most instructions of their own.
const LONGEST: usize = 20;

/// What is executed on another thread's stack.
const OTHER_THREAD: &str = "(another thread)";

/// A function, as called by a certain other one.
#[derive(Default)]
struct Node {
    name: String,
    parent: usize,
    /// Instructions of its own.
    own: u64,
    calls: u64,
    children: BTreeMap<String, usize>,
}

/// A call that has not returned.
struct Frame {
    node: usize,
    /// Where it may return to: behind the call, or to the instruction that an exception has to repeat.
    back: [Option<u64>; 2],
}

/// A tree that grows as a machine executes.
pub struct Tree {
    nodes: Vec<Node>,
    stack: Vec<Frame>,
    last: Option<(u64, Instruction)>,
    total: u64,
}

impl Tree {
    /// Without anything executed.
    pub fn new() -> Self {
        Self {
            nodes: vec![Node::default()],
            stack: vec![],
            last: None,
            total: 0,
        }
    }

    /// An instruction is executed, of the function of that name.
    pub fn execute(&mut self, address: u64, instruction: Instruction, name: &str) {
        match self.last {
            None => self.enter(name, [None; 2]),
            Some((before, of_before)) => {
                let behind = before + of_before.length;
                match of_before.flow {
                    Flow::Call => self.enter(name, [Some(behind), None]),
                    Flow::Return => self.leave(address),
                    Flow::Jump => {}
                    // An instruction that repeats itself, such as `rep movsb`, is executed as often.
                    Flow::On if address == behind || address == before => {}
                    // An interrupt or an exception.
                    Flow::On => self.enter(name, [Some(behind), Some(before)]),
                }
            }
        }
        self.become_(name);
        if let Some(frame) = self.stack.last() {
            self.nodes[frame.node].own += 1;
        }
        self.total += 1;
        self.last = Some((address, instruction));
    }

    fn enter(&mut self, name: &str, back: [Option<u64>; 2]) {
        let parent = self.stack.last().map_or(0, |frame| frame.node);
        if name == USER && self.nodes[parent].name == USER {
            // User space is one, whatever it does within itself.
            self.stack.push(Frame { node: parent, back });
            return;
        }
        let node = self.child(parent, name);
        self.nodes[node].calls += 1;
        self.stack.push(Frame { node, back });
    }

    /// Returns from every call that is over when execution goes on at `address`.
    fn leave(&mut self, address: u64) {
        let returns = |frame: &Frame| frame.back.contains(&Some(address));
        match self.stack.iter().rposition(returns) {
            Some(place) => self.stack.truncate(place),
            // Not where anybody called from: the stack was changed. Until it is this thread's turn again.
            None if self.is_at(OTHER_THREAD) => {}
            // Out of the function that was executed first, whose call is not known.
            None if self.stack.len() == 1 => {}
            None => self.enter(OTHER_THREAD, [None; 2]),
        }
    }

    fn is_at(&self, name: &str) -> bool {
        let mut frames = self.stack.iter();
        frames.any(|frame| self.nodes[frame.node].name == name)
    }

    /// A function that another one jumped to stands in that one's place, below the same caller.
    fn become_(&mut self, name: &str) {
        let Some(frame) = self.stack.last() else {
            // The caller of what was called when it began.
            self.enter(name, [None; 2]);
            return;
        };
        let node = &self.nodes[frame.node];
        if node.name == name {
            return;
        }
        if node.name == OTHER_THREAD {
            self.enter(name, [None; 2]);
            return;
        }
        let other = self.child(node.parent, name);
        self.nodes[other].calls += 1;
        if let Some(frame) = self.stack.last_mut() {
            frame.node = other;
        }
    }

    fn child(&mut self, parent: usize, name: &str) -> usize {
        if let Some(node) = self.nodes[parent].children.get(name) {
            return *node;
        }
        let node = self.nodes.len();
        self.nodes.push(Node {
            name: name.to_owned(),
            parent,
            ..Node::default()
        });
        self.nodes[parent].children.insert(name.to_owned(), node);
        node
    }

    /// Instructions of all.
    pub fn total(&self) -> u64 {
        self.total
    }

    fn with_children(&self, node: usize) -> u64 {
        let children = self.nodes[node].children.values();
        self.nodes[node].own
            + children
                .map(|child| self.with_children(*child))
                .sum::<u64>()
    }

    /// For people: the tree, and the functions with the most instructions of their own.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = writeln!(text, "   all     own  calls  function");
        self.branch(&mut text, 0, 0);
        let mut own: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
        for node in &self.nodes {
            let (instructions, calls) = own.entry(&node.name).or_default();
            *instructions += node.own;
            *calls += node.calls;
        }
        let mut own: Vec<_> = own.into_iter().collect();
        own.sort_by_key(|(_, (instructions, _))| std::cmp::Reverse(*instructions));
        let _ = writeln!(
            text,
            "\n   own   part  calls  function, wherever it was called"
        );
        for (name, (instructions, calls)) in own.into_iter().take(LONGEST) {
            let part = instructions as f64 / self.total as f64 * 100.0;
            let _ = writeln!(text, "{instructions:>6} {part:>5.1}% {calls:>6}  {name}");
        }
        text
    }

    fn branch(&self, text: &mut String, node: usize, depth: usize) {
        let children = self.nodes[node].children.values();
        let mut children: Vec<_> = children
            .map(|child| (self.with_children(*child), *child))
            .collect();
        children.sort_by_key(|(all, _)| std::cmp::Reverse(*all));
        let least = (self.total as f64 * SHOWN) as u64;
        for (all, child) in children.into_iter().filter(|(all, _)| *all > least) {
            let Node {
                name, own, calls, ..
            } = &self.nodes[child];
            let indent = depth * 2;
            let _ = writeln!(text, "{all:>6}  {own:>6} {calls:>6}  {:indent$}{name}", "");
            self.branch(text, child, depth + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain() -> Instruction {
        Instruction::of(&[0x90])
    }

    fn call() -> Instruction {
        Instruction::of(&[0xe8, 0, 0, 0, 0])
    }

    fn ret() -> Instruction {
        Instruction::of(&[0xc3])
    }

    fn row(tree: &Tree, name: &str) -> (u64, u64, u64) {
        let text = tree.text();
        let line = text.lines().find(|line| line.ends_with(name)).unwrap();
        let mut numbers = line.split_whitespace().map(|word| word.parse().unwrap());
        let mut number = || numbers.next().unwrap();
        (number(), number(), number())
    }

    #[test]
    fn calls_are_below_their_caller_and_returns_end_them() {
        let mut tree = Tree::new();
        tree.execute(100, plain(), "user");
        tree.execute(101, call(), "user");
        tree.execute(200, plain(), "read");
        tree.execute(201, call(), "read");
        tree.execute(300, ret(), "lock");
        tree.execute(206, ret(), "read");
        tree.execute(106, plain(), "user");
        assert_eq!(tree.total(), 7);
        assert_eq!(row(&tree, "user"), (7, 3, 1));
        assert_eq!(row(&tree, "  read"), (4, 3, 1));
        assert_eq!(row(&tree, "    lock"), (1, 1, 1));
    }

    #[test]
    fn a_function_that_is_jumped_to_takes_the_place_of_the_one_before() {
        let mut tree = Tree::new();
        tree.execute(100, call(), "user");
        tree.execute(200, Instruction::of(&[0xeb, 0]), "first");
        tree.execute(300, ret(), "second");
        tree.execute(105, plain(), "user");
        assert_eq!(row(&tree, "user"), (4, 2, 1));
        assert_eq!(row(&tree, "  first"), (1, 1, 1));
        assert_eq!(row(&tree, "  second"), (1, 1, 1));
    }

    #[test]
    fn user_space_is_one_function() {
        let mut tree = Tree::new();
        tree.execute(90, ret(), USER);
        tree.execute(100, call(), USER);
        tree.execute(150, call(), USER);
        tree.execute(200, ret(), "read");
        tree.execute(155, ret(), USER);
        assert_eq!(row(&tree, USER), (5, 4, 1));
        assert!(!tree.text().contains(OTHER_THREAD));
        assert_eq!(row(&tree, "  read"), (1, 1, 1));
    }

    #[test]
    fn interrupts_and_faults_come_back_to_where_they_were_met() {
        let mut tree = Tree::new();
        tree.execute(100, plain(), "user");
        tree.execute(900, ret(), "interrupt");
        tree.execute(101, plain(), "user");
        // A fault: the same instruction once more.
        tree.execute(800, ret(), "fault");
        tree.execute(101, plain(), "user");
        assert_eq!(row(&tree, "user"), (5, 3, 1));
        assert_eq!(row(&tree, "  interrupt"), (1, 1, 1));
        assert_eq!(row(&tree, "  fault"), (1, 1, 1));
    }

    #[test]
    fn what_other_threads_do_meanwhile_is_told_apart() {
        let mut tree = Tree::new();
        tree.execute(100, call(), "user");
        tree.execute(200, call(), "schedule");
        tree.execute(300, ret(), "switch");
        tree.execute(5000, plain(), "worker");
        tree.execute(5001, ret(), "worker");
        tree.execute(6000, ret(), "kthread");
        tree.execute(205, ret(), "schedule");
        tree.execute(105, plain(), "user");
        assert_eq!(row(&tree, "user"), (8, 2, 1));
        assert_eq!(row(&tree, "  schedule"), (6, 2, 1));
        assert_eq!(row(&tree, OTHER_THREAD).0, 3);
    }
}
