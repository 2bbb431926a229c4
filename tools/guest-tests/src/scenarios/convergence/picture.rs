// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Bytes left over time, as an SVG picture.

use anyhow::{anyhow, Result};
use plotters::prelude::*;

use super::{Curve, MIB, THRESHOLD};

/// Width and height.
const SIZE: (u32, u32) = (900, 480);
const COLOURS: [RGBColor; 3] = [
    RGBColor(0x2a, 0x7f, 0x3f),
    RGBColor(0xd0, 0x80, 0x20),
    RGBColor(0x48, 0x78, 0xa8),
];
const RED: RGBColor = RGBColor(0xb0, 0x30, 0x30);

/// A line for each migration, one for what may be left at the switch-over, and a dot where a migration was helped to end.
pub(super) fn draw(curves: &[Curve]) -> Result<String> {
    let mut svg = String::new();
    // The library's error cannot go to another thread.
    lines(&mut svg, curves).map_err(|error| anyhow!("the picture cannot be drawn: {error}"))?;
    Ok(svg)
}

fn lines(svg: &mut String, curves: &[Curve]) -> Result<(), Box<dyn std::error::Error>> {
    let mib = |bytes: u64| bytes as f64 / MIB as f64;
    let points = || curves.iter().flat_map(|curve| &curve.points);
    let end = points().map(|(at, _)| at.as_secs_f64()).fold(1.0, f64::max);
    let top = points().map(|(_, left)| mib(*left)).fold(1.0, f64::max);

    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption("What of the disk is left to be sent", ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(50)
        .build_cartesian_2d(0.0..end, 0.0..top * 1.3)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc("seconds since the migration began")
        .y_desc("MiB")
        .draw()?;
    let threshold = [(0.0, mib(THRESHOLD)), (end, mib(THRESHOLD))];
    chart
        .draw_series(DashedLineSeries::new(threshold, 6, 4, RED.into()))?
        .label("what may be left at the switch-over")
        .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], RED));
    for (curve, colour) in curves.iter().zip(COLOURS.iter().cycle()) {
        let line = curve
            .points
            .iter()
            .map(|(at, left)| (at.as_secs_f64(), mib(*left)));
        let colour = *colour;
        chart
            .draw_series(LineSeries::new(line, colour))?
            .label(&curve.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour));
        let helped = curve
            .helped
            .iter()
            .map(|(at, left)| Circle::new((at.as_secs_f64(), mib(*left)), 5, colour.filled()));
        chart.draw_series(helped)?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE)
        .border_style(BLACK)
        .draw()?;
    area.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_migration_has_its_line_and_what_helped_it_a_dot() {
        let curve = |name: &str, helped| Curve {
            name: name.into(),
            points: (0..9).map(|n| (Duration::from_secs(n), n * MIB)).collect(),
            helped,
        };
        let helped = Some((Duration::from_secs(3), 3 * MIB));
        let svg = draw(&[curve("slow", None), curve("fast", helped)]).unwrap();
        assert!(svg.trim_end().ends_with("</svg>"), "{svg}");
        for name in ["slow", "fast", "what may be left at the switch-over"] {
            assert!(svg.contains(name), "{name} is missing: {svg}");
        }
        // The second has no dot of the first's colour.
        let dots: Vec<_> = svg
            .lines()
            .filter(|line| line.contains("<circle"))
            .collect();
        assert_eq!(dots.len(), 1, "{dots:?}");
        assert!(dots[0].contains("#D08020"), "{dots:?}");
    }

    #[test]
    fn a_picture_of_nothing_has_axes() {
        assert!(draw(&[])
            .unwrap()
            .contains("seconds since the migration began"));
    }
}
