//! The figures as a picture, `docs/bench.svg`: addresses a second and the slowest calls, the
//! product beside the baseline, both on logarithmic scales.

use std::fs;
use std::ops::Range;

use anyhow::{Context as _, Result};
use plotters::coord::Shift;
use plotters::prelude::*;
use serde_json::Value;

use crate::load::section::{BASELINE, OURS};
use crate::paths::Paths;
use crate::progress::say;

/// Where it goes, seen from the source tree.
pub const FILE: &str = "docs/bench.svg";
const SIZE: (u32, u32) = (860, 340);
/// Work that is drawn: where addresses are asked for as fast as they come.
const WORK: [(&str, &str); 4] = [
    ("a", "100 pools"),
    ("b", "one pool"),
    ("c", "all replaced"),
    ("g", "many nodes"),
];
/// Without these nothing is drawn: a part is no picture of the whole.
const NEEDED: [&str; 3] = ["a", "b", "c"];
/// Whose bars there are, by their key, what a person calls them, and their colour.
const WHO: [(&str, &str, RGBColor); 2] = [
    (OURS, "Orbweaver", RGBColor(0, 121, 140)),
    (BASELINE, "one address at a time", RGBColor(209, 142, 60)),
];
/// What of a row is drawn, its title, and the scale.
const PANELS: [(&str, &str, Range<f64>); 2] = [
    ("adds_per_s", "addresses a second", 1.0..10_000.0),
    (
        "p99_ms",
        "milliseconds that 99 of 100 calls stay below",
        1.0..1_000_000.0,
    ),
];

/// The first piece of work that a picture lacks.
pub fn lacks(report: &Value) -> Option<&'static str> {
    let is_missing = |key: &&&str| report["work"].get(key).is_none();
    NEEDED.iter().find(is_missing).copied()
}

/// Draws what was measured.
pub fn draw(paths: &Paths, report: &Value) -> Result<()> {
    let file = paths.source().join(FILE);
    fs::write(&file, svg(report)?).with_context(|| format!("cannot write {}", file.display()))?;
    say(format_args!("drawn: {}", file.display()));
    Ok(())
}

fn svg(report: &Value) -> Result<String> {
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        for (part, (field, title, scale)) in area.split_evenly((1, 2)).iter().zip(PANELS) {
            panel(part, report, field, title, scale).with_context(|| format!("drawing {title}"))?;
        }
        area.present()?;
    }
    Ok(text + "\n")
}

fn panel(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    report: &Value,
    field: &str,
    title: &str,
    scale: Range<f64>,
) -> Result<()> {
    let bottom = scale.start;
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 15))
        .margin(12)
        .x_label_area_size(28)
        .y_label_area_size(58)
        .build_cartesian_2d(0.0..4.0, scale.log_scale())?;
    let name = |at: &f64| {
        let found = WORK.iter().zip([0.5, 1.5, 2.5, 3.5]);
        let mut found = found.filter(|(_, middle)| (at - middle).abs() < 0.01);
        found
            .next()
            .map_or_else(String::new, |((key, name), _)| format!("({key}) {name}"))
    };
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(9)
        .x_label_formatter(&name)
        .light_line_style(WHITE)
        .draw()?;
    for (index, (who, name, colour)) in WHO.into_iter().enumerate() {
        let left = [0.1, 0.5].get(index).copied().unwrap_or_default();
        let mut bars = Vec::new();
        for ((key, _), from) in WORK.into_iter().zip([0.0, 1.0, 2.0, 3.0]) {
            if let Some(value) = report["work"][key][who][field].as_f64() {
                bars.push((from + left, value));
            }
        }
        let bar = |(from, value): &(f64, f64)| {
            Rectangle::new([(*from, bottom), (from + 0.38, *value)], colour.filled())
        };
        chart
            .draw_series(bars.iter().map(bar))?
            .label(name)
            .legend(move |(x, y)| Rectangle::new([(x, y - 4), (x + 12, y + 5)], colour.filled()));
        let value = |(from, value): &(f64, f64)| {
            let style = ("sans-serif", 12).into_font();
            Text::new(format!("{value:.0}"), (from + 0.04, value * 1.5), style)
        };
        chart.draw_series(bars.iter().map(value))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .border_style(WHITE)
        .draw()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_bar_is_there_for_each_figure_and_no_other() {
        let row = |adds: f64| json!({ "adds_per_s": adds, "p99_ms": 2.0 * adds });
        let report = json!({ "work": {
            "a": { "ours": row(801.0), "baseline": row(61.0) },
            "b": { "ours": row(901.0) },
        }});
        let svg = svg(&report).unwrap();
        assert!(svg.starts_with("<svg"), "{svg}");
        for told in [
            "801",
            "61",
            "901",
            "1602",
            "122",
            "1802",
            "(b) one pool",
            "Orbweaver",
        ] {
            assert!(svg.contains(told), "no {told} in {svg}");
        }
        let bars = |svg: &str| svg.matches("fill=\"#00798C\"").count();
        assert_eq!(
            bars(&svg),
            2 * 2 + 2,
            "two works and a legend, in two panels"
        );
    }
}
