// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What moved when, drawn with the characters of a terminal: time goes from left to right, and a lane is a bar chart.

use std::time::Duration;

/// Columns of a lane.
const COLUMNS: usize = 60;
/// Characters in front of a lane.
const MARGIN: usize = 14;

/// The time that is drawn.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    from: Duration,
    to: Duration,
}

impl Span {
    /// From one moment to a later one.
    pub fn new(from: Duration, to: Duration) -> Self {
        let to = to.max(from + Duration::from_millis(COLUMNS as u64));
        Self { from, to }
    }

    /// The end of column `n` and of the one before it, in the order of time.
    fn column(&self, n: usize) -> (Duration, Duration) {
        let end = |n: usize| self.from + (self.to - self.from) * n as u32 / COLUMNS as u32;
        (end(n), end(n + 1))
    }

    /// The seconds in a column.
    fn width(&self) -> f64 {
        (self.to - self.from).as_secs_f64() / COLUMNS as f64
    }

    /// A line that says when: the first second, the last, and how long a column is.
    pub fn axis(&self) -> String {
        let (from, to) = (self.from.as_secs_f64(), self.to.as_secs_f64());
        let (left, right) = (format!("{from:.2} s"), format!("{to:.2} s"));
        let middle = format!("each column {:.0} ms", self.width() * 1000.0);
        let space = COLUMNS.saturating_sub(left.len() + right.len());
        format!("   {:MARGIN$} {left}{middle:^space$}{right}", "")
    }
}

/// How much of something there was in all until when, in the order of time.
#[derive(Clone, Debug, Default)]
pub struct Amount(Vec<(Duration, f64)>);

impl Amount {
    /// Notes how much there was at this moment.
    pub fn note(&mut self, at: Duration, amount: f64) {
        self.0.push((at, amount));
    }

    /// How much there was at a moment. Between two notes it grew evenly; before the first and after the last, not at all.
    fn at(&self, moment: Duration) -> f64 {
        let next = self.0.partition_point(|(at, _)| *at <= moment);
        let before = next.checked_sub(1).and_then(|last| self.0.get(last));
        match (before, self.0.get(next)) {
            (Some((t0, a0)), Some((t1, a1))) => {
                let part = (moment - *t0).as_secs_f64() / (*t1 - *t0).as_secs_f64();
                a0 + (a1 - a0) * part
            }
            (Some((_, amount)), None) | (None, Some((_, amount))) => *amount,
            (None, None) => 0.0,
        }
    }

    /// How much came in each column.
    fn columns(&self, span: Span) -> Vec<f64> {
        let came = |n| {
            let (begin, end) = span.column(n);
            (self.at(end) - self.at(begin)).max(0.0)
        };
        (0..COLUMNS).map(came).collect()
    }

    /// A bar chart of so many lines of what came when, with its name and what the highest bar means.
    pub fn lane(&self, span: Span, name: &str, unit: &str, height: usize) -> Vec<String> {
        let columns = self.columns(span);
        let most = columns.iter().copied().fold(0.0, f64::max);
        let rate = most / span.width();
        let scale = match rate {
            rate if rate < 10.0 => format!("{rate:.1} {unit}"),
            rate => format!("{rate:.0} {unit}"),
        };
        let labels = [name.to_owned(), format!("max {scale}")];
        let line = |row: usize| {
            let label = labels.get(row).map_or("", String::as_str);
            let bars: String = columns
                .iter()
                .map(|amount| bar(*amount, most, height, height - 1 - row))
                .collect();
            format!("   {label:MARGIN$} {}", bars.trim_end())
        };
        (0..height)
            .map(|row| line(row).trim_end().to_owned())
            .collect()
    }
}

/// What is drawn in line `level`, counted from below, for an amount: half a line is a dot, and there is a dot for what is not nothing.
fn bar(amount: f64, most: f64, height: usize, level: usize) -> char {
    if amount <= 0.0 {
        return ' ';
    }
    let lines = amount / most * height as f64 - level as f64;
    match lines {
        lines if lines >= 0.75 => '#',
        lines if lines >= 0.25 || level == 0 => '.',
        _ => ' ',
    }
}

/// A line with a text in each part of the time that has one.
pub fn parts(span: Span, name: &str, parts: &[(Duration, Duration, &str)]) -> String {
    let column = |n: usize| {
        let (begin, end) = span.column(n);
        let middle = begin + (end - begin) / 2;
        let part = parts
            .iter()
            .find(|(from, to, _)| (*from..*to).contains(&middle))?;
        let before = (0..n)
            .rev()
            .take_while(|n| {
                let (begin, end) = span.column(*n);
                (part.0..part.1).contains(&(begin + (end - begin) / 2))
            })
            .count();
        Some(part.2.chars().nth(before).unwrap_or('-'))
    };
    let line: String = (0..COLUMNS).map(|n| column(n).unwrap_or(' ')).collect();
    format!("   {name:MARGIN$} {}", line.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A column is a second.
    fn minute() -> Span {
        Span::new(Duration::from_secs(10), Duration::from_secs(70))
    }

    #[test]
    fn what_came_between_two_notes_came_evenly() {
        let mut amount = Amount::default();
        amount.note(Duration::from_secs(12), 5.0);
        amount.note(Duration::from_secs(16), 13.0);
        amount.note(Duration::from_secs(17), 14.0);
        let columns = amount.columns(minute());
        assert_eq!(columns[..8], [0.0, 0.0, 2.0, 2.0, 2.0, 2.0, 1.0, 0.0]);
        assert!(columns[8..].iter().all(|came| *came == 0.0));
    }

    #[test]
    fn the_highest_bar_fills_the_lane_and_little_is_still_seen() {
        let mut amount = Amount::default();
        for (second, all) in [(10, 0.0), (11, 40.0), (12, 60.0), (13, 60.0), (14, 61.0)] {
            amount.note(Duration::from_secs(second), all);
        }
        let lane = amount.lane(minute(), "disk", "MiB/s", 2);
        assert_eq!(
            lane,
            ["   disk           #", "   max 40 MiB/s   ## ."],
            "{lane:#?}"
        );
    }

    #[test]
    fn a_lane_without_anything_is_empty() {
        let lane = Amount::default().lane(minute(), "disk", "MiB/s", 2);
        assert_eq!(lane, ["   disk", "   max 0.0 MiB/s"]);
    }

    #[test]
    fn a_part_begins_with_its_text() {
        let second = Duration::from_secs;
        let line = parts(
            minute(),
            "guest",
            &[
                (second(10), second(15), "here"),
                (second(17), second(19), "there"),
            ],
        );
        assert_eq!(line, "   guest          here-  th");
    }

    #[test]
    fn the_axis_is_as_wide_as_a_lane() {
        let axis = minute().axis();
        assert!(axis.ends_with("70.00 s") && axis.contains("each column 1000 ms"));
        assert_eq!(axis.len(), 3 + MARGIN + 1 + COLUMNS);
    }
}
