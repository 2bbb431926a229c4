// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The order of parameters and versions. That of the members of a JSON object says nothing: programs that pass documents on
//! sort them, or keep them in no order at all.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// What comes before what, where nothing else decides: names in the order of the list that the document gives, then the others
/// by name.
#[derive(Clone, Copy)]
pub(super) struct Preference<'a>(pub(super) &'a [&'a str]);

impl Preference<'_> {
    pub(super) fn key<'n>(&self, name: &'n str) -> (usize, &'n str) {
        // Models have a few parameters: looking for one is faster than hashing it.
        let place = self.0.iter().position(|listed| *listed == name);
        (place.unwrap_or(usize::MAX), name)
    }
}

/// Something that requires others to come before it.
pub(super) struct Node<'a> {
    pub(super) name: &'a str,
    /// The positions of what it requires.
    pub(super) requires: Vec<usize>,
}

/// The order in which everything comes after what it requires, and as preferred otherwise. An error is two names of which the
/// first requires the second, directly or not, and the second the first.
pub(super) fn by_requirement<'a>(
    nodes: &[Node<'a>],
    preference: Preference<'_>,
) -> Result<Vec<usize>, (&'a str, &'a str)> {
    let mut dependents: Vec<Vec<usize>> = vec![Vec::new(); nodes.len()];
    for (position, node) in nodes.iter().enumerate() {
        for &required in &node.requires {
            dependents[required].push(position);
        }
    }
    let mut missing: Vec<usize> = nodes.iter().map(|node| node.requires.len()).collect();
    let mut ready = BinaryHeap::new();
    let key = |position: usize| Reverse((preference.key(nodes[position].name), position));
    ready.extend(
        (0..nodes.len())
            .filter(|&position| missing[position] == 0)
            .map(key),
    );
    let mut order = Vec::with_capacity(nodes.len());
    while let Some(Reverse((_, position))) = ready.pop() {
        order.push(position);
        for &dependent in &dependents[position] {
            missing[dependent] -= 1;
            if missing[dependent] == 0 {
                ready.push(key(dependent));
            }
        }
    }
    match missing.iter().position(|&missing| missing > 0) {
        None => Ok(order),
        Some(left) => Err(circle(nodes, &missing, left)),
    }
}

/// Two that require each other. What is left over requires something else that is left over, on and on, so that going from one
/// to the next ends in a circle.
fn circle<'a>(nodes: &[Node<'a>], missing: &[usize], start: usize) -> (&'a str, &'a str) {
    let next = |position: usize| {
        let mut required = nodes[position].requires.iter().copied();
        required.find(|&required| missing[required] > 0)
    };
    let mut position = start;
    for _ in nodes {
        position = next(position).unwrap_or(position);
    }
    let required = next(position).unwrap_or(position);
    (nodes[position].name, nodes[required].name)
}
