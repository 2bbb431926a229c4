// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Figures as a picture: the ratio of ours to the sample's, an operation a bar.

use super::{Figures, OURS, SAMPLE};
use std::fmt::Write;

const LINE: usize = 22;
const LEFT: usize = 300;
const WIDTH: usize = 400;

/// An SVG picture. The mark at 1 is where both cost the same.
pub fn draw(figures: &Figures) -> String {
    let bars: Vec<_> = figures
        .operations()
        .filter_map(|operation| {
            let ours = figures.get(operation, OURS)?;
            let sample = figures.get(operation, SAMPLE)?;
            Some((operation, ours / sample))
        })
        .collect();
    let longest = bars.iter().map(|(_, ratio)| *ratio).fold(1.0, f64::max);
    let length = |ratio: f64| (ratio / longest * WIDTH as f64).round() as usize;
    let height = (bars.len() + 2) * LINE;
    let mut svg = String::new();
    // Writing to a string does not fail.
    let _ = writeln!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"13\">",
        LEFT + WIDTH + 70
    );
    let _ = writeln!(
        svg,
        "<title>Instructions of {OURS} for one of {SAMPLE}, Linux {}</title>",
        escaped(&figures.conditions.kernel)
    );
    for (place, (operation, ratio)) in bars.iter().enumerate() {
        let (top, base) = (place * LINE + 4, place * LINE + 17);
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{base}\" text-anchor=\"end\">{}</text>",
            LEFT - 8,
            escaped(operation)
        );
        let _ = writeln!(
            svg,
            "<rect x=\"{LEFT}\" y=\"{top}\" width=\"{}\" height=\"16\" fill=\"#4878a8\"/>",
            length(*ratio)
        );
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{base}\">{ratio:.2}</text>",
            LEFT + length(*ratio) + 5
        );
    }
    let (one, end) = (LEFT + length(1.0), bars.len() * LINE + 4);
    let _ = writeln!(
        svg,
        "<line x1=\"{one}\" y1=\"0\" x2=\"{one}\" y2=\"{end}\" stroke=\"#b03030\" stroke-dasharray=\"4 3\"/>"
    );
    let _ = writeln!(
        svg,
        "<text x=\"{one}\" y=\"{}\" text-anchor=\"middle\" fill=\"#b03030\">{SAMPLE} = 1</text>",
        end + 16
    );
    svg + "</svg>\n"
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
